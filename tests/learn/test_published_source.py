"""Files of the published layout through the door of datasets: made-up ones, and exports of our own."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pytest

from htxas.datafile import DatasetFile, DatasetMeta
from htxas.datafile.published import EIGEN_FILE, MOLECULE_FILE, SITE_FILE, PublishedWriter
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.errors import DatasetError
from htxas.learn.data.config import Qm9Files
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.door import freeze_source, is_source
from htxas.learn.data.recipe import Align, Recipe, Rows, Window

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "workflows" / "reference" / "reference.h5"
WINDOW = Window(points=200)
SITES = Recipe(("excitation_energy",), window=WINDOW, rows=Rows.SITE)
MOLECULES = Recipe(("excitation_energy", "molecular_weight", "sp3_ratio", "ratio_N_C"), window=WINDOW)
Freeze = Callable[..., Dataset]


def generator() -> ModuleType:
    """Return the benchmark's module that writes made-up files."""
    spec = importlib.util.spec_from_file_location(
        "published_files", ROOT / "tests" / "benchmarks" / "published_files.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    generator().write_files(folder, molecules=60, sites=None)
    return folder


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


@pytest.fixture
def freeze(published: Path, tmp_path: Path) -> Freeze:
    def frozen(path: Path, recipe: Recipe, *, molecules: bool = True) -> Dataset:
        qm9 = Qm9Files(None, published / "molecules.csv") if molecules else None
        return freeze_source(recipe, tmp_path / "sets", files=[path], qm9=qm9)

    return frozen


def test_made_up_files_have_the_layout_of_the_published_ones(published: Path) -> None:
    with (
        h5py.File(published / EIGEN_FILE) as states,
        h5py.File(published / SITE_FILE) as sites,
        h5py.File(published / MOLECULE_FILE) as molecules,
    ):
        assert not list(states.attrs)
        assert not list(molecules.attrs)
        assert set(states) == set(sites) == set(molecules)
        assert all(name.isdigit() for name in sites)
        molecule = next(iter(sites))
        assert not list(molecules[molecule].attrs)
        assert set(molecules[molecule]) == {"energies", "spectrum"}
        atom = next(iter(sites[molecule]))
        assert set(states[molecule][atom].attrs) == {
            "n_electron", "multiplicity", "final_energy_gs", "final_energy_ex", "excitation_energy",
        }  # fmt: skip
        ev, n_electron = states[molecule][atom]["eigenvalues"], states[molecule][atom].attrs["n_electron"]
        assert np.isfinite(ev[()]).all()
        kept = ev[()] - ev[(n_electron - 1) // 2] >= 0
        energies = sites[molecule][atom]["energies"]
        top = (ev[()] - ev[(n_electron - 1) // 2]).max()
        assert 0 < kept.sum() < len(ev)
        assert np.array_equal(energies, np.arange(-5.0, np.ceil(top + 5.0), 0.1))
        assert energies.compression == "gzip"
        assert sites[molecule][atom]["spectrum"].shape == (len(energies), 4)


def test_made_up_files_are_the_same_twice(published: Path, tmp_path: Path) -> None:
    generator().write_files(tmp_path, molecules=60, sites=None)
    for name in (EIGEN_FILE, SITE_FILE, MOLECULE_FILE, "molecules.csv"):
        assert (tmp_path / name).read_bytes() == (published / name).read_bytes()


def test_as_many_sites_as_asked_for() -> None:
    classes = generator().choose_molecules(300, None, None)
    more = sum(len(m.sites) for m in classes) + 20
    assert sum(len(m.sites) for m in generator().choose_molecules(300, more, None)) == more
    with pytest.raises(ValueError, match="do not have"):
        generator().choose_molecules(10, 1000, None)


def test_sites(published: Path, freeze: Freeze) -> None:
    data = freeze(published, SITES)
    with h5py.File(published / SITE_FILE) as file:
        assert len(data) == sum(len(g) for g in file.values())
        for row in range(0, len(data), 17):
            molecule, atom = data.ids[row].removeprefix("gdb_").split("/")
            site = file[molecule][atom]
            at = np.searchsorted(site["energies"][()], -4.0 - 1e-6) + np.arange(200)
            np.testing.assert_array_equal(
                data.spectra[row], site["spectrum"][()][at, 1:].mean(axis=1).astype("f4")
            )
            assert data.target("excitation_energy")[row] == site.attrs["excitation_energy"]
    card = data.card
    assert card["method"]["engine"] == "published"
    assert card["input"]["unit"].startswith("A^2 / eV / atom")
    assert card["query"]["states_complete_to"].startswith("each site: the end of the grid less its margin")
    assert set(card["query"]["published_sha256"]) == {"sites"}
    assert card["counts"]["molecules"] == 60
    assert {"molecule", "size", "scaffold"} <= set(data.splits)


def test_molecules(published: Path, freeze: Freeze) -> None:
    data = freeze(published, MOLECULES)
    assert len(data) == 60
    with h5py.File(published / SITE_FILE) as file:
        first = {f"gdb_{n}": min(s.attrs["excitation_energy"] for s in g.values()) for n, g in file.items()}
    assert dict(zip(data.ids, data.target("excitation_energy").tolist(), strict=True)) == first
    assert data.card["targets"][2]["obtained_from"] == {"smiles": 60}
    assert data.ratios.shape == (60, 3)
    assert (data.atoms > data.heavy_atoms).any()


def test_states_give_the_same_spectra_as_the_files_of_spectra(
    published: Path, copy: Path, freeze: Freeze
) -> None:
    for recipe, spectra in ((SITES, SITE_FILE), (MOLECULES, MOLECULE_FILE)):
        stored = freeze(published, recipe)
        (copy / spectra).unlink()
        made = freeze(copy, dataclasses.replace(recipe, sigma_eV=0.5))
        assert made.ids == stored.ids
        np.testing.assert_allclose(made.spectra, stored.spectra, atol=5e-5 * stored.spectra.max())
        assert made.card["query"]["states_complete_to"].startswith("each site's last state")


def test_another_broadening_is_made_of_the_states(published: Path, freeze: Freeze) -> None:
    wide = freeze(published, dataclasses.replace(SITES, sigma_eV=1.0))
    assert wide.card["broadening_sigma_eV"] == 1.0
    assert set(wide.card["query"]["published_sha256"]) == {"states", "sites"}
    narrow = freeze(published, SITES)
    assert wide.spectra.max() < narrow.spectra.max()
    molecules = freeze(published, dataclasses.replace(MOLECULES, sigma_eV=1.0))
    assert molecules.card["counts"]["rows"] == 60


def _atom(file: h5py.File) -> h5py.Group:
    molecule = file[min(file, key=int)]
    return molecule[min(molecule, key=int)]


DAMAGED = {
    "another spectrum": (
        SITE_FILE,
        lambda s: s["spectrum"].write_direct(2.0 * s["spectrum"][()]),
        "do not give its spectrum",
    ),
    "another energy": (
        SITE_FILE,
        lambda s: s.attrs.modify("excitation_energy", 1.0),
        "is another one in the other",
    ),
    "no first state": (EIGEN_FILE, lambda s: s.attrs.modify("n_electron", 9999), "first final state"),
    "no electrons": (EIGEN_FILE, lambda s: s.attrs.pop("n_electron"), "damaged entry"),
    "no spectrum": (SITE_FILE, lambda s: s.pop("spectrum"), "damaged entry"),
    "another grid": (
        SITE_FILE,
        lambda s: s["energies"].write_direct(s["energies"][()] + 0.03),
        "not whole multiples of 0.1 eV",
    ),
    "absolute energies": (
        SITE_FILE,
        lambda s: s["energies"].write_direct(s["energies"][()] + 285.0),
        "begin at 280.0 eV",
    ),
    "another total": (
        SITE_FILE,
        lambda s: s["spectrum"].write_direct(s["spectrum"][()] * [2.0, 1.0, 1.0, 1.0]),
        "its total is not the mean",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_does_not_fit_together_is_refused(case: str, copy: Path, freeze: Freeze) -> None:
    name, damage, words = DAMAGED[case]
    with h5py.File(copy / name, "r+") as file:
        where = _atom(file).name
        damage(_atom(file))
    recipe = (
        SITES if case in ("absolute energies", "another total") else dataclasses.replace(SITES, sigma_eV=0.7)
    )
    with pytest.raises(DatasetError, match=words) as caught:
        freeze(copy, recipe)
    assert where.split("/")[1] in str(caught.value)


def test_states_that_are_not_known_are_dropped(copy: Path, freeze: Freeze) -> None:
    wide = dataclasses.replace(SITES, sigma_eV=0.7)
    before = freeze(copy, wide)
    with h5py.File(copy / EIGEN_FILE, "r+") as file:
        for molecule in file.values():
            for site in molecule.values():
                occupied = (site.attrs["n_electron"] - 1) // 2
                site["eigenvalues"][:occupied] = np.nan
                site["dsf"][:occupied] = np.nan
    np.testing.assert_array_equal(freeze(copy, wide).spectra, before.spectra)


def test_without_a_file_of_molecules_only_spectra_are_known(
    published: Path, freeze: Freeze, synthetic: SimpleNamespace
) -> None:
    data = freeze(published, SITES, molecules=False)
    assert data.ratios.shape == (len(data), 0)
    assert data.card["ratios"] == []
    assert set(data.atoms.tolist()) == {-1}
    assert set(data.splits) == {"molecule", "row"}
    assert data.card["splits"]["lacking"]["size"] == "the source does not tell compositions"
    assert set(data.groups) == {name.split("/")[0] for name in data.ids}
    for target, words in (
        ("molecular_weight", "does not tell its composition.*qm9: {molecules: FILE}"),
        ("gap", "has no gap_eV of a ground state"),
        ("sp3_ratio", "does not tell its composition"),
    ):
        with pytest.raises(DatasetError, match=words):
            freeze(published, dataclasses.replace(SITES, targets=(target,)), molecules=False)


def test_molecules_that_are_not_in_the_file_are_left_out_and_counted(published: Path, tmp_path: Path) -> None:
    lines = (published / "molecules.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:-4]) + "\n")
    data = freeze_source(
        MOLECULES, tmp_path / "sets", files=[published], qm9=Qm9Files(None, tmp_path / "few.csv")
    )
    assert data.card["counts"]["left_out"] == {"not in the file of molecules": 4}
    (tmp_path / "few.csv").write_text("gdb_id,smiles\nmethane,C\n")
    with pytest.raises(DatasetError, match=r"few.csv:2: not a number"):
        freeze_source(
            MOLECULES, tmp_path / "sets", files=[published], qm9=Qm9Files(None, tmp_path / "few.csv")
        )


def test_one_file_is_enough_for_what_it_tells(published: Path, freeze: Freeze) -> None:
    assert len(freeze(published / SITE_FILE, SITES)) > 60
    absolute = Window(start_eV=286.0, points=150, align=Align.ABSOLUTE)
    alone = freeze(published / MOLECULE_FILE, Recipe(("molecular_weight",), window=absolute))
    whole = freeze(published, Recipe(("molecular_weight",), window=absolute))
    np.testing.assert_array_equal(alone.spectra, whole.spectra)
    with pytest.raises(DatasetError, match="do not tell excitation energies"):
        freeze(published / MOLECULE_FILE, MOLECULES)
    with pytest.raises(DatasetError, match="grids of their own"):
        freeze(published / SITE_FILE, MOLECULES)
    with pytest.raises(DatasetError, match="holds only molecules"):
        freeze(published / MOLECULE_FILE, SITES)
    with pytest.raises(DatasetError, match="another broadening needs the states"):
        freeze(published / SITE_FILE, dataclasses.replace(SITES, sigma_eV=0.8))
    assert len(freeze(published / EIGEN_FILE, MOLECULES)) == 60


def test_what_is_no_source_says_so(tmp_path: Path, freeze: Freeze, copy: Path) -> None:
    assert not is_source(tmp_path)
    with pytest.raises(DatasetError, match="holds nothing of the published layout"):
        freeze(tmp_path, SITES)
    (tmp_path / "x.hdf5").write_text("no")
    with pytest.raises(DatasetError, match="not a readable HDF5 file"):
        freeze(tmp_path / "x.hdf5", SITES)
    with h5py.File(tmp_path / "y.hdf5", "w") as file:
        file["z"] = [1.0]
    with pytest.raises(DatasetError, match="not an htxas-dataset file"):
        freeze(tmp_path / "y.hdf5", SITES)
    shutil.copy(copy / SITE_FILE, copy / "site_spectra_0.3eV.hdf5")
    with pytest.raises(DatasetError, match=r"holds site_spectra_0.3eV.hdf5 and site_spectra_0.5eV.hdf5"):
        freeze(copy, SITES)
    (copy / SITE_FILE).rename(copy / "mine.hdf5")
    with pytest.raises(DatasetError, match="neither the file nor its name tells the broadening"):
        freeze(copy / "mine.hdf5", SITES)


def test_the_window_may_not_go_beyond_what_the_grids_tell(published: Path, freeze: Freeze) -> None:
    with pytest.raises(
        DatasetError, match=r"are not complete to the window's end.*window.points: \d+ covers all"
    ):
        freeze(published, dataclasses.replace(SITES, window=Window(points=400)))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the reference dataset in the published layout."""
    folder = tmp_path_factory.mktemp("exported")
    with DatasetFile(REFERENCE) as data:
        meta: DatasetMeta = data.meta
        with PublishedWriter(folder, meta, use_gdb_numbers=True) as writer:
            for entry in data:
                writer.add(entry)
    return folder


@pytest.mark.parametrize("rows", Rows)
def test_our_own_export_gives_our_own_spectra_in_another_unit(
    rows: Rows, exported: Path, tmp_path: Path
) -> None:
    recipe = Recipe(("excitation_energy", "molecular_weight", "sp3_ratio"), rows=rows)
    ours = freeze_source(recipe, tmp_path / "sets", files=[REFERENCE])
    theirs = freeze_source(recipe, tmp_path / "sets", files=[exported])
    assert theirs.card["method"]["engine"] == "published"
    assert theirs.card["method"]["parameters_key"] != ours.card["method"]["parameters_key"]
    assert "not oscillator strengths" in theirs.card["input"]["unit"]
    assert theirs.ids == ours.ids
    assert theirs.groups == ours.groups
    assert {k: v.tolist() for k, v in theirs.splits.items()} == {
        k: v.tolist() for k, v in ours.splits.items()
    }
    np.testing.assert_array_equal(theirs.ratios, ours.ratios)
    np.testing.assert_array_equal(theirs.heavy_atoms, ours.heavy_atoms)
    np.testing.assert_allclose(theirs.targets, ours.targets, rtol=1e-12)
    # f = 2 n_e E |<f|r|i>|^2: the factor changes by a few percent over the window, the same for all.
    absolute_eV = ours.target("excitation_energy")[:, None] - 4.0 + 0.1 * np.arange(240)
    factor = 2.0 * BOHR_A**2 / (4.0 * absolute_eV / HARTREE_EV)
    peak = theirs.spectra.max(axis=1, keepdims=True)
    assert np.abs(ours.spectra * factor - theirs.spectra).max() < 2e-3 * peak.max()
    same = np.corrcoef((ours.spectra * factor).ravel(), theirs.spectra.ravel())[0, 1]
    assert same > 1 - 1e-6
