"""Which rows are of one molecule: they are never divided between training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.structure import Structure
from htxas.learn.data.chemistry import bonded

__all__ = ["Molecule", "bond_graph", "formula_in", "together"]

_STEREO = frozenset("@/\\")


@dataclass(frozen=True, slots=True, eq=False)
class Molecule:
    """What identifies the molecule or crystal of a row.

    Attributes
    ----------
    key
        Content key of its structure, or of what stands for it.
    smiles
        Canonical SMILES, or None.
    formula
        Reduced formula of a crystal; None of a molecule.
    graph
        :func:`bond_graph` of a molecule that has a structure but no SMILES, or None.
    """

    key: str
    smiles: str | None
    formula: str | None
    graph: str | None = None

    @property
    def name(self) -> str:
        """Its SMILES, or its key; of a crystal with the formula before it."""
        if self.smiles is not None:
            return self.smiles
        return self.key if self.formula is None else f"{self.formula} {self.key}"


def formula_in(group: str) -> str:
    """Return the reduced formula in the name of a group of crystals."""
    return group.split(" ")[0]


def together(molecules: Sequence[Molecule]) -> list[str]:
    """Return the name of the group of each row.

    Rows are of one group if they share a structure, or a SMILES without its stereochemistry (mirror images have the
    same spectrum, and cis and trans nearly so). Where some have no SMILES, also if bonds by distance connect
    the same elements in the same way. A group has the first of its members' names.
    """
    distinct = list({id(m): m for m in molecules}.values())
    mixed = any(m.graph is not None for m in distinct)
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(token: tuple[str, str]) -> tuple[str, str]:
        parents.setdefault(token, token)
        while parents[token] != token:
            parents[token] = token = parents[parents[token]]
        return token

    for molecule in distinct:
        first, *others = _tokens(molecule, mixed)
        for other in others:
            parents[root(other)] = root(first)
    members: dict[tuple[str, str], list[Molecule]] = {}
    for molecule in distinct:
        members.setdefault(root(("key", molecule.key)), []).append(molecule)
    names = {
        at: min((m.smiles for m in found if m.smiles is not None), default=None) or min(m.name for m in found)
        for at, found in members.items()
    }
    return [names[root(("key", m.key))] for m in molecules]


def _tokens(molecule: Molecule, mixed: bool) -> list[tuple[str, str]]:
    found = [("key", molecule.key)]
    if molecule.smiles is not None:
        found.append(("smiles", _plain(molecule.smiles)))
        if mixed:
            found.append(("graph", _graph_of(molecule.smiles)))
    if molecule.graph is not None:
        found.append(("graph", molecule.graph))
    return found


def _plain(smiles: str) -> str:
    """Return a canonical SMILES without stereochemistry."""
    if not _STEREO & set(smiles):
        return smiles
    from rdkit import Chem

    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False))


def _graph_of(smiles: str) -> str:
    from rdkit import Chem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return _hash([a.GetSymbol() for a in molecule.GetAtoms()], Chem.GetAdjacencyMatrix(molecule).astype(bool))


def bond_graph(structure: Structure) -> str:
    """Return a hash of which elements are bonded to which in a molecule, whatever their order and places."""
    return _hash(structure.symbols, bonded(structure))


def _hash(symbols: Sequence[str], adjacent: npt.NDArray[np.bool_]) -> str:
    # Labels of Weisfeiler and Lehman: what two graphs share they share, too; the few others that do not matter.
    neighbours = [np.flatnonzero(row) for row in adjacent]
    labels = list(symbols)
    for _ in range(len(symbols)):
        before = len(set(labels))
        labels = [
            hashlib.sha256("".join([label, *sorted(labels[j] for j in around)]).encode()).hexdigest()[:16]
            for label, around in zip(labels, neighbours, strict=True)
        ]
        if len(set(labels)) == before:
            break
    return hashlib.sha256("".join(sorted(labels)).encode()).hexdigest()[:32]
