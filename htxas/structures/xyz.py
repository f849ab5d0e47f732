"""Plain and QM9 xyz records, parsed as a stream.

A plain record is the number of atoms, a comment, and ``symbol x y z`` lines in Angstrom. If the comment's first
word looks like a name it is the name; if the only other word is a SMILES with the same heavy atoms, it is the SMILES.

A QM9 record (Ramakrishnan et al., Sci. Data 1, 140022 (2014), table 2) has ``gdb <id>`` and 15 properties on the
second line, a Mulliken charge after each position, and three more lines: frequencies, SMILES, InChI. Numbers may
be written ``1.5*^-6``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from htxas.domain.elements import SYMBOLS
from htxas.domain.units import HARTREE_EV
from htxas.errors import StructureError
from htxas.structures.source import Origin, Record

__all__ = ["QM9_PROPERTIES", "read_xyz", "smiles_heavy_atoms"]

QM9_PROPERTIES = (
    ("A", "GHz"), ("B", "GHz"), ("C", "GHz"), ("mu", "D"), ("alpha", "bohr3"), ("homo", "hartree"),
    ("lumo", "hartree"), ("gap", "hartree"), ("r2", "bohr2"), ("zpve", "hartree"), ("U0", "hartree"),
    ("U", "hartree"), ("H", "hartree"), ("G", "hartree"), ("Cv", "cal_per_mol_K"),
)  # fmt: skip
"""Names and units of the numbers on the second line of a QM9 record, in order."""

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*\Z")
_SMILES_ATOM = re.compile(r"\[\d*([A-Z][a-z]?|[a-z][a-z]?)[^\]\[]*\]|(Br|Cl|[BCNOPSFI]|[bcnops])")
_SMILES = re.compile(r"(?:\[[^\]\[\s]+\]|Br|Cl|[BCNOPSFIbcnops]|[-=#$:/\\().]|%?\d)+\Z")


_QM9_METHOD = "B3LYP/6-31G(2df,p)"


def read_xyz(lines: Iterator[str], origin: Origin) -> Iterator[Record]:
    """Yield the records of an xyz file.

    Raises
    ------
    StructureError
        A count that is not a positive number, or a file that ends inside a record; with file, line and record. A
        record with a line that is not ``symbol x y z`` becomes a record with a problem.
    """
    return _Reader(lines, origin).records()


def smiles_heavy_atoms(text: str) -> Counter[str] | None:
    """Return the heavy atoms a SMILES names, or None if ``text`` cannot be one. Needs no chemistry library."""
    if not _SMILES.match(text):
        return None
    symbols = ((a or b).capitalize() for a, b in _SMILES_ATOM.findall(text))
    return Counter(s for s in symbols if s != "H")


class _Reader:
    def __init__(self, lines: Iterator[str], origin: Origin) -> None:
        self._lines = lines
        self._origin = origin
        self._line = 0
        self._record = 0
        self._problem: StructureError | None = None

    def records(self) -> Iterator[Record]:
        for text in self._lines:
            self._line += 1
            if text.strip():
                record = self._next_record(text)
                yield record
                self._record += 1
                self._problem = record.problem

    def _next_record(self, text: str) -> Record:
        try:
            return self._one(text, self._line)
        except StructureError:
            if self._problem is not None:  # a wrong count spoils the record that follows: name the first
                raise self._problem from None
            raise

    def _error(self, message: str, hint: str) -> StructureError:
        return StructureError(message, where=self._origin.where(self._record, self._line), hint=hint)

    def _next(self, what: str) -> str:
        for text in self._lines:
            self._line += 1
            return text
        raise self._error(
            f"the file ends where {what} should follow", "it is cut short: fetch or write it again"
        )

    def _one(self, count_text: str, first_line: int) -> Record:
        count = count_text.strip()
        if not count.isascii() or not count.isdigit() or int(count) == 0:
            raise self._error(
                f"expected the number of atoms of a record, found {count_text.strip()[:40]!r}",
                "does the count of the record before fit its atoms?",
            )
        n = int(count)
        comment = self._next("a comment line").strip()
        is_qm9 = comment.startswith("gdb ") and len(comment.split()) == 2 + len(QM9_PROPERTIES)
        if "Properties=" in comment or "Lattice=" in comment:
            raise self._error("an extended xyz record in a plain xyz file", "keep the two kinds apart")
        symbols: list[str] = []
        positions: list[list[float]] = []
        problem: StructureError | None = None
        for k in range(n):
            text = self._next(f"atom {k + 1} of {n}")
            try:
                symbol, position = self._atom(text, 5 if is_qm9 else 4)
            except StructureError as error:  # the count still tells where the next record begins
                problem = problem or error
                continue
            symbols.append(symbol)
            positions.append(position)
        if problem is not None:
            return self._unusable(comment, is_qm9, first_line, problem)
        if is_qm9:
            return self._finish_qm9(comment.split(), symbols, positions, first_line)
        name, smiles = _name_and_smiles(comment, symbols)
        extra = {"comment": comment} if comment else {}
        return Record(self._record, first_line, "xyz", name, smiles, symbols, positions, extra=extra)

    def _unusable(self, comment: str, is_qm9: bool, first_line: int, problem: StructureError) -> Record:
        words = comment.split()
        if is_qm9:
            for what in ("frequencies", "SMILES", "InChI"):
                self._next(f"the QM9 {what}")
        name = f"gdb_{words[1]}" if is_qm9 else words[0] if words and _NAME.match(words[0]) else None
        return Record(self._record, first_line, "xyz", name, problem=problem)

    def _atom(self, text: str, columns: int) -> tuple[str, list[float]]:
        words = (text.replace("*^", "e") if "*" in text else text).split()
        try:
            if len(words) != columns:
                raise ValueError
            position = [float(words[1]), float(words[2]), float(words[3])]
        except ValueError:
            wanted = "symbol x y z charge" if columns == 5 else "symbol x y z"
            raise self._error(
                f"expected {wanted}, found {text.strip()[:40]!r}",
                "correct the line, or the count of this record",
            ) from None
        symbol = words[0]
        if symbol.isdigit() and 0 < int(symbol) < len(SYMBOLS):
            symbol = SYMBOLS[int(symbol)]
        return symbol, position

    def _finish_qm9(
        self, words: list[str], symbols: list[str], positions: list[list[float]], first_line: int
    ) -> Record:
        try:
            values = [float(w.replace("*^", "e")) for w in words[2:]]
            int(words[1])
        except ValueError:
            raise self._error("a QM9 property is not a number", "fetch or write the file again") from None
        self._next("the QM9 frequencies")
        smiles = self._next("the QM9 SMILES").split()
        self._next("the QM9 InChI")
        if not smiles:
            raise self._error("the QM9 SMILES line is empty", "fetch or write the file again")
        properties = {f"{name}_{unit}": v for (name, unit), v in zip(QM9_PROPERTIES, values, strict=True)}
        # U0 includes the zero-point energy; two SMILES: of the enumerated graph, then of the relaxed geometry
        electronic_eV = (properties["U0_hartree"] - properties["zpve_hartree"]) * HARTREE_EV
        return Record(
            self._record,
            first_line,
            "qm9-xyz",
            f"gdb_{words[1]}",
            smiles[-1],
            symbols,
            positions,
            geometry={"method": _QM9_METHOD, "energy_eV": electronic_eV},
            extra={"smiles_enumerated": smiles[0], "qm9": properties},
        )


def _name_and_smiles(comment: str, symbols: list[str]) -> tuple[str | None, str | None]:
    words = comment.split()
    if not words or not _NAME.match(words[0]):
        return None, None
    if len(words) == 2 and smiles_heavy_atoms(words[1]) == Counter(s for s in symbols if s != "H"):
        return words[0], words[1]
    return words[0], None
