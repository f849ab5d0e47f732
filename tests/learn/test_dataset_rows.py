"""Rows of sites, another broadening, densities of states, and the sides of every split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.domain.dos import Pdos
from htxas.domain.spectrum import Quantity, Spectrum, Sticks, broaden, combine
from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset, freeze, load
from htxas.learn.data.recipe import CurveRecipe, Part, Recipe, Rows, Scale, Window, Zero
from htxas.learn.data.records import LeftOut, SiteRecord, SpectrumRecord
from htxas.learn.data.split import CLASSES, Split, frozen_splits

RECIPE = Recipe(targets=("gap", "excitation_energy"))
SITES = dataclasses.replace(RECIPE, rows=Rows.SITE)
SHORT = CurveRecipe(start_eV=-12.0, points=200)


def with_sites(synthetic: SimpleNamespace, count: int = 60) -> list[SpectrumRecord]:
    """Return molecules of two sites; the second absorbs 1 eV higher, and stands for two atoms."""
    records = []
    for index in range(count):
        record = synthetic.record(index)
        sticks = synthetic.entry(index).sites[0].sticks
        sites = tuple(
            SiteRecord(
                name=str(number),
                key=f"site{index}-{number}",
                multiplicity=1 + number,
                excitation_energy_eV=record.excitation_energy_eV + number,
                complete_to_eV=record.complete_to_eV + number,
                sticks=Sticks(sticks.energies_eV + number, sticks.strengths),
                atoms=(0,) if number == 0 else (1, 2),
            )
            for number in (0, 1)
        )
        spectrum = combine([broaden(s.sticks) for s in sites], [s.multiplicity for s in sites])
        records.append(dataclasses.replace(record, sites=sites, spectrum=spectrum))
    return records


def with_levels(synthetic: SimpleNamespace, **changes: Any) -> list[SpectrumRecord]:
    """Return such molecules with levels from -20 to 30 eV, one per eV; those below the LUMO are full."""
    records = []
    for index, record in enumerate(with_sites(synthetic)):
        energies = np.arange(-20.0, 31.0) + 0.01 * index
        weights = np.random.default_rng(index).uniform(0, 0.2, (len(energies), len(record.structure), 3))
        pdos = Pdos(energies, np.where(energies < -5.5, 2.0, 0.0), weights, **changes)
        homo = energies[energies < -5.5].max()
        records.append(dataclasses.replace(record, pdos=pdos, frontier_eV=(float(homo), float(homo) + 1.0)))
    return records


def test_a_row_is_a_site(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    records = with_sites(synthetic)
    data = freeze(synthetic.source(records), SITES, tmp_path)
    assert data.ids[:4] == ["m000/0", "m000/1", "m001/0", "m001/1"]
    assert data.documents[:2] == ["site0-0", "site0-1"]
    assert (data.card["counts"]["rows"], data.card["counts"]["molecules"]) == (120, len(set(data.groups)))
    own = data.target("excitation_energy")
    np.testing.assert_allclose(own[1::2] - own[::2], 1.0)
    np.testing.assert_array_equal(data.target("gap")[::2], data.target("gap")[1::2])
    # Aligned, both sites are the same spectrum.
    np.testing.assert_allclose(data.spectra[::2], data.spectra[1::2], atol=1e-4 * data.spectra.max())
    divided = {}
    for name in data.splits:
        sides = dict(zip(data.groups, data.splits[name].tolist(), strict=True))
        divided[name] = [sides[g] for g in data.groups] != data.splits[name].tolist()
    assert [name for name in divided if divided[name]] == ["row"]  # which is there to show that it leaks


def test_sites_are_asked_of_sources_that_have_them(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"m000: has no sites of its own here.*rows: molecule"):
        freeze(synthetic.source(synthetic.records(60)), SITES, tmp_path)
    with pytest.raises(DatasetError, match="m000: has no sites to be broadened anew"):
        freeze(synthetic.source(synthetic.records(60)), dataclasses.replace(RECIPE, sigma_eV=0.8), tmp_path)


@pytest.mark.parametrize("rows", Rows)
def test_another_broadening_is_made_of_the_transitions(
    rows: Rows, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    records = with_sites(synthetic)
    recipe = dataclasses.replace(RECIPE, rows=rows, sigma_eV=0.8)
    data = freeze(synthetic.source(records), recipe, tmp_path)
    assert data.card["broadening_sigma_eV"] == 0.8
    sites = records[7].sites
    energies = records[7].excitation_energy_eV - 4.0 + 0.1 * np.arange(240)
    weights = [1.0] if rows is Rows.SITE else [1 / 3, 2 / 3]
    wanted = np.zeros(240)
    for site, weight in zip(sites, weights, strict=False):
        lines = np.exp(-0.5 * ((energies[:, None] - site.sticks.energies_eV) / 0.8) ** 2) / (
            0.8 * np.sqrt(2 * np.pi)
        )
        wanted += weight * lines @ site.sticks.isotropic
    row = data.ids.index("m007/0" if rows is Rows.SITE else "m007")
    np.testing.assert_allclose(data.spectra[row], wanted, atol=5e-5 * wanted.max())


def test_the_stored_broadening_by_name_is_the_stored_spectrum(
    synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    source = synthetic.source(with_sites(synthetic))
    stored = freeze(source, RECIPE, tmp_path)
    named = freeze(source, dataclasses.replace(RECIPE, sigma_eV=0.5), tmp_path)
    np.testing.assert_array_equal(named.spectra, stored.spectra)


def _of_spectra(records: Sequence[SpectrumRecord], **changes: Any) -> list[SpectrumRecord]:
    """Return molecules of which only the sites' spectra are known, on energies relative to the excitation."""
    out = []
    for record in records:
        sites = []
        for site in record.sites:
            relative = Sticks(site.sticks.energies_eV - site.excitation_energy_eV, site.sticks.strengths)
            sites.append(
                dataclasses.replace(
                    site,
                    sticks=None,
                    spectrum=dataclasses.replace(broaden(relative), **changes),
                    zero_eV=site.excitation_energy_eV,
                )
            )
        out.append(dataclasses.replace(record, sites=tuple(sites), spectrum=None))
    return out


def test_spectra_of_sites_on_energies_of_their_own(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    records = with_sites(synthetic)
    absolute = freeze(synthetic.source(records), SITES, tmp_path)
    relative = freeze(synthetic.source(_of_spectra(records)), SITES, tmp_path)
    np.testing.assert_allclose(relative.spectra, absolute.spectra, atol=5e-5 * absolute.spectra.max())
    with pytest.raises(
        DatasetError, match=r"m000/0: is broadened by 0.5 eV and its transitions are not known"
    ):
        freeze(synthetic.source(_of_spectra(records)), dataclasses.replace(SITES, sigma_eV=0.8), tmp_path)


def test_quantities_do_not_mix(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    records = with_sites(synthetic)
    mixed = [*records[:30], *_of_spectra(records[30:], quantity=Quantity.DSF)]
    with pytest.raises(
        DatasetError, match="m030/0: is in squared_dipole_A2_per_eV, but m000/0 in oscillator"
    ):
        freeze(synthetic.source(mixed), SITES, tmp_path)
    data = freeze(synthetic.source(_of_spectra(records, quantity=Quantity.DSF)), SITES, tmp_path)
    assert data.card["input"]["unit"].startswith("A^2 / eV")
    area = dataclasses.replace(SITES, window=Window(scale=Scale.AREA))
    data = freeze(synthetic.source(_of_spectra(records, quantity=Quantity.DSF)), area, tmp_path)
    assert data.card["input"]["unit"] == "1/eV (area 1 in the window)"
    np.testing.assert_allclose(data.spectra.sum(axis=1) * 0.1, 1.0, rtol=1e-5)


def test_what_a_source_cannot_give_is_counted(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    items = [*synthetic.records(60), LeftOut("x", "not there"), LeftOut("y", "not there")]
    data = freeze(synthetic.source(items), RECIPE, tmp_path)
    assert data.card["left_out"] == {"not there": ["x", "y"]}
    with pytest.raises(DatasetError, match="x: the name occurs twice"):
        freeze(synthetic.source([*items, LeftOut("x", "again")]), RECIPE, tmp_path)
    items[5] = dataclasses.replace(items[5], composition=None)
    with pytest.raises(
        DatasetError, match="m005: the composition of one is known and that of the other is not"
    ):
        freeze(synthetic.source(items), RECIPE, tmp_path)


# --- curves


def curves(data: Dataset) -> dict[str, np.ndarray]:
    return {name: np.asarray(values, dtype=np.float64) for name, values in data.curves.items()}


def test_occupied_and_unoccupied_add_up(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    pieces = [
        dataclasses.replace(SHORT, name=part.value, part=part, scale=Scale.ABSOLUTE) for part in Part
    ] + [
        dataclasses.replace(SHORT, name=angular, angular=(angular,), scale=Scale.ABSOLUTE) for angular in "sp"
    ]
    recipe = Recipe((), curves=tuple(pieces))
    got = curves(freeze(synthetic.source(with_levels(synthetic)), recipe, tmp_path))
    np.testing.assert_allclose(got["occupied"] + got["unoccupied"], got["both"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["s"] + got["p"], got["both"], rtol=1e-5, atol=1e-6)
    homo = 120  # of the grid: 0 eV
    assert got["occupied"][:, homo + 40 :].max() < 1e-6
    assert got["unoccupied"][:, : homo - 40].max() < 1e-6
    assert got["occupied"][:, : homo - 40].max() > 0.1


def test_curves_of_sites_are_of_their_atoms(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    recipe = Recipe((), rows=Rows.SITE, curves=(dataclasses.replace(SHORT, scale=Scale.ABSOLUTE),))
    records = with_levels(synthetic)
    sites = freeze(synthetic.source(records), recipe, tmp_path).curve("pdos")
    whole = freeze(
        synthetic.source(records), dataclasses.replace(recipe, rows=Rows.MOLECULE), tmp_path
    ).curve("pdos")
    # per atom: one atom of the first site, two of the second
    np.testing.assert_allclose((sites[::2] + 2 * sites[1::2]) / 3, whole, rtol=1e-5)


def test_zero_and_area(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    homo, midgap = (dataclasses.replace(SHORT, name=z.value, zero=z, scale=Scale.ABSOLUTE) for z in Zero)
    area = dataclasses.replace(SHORT, name="area")
    data = freeze(synthetic.source(with_levels(synthetic)), Recipe((), curves=(homo, midgap, area)), tmp_path)
    got = curves(data)
    # The middle of a gap of 1 eV is half an eV higher: what was at 0 is at -0.5 eV.
    np.testing.assert_allclose(got["midgap"][:, :-5], got["homo"][:, 5:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["area"].sum(axis=1) * 0.1, 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        got["area"], got["homo"] / (got["homo"].sum(axis=1, keepdims=True) * 0.1), rtol=1e-4, atol=1e-7
    )
    card = data.card["curves"]
    assert (card["area"]["start_eV"], card["area"]["points"], card["area"]["step_eV"]) == (-12.0, 200, 0.1)
    assert card["area"]["unit"].startswith("1/eV")
    assert card["homo"]["unit"].startswith("states / eV / atom")
    assert "HOMO" in card["homo"]["zero"]
    assert data.targets.shape == (60, 0)
    with pytest.raises(DatasetError, match="no curve 'pdos', only homo midgap area"):
        data.curve("pdos")


def test_a_curve_does_not_go_beyond_its_levels(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    source = synthetic.source(with_levels(synthetic, complete_to_eV=3.0))
    short = Recipe((), curves=(dataclasses.replace(SHORT, points=180),))
    assert freeze(source, short, tmp_path).curve("pdos").shape == (60, 180)
    with pytest.raises(DatasetError, match=r"molecule m000: the grid of the PDOS goes to 7\.90 eV"):
        freeze(source, Recipe((), curves=(SHORT,)), tmp_path)
    with pytest.raises(DatasetError, match="molecule m000: has no density of states"):
        freeze(synthetic.source(with_sites(synthetic)), short, tmp_path)
    empty = dataclasses.replace(SHORT, angular=("d",), start_eV=150.0, points=20)
    with pytest.raises(DatasetError, match="its pdos has no area on the grid"):
        freeze(synthetic.source(with_levels(synthetic)), Recipe((), curves=(empty,)), tmp_path)


# --- splits

MOLECULES = {
    "plain": ["CC" + "C" * i + "O" for i in range(20)],
    "pi": ["C=C" + "C" * i + "N" for i in range(20)],
    "ring": ["C1CC1" + "C" * i + "F" for i in range(20)] + ["C1CCC1" + "C" * i for i in range(5)],
    "pi_ring": ["c1ccccc1" + "C" * i for i in range(20)] + ["C1=CC1" + "C" * i for i in range(5)],
}


def groups_and_sizes() -> tuple[list[str], list[int]]:
    """Return every molecule twice: rows of two sites."""
    smiles = [s for members in MOLECULES.values() for s in members]
    return smiles * 2, [sum(c in "CNOFc" for c in s) for s in smiles] * 2


def test_no_molecule_is_on_two_sides_of_any_split() -> None:
    groups, sizes = groups_and_sizes()
    splits, lacking = frozen_splits(groups, sizes, {g: g for g in groups}, validation=0.15, test=0.2, seed=1)
    assert lacking == {}
    assert list(splits) == ["molecule", "size", "scaffold", *(f"class-{c}" for c in CLASSES)]
    half = len(groups) // 2
    for name, sides in splits.items():
        assert np.array_equal(sides[:half], sides[half:]), name
        assert set(sides.tolist()) == set(Split), name


def test_the_largest_are_the_test() -> None:
    groups, sizes = groups_and_sizes()
    sides = frozen_splits(groups, sizes, None, validation=0.15, test=0.2, seed=1)[0]["size"]
    size = np.array(sizes)
    assert size[sides == Split.TEST].min() > size[sides != Split.TEST].max()
    assert (sides == Split.TEST).mean() >= 0.2


def test_scaffolds_and_classes_are_not_divided() -> None:
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    groups, sizes = groups_and_sizes()
    splits, _ = frozen_splits(groups, sizes, {g: g for g in groups}, validation=0.15, test=0.2, seed=1)
    scaffold = np.array([MurckoScaffoldSmiles(g) for g in groups])
    test = splits["scaffold"] == Split.TEST
    assert not set(scaffold[test]) & set(scaffold[~test])
    assert "" in set(scaffold[~test])  # what has no ring is the most frequent
    for kind, members in MOLECULES.items():
        chosen = {g for g, s in zip(groups, splits[f"class-{kind}"], strict=True) if s == Split.TEST}
        assert chosen == set(members)


def test_what_a_split_lacks_is_said() -> None:
    groups, _ = groups_and_sizes()
    splits, lacking = frozen_splits(groups, None, None, validation=0.15, test=0.2, seed=1)
    assert list(splits) == ["molecule"]
    assert lacking["size"] == "the source does not tell compositions"
    assert lacking["scaffold"] == lacking["class-pi"] == "a molecule has no SMILES"
    alike = MOLECULES["plain"]
    splits, lacking = frozen_splits(alike, [5] * 20, {g: g for g in alike}, validation=0.15, test=0.2, seed=1)
    assert list(splits) == ["molecule"]
    assert lacking["class-pi"].startswith("20 molecules split into 17 train, 3 validation, 0 test")
    assert lacking["size"].endswith("20 test")
    assert set(lacking) == {"size", "scaffold", *(f"class-{c}" for c in CLASSES)}


def test_sides_are_asked_for_by_name(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    items = [dataclasses.replace(r, smiles=None) for r in synthetic.records(60)]
    data = freeze(synthetic.source(items), RECIPE, tmp_path)
    rows = [data.rows(side, by="size") for side in Split]
    assert sorted(np.concatenate(rows).tolist()) == list(range(60))
    assert np.array_equal(data.rows(Split.TEST), np.flatnonzero(data.splits["molecule"] == Split.TEST))
    with pytest.raises(DatasetError, match="no split 'scaffold': a molecule has no SMILES"):
        data.rows(Split.TEST, by="scaffold")
    with pytest.raises(DatasetError, match="no split 'colour', only molecule size"):
        data.rows(Split.TEST, by="colour")


# --- folders


@pytest.mark.parametrize("rows", Rows)
def test_the_order_of_molecules_does_not_matter(
    rows: Rows, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    records = with_levels(synthetic)
    recipe = Recipe(("gap",), rows=rows, curves=(SHORT,))
    first = freeze(synthetic.source(records), recipe, tmp_path)
    order = np.random.default_rng(0).permutation(len(records))
    second = freeze(synthetic.source([records[i] for i in order]), recipe, tmp_path)
    assert first.path == second.path
    assert load(first.path).key == first.key


def test_an_interrupted_deletion_is_written_again(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    source = synthetic.source(synthetic.records(60))
    data = freeze(source, RECIPE, tmp_path)
    (data.path / "card.json").unlink()
    (data.path / "spectra.npy").unlink()
    with pytest.raises(DatasetError, match="not a frozen dataset"):
        load(data.path)
    again = freeze(source, RECIPE, tmp_path)
    assert again.path == data.path
    assert len(load(again.path)) == 60


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: (p / "card.json").write_text("{"), "not a frozen dataset"),
        (lambda p: (p / "card.json").write_text('{"schema": 1}'), "dataset schema 1, expected 2.*again"),
        (lambda p: (p / "splits.npy").write_bytes(b"x"), "not a frozen dataset"),
        (lambda p: np.save(p / "splits.npy", np.zeros((60, 1), np.int8)), "splits.npy has shape"),
        (lambda p: (p / "rows.npy").unlink(), "not a frozen dataset"),
    ],
)
def test_a_damaged_folder_is_refused(
    damage: Any, words: str, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    data = freeze(synthetic.source(synthetic.records(60)), RECIPE, tmp_path)
    damage(data.path)
    with pytest.raises(DatasetError, match=words) as caught:
        load(data.path)
    assert str(data.path) in str(caught.value)


def test_a_window_on_the_grid_is_the_grid(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    spectrum: Spectrum = broaden(synthetic.entry(0).sites[0].sticks)
    records = [
        dataclasses.replace(r, excitation_energy_eV=287.0, complete_to_eV=400.0, spectrum=spectrum)
        for r in synthetic.records(60)
    ]
    data = freeze(synthetic.source(records), dataclasses.replace(RECIPE, window=Window(points=150)), tmp_path)
    first = round((287.0 - 4.0) * 10) - spectrum.start
    wanted = np.zeros(150)
    inside = np.arange(150) + first >= 0
    wanted[inside] = spectrum.total[(np.arange(150) + first)[inside]]
    np.testing.assert_array_equal(data.spectra[3], wanted.astype(np.float32))
