"""Geometries are made once and stay the same, digit by digit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.structure import Structure
from htxas.errors import StructureError, UserError
from htxas.structures.geometry import GeometryMaker
from htxas.structures.read import expand, read_molecules
from htxas.structures.relax import Relaxed


@dataclass
class Stretcher:
    """A relaxer that scales the molecule and counts how often it was asked."""

    factor: float = 1.0
    calls: int = 0

    @property
    def settings(self) -> dict[str, str | float]:
        return {"method": "stretch"}

    def relax(self, symbols, positions_A, *, where=None) -> Relaxed:
        self.calls += 1
        return Relaxed(self.factor * np.asarray(positions_A), -1.0, 3, 0.001, "stretch", "test 1")


def test_made_once(tmp_path: Path) -> None:
    relaxer = Stretcher()
    maker = GeometryMaker(tmp_path / "kept", relaxer, conformers=2)
    first = maker.from_smiles("CCO")
    second = GeometryMaker(tmp_path / "kept", relaxer, conformers=2).from_smiles("CCO")
    assert relaxer.calls == 1
    assert (first.positions_A == second.positions_A).all()
    assert (first.positions_A == np.round(first.positions_A, 6)).all()
    assert first.provenance == second.provenance
    assert first.provenance["method"] == "stretch"
    assert first.provenance["energy_eV"] == -1.0
    assert first.provenance["request"]["smiles"] == "CCO"
    assert [p.suffix for p in (tmp_path / "kept").iterdir()] == [".xyz"]


def test_spelling_changes_the_order_but_not_the_structure(tmp_path: Path) -> None:
    relaxer = Stretcher()
    maker = GeometryMaker(tmp_path, relaxer, conformers=1)
    there, back = maker.from_smiles("CCO"), maker.from_smiles("OCC")
    assert relaxer.calls == 1
    assert there.symbols[:3] == ("C", "C", "O")
    assert back.symbols[:3] == ("O", "C", "C")
    assert (there.positions_A[:3] == back.positions_A[2::-1]).all()
    keys = {Structure.from_atoms(g.symbols, g.positions_A)[0].key for g in (there, back)}
    assert len(keys) == 1


def test_shipped_geometries_come_first_and_stay_untouched(tmp_path: Path) -> None:
    GeometryMaker(tmp_path / "shipped", Stretcher(1.01), conformers=1).from_smiles("CO")
    relaxer = Stretcher(1.02)
    maker = GeometryMaker(tmp_path / "own", relaxer, conformers=1, shipped=(tmp_path / "shipped",))
    maker.from_smiles("CO")
    assert relaxer.calls == 0
    assert not (tmp_path / "own").exists()
    maker.from_smiles("CN")
    assert relaxer.calls == 1
    assert len(list((tmp_path / "shipped").iterdir())) == 1


def test_another_recipe_is_another_geometry(tmp_path: Path) -> None:
    relaxer = Stretcher()
    for conformers, seed in ((1, 1), (2, 1), (1, 2)):
        GeometryMaker(tmp_path, relaxer, conformers=conformers, seed=seed).from_smiles("CO")
    assert relaxer.calls == 3


def test_the_first_to_finish_decides(tmp_path: Path) -> None:
    """Two processes make the same geometry at once: both go on with the digits of the one that finished first."""

    @dataclass
    class Overtaken(Stretcher):
        def relax(self, symbols, positions_A, *, where=None) -> Relaxed:
            GeometryMaker(tmp_path, Stretcher(1.01), conformers=1).from_smiles("CO")
            return super().relax(symbols, positions_A, where=where)

    slow = GeometryMaker(tmp_path, Overtaken(1.0), conformers=1).from_smiles("CO")
    fast = GeometryMaker(tmp_path, Stretcher(1.01), conformers=1).from_smiles("CO")
    assert (slow.positions_A == fast.positions_A).all()


def test_altered_or_damaged_geometries_are_refused(tmp_path: Path) -> None:
    maker = GeometryMaker(tmp_path, Stretcher(), conformers=1)
    maker.from_smiles("CO")
    (kept,) = tmp_path.iterdir()
    good = kept.read_text()
    atom = good.splitlines()[2]
    for bad, message in (
        (good.replace(atom, atom[:-1] + ("1" if atom[-1] != "1" else "2")), "altered"),
        (good[: len(good) // 2], "kept geometry"),
        (good.replace('"CO"', '"CN"'), "altered"),
        ("", "unreadable"),
    ):
        kept.write_text(bad)
        with pytest.raises(UserError, match=message) as caught:
            maker.from_smiles("CO")
        assert "delete it" in str(caught.value)
    kept.unlink()
    assert maker.from_smiles("CO").symbols[:2] == ("C", "O")


def test_a_molecule_that_falls_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StructureError, match=r"a\.smi: 'CO' is not stable with stretch: the bond .* has broken"
    ):
        GeometryMaker(tmp_path, Stretcher(2.0), conformers=1).from_smiles("CO", where="a.smi")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be kept") as caught:
        GeometryMaker(tmp_path / "file" / "x", Stretcher(), conformers=1).from_smiles("CO")
    assert "another folder" in str(caught.value)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        GeometryMaker(tmp_path, Stretcher(), conformers=1).from_smiles("CO")
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    GeometryMaker(tmp_path, Stretcher(), conformers=1).from_smiles("CO")
    assert [p.suffix for p in tmp_path.iterdir()] == [".xyz"]


def test_smiles_list_to_molecules(tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text("gdb_id,smiles\n14,OCC\n4,C#C\n")
    maker = GeometryMaker(tmp_path / "kept", Stretcher(), conformers=2)
    ethanol, acetylene = read_molecules(source, geometry=maker)
    assert (ethanol.name, ethanol.smiles, ethanol.structure.formula) == ("gdb_14", "OCC", "C2H6O")
    oxygen = ethanol.structure.indices_of("O")[0]
    assert ethanol.order[oxygen] == 0  # atom order of the SMILES as given
    assert ethanol.provenance["geometry"]["method"] == "stretch"
    assert json.dumps(ethanol.provenance)
    assert [s.multiplicity for s in expand(acetylene, "C")] == [2]


def test_bad_smiles_in_a_list_names_the_line(tmp_path: Path) -> None:
    source = tmp_path / "list.smi"
    source.write_text("C methane\n[CH3] methyl\n")
    maker = GeometryMaker(tmp_path / "kept", Stretcher(), conformers=1)
    with pytest.raises(StructureError, match=r"list\.smi, line 2, record 2 \(methyl\): .*unpaired"):
        list(read_molecules(source, geometry=maker))


def test_relaxing_given_geometries(tmp_path: Path) -> None:
    source = tmp_path / "w.xyz"
    source.write_text("3\nwater O\nH 0 0.763 -0.477\nO 0 0 0.119\nH 0 -0.763 -0.477\n")
    relaxer = Stretcher(1.01)
    maker = GeometryMaker(tmp_path / "kept", relaxer)
    (given,) = read_molecules(source)
    for _ in range(2):
        (relaxed,) = read_molecules(source, geometry=maker, relax=True, geometry_method="guess")
    assert relaxer.calls == 1
    assert relaxed.structure.positions_A == pytest.approx(1.01 * given.structure.positions_A, abs=2e-6)
    assert ["HOH"[i] for i in relaxed.order] == list(relaxed.structure.symbols)
    assert relaxed.provenance["geometry"]["start"] == {
        "structure": given.structure.key,
        "method": "guess",
        "energy_eV": None,
    }


@pytest.mark.xtb
def test_symmetry_survives_the_real_recipe(tmp_path: Path) -> None:
    maker = GeometryMaker(tmp_path)
    for smiles, unique in (
        ("c1ccccc1", 1),
        ("CC(C)(C)C", 2),
        ("c1ccc2ccccc2c1", 3),
        ("C=C=C", 2),
        ("C1CCCCC1", 1),
    ):
        made = maker.from_smiles(smiles)
        structure = Structure.from_atoms(made.symbols, made.positions_A)[0]
        source = tmp_path / "m.xyz"
        atoms = zip(structure.symbols, structure.positions_A.tolist(), strict=True)
        source.write_text(f"{len(structure)}\nm\n" + "".join(f"{s} {x} {y} {z}\n" for s, (x, y, z) in atoms))
        (molecule,) = read_molecules(source)
        assert molecule.structure.key == structure.key  # through a file and back
        assert len(expand(molecule, "C")) == unique
        assert made.provenance["fmax_eV_per_A"] <= 0.01
