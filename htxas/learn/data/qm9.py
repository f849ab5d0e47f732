"""QM9 properties from a user's CSV file, joined to molecules at run time.

Units of the columns as published with QM9 (Ramakrishnan et al., Sci. Data 1, 140022 (2014)); energies in Hartree become
eV. Atomisation energies (``*_atom``, in kcal/mol) and rotational constants (GHz) stay as they are.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from htxas.domain.units import HARTREE_EV
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import canonical_smiles

__all__ = ["QM9_COLUMNS", "QM9_PREFIX", "Qm9Column", "Qm9Table", "gdb_id", "read_smiles"]

QM9_PREFIX = "qm9_"
_NAME = re.compile(r"^(?:gdb|dsgdb9nsd|qm9)[_\-]?0*(\d+)$", re.IGNORECASE)  # bare numbers name nothing


@dataclass(frozen=True, slots=True)
class Qm9Column:
    """A column of the file: unit after conversion, factor from the file's unit, meaning."""

    unit: str
    factor: float
    meaning: str


QM9_COLUMNS: dict[str, Qm9Column] = {
    "mu": Qm9Column("D", 1.0, "dipole moment"),
    "alpha": Qm9Column("a0^3", 1.0, "isotropic polarisability"),
    "homo": Qm9Column("eV", HARTREE_EV, "HOMO energy, B3LYP"),
    "lumo": Qm9Column("eV", HARTREE_EV, "LUMO energy, B3LYP"),
    "gap": Qm9Column("eV", HARTREE_EV, "HOMO-LUMO gap, B3LYP"),
    "r2": Qm9Column("a0^2", 1.0, "electronic spatial extent"),
    "zpve": Qm9Column("eV", HARTREE_EV, "zero-point vibrational energy"),
    "u0": Qm9Column("eV", HARTREE_EV, "internal energy at 0 K"),
    "u298": Qm9Column("eV", HARTREE_EV, "internal energy at 298.15 K"),
    "h298": Qm9Column("eV", HARTREE_EV, "enthalpy at 298.15 K"),
    "g298": Qm9Column("eV", HARTREE_EV, "free energy at 298.15 K"),
    "cv": Qm9Column("cal/(mol K)", 1.0, "heat capacity at 298.15 K"),
    "u0_atom": Qm9Column("kcal/mol", 1.0, "atomisation energy at 0 K"),
    "u298_atom": Qm9Column("kcal/mol", 1.0, "atomisation energy at 298.15 K"),
    "h298_atom": Qm9Column("kcal/mol", 1.0, "atomisation enthalpy at 298.15 K"),
    "g298_atom": Qm9Column("kcal/mol", 1.0, "atomisation free energy at 298.15 K"),
}


@dataclass(frozen=True, slots=True)
class Qm9Table:
    """Properties by ``gdb_id``, and ids by canonical SMILES where a SMILES file was given.

    Attributes
    ----------
    values
        ``gdb_id`` -> column -> value in the unit of :data:`QM9_COLUMNS`.
    by_smiles
        Canonical SMILES -> ``gdb_id``; a SMILES that belongs to two ids is left out.
    smiles
        ``gdb_id`` -> canonical SMILES, empty without a file of SMILES.
    sha256
        Checksums of the files read, in order.
    """

    values: dict[int, dict[str, float]]
    by_smiles: dict[str, int]
    smiles: dict[int, str]
    sha256: tuple[str, ...]

    @classmethod
    def read(cls, properties: Path, molecules: Path | None, columns: Iterable[str]) -> Qm9Table:
        """Read ``columns`` of the properties file, and the SMILES of its ids.

        Raises
        ------
        DatasetError
            A file or a column is missing, or a number is not a number.
        """
        wanted = tuple(columns)
        values: dict[int, dict[str, float]] = {}
        for line, row in _rows(properties, ("gdb_id", *wanted)):
            try:
                values[int(row["gdb_id"])] = {c: float(row[c]) * QM9_COLUMNS[c].factor for c in wanted}
            except (TypeError, ValueError):
                raise DatasetError("not a number", where=f"{properties}:{line}") from None
        written = {} if molecules is None else read_smiles(molecules)
        smiles = {
            i: canonical_smiles(s, f"{molecules}: gdb_id {i}") for i, s in written.items() if i in values
        }
        counts = Counter(smiles.values())
        by_smiles = {s: i for i, s in smiles.items() if counts[s] == 1}
        files = [properties] if molecules is None else [properties, molecules]
        return cls(
            values, by_smiles, smiles, tuple(hashlib.sha256(f.read_bytes()).hexdigest() for f in files)
        )

    def lookup(self, name: str, canonical: str | None) -> dict[str, float] | None:
        """Return the properties of a molecule called ``gdb_123``, else of its canonical SMILES, else None.

        Raises
        ------
        DatasetError
            If the SMILES of that id, where a file of SMILES was given, is another molecule's.
        """
        number = gdb_id(name)
        if number is None and canonical is not None:
            number = self.by_smiles.get(canonical)
        known = None if number is None else self.smiles.get(number)
        if known is not None and canonical is not None and known != canonical:
            raise DatasetError(
                f"its SMILES is {canonical}, but {number} in QM9 is {known}",
                where=name,
                hint="rename the molecule, or leave out qm9: molecules to join by name alone",
            )
        return None if number is None else self.values.get(number)


def gdb_id(name: str) -> int | None:
    """Return the number in a name such as ``gdb_17``, else None."""
    match = _NAME.match(name)
    return int(match.group(1)) if match else None


def read_smiles(path: Path) -> dict[int, str]:
    """Return the SMILES in a file of molecules (``gdb_id, smiles``) as they are written there.

    Raises
    ------
    DatasetError
        A column is missing, or a number is not a number.
    """
    found = {}
    for line, row in _rows(path, ("gdb_id", "smiles")):
        try:
            found[int(row["gdb_id"])] = row["smiles"]
        except (TypeError, ValueError):
            raise DatasetError("not a number", where=f"{path}:{line}") from None
    return found


def _rows(path: Path, needed: tuple[str, ...]) -> Iterable[tuple[int, dict[str, str]]]:
    if not path.is_file():
        raise DatasetError("there is no such file", where=str(path))
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        missing = [c for c in needed if c not in (reader.fieldnames or ())]
        if missing:
            raise DatasetError(f"column {missing[0]!r} is missing", where=f"{path}:1")
        for row in reader:
            yield reader.line_num, row
