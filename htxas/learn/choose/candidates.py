"""A list of candidates: read, checked, and each molecule that is left out with its reason."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from htxas.errors import StructureError
from htxas.structures.smiles import parse_smiles, quiet_rdkit
from htxas.structures.smiles_list import read_smiles_csv, read_smiles_lines
from htxas.structures.source import Origin, Record, file_sha256, open_bytes, plain_name, text_lines

__all__ = ["Candidate", "Candidates", "kinds_of", "read_candidates"]

_KNOWN = "already in the campaign or dataset"
_TWICE = "the same molecule again"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A molecule that could be computed: its name in the list, and its canonical SMILES."""

    name: str
    smiles: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """A list of candidates as read.

    Attributes
    ----------
    fit
        Those that can be chosen, in the order of the list.
    left_out
        Reason -> names of the others.
    """

    fit: tuple[Candidate, ...]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many the list has."""
        return len(self.fit) + sum(map(len, self.left_out.values()))


def read_candidates(
    path: Path, *, element: str, kinds: AbstractSet[str], taken: AbstractSet[str]
) -> Candidates:
    """Read a CSV with a column ``smiles`` or a ``.smi`` list and leave out what should not be chosen.

    Left out are: what is taken, molecules that come again, entries that cannot be read, charged molecules, radicals,
    more than one molecule, molecules without the absorbing element or with a kind of
    atom that no computed molecule has, and a name that another molecule of the list has.

    Parameters
    ----------
    path
        May be compressed.
    element
        The absorbing element.
    kinds
        Those of atoms (:func:`kinds_of`) that the computed molecules have.
    taken
        Canonical SMILES of molecules that are in the campaign or the dataset.

    Raises
    ------
    StructureError
        No such file, another kind of file, or nothing in it.
    """
    fit: list[Candidate] = []
    left_out: dict[str, list[str]] = {}
    names: set[str] = set()
    seen: set[str] = set()
    stem = plain_name(path).stem
    for record in _records(path):
        name = record.name or f"{stem}-{record.index + 1}"
        smiles, reason = _judge(record, element, kinds)
        if smiles is not None:
            if smiles in taken:
                reason = _KNOWN
            elif smiles in seen:
                reason = _TWICE
            elif name in names:
                reason = "its name is another molecule's"
        if smiles is None or reason is not None:
            left_out.setdefault(reason or "", []).append(name)
            continue
        seen.add(smiles)
        names.add(name)
        fit.append(Candidate(name, smiles))
    found = Candidates(tuple(fit), left_out)
    if not found.total:
        raise StructureError("no molecules in it", where=str(path), hint="is this the right file?")
    return found


def kinds_of(smiles: str) -> set[str]:
    """Return the kinds of atoms of a SMILES that RDKit can read: elements, and where an atom has a charge ``N+``.

    Neutral molecules with charged atoms come in two sorts, nitro groups and zwitterions; the latter seldom survive a
    relaxation in vacuum. Hence a model that has seen none is not asked.
    """
    from rdkit import Chem

    with quiet_rdkit():
        atoms = list(Chem.MolFromSmiles(smiles).GetAtoms())
    signs = {0: "", 1: "+", -1: "-"}
    kinds = {a.GetSymbol() + signs.get(a.GetFormalCharge(), f"{a.GetFormalCharge():+d}") for a in atoms}
    return kinds | ({"H"} if any(a.GetTotalNumHs() for a in atoms) else set())


def _judge(record: Record, element: str, kinds: AbstractSet[str]) -> tuple[str | None, str | None]:
    """Return the canonical SMILES and why it is unfit, if it is; no SMILES where none can be read."""
    if record.problem is not None:
        return None, record.problem.message
    if not record.smiles:
        return None, "no SMILES"
    try:
        smiles = parse_smiles(record.smiles).canonical
    except StructureError as error:
        return None, error.message.replace(f"{record.smiles!r} ", "")
    present = kinds_of(smiles)
    if element not in {k.rstrip("+-0123456789") for k in present}:
        return smiles, f"no {element} in it"
    if strange := present - kinds:
        return smiles, f"has {', '.join(sorted(strange))}, which no computed molecule has"
    return smiles, None


def _records(path: Path) -> list[Record]:
    if not path.is_file():
        raise StructureError("no such file", where=str(path), hint="check the path")
    readers = {
        ".csv": read_smiles_csv,
        **dict.fromkeys((".smi", ".smiles", ".txt"), read_smiles_lines),
    }
    reader = readers.get(plain_name(path).suffix.lower())
    if reader is None:
        raise StructureError(
            "a list of candidates is a CSV with a column 'smiles' or a .smi file", where=str(path)
        )
    origin = Origin(path.name, file_sha256(path), str(path))
    with open_bytes(path) as stream:
        return list(reader(text_lines(stream, str(path)), origin))
