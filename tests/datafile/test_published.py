"""The published layout, read the way its own tools read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from htxas.datafile import DatasetMeta, MoleculeEntry
from htxas.datafile.published import (
    EIGEN_FILE,
    MOLECULE_FILE,
    SITE_FILE,
    PublishedWriter,
    gdb_number,
    valence_electrons,
)
from htxas.domain.spectrum import dsf_A2
from htxas.domain.structure import Structure
from htxas.errors import DatasetError, UserError

Make = Callable[..., MoleculeEntry]


@pytest.fixture
def folder(tmp_path: Path, entry: Make, meta: DatasetMeta) -> Path:
    with PublishedWriter(tmp_path / "out", meta, use_gdb_numbers=True) as writer:
        writer.add(entry("gdb_3"))
        writer.add(entry("gdb_17", complete=False, seed=5))
    return tmp_path / "out"


@pytest.fixture
def files(folder: Path) -> Iterator[dict[str, Any]]:
    opened = {n: h5py.File(folder / n) for n in (EIGEN_FILE, SITE_FILE, MOLECULE_FILE)}
    yield opened
    for file in opened.values():
        file.close()


def gaussians(grid: np.ndarray, energies: np.ndarray, weights: np.ndarray) -> np.ndarray:
    lines = np.exp(-0.5 * ((grid[:, None] - energies) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi))
    return lines @ weights


def published_final_states(group: Any) -> tuple[np.ndarray, np.ndarray]:
    """Select final states by the published rule."""
    ev, dsf = group["eigenvalues"][()], group["dsf"][()]
    kept = ev - ev[(group.attrs["n_electron"] - 1) // 2] >= 0
    return ev[kept] - ev[kept][0], dsf[kept]


def test_groups_are_gdb_numbers_and_file_atoms(files: dict[str, Any]) -> None:
    assert set(files[EIGEN_FILE]) == {"3", "17"}
    assert set(files[EIGEN_FILE]["3"]) == {"0", "2"}
    assert files[EIGEN_FILE]["3"].attrs["name"] == "gdb_3"


def test_attributes(files: dict[str, Any], entry: Make) -> None:
    own, derived = entry("gdb_3").sites[1], entry("gdb_3").sites[0]
    attrs = files[EIGEN_FILE]["3/2"].attrs
    assert attrs["multiplicity"] == 2
    assert attrs["n_electron"] == 3 * 4 + 6 + 1 + 1  # valence of C3OH, plus the excited electron
    assert attrs["excitation_energy"] == own.excitation_energy_eV
    assert attrs["final_energy_gs"] == -1000.0
    assert attrs["final_energy_ex_source"] == "engine"
    for file in (EIGEN_FILE, SITE_FILE):
        for site in (own, derived):
            a = files[file][f"3/{site.file_atom}"].attrs
            assert a["final_energy_ex"] - a["final_energy_gs"] == pytest.approx(site.excitation_energy_eV)
    assert files[SITE_FILE]["3/0"].attrs["final_energy_ex_source"] == "final_energy_gs + excitation_energy"


def test_published_rule_finds_the_first_final_state(files: dict[str, Any], entry: Make) -> None:
    for site in entry("gdb_3").sites:
        ev, dsf = published_final_states(files[EIGEN_FILE][f"3/{site.file_atom}"])
        np.testing.assert_allclose(ev, site.sticks.energies_eV - site.excitation_energy_eV, atol=1e-9)
        np.testing.assert_allclose(dsf, dsf_A2(site.sticks))


def test_occupied_levels_are_not_invented(files: dict[str, Any]) -> None:
    group = files[EIGEN_FILE]["3/0"]
    occupied = (group.attrs["n_electron"] - 1) // 2
    assert np.isnan(group["eigenvalues"][:occupied]).all()
    assert np.isnan(group["dsf"][:occupied]).all()
    assert np.isfinite(group["eigenvalues"][occupied:]).all()


def test_site_spectrum_is_relative_and_as_the_published_tools_make_it(files: dict[str, Any]) -> None:
    for atom in ("0", "2"):
        ev, dsf = published_final_states(files[EIGEN_FILE][f"3/{atom}"])
        group = files[SITE_FILE][f"3/{atom}"]
        grid = group["energies"][()]
        np.testing.assert_allclose(
            grid, np.arange(np.floor(ev.min() - 5), np.ceil(ev.max() + 5), 0.1), atol=1e-9
        )
        wanted = 2 * gaussians(grid, ev, dsf)
        np.testing.assert_allclose(group["spectrum"][:, 1:], wanted, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(group["spectrum"][:, 0], wanted.mean(axis=1), rtol=1e-9, atol=1e-15)


def test_molecular_spectrum_is_the_weighted_mean_on_absolute_energies(files: dict[str, Any]) -> None:
    energies, dsf, weight = [], [], 0
    for atom in ("0", "2"):
        group = files[EIGEN_FILE][f"3/{atom}"]
        ev, d = published_final_states(group)
        energies.append(ev + group.attrs["excitation_energy"])
        dsf.append(d * group.attrs["multiplicity"])
        weight += group.attrs["multiplicity"]
    group = files[MOLECULE_FILE]["3"]
    grid = group["energies"][()]
    wanted = 2 * gaussians(grid, np.concatenate(energies), np.concatenate(dsf) / weight)
    np.testing.assert_allclose(group["spectrum"][:, 0], wanted.mean(axis=1), rtol=1e-9, atol=1e-15)
    for column in (1, 2, 3):  # averaged over orientations
        np.testing.assert_allclose(
            group["spectrum"][:, column], group["spectrum"][:, 0], rtol=1e-9, atol=1e-15
        )
    assert 275 < grid[0] < 285


def test_incomplete_molecule_is_flagged_and_has_no_molecular_spectrum(files: dict[str, Any]) -> None:
    assert not files[SITE_FILE]["17"].attrs["complete"]
    assert files[SITE_FILE]["3"].attrs["complete"]
    assert "17" not in files[MOLECULE_FILE]


def test_files_open_in_swmr_mode_as_published_readers_do(folder: Path) -> None:
    with h5py.File(folder / SITE_FILE, "r", libver="latest", swmr=True) as file:
        assert set(file) == {"3", "17"}


def test_names_stay_names_and_numbers_on_request(tmp_path: Path, entry: Make, meta: DatasetMeta) -> None:
    with PublishedWriter(tmp_path / "names", meta) as writer:
        writer.add(entry("ethanol"))
    with PublishedWriter(tmp_path / "numbers", meta, numbered=True) as writer:
        writer.add(entry("ethanol"))
    with h5py.File(tmp_path / "names" / SITE_FILE) as file:
        assert list(file) == ["ethanol"]
    with h5py.File(tmp_path / "numbers" / SITE_FILE) as file:
        assert list(file) == ["1"]
        assert file["1"].attrs["name"] == "ethanol"


def test_errors_leave_nothing(tmp_path: Path, entry: Make, meta: DatasetMeta) -> None:
    with (
        pytest.raises(DatasetError, match="no QM9 number"),
        PublishedWriter(tmp_path / "out", meta, use_gdb_numbers=True) as writer,
    ):
        writer.add(entry("ethanol"))
    with (
        pytest.raises(DatasetError, match="two molecules"),
        PublishedWriter(tmp_path / "out", meta) as writer,
    ):
        list(map(writer.add, [entry("gdb_3"), entry("gdb_3")]))
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), PublishedWriter(tmp_path / "file", meta):
        pass


@pytest.mark.parametrize(
    ("name", "number"),
    [("gdb_17", 17), ("dsgdb9nsd_000017", 17), ("ethanol", None), ("gdb_17b", None), ("17", None)],
)
def test_gdb_number(name: str, number: int | None) -> None:
    assert gdb_number(name) == number


def test_valence_electrons_count_outside_the_noble_gas_core() -> None:
    structure, _ = Structure.from_atoms(["C", "F", "Cl", "H", "Ne"], [[3 * i, 0, 0] for i in range(5)])
    assert valence_electrons(structure) == 4 + 7 + 7 + 1 + 8
