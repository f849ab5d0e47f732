"""Small chemistry on compositions, SMILES and structures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.structure import Structure
from htxas.errors import DatasetError

__all__ = [
    "bonded",
    "canonical_smiles",
    "composition_of",
    "elements_of",
    "molecular_weight",
    "parse_formula",
    "reduced_formula",
    "sp3_ratio",
]

_FORMULA = re.compile(r"([A-Z][a-z]?)(\d*)")
_BOND_SCALE = 1.25  # bonded if closer than this times the sum of covalent radii


def canonical_smiles(smiles: str, where: str | None = None) -> str:
    """Return RDKit's canonical isomeric SMILES.

    Raises
    ------
    DatasetError
        If it cannot be read.
    """
    from rdkit import Chem

    return str(Chem.MolToSmiles(_read(smiles, where)))


def _read(smiles: str, where: str | None) -> Any:
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise DatasetError(f"{smiles!r} is not a SMILES RDKit can read", where=where)
    return molecule


def composition_of(smiles: str, where: str | None = None) -> dict[str, int]:
    """Return atoms per element of a molecule, with the hydrogens that its SMILES leaves out, counted by RDKit.

    Raises
    ------
    DatasetError
        If it cannot be read.
    """
    molecule = _read(smiles, where)
    counts = Counter(atom.GetSymbol() for atom in molecule.GetAtoms())
    counts["H"] += sum(atom.GetTotalNumHs() for atom in molecule.GetAtoms())
    return {symbol: n for symbol, n in sorted(counts.items()) if n}


def molecular_weight(composition: Mapping[str, int]) -> float:
    """Return the molecular weight in Da: RDKit's standard atomic weights added up."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    return float(sum(n * table.GetAtomicWeight(symbol) for symbol, n in composition.items()))


def sp3_ratio(
    smiles: str | None, composition: Mapping[str, int], structure: Structure | None, where: str | None = None
) -> tuple[float, str]:
    """Return sp3 carbons / carbons, and what it was taken from.

    With a SMILES: RDKit's hybridisation, ``"smiles"``. Without: carbons with four neighbours, ``"coordination"``.

    Raises
    ------
    DatasetError
        Without carbon, or without both SMILES and structure.
    """
    from rdkit import Chem

    carbons = composition.get("C", 0)
    if not carbons:
        raise DatasetError("sp3_ratio needs carbon", where=where)
    if smiles is None:
        if structure is None:
            raise DatasetError("sp3_ratio needs a SMILES or a structure", where=where)
        neighbours = bonded(structure).sum(axis=1)
        return sum(int(neighbours[i]) == 4 for i in structure.indices_of("C")) / carbons, "coordination"
    molecule = _read(smiles, where)
    kinds = [a.GetHybridization() for a in molecule.GetAtoms() if a.GetAtomicNum() == 6]
    if len(kinds) != carbons:
        raise DatasetError(f"SMILES {smiles} has {len(kinds)} carbons, the structure {carbons}", where=where)
    return sum(k == Chem.HybridizationType.SP3 for k in kinds) / len(kinds), "smiles"


def bonded(structure: Structure) -> npt.NDArray[np.bool_]:
    """Return which atoms of a molecule are bonded, by covalent radii, shape (n, n)."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(s) for s in structure.symbols])
    distance_A = np.linalg.norm(structure.positions_A[:, None] - structure.positions_A[None], axis=-1)
    found: npt.NDArray[np.bool_] = distance_A < _BOND_SCALE * (radii[:, None] + radii[None])
    np.fill_diagonal(found, False)
    return found


def parse_formula(text: str, where: str | None = None) -> dict[str, int]:
    """Return atoms per element of a formula such as ``C2H6O``.

    Raises
    ------
    DatasetError
        If it is not a formula.
    """
    counts: dict[str, int] = {}
    parts = _FORMULA.findall(text)
    if not parts or "".join(symbol + number for symbol, number in parts) != text:
        raise DatasetError(f"{text!r} is not a formula such as C2H6O", where=where)
    for symbol, number in parts:
        counts[symbol] = counts.get(symbol, 0) + int(number or 1)
    return dict(sorted(counts.items()))


def elements_of(formula: str) -> str:
    """Return the elements of a formula, sorted: Cu2O is ``Cu-O``."""
    return "-".join(parse_formula(formula))


def reduced_formula(composition: Mapping[str, int]) -> str:
    """Return a composition divided by what its numbers have in common, by symbol: Cu4O4 is ``CuO``."""
    common = gcd(*composition.values())
    parts = ((e, n // common) for e, n in sorted(composition.items()))
    return "".join(e + (str(n) if n > 1 else "") for e, n in parts)
