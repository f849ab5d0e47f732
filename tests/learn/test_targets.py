from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from htxas.datafile import DatasetMeta, DatasetWriter
from htxas.domain.structure import Structure
from htxas.domain.units import HARTREE_EV
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import molecular_weight, parse_formula, sp3_ratio
from htxas.learn.data.dataset import freeze
from htxas.learn.data.qm9 import Qm9Table
from htxas.learn.data.recipe import Recipe
from htxas.learn.data.source import FileSource
from htxas.learn.data.targets import ONLY_OF_SITES, describe, in_house, ratios, target_value


def test_every_in_house_target_has_a_value(synthetic: SimpleNamespace) -> None:
    record = synthetic.record(4)
    values = {name: target_value(name, record)[0] for name in in_house() if name not in ONLY_OF_SITES}
    assert values["excitation_energy"] == record.excitation_energy_eV
    assert values["molecular_weight"] == pytest.approx(molecular_weight(record.structure.composition))
    assert len(values) == 10


def test_unknown_target_offers_the_nearest() -> None:
    with pytest.raises(DatasetError, match="did you mean 'dipole'"):
        describe("dipol")


@pytest.mark.parametrize(("smiles", "expected"), [("CC=C", 1 / 3), ("C1CC1", 1.0), ("C#CC=O", 0.0)])
def test_sp3_ratio_of_smiles(smiles: str, expected: float) -> None:
    n = smiles.upper().count("C")
    structure = Structure.from_atoms(["C"] * n, [[1.5 * i, 0, 0] for i in range(n)])[0]
    assert sp3_ratio(smiles, structure.composition, structure) == (pytest.approx(expected), "smiles")


def test_sp3_ratio_from_coordination_and_mismatch() -> None:
    d = 0.63
    methane = [[0, 0, 0], [d, d, d], [d, -d, -d], [-d, d, -d], [-d, -d, d]]
    structure = Structure.from_atoms(["C", "H", "H", "H", "H"], methane)[0]
    assert sp3_ratio(None, structure.composition, structure) == (1.0, "coordination")
    with pytest.raises(DatasetError, match="has 2 carbons, the structure 1"):
        sp3_ratio("CC", structure.composition, structure)


def test_ratios_and_formula() -> None:
    assert ratios(parse_formula("C4H5N2OF")) == [0.5, 0.25, 0.25]
    assert parse_formula("CH4") == {"C": 1, "H": 4}
    with pytest.raises(DatasetError, match="needs carbon"):
        ratios({"O": 1})
    for text in ("", "c2h6", "C2H6O?", "12"):
        with pytest.raises(DatasetError, match="not a formula"):
            parse_formula(text)


def _qm9_files(folder: Path, synthetic: SimpleNamespace, known: range) -> tuple[Path, Path]:
    properties, molecules = folder / "props.csv", folder / "mols.csv"
    properties.write_text("gdb_id,gap,mu\n" + "".join(f"{i},{0.1 + 0.001 * i},{i}\n" for i in known))
    molecules.write_text("gdb_id,smiles\n" + "".join(f"{i},{synthetic.record(i).smiles}\n" for i in known))
    return properties, molecules


def test_qm9_joins_by_name_with_units_and_counts_the_missing(
    synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    properties, _ = _qm9_files(tmp_path, synthetic, range(55))
    records = [dataclasses.replace(r, name=f"gdb_{i}") for i, r in enumerate(synthetic.records(60))]
    table = Qm9Table.read(properties, None, ["gap", "mu"])
    data = freeze(synthetic.source(records), Recipe(targets=("qm9_gap", "qm9_mu")), tmp_path / "d", qm9=table)
    assert data.card["counts"]["left_out"] == {"not in the QM9 file": 5}
    row = data.ids.index("gdb_7")
    assert data.target("qm9_gap")[row] == pytest.approx(0.107 * HARTREE_EV)
    assert data.target("qm9_mu")[row] == 7
    assert [t["unit"] for t in data.card["targets"]] == ["eV", "D"]


def test_qm9_joins_by_smiles_but_never_by_an_ambiguous_one(
    synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    properties, molecules = tmp_path / "props.csv", tmp_path / "mols.csv"
    properties.write_text("gdb_id,mu\n1,1.5\n2,2.5\n3,3.5\n")
    molecules.write_text("gdb_id,smiles\n1,OCC\n2,C=C\n3,C=C\n")
    table = Qm9Table.read(properties, molecules, ["mu"])
    assert table.lookup("ethanol", "CCO") == {"mu": 1.5}
    assert table.lookup("ethene", "C=C") is None
    assert table.lookup("1", None) is None  # a bare number is a name like any other
    assert table.lookup("dsgdb9nsd_000003", None) == {"mu": 3.5}
    with pytest.raises(DatasetError, match="but 1 in QM9 is CCO"):
        table.lookup("gdb_1", "CCCCO")


def test_qm9_file_errors(tmp_path: Path) -> None:
    path = tmp_path / "props.csv"
    with pytest.raises(DatasetError, match="no such file"):
        Qm9Table.read(path, None, ["mu"])
    path.write_text("gdb_id,mu\n1,x\n")
    with pytest.raises(DatasetError, match=r"props.csv:2: not a number"):
        Qm9Table.read(path, None, ["mu"])
    with pytest.raises(DatasetError, match="column 'gap' is missing"):
        Qm9Table.read(path, None, ["gap"])


def test_qm9_target_without_a_file_is_refused(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="qm9_gap needs a file"):
        freeze(synthetic.source(synthetic.records(55)), Recipe(targets=("qm9_gap",)), tmp_path)


def test_without_a_ground_state_its_targets_are_refused_and_others_are_not(
    synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    meta = DatasetMeta("synthetic", "fake", {"parameters": {"site": {}, "ground": None}}, "htxas test")
    with DatasetWriter(tmp_path / "x.h5", meta) as writer:
        writer.add(dataclasses.replace(synthetic.entry(1), ground_key=None, ground=None))
    (record,) = FileSource(tmp_path / "x.h5").records(Recipe(()))
    assert record.ground == {}
    assert target_value("excitation_energy", record)[0] == synthetic.truth(1).onset_eV
    with pytest.raises(DatasetError, match="has no gap_eV of a ground state"):
        target_value("gap", record)
