"""The dataset file: what goes in comes out, and damage is noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.datafile import DatasetFile, DatasetMeta, DatasetWriter, MoleculeEntry
from htxas.datafile.layout import Node, from_node, group_name, to_node
from htxas.domain.structure import Structure
from htxas.errors import DatasetError, NotFound, UserError

Make = Callable[..., MoleculeEntry]


@pytest.fixture
def path(tmp_path: Path, entry: Make, meta: DatasetMeta) -> Path:
    path = tmp_path / "reference.h5"
    with DatasetWriter(path, meta) as writer:
        writer.add(entry("gdb_3"))
        writer.add(entry("propanol, odd/name", seed=4))
        writer.add(entry("unfinished", complete=False, seed=7))
    return path


def test_molecule_round_trip(path: Path, entry: Make) -> None:
    wanted = entry("gdb_3")
    with DatasetFile(path) as data:
        got = data.molecule("gdb_3")
    assert got.structure == wanted.structure
    assert got.file_order == wanted.file_order
    assert (got.name, got.smiles, got.ground_key, got.complete, got.missing) == (
        "gdb_3",
        "CCCO",
        "a" * 32,
        True,
        (),
    )
    assert got.provenance == wanted.provenance
    assert got.excitation_energy_eV == wanted.excitation_energy_eV
    assert got.spectrum is not None
    assert wanted.spectrum is not None
    np.testing.assert_array_equal(got.spectrum.energies_eV, wanted.spectrum.energies_eV)
    np.testing.assert_allclose(got.spectrum.columns, wanted.spectrum.columns, rtol=1e-6, atol=1e-12)


def test_ground_state_round_trip_keeps_atoms_in_place(path: Path, entry: Make) -> None:
    wanted = entry("gdb_3").ground
    with DatasetFile(path) as data:
        got = data.molecule("gdb_3").ground
    assert got is not None
    assert wanted is not None
    assert (got.homo_eV, got.lumo_eV, got.gap_eV, got.total_energy_eV) == (-7.5, 0.5, 8.0, -1000.0)
    assert got.dipole_norm_D == pytest.approx(5.0)
    np.testing.assert_array_equal(got.pdos.energies_eV, wanted.pdos.energies_eV)
    np.testing.assert_array_equal(got.pdos.occupations, wanted.pdos.occupations)
    np.testing.assert_allclose(got.pdos.weights, wanted.pdos.weights, atol=8e-6)


def test_moments_come_back_with_their_atoms(tmp_path: Path, entry: Make, meta: DatasetMeta) -> None:
    one = entry("gdb_3")
    assert "moments_muB" not in to_node(one).arrays
    canonical = [0.0, 1.5, -0.25, 0.0, 2.0]
    structure, order = Structure.from_atoms(
        one.structure.symbols, one.structure.positions_A, moments_muB=canonical
    )
    assert order == tuple(range(5))
    with DatasetWriter(tmp_path / "magnetic.h5", meta) as writer:
        writer.add(dataclasses.replace(one, structure=structure))
    with DatasetFile(tmp_path / "magnetic.h5") as data:
        data.verify()
        got = data.molecule("gdb_3").structure
    assert got == structure
    assert got.moments_muB is not None
    assert got.moments_muB.tolist() == canonical
    node = to_node(dataclasses.replace(one, structure=structure))
    by_file = dict(zip(one.file_order, canonical, strict=True))
    assert node.arrays["moments_muB"].tolist() == [by_file[i] for i in range(5)]
    del node.arrays["moments_muB"]
    with pytest.raises(ValueError, match="do not match their structure key"):
        from_node(node)


def test_a_ground_state_of_plane_waves_comes_back(tmp_path: Path, entry: Make, meta: DatasetMeta) -> None:
    one = entry("gdb_3")
    assert one.ground is not None
    shares = np.linspace(0.1, 1.0, 30)
    pdos = dataclasses.replace(
        one.ground.pdos, shares=shares, complete=False, complete_to_eV=12.5, spheres=True
    )
    wanted = dataclasses.replace(one.ground, dipole_D=None, reference="average potential", pdos=pdos)
    with DatasetWriter(tmp_path / "plane.h5", meta) as writer:
        writer.add(dataclasses.replace(one, ground=wanted))
    with DatasetFile(tmp_path / "plane.h5") as data:
        got = data.molecule("gdb_3").ground
    assert got is not None
    assert (got.dipole_D, got.dipole_norm_D, got.reference) == (None, None, "average potential")
    assert not got.pdos.complete
    assert got.pdos.spheres
    assert got.pdos.complete_to_eV == 12.5
    with h5py.File(tmp_path / "plane.h5") as file:
        assert file["molecules/gdb_3/pdos"].attrs["complete_to_eV"] == 12.5
    with DatasetWriter(tmp_path / "atoms.h5", meta) as writer:
        writer.add(one)
    with h5py.File(tmp_path / "atoms.h5") as file:  # as files of 0.1.0 are
        assert "complete_to_eV" not in file["molecules/gdb_3/pdos"].attrs
    with DatasetFile(tmp_path / "atoms.h5") as data:
        before = data.molecule("gdb_3").ground
    assert before is not None
    assert (before.pdos.complete_to_eV, before.pdos.complete) == (None, True)
    np.testing.assert_array_equal(got.pdos.shares, shares)


def test_sites_round_trip(path: Path, entry: Make) -> None:
    with DatasetFile(path) as data:
        got = data.molecule("gdb_3").sites
    for a, b in zip(got, entry("gdb_3").sites, strict=True):
        assert (a.key, a.file_atom, a.element, a.edge, a.multiplicity) == (
            b.key,
            b.file_atom,
            b.element,
            b.edge,
            b.multiplicity,
        )
        assert (a.equivalent_file_atoms, a.scale, a.energies_eV) == (
            b.equivalent_file_atoms,
            b.scale,
            b.energies_eV,
        )
        assert (a.excitation_energy_eV, a.ionization_eV, a.hole_overlap, a.window_eV) == (
            b.excitation_energy_eV,
            b.ionization_eV,
            b.hole_overlap,
            b.window_eV,
        )
        np.testing.assert_array_equal(a.sticks.energies_eV, b.sticks.energies_eV)
        np.testing.assert_array_equal(a.sticks.strengths, b.sticks.strengths)


def test_a_file_from_before_does_not_say_what_was_corrected(entry: Make) -> None:
    site = dataclasses.replace(entry().sites[0], corrections=("more_cycles",), another_state=())
    told = to_node(dataclasses.replace(entry(), sites=(site, *entry().sites[1:])))
    first, second = from_node(told).sites
    assert (first.corrections, first.another_state) == (("more_cycles",), ())
    assert (second.corrections, second.another_state) == (None, None)  # unknown is not none
    assert "corrections" not in told.children["sites"].children["2"].attrs


def test_atoms_lie_in_file_order_on_disk(path: Path) -> None:
    with h5py.File(path) as file:
        group = file["molecules/gdb_3"]
        assert [s.decode() for s in group["symbols"][()]] == ["C", "O", "C", "C", "H"]
        assert group["positions_A"][0].tolist() == [1.5, 0, 0]
        assert set(group["sites"]) == {"0", "2"}
        assert group["spectrum"].dtype == np.float32
        assert group.attrs["gap_eV"] == 8.0


def test_iteration_meta_and_names(path: Path) -> None:
    with DatasetFile(path) as data:
        assert data.names() == ("gdb_3", "propanol, odd/name", "unfinished")
        assert [m.name for m in data] == list(data.names())
        assert len(data) == 3
        assert (data.meta.n_sites, data.meta.n_incomplete) == (5, 1)
        assert data.meta.parameters == {"preset": "published", "grid": 3}
        data.verify()


def test_incomplete_molecule_says_so(path: Path) -> None:
    with DatasetFile(path) as data:
        got = data.molecule("unfinished")
    assert not got.complete
    assert got.missing == ("b" * 32,)
    assert got.ground is None


def test_complete_with_something_missing_is_refused(entry: Make) -> None:
    import dataclasses

    with pytest.raises(ValueError, match="called complete"):
        dataclasses.replace(entry(), missing=("c" * 32,))


def test_content_hash_ignores_order_and_time(tmp_path: Path, entry: Make, meta: DatasetMeta) -> None:
    hashes = []
    for names in (("a", "b"), ("b", "a")):
        with DatasetWriter(tmp_path / "d.h5", meta) as writer:
            for name in names:
                writer.add(entry(name))
            hashes.append(writer.close().content_sha256)
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 64


@pytest.mark.parametrize("what", ["number", "attribute", "removed"])
def test_verify_finds_a_change(path: Path, what: str) -> None:
    with h5py.File(path, "r+") as file:
        if what == "number":
            file["molecules/gdb_3/spectrum"][5, 0] += 0.5
        elif what == "attribute":
            file["molecules/gdb_3"].attrs["homo_eV"] = -7.4
        else:
            del file["molecules/unfinished"]
    with DatasetFile(path) as data, pytest.raises(DatasetError, match=r"hash|removed"):
        data.verify()


def test_moved_atoms_are_noticed_on_reading(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["molecules/gdb_3/positions_A"][0, 0] += 0.1
    with DatasetFile(path) as data, pytest.raises(DatasetError, match="structure key"):
        data.molecule("gdb_3")


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        DatasetFile(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DatasetError, match="not a readable HDF5"):
        DatasetFile(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DatasetError, match="not an htxas-dataset"):
        DatasetFile(tmp_path / "other.h5")


def test_newer_version_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(DatasetError, match="newer"):
        DatasetFile(path)


def test_unknown_molecule_offers_the_nearest(path: Path) -> None:
    with DatasetFile(path) as data, pytest.raises(NotFound, match="did you mean gdb_3"):
        data.molecule("gdb_4")


def test_an_error_leaves_no_file(tmp_path: Path, entry: Make, meta: DatasetMeta) -> None:
    path = tmp_path / "d.h5"
    with pytest.raises(DatasetError, match="two molecules"), DatasetWriter(path, meta) as writer:
        list(map(writer.add, [entry("a"), entry("a")]))
    assert list(tmp_path.iterdir()) == []


def interrupted(entry: MoleculeEntry) -> Iterator[MoleculeEntry]:
    yield entry
    raise KeyboardInterrupt


def test_an_error_keeps_the_earlier_file(path: Path, entry: Make, meta: DatasetMeta) -> None:
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), DatasetWriter(path, meta) as writer:
        list(map(writer.add, interrupted(entry("a"))))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_missing_folder_is_one_line(tmp_path: Path, meta: DatasetMeta) -> None:
    with pytest.raises(UserError, match="cannot write"), DatasetWriter(tmp_path / "no" / "d.h5", meta):
        pass


def test_full_disk_is_one_line(
    tmp_path: Path, entry: Make, meta: DatasetMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    writer = DatasetWriter(tmp_path / "d.h5", meta)
    monkeypatch.setattr("htxas.datafile.write._write", no_space)
    with pytest.raises(UserError, match="No space left"), writer:
        writer.add(entry("a"))
    assert list(tmp_path.iterdir()) == []


def test_weights_outside_0_to_1_are_refused(entry: Make) -> None:
    molecule = entry()
    assert molecule.ground is not None
    molecule.ground.pdos.weights[0, 0, 0] = 1.5
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        to_node(molecule)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_group_names_are_single_and_reversible(name: str) -> None:
    group = group_name(name)
    assert unquote(group) == name
    assert "/" not in group
    assert group not in (".", "..")


def test_nodes_need_no_file(entry: Make) -> None:
    node = to_node(entry())
    assert isinstance(node, Node)
    assert from_node(node).name == "gdb_3"
