from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from htxas.errors import StructureError
from htxas.learn.choose.candidates import kinds_of, read_candidates

KINDS = frozenset({"C", "H", "O", "N"})


def test_reasons_are_told_apart(tmp_path: Path) -> None:
    lines = [
        "CCO ethanol",
        "OCC ethanol-again",
        "C methane",
        "C[NH3+] ion",
        "C[CH2] radical",
        "CCCl chloride",
        "NCC(=O)O glycine",
        "[NH3+]CC(=O)[O-] zwitterion",
        "O water",
        "C1CC rubbish",
        "CC.O two",
        "CCN ethanol",
        "CCCO",
    ]
    path = tmp_path / "list.smi"
    path.write_text("\n".join(lines) + "\n")
    found = read_candidates(path, element="C", kinds=KINDS, taken={"C"})
    assert [(c.name, c.smiles) for c in found.fit] == [
        ("ethanol", "CCO"),
        ("glycine", "NCC(=O)O"),
        ("list-13", "CCCO"),
    ]
    assert found.left_out == {
        "the same molecule again": ["ethanol-again"],
        "already in the campaign or dataset": ["methane"],
        "has a charge of +1": ["ion"],
        "has unpaired electrons": ["radical"],
        "has Cl, which no computed molecule has": ["chloride"],
        "has N+, O-, which no computed molecule has": ["zwitterion"],
        "no C in it": ["water"],
        "is not a valid SMILES": ["rubbish"],
        "is more than one molecule": ["two"],
        "its name is another molecule's": ["ethanol"],
    }
    assert found.total == len(lines)


def test_csv_compressed_with_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "list.csv.gz"
    path.write_bytes(gzip.compress(b"gdb_id,smiles\n7,CC\n8\n9,CCC\n"))
    found = read_candidates(path, element="C", kinds=KINDS, taken=set())
    assert [c.name for c in found.fit] == ["gdb_7", "gdb_9"]
    assert found.left_out == {"1 fields, the header has 2": ["list-2"]}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.smi", None, "no such file"),
        ("x.xyz", "1\n\nC 0 0 0\n", "a list of candidates is"),
        ("empty.smi", "# nothing\n", "no molecules in it"),
        ("x.csv", "name,formula\na,CH4\n", "names no column 'smiles'"),
    ],
)
def test_files_that_are_no_list(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(StructureError, match=words):
        read_candidates(path, element="C", kinds=KINDS, taken=set())


def test_kinds() -> None:
    assert kinds_of("C[N+](=O)[O-]") == {"C", "N+", "O", "O-", "H"}
    assert kinds_of("FC(F)(F)F") == {"C", "F"}
