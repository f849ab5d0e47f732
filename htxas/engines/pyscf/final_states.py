"""Final states of the transition potential in a basis with diffuse functions on the absorber.

The self-consistent basis is kept small; the converged potential is then diagonalised once in that basis plus a large
even-tempered set on the absorber (double-basis technique: Agren, Carravetta, Vahtras, Pettersson, Theor. Chem. Acc. 97,
14 (1997)). States above the ionisation energy are a discretised continuum: with the default set (ratio 1.5) spectra
broadened by 0.5 eV no longer change up to about 5 eV above it; further up, the lines move with the set and mean nothing
one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyscf import df, gto
from pyscf.x2c.sfx2c1e import SpinFreeX2CHelper
from scipy.linalg import eigh

from htxas.engines.pyscf.corehole import HoleState
from htxas.engines.pyscf.ground import GroundState
from htxas.engines.pyscf.molecule import diffuse
from htxas.engines.pyscf.scf import Hamiltonian

__all__ = ["FinalStates", "compute"]

FloatArray = npt.NDArray[np.float64]
_DEPENDENT = 1e-6  # overlap eigenvalues below this are linear dependencies of the enlarged basis


@dataclass(frozen=True, slots=True, eq=False)
class FinalStates:
    """Empty orbitals of the transition potential.

    Attributes
    ----------
    levels
        Orbital energies in Hartree relative to vacuum, shape (n,), ascending.
    dipoles
        Dipole matrix elements with the 1s of the site, shape (n, 3), atomic units.
    orbitals
        Their coefficients on the SCF basis followed by the diffuse functions, shape (nao + n_diffuse, n).
    overlap
        Overlap matrix of that enlarged basis.
    """

    levels: FloatArray
    dipoles: FloatArray
    orbitals: FloatArray
    overlap: FloatArray


def compute(ground: GroundState, half: HoleState, atom: int, parameters: Mapping[str, Any]) -> FinalStates:
    """Diagonalise the transition potential in the enlarged basis.

    Parameters
    ----------
    ground
        Ground state (integrals and grid).
    half
        Converged transition potential.
    atom
        Canonical index of the absorber.
    parameters
        ``diffuse_*`` of :class:`~htxas.engines.pyscf.parameters.Hole`.
    """
    hamiltonian = ground.hamiltonian
    extra = diffuse(
        hamiltonian.mol,
        atom,
        smallest=parameters["diffuse_smallest"],
        largest=parameters["diffuse_largest"],
        ratio=parameters["diffuse_ratio"],
    )
    both = hamiltonian.mol + extra
    overlap = np.asarray(both.intor_symmetric("int1e_ovlp"))
    fock = _fock(hamiltonian, half, extra, both)
    values, vectors = eigh(overlap)
    keep = values > _DEPENDENT
    basis = vectors[:, keep] / np.sqrt(values[keep])
    levels, orbitals = eigh(basis.T @ fock @ basis)
    orbitals = basis @ orbitals

    core_index = half.hole
    core = np.zeros(both.nao)
    core[: hamiltonian.mol.nao] = half.state.orbitals[0][:, core_index]
    n = ground.n_occupied
    empty = orbitals[:, n:]
    with both.with_common_origin(both.atom_coord(atom)):
        r = both.intor_symmetric("int1e_r", comp=3)
    dipoles = np.einsum("xij,i,jf->fx", r, core, empty)
    return FinalStates(levels[n:], dipoles, empty, overlap)


def _fock(hamiltonian: Hamiltonian, half: HoleState, extra: gto.Mole, both: gto.Mole) -> FloatArray:
    n, m = hamiltonian.mol.nao, extra.nao
    scaled = half.state.scaled()
    density = half.state.density()[0]
    _, derivative = hamiltonian.grid.potential(hamiltonian.grid.density(scaled))
    fock = np.asarray(SpinFreeX2CHelper(both).get_hcore())
    fock[:n, :n] += hamiltonian.coulomb(density) + hamiltonian.grid.matrix(derivative)[0]
    strip = _coulomb_strip(hamiltonian, density, both, n) + hamiltonian.grid.extension(derivative, extra)
    fock[n:, :n] += strip[:, :n]
    fock[:n, n:] += strip[:, :n].T
    fock[n:, n:] += 0.5 * (strip[:, n:] + strip[:, n:].T)
    assert fock.shape == (n + m, n + m)
    return fock


def _coulomb_strip(hamiltonian: Hamiltonian, density: FloatArray, both: gto.Mole, n: int) -> FloatArray:
    """Coulomb potential between the diffuse and all functions from the fitted density, (n_extra, nao + n_extra)."""
    charge = hamiltonian.fitted_charge(density)
    auxmol = hamiltonian.fit.auxmol
    first_shell, shells = hamiltonian.mol.nbas, both.nbas
    out = np.zeros((both.nao - n, both.nao))
    for first in range(0, auxmol.nbas, 64):  # in pieces: the whole tensor would not fit for large molecules
        last = min(first + 64, auxmol.nbas)
        integrals = df.incore.aux_e2(
            both, auxmol, "int3c2e", aosym="s1", shls_slice=(first_shell, shells, 0, shells, first, last)
        )
        out += integrals @ charge[auxmol.ao_loc[first] : auxmol.ao_loc[last]]
    return out
