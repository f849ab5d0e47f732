"""Sites of crystals with continuous spectra, frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.domain.spectrum import Curve
from htxas.domain.structure import Structure
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import parse_formula, reduced_formula
from htxas.learn.data.config import read_recipe
from htxas.learn.data.dataset import Dataset, freeze
from htxas.learn.data.features import inputs
from htxas.learn.data.recipe import Align, ModelKind, Recipe, Rows, Window
from htxas.learn.data.records import Continuum, Method, SiteRecord, SpectrumRecord
from htxas.learn.data.split import Split
from htxas.learn.nets.network import Network
from htxas.learn.runs.fitting import Task
from htxas.learn.runs.spec import RunSpec

FEFF_CU = Path(__file__).parents[2] / "workflows/feff_cu/recipe.yaml"
RECIPE = Recipe(
    ("coordination_number", "mean_bond_length", "edge_energy"),
    window=Window(-3.5, 60, 0.5, Align.EDGE),
    rows=Rows.SITE,
)
CATIONS = ("Mg", "Ca", "Sr", "Zn", "Li", "Na")


def crystal(index: int) -> SpectrumRecord:
    """Return a rock salt of two cations, both absorbing as far as anybody here can tell."""
    a = 4.0 + 0.02 * index
    first, second = CATIONS[index % 6], CATIONS[(index + 1 + index // 12) % 6]
    symbols = [first, second] if first != second else [first, first]
    fractional = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0], [0, 0.5, 0]])
    cell = np.diag([a, a, a])
    structure = Structure.from_atoms([*symbols, "O", "O"], fractional @ cell, cell)[0]
    sites = tuple(site(f"{index}-{k}", 9000.0 + index / 7 + k, k) for k in range(2))
    return SpectrumRecord(
        name=f"mp-{index}",
        key=structure.key,
        smiles=None,
        composition=structure.composition,
        structure=structure,
        spectrum=None,
        excitation_energy_eV=None,
        complete_to_eV=9100.0,
        method=Method("feff", "Cu", "K", "f" * 32),
        ground={},
        sites=sites,
    )


def site(key: str, edge_eV: float, atom: int, **changes: Any) -> SiteRecord:
    energies = np.linspace(-3.8, 40.0, 200)
    values = (1 + 0.1 * np.sin(energies * 0.3 + edge_eV)) / (1 + np.exp(-energies))
    curve = Curve(energies + edge_eV, np.repeat(values[:, None], 3, axis=1))
    continuum = Continuum(curve, edge_eV, 1.73, "FEFF; not aligned")
    return SiteRecord(
        name=str(atom),
        key=key,
        multiplicity=1,
        excitation_energy_eV=None,
        complete_to_eV=edge_eV + 40,
        atoms=(2 + atom,),
        continuum=replace(continuum, **changes),
    )


Make = Any


@pytest.fixture
def make(synthetic: SimpleNamespace, tmp_path: Path) -> Make:
    def call(recipe: Recipe = RECIPE, change: Any = None, count: int = 60) -> Dataset:
        records = [crystal(i) for i in range(count)]
        return freeze(synthetic.source(change(records) if change else records), recipe, tmp_path / "sets")

    return call


def test_sites_units_and_the_rule_of_neighbours(make: Make) -> None:
    data = make()
    card = data.card
    assert (len(data), len(set(data.groups)), data.ids[0]) == (120, 60, "mp-0/0")
    assert card["input"]["unit"] == "normalised absorption, 1 is the bare atom's"
    assert card["input"]["energies"] == "-3.5 to 26 eV in steps of 0.5 eV, relative to the threshold"
    assert (card["input"]["lifetime_eV"], card["input"]["energy_scale"]) == (1.73, "FEFF; not aligned")
    assert "straight lines" in card["input"]["alignment"]
    assert card["broadening_sigma_eV"] == 0.0
    (how, count), *rest = card["targets"][0]["obtained_from"].items()
    assert (how.startswith("CrystalNN (pymatgen-core "), count, rest) == (True, 120, [])
    assert data.target("edge_energy")[data.ids.index("mp-7/1")] == pytest.approx(9002.0)
    smooth = make(replace(RECIPE, sigma_eV=1.5, window=replace(RECIPE.window, start_eV=3.0)))
    assert smooth.card["broadening_sigma_eV"] == 1.5
    assert "convolved exactly" in smooth.card["input"]["alignment"]


def test_sides_keep_materials_formulas_and_elements_together_and_row_does_not(make: Make) -> None:
    data = make()
    assert list(data.splits) == ["molecule", "formula", "elements", "row"]
    assert data.card["splits"]["lacking"]["size"] == "the cell of a crystal says nothing of its size"
    assert sorted(set(data.groups)) == sorted(
        f"{reduced_formula(r.composition)} {r.key}" for r in map(crystal, range(60))
    )
    formulas = [crystal(int(i.split("/")[0][3:])).composition for i in data.ids]
    labels = {
        "molecule": data.groups,
        "formula": [str(f) for f in formulas],
        "elements": [str(set(f)) for f in formulas],
    }
    for name, kept in labels.items():
        sides: dict[str, set[int]] = {}
        for label, side in zip(kept, data.splits[name].tolist(), strict=True):
            sides.setdefault(label, set()).add(side)
        assert all(len(s) == 1 for s in sides.values()), name
    torn = set(np.array(data.groups)[data.rows(Split.TRAIN, by="row")]) & set(
        np.array(data.groups)[data.rows(Split.TEST, by="row")]
    )
    assert torn


def test_intervals_are_calibrated_by_what_the_split_keeps_together(make: Make) -> None:
    data, rows = make(), np.arange(6)
    together = {
        split: Task(
            data,
            RunSpec(data.key, ("edge_energy",), ModelKind.A, Network(), 0, split=split),
            None,
            None,
            None,
        )  # type: ignore[arg-type]
        for split in ("molecule", "formula", "elements")
    }
    formulas = [g.split(" ")[0] for g in data.groups[:6]]
    assert together["molecule"].kept_together(rows) == data.groups[:6]
    assert together["formula"].kept_together(rows) == formulas
    assert together["elements"].kept_together(rows) == ["-".join(parse_formula(f)) for f in formulas]


def test_crystals_have_no_ratios_to_carbon(make: Make) -> None:
    data = make()
    assert data.ratios.shape == (120, 0)
    assert data.card["ratios"] == []
    assert inputs(ModelKind.A, data.spectra, data.ratios).shape == (120, 60)
    with pytest.raises(DatasetError, match="Model-B is given composition ratios, and the dataset has none"):
        inputs(ModelKind.B, data.spectra, data.ratios)


def test_what_is_not_computed_is_counted(make: Make) -> None:
    def some(records: list[SpectrumRecord]) -> list[SpectrumRecord]:
        first, second, *rest = records
        return [
            replace(first, sites=first.sites[:1], missing=("1",)),
            replace(second, sites=(), missing=("0", "1")),
            *rest,
        ]

    card = make(change=some).card
    assert (card["counts"]["rows"], card["counts"]["molecules"]) == (117, 59)
    assert card["left_out"] == {"not computed": ["mp-0/1", "mp-1/0", "mp-1/1"]}


def _one(**changes: Any) -> Any:
    def change(records: list[SpectrumRecord]) -> list[SpectrumRecord]:
        one = records[5]
        assert one.sites[1].continuum is not None
        broken = replace(one.sites[1], continuum=replace(one.sites[1].continuum, **changes))
        return [*records[:5], replace(one, sites=(one.sites[0], broken)), *records[6:]]

    return change


def _molecule_among(records: list[SpectrumRecord]) -> list[SpectrumRecord]:
    one = records[5]
    assert one.structure is not None
    symbols, positions = ["C", *one.structure.symbols], [[9.0, 9.0, 9.0], *one.structure.positions_A.tolist()]
    alone = Structure.from_atoms(symbols, positions)[0]
    sites = tuple(replace(s, atoms=(1 + s.atoms[0],)) for s in one.sites)
    molecule = replace(one, structure=alone, composition=alone.composition, key=alone.key, sites=sites)
    return [*records[:5], molecule, *records[6:]]


REFUSED: dict[str, tuple[Recipe, Any, str]] = {
    "align": (replace(RECIPE, window=Window(-3.5, 60, 0.5)), None, "a threshold and no excitation energy"),
    "molecules": (
        replace(RECIPE, rows=Rows.MOLECULE),
        None,
        "its spectra are continuous: they are taken site by site",
    ),
    "target": (replace(RECIPE, targets=("excitation_energy",)), None, "has no excitation energy"),
    "lifetime": (RECIPE, _one(lifetime_eV=1.2), r"lifetime 1.2 eV.*differs from mp-0/0 \(1.73 eV"),
    "scale": (RECIPE, _one(scale="FEFF 10"), "FEFF 10: differs from mp-0/0"),
    "below": (
        replace(RECIPE, window=Window(-4.0, 60, 0.5, Align.EDGE)),
        None,
        "120 of 120 sites are not known in all of the window, -4 to 25.5 eV",
    ),
    "above": (
        replace(RECIPE, window=Window(-3.5, 90, 0.5, Align.EDGE)),
        None,
        "120 of 120 sites are not known",
    ),
    "a molecule": (
        replace(RECIPE, targets=("edge_energy",)),
        _molecule_among,
        "mp-5: is a molecule, but mp-0 is a crystal",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, make: Make, tmp_path: Path) -> None:
    recipe, change, words = REFUSED[case]
    with pytest.raises(DatasetError, match=words):
        make(recipe, change)
    assert not (tmp_path / "sets").exists()


def test_transitions_have_no_threshold(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    window = Window(align=Align.EDGE)
    with pytest.raises(DatasetError, match="has an excitation energy and no threshold"):
        freeze(synthetic.source(synthetic.records(60)), Recipe(("gap",), window=window), tmp_path)
    with pytest.raises(DatasetError, match="has no threshold"):
        freeze(synthetic.source(synthetic.records(60)), Recipe(("edge_energy",)), tmp_path)
    with pytest.raises(DatasetError, match="coordination_number is a number of a site"):
        freeze(synthetic.source(synthetic.records(60)), Recipe(("coordination_number",)), tmp_path)


def test_short_ones_can_be_left_out(make: Make) -> None:
    def cut(records: list[SpectrumRecord]) -> list[SpectrumRecord]:
        full = records[5].sites[1].continuum
        assert full is not None
        return list(_one(curve=Curve(full.curve.energies_eV[:50], full.curve.intensity[:50]))(records))

    with pytest.raises(DatasetError, match="1 of 120 sites are not known") as told:
        make(change=cut)
    assert "window.start_eV: -3.5 with points: 21" in str(told.value.hint)
    card = make(replace(RECIPE, drop_uncovered=True), cut).card
    assert card["left_out"] == {"window not covered": ["mp-5/1"]}


def test_the_shipped_recipe() -> None:
    recipe, qm9 = read_recipe(FEFF_CU)
    assert (recipe.rows, recipe.window.align, qm9) == (Rows.SITE, Align.EDGE, None)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
