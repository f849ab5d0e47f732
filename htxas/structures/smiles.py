"""From a SMILES to a three-dimensional start geometry, with RDKit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from htxas.errors import StructureError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["CLOSED_SHELL_ONLY", "Conformer", "Parsed", "broken_bond", "embed", "parse_smiles", "quiet_rdkit"]

Floats = npt.NDArray[np.float64]

CLOSED_SHELL_ONLY = "only neutral closed-shell molecules are computed"
_NO_GEOMETRY = "give a geometry (xyz, SDF) instead"
_STRETCHED = 1.35  # of the sum of covalent radii: beyond it a bond is broken
_TOUCHING = 1.10  # below it two atoms that had no bond have one (1,3 atoms of a cage come down to 1.2)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A SMILES found fit for a geometry.

    Attributes
    ----------
    canonical
        RDKit's canonical isomeric SMILES; equal molecules have equal text however they were written.
    order
        Atom k of the canonical molecule with hydrogens is atom ``order[k]`` of the SMILES as given, hydrogens
        after the heavy atoms, in the order of the atoms that carry them.
    """

    canonical: str
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Conformer:
    """The start geometry.

    Attributes
    ----------
    symbols, positions_A
        Atoms in the order of the canonical SMILES, hydrogens last; positions in Angstrom, shape (n, 3).
    bonds
        Pairs of atom indices.
    index
        Which of the embedded conformers it is.
    force_field
        What ranked them: ``MMFF94``, or ``UFF`` for elements that MMFF94 lacks.
    energy_kcal_mol
        Its force-field energy.
    unspecified_stereo
        Stereo centres and double bonds the SMILES leaves open; the conformer is one of the possible isomers.
    """

    symbols: tuple[str, ...]
    positions_A: Floats
    bonds: tuple[tuple[int, int], ...]
    index: int
    force_field: str
    energy_kcal_mol: float
    unspecified_stereo: int


@contextmanager
def quiet_rdkit() -> Iterator[None]:
    """Keep RDKit from writing to stderr: what it says is raised as an error by the caller."""
    from rdkit import rdBase

    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block


def parse_smiles(smiles: str, *, where: str | None = None) -> Parsed:
    """Check a SMILES and put it in canonical form.

    Raises
    ------
    StructureError
        Not a SMILES, no atoms, a radical, more than one molecule, or a charged molecule: each would need a choice
        (spin state, arrangement, counter-ion) that a SMILES does not make.
    """
    from rdkit import Chem

    with quiet_rdkit():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            raise StructureError(
                f"{smiles!r} is not a valid SMILES", where=where, hint="check valences and rings"
            )
        _refuse_unfit(mol, smiles, where)
        canonical = Chem.MolToSmiles(mol)
        heavy = [int(i) for i in mol.GetProp("_smilesAtomOutputOrder").strip("[],").split(",")]
        again = Chem.AddHs(_parsed_again(canonical))
        return Parsed(canonical, _with_hydrogens(heavy, Chem.AddHs(mol), again))


def _parsed_again(canonical: str) -> Mol:
    from rdkit import Chem

    mol = Chem.MolFromSmiles(canonical)
    if mol is None:
        raise StructureError(f"RDKit cannot read its own SMILES {canonical!r}", hint=_NO_GEOMETRY)
    return mol


def _refuse_unfit(mol: Mol, smiles: str, where: str | None) -> None:
    from rdkit import Chem

    if mol.GetNumAtoms() == 0:
        raise StructureError("an empty SMILES", where=where)
    if any(a.GetAtomicNum() == 0 for a in mol.GetAtoms()):
        raise StructureError(
            f"{smiles!r} has an atom of unknown element", where=where, hint="name every element"
        )
    if len(Chem.GetMolFrags(mol)) > 1:
        raise StructureError(f"{smiles!r} is more than one molecule", where=where, hint=_NO_GEOMETRY)
    if any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()):
        raise StructureError(f"{smiles!r} has unpaired electrons", where=where, hint=CLOSED_SHELL_ONLY)
    charge = Chem.GetFormalCharge(mol)
    if charge:
        raise StructureError(f"{smiles!r} has a charge of {charge:+d}", where=where, hint=CLOSED_SHELL_ONLY)


def _with_hydrogens(heavy: list[int], given: Mol, canonical: Mol) -> tuple[int, ...]:
    """Extend the map of heavy atoms to the hydrogens AddHs appended to both molecules."""

    def appended(mol: Mol, carrier: int) -> list[int]:
        atoms = mol.GetAtomWithIdx(carrier).GetNeighbors()
        return sorted(a.GetIdx() for a in atoms if a.GetIdx() >= len(heavy))

    order = dict(enumerate(heavy))
    for k, atom in enumerate(heavy):
        order.update(zip(appended(canonical, k), appended(given, atom), strict=True))
    return tuple(order[k] for k in range(canonical.GetNumAtoms()))


def embed(canonical: str, *, conformers: int, seed: int, where: str | None = None) -> Conformer:
    """Return the lowest of several ETKDGv3 conformers after force-field relaxation, one thread, fixed seed.

    ETKDGv3: Wang, Witek, Landrum, Riniker, J. Chem. Inf. Model. 60, 2044 (2020).

    Raises
    ------
    StructureError
        No conformer can be embedded, or no force field knows the atoms.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    with quiet_rdkit():
        mol = Chem.AddHs(_parsed_again(canonical))
        settings: Any = rdDistGeom.ETKDGv3()
        settings.randomSeed = seed
        settings.numThreads = 1
        ids = list(rdDistGeom.EmbedMultipleConfs(mol, conformers, settings))
        if not ids:
            raise StructureError(
                f"no conformer of {canonical!r} can be embedded", where=where, hint=_NO_GEOMETRY
            )
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            force_field = "MMFF94"
            results = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, numThreads=1, maxIters=5000)
        elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
            force_field = "UFF"
            results = rdForceFieldHelpers.UFFOptimizeMoleculeConfs(mol, numThreads=1, maxIters=5000)
        else:
            raise StructureError(
                f"no force field knows all atoms of {canonical!r}", where=where, hint=_NO_GEOMETRY
            )
        # to 1e-3 kcal/mol, so that mirror images do not swap places on another machine
        best = min(range(len(ids)), key=lambda k: (round(results[k][1], 3), k))
        conformer = mol.GetConformer(ids[best])
        open_stereo = Chem.FindPotentialStereo(mol)
        return Conformer(
            symbols=tuple(a.GetSymbol() for a in mol.GetAtoms()),
            positions_A=np.array(conformer.GetPositions(), dtype=np.float64),
            bonds=tuple((b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()),
            index=best,
            force_field=force_field,
            energy_kcal_mol=float(results[best][1]),
            unspecified_stereo=sum(s.specified == Chem.StereoSpecified.Unspecified for s in open_stereo),
        )


def broken_bond(
    symbols: tuple[str, ...], positions_A: Floats, bonds: tuple[tuple[int, int], ...]
) -> str | None:
    """Say how the atoms no longer are the molecule the bonds describe, or None if they are.

    A bond is broken beyond 1.35 times the sum of covalent radii (Cordero et al., Dalton Trans. 2832 (2008));
    a new one is made below 1.10 times.
    """
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    radius = np.array([table.GetRcovalent(s) for s in symbols])
    reach = radius[:, None] + radius[None]
    ratio = np.linalg.norm(positions_A[:, None] - positions_A[None], axis=-1) / reach
    bonded = np.zeros(ratio.shape, dtype=bool)
    for i, j in bonds:
        bonded[i, j] = bonded[j, i] = True
    np.fill_diagonal(ratio, np.nan)
    broken, formed = bonded & (ratio > _STRETCHED), ~bonded & (ratio < _TOUCHING)
    for wrong, verb in ((broken, "has broken"), (formed, "has formed")):
        if wrong.any():
            i, j = divmod(int(wrong.argmax()), len(symbols))
            return f"the bond {symbols[i]}{i}-{symbols[j]}{j} {verb}"
    return None
