"""From a structure to PySCF's molecule, atomic 1s references and Loewdin populations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pyscf import gto
from scipy.linalg import eigh

from htxas.domain.structure import Structure
from htxas.engines.pyscf.parameters import shells
from htxas.errors import Cause, EngineFailure

__all__ = ["build", "core_orbitals", "diffuse", "loewdin_weights"]

FloatArray = npt.NDArray[np.float64]


def build(structure: Structure, ground: Mapping[str, Any]) -> gto.Mole:
    """Return the PySCF molecule with the core basis on the absorbing element and the valence basis elsewhere.

    Raises
    ------
    EngineFailure
        BAD_INPUT if a basis lacks an element.
    """
    basis = {}
    for element in structure.composition:
        name = ground["core_basis"] if element == ground["core_element"] else ground["valence_basis"]
        content = shells(name, element)
        if content is None:
            raise EngineFailure(Cause.BAD_INPUT, f"basis {name} has no functions for {element}")
        basis[element] = [list(shell) for shell in content]
    return gto.M(
        atom=[(s, tuple(r)) for s, r in zip(structure.symbols, structure.positions_A, strict=True)],
        basis=basis,
        unit="Angstrom",
        cart=False,
        verbose=0,
        symmetry=False,
    )


def core_orbitals(
    mol: gto.Mole, overlap: FloatArray, occupied: FloatArray, atoms: tuple[int, ...]
) -> FloatArray:
    """Return localised 1s orbitals of the given atoms, orthonormal, shape (nao, len(atoms)).

    The free-atom 1s of each atom (PySCF's ``minao``) is projected on the occupied orbitals; the projections
    are Loewdin-orthonormalised, so symmetric atoms get equivalent, localised cores without an iteration.

    Parameters
    ----------
    mol, overlap
        Molecule and its overlap matrix.
    occupied
        Occupied ground-state orbitals (nao, nocc).
    atoms
        Canonical atom indices of the absorbing element.
    """
    reference = gto.M(
        atom=[(mol.atom_symbol(a), mol.atom_coord(a)) for a in atoms],
        basis="minao",
        unit="Bohr",
        verbose=0,
        spin=None,
    )
    first = [int(reference.aoslice_by_atom()[k, 2]) for k in range(len(atoms))]
    cross = gto.intor_cross("int1e_ovlp", mol, reference)[:, first]
    projected = occupied @ (occupied.T @ cross)
    gram = projected.T @ overlap @ projected
    values, vectors = np.linalg.eigh(gram)
    return np.asarray(projected @ (vectors / np.sqrt(values)) @ vectors.T)


def loewdin_weights(mol: gto.Mole, overlap: FloatArray, orbitals: FloatArray) -> FloatArray:
    """Return Loewdin populations of orbitals by atom and angular momentum, shape (n, atoms, 3).

    ``w[i, A, l]`` sums ``|(S^1/2 C)_mi|^2`` over the functions m of momentum l on atom A (Loewdin 1950); non-negative,
    and one in total for each orbital.
    """
    values, vectors = eigh(overlap)
    root = (vectors * np.sqrt(values)) @ vectors.T
    squared = (root @ orbitals) ** 2
    weights = np.zeros((orbitals.shape[1], mol.natm, 3))
    position = 0
    for shell in range(mol.nbas):
        momentum = int(mol.bas_angular(shell))
        width = (2 * momentum + 1) * int(mol.bas_nctr(shell))
        weights[:, int(mol.bas_atom(shell)), momentum] += squared[position : position + width].sum(axis=0)
        position += width
    return weights


def diffuse(mol: gto.Mole, atom: int, *, smallest: float, largest: float, ratio: float) -> gto.Mole:
    """Return a molecule that carries only even-tempered s, p and d functions at ``atom``.

    Parameters
    ----------
    mol
        The molecule (geometry only).
    atom
        Canonical index of the absorber.
    smallest, largest, ratio
        Exponents ``smallest * ratio**k`` up to ``largest``, in a0^-2.
    """
    count = int(np.floor(np.log(largest / smallest) / np.log(ratio) + 1e-9)) + 1
    exponents = smallest * ratio ** np.arange(count)
    functions = [[momentum, [float(x), 1.0]] for momentum in (0, 1, 2) for x in exponents]
    return gto.M(
        atom=[("ghost:1", mol.atom_coord(atom))],
        basis={"ghost:1": functions},
        unit="Bohr",
        cart=False,
        verbose=0,
    )
