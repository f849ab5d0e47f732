"""Self-consistency for any occupation: closed shell, transition potential, ion, excited neutral."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyscf import df, gto, lib
from pyscf.scf import diis
from pyscf.x2c.sfx2c1e import SpinFreeX2CHelper
from scipy.linalg import cholesky, eigh, solve_triangular

from htxas.domain.units import HARTREE_EV
from htxas.engines.pyscf.xcgrid import XCGrid

__all__ = ["PLAIN", "Aids", "At", "Hamiltonian", "Helped", "KohnSham", "Occupy", "helped", "plainly", "solve"]

FloatArray = npt.NDArray[np.float64]
_FIT_MB, _GRID_MB = 4000.0, 1500.0  # of the fitting tensor in memory and of basis functions on the grid
_FIT_SHARE, _GRID_SHARE = 0.65, 0.25  # where it is known what there is; the rest is for all else
_SAME_STATE_HA = 0.010 / HARTREE_EV
_DAMP_ABOVE = 0.01  # Hartree of gradient; below it, extrapolation alone is faster and as safe
Occupy = Callable[[Sequence[FloatArray]], list[FloatArray]]
"""Molecular orbitals of each channel -> occupations of each channel (chosen by overlap, not only by energy)."""


@dataclass(frozen=True, slots=True, eq=False)
class Aids:
    """Ways to a self-consistent density that the plain iteration does not reach; none of them is in the result.

    They are for a state whose plain iteration has failed, never for another: see :class:`Helped`. The gradient that
    decides on convergence is that of the bare Fock matrix. Once it is small, the aids are taken away, and the plain
    iteration must converge, by the same thresholds, from the density found. Only that is a result.

    Attributes
    ----------
    level_shift_Ha
        Added to the empty levels (Saunders, Hillier, Int. J. Quantum Chem. 7, 699 (1973)), which makes the steps small.
    damping
        Share of the last Fock matrix in the next one, as long as the density is far from its goal.
    diis_space
        Fock matrices that Pulay's extrapolation remembers.
    cycles_factor
        Times the limit of cycles.
    follow
        Occupy core-hole states by overlap with their first orbitals from the start, not only when all else failed.
    begin
        Scaled orbitals of each channel to start from, of an attempt that was cut short.
    watch
        Called with the scaled orbitals of every cycle, to keep them for another attempt.
    """

    level_shift_Ha: float = 0.0
    damping: float = 0.0
    diis_space: int = 8
    cycles_factor: float = 1.0
    follow: bool = False
    begin: Sequence[FloatArray] | None = None
    watch: Callable[[Sequence[FloatArray]], None] | None = None

    @property
    def alter_steps(self) -> bool:
        """Whether the Fock matrix that is diagonalised is not the bare or extrapolated one."""
        return self.level_shift_Ha > 0 or self.damping > 0

    @property
    def any(self) -> bool:
        """Whether there is anything to try that the plain iteration has not."""
        return self.cycles_factor != 1.0 or not self.only_longer

    @property
    def only_longer(self) -> bool:
        """Whether the iteration is the plain one, cycle by cycle, with another limit at most."""
        return not (self.alter_steps or self.follow or self.diis_space != 8)


PLAIN = Aids()
At = Callable[[Aids, str], Aids]
"""Gives the aids of a phase of a state what is known of an attempt cut short in it, and who watches it."""


def plainly(aids: Aids, _phase: str) -> Aids:
    """Start at the beginning; nobody watches."""
    return aids


@dataclass(frozen=True, slots=True)
class Helped:
    """How the plain iteration of a state ended that was then found with aids.

    Attributes
    ----------
    plain_Ha
        Its last total energies in Hartree, by phase.
    plain_cycles, plain_gradient_Ha
        Its cycles and its gradient at the end, of the last phase.
    another_state
        Whether the state found with aids may be another than the one the plain iteration was on its way to: its
        energy is more than 10 meV from all of ``plain_Ha``, and it was not found by mere patience.
    """

    plain_Ha: Mapping[str, float]
    plain_cycles: int
    plain_gradient_Ha: float
    another_state: bool

    def told(self, energy_Ha: float) -> dict[str, Any]:
        """Return what provenance tells, with the energy of the state found."""
        return {
            "eV": energy_Ha * HARTREE_EV,
            "plain_eV": {phase: e * HARTREE_EV for phase, e in self.plain_Ha.items()},
            "plain_cycles": self.plain_cycles,
            "plain_gradient_Ha": self.plain_gradient_Ha,
            "another_state": self.another_state,
        }


def helped(plain: KohnSham, ends: Mapping[str, float], found: KohnSham, *, same_way: bool) -> Helped:
    """Compare a state with the plain iteration that did not reach it.

    Parameters
    ----------
    plain, ends
        Where that ended: the last state, and the last energies by phase.
    found
        The state found with aids.
    same_way
        Whether it was found by the same iteration, gone on with for longer.
    """
    far = all(abs(found.energy - energy) > _SAME_STATE_HA for energy in ends.values())
    return Helped(dict(ends), plain.cycles, plain.gradient, far and not same_way)


class Hamiltonian:
    """All that the states of a molecule share: integrals, density-fitting tensor, grid.

    Parameters
    ----------
    mol
        PySCF molecule.
    xc, grid_level
        See :class:`~htxas.engines.pyscf.xcgrid.XCGrid`.
    auxiliary
        Coulomb-fitting basis.
    memory_MB
        What the process may use; beyond it, integrals go to disk and functions on the grid are evaluated anew.
        None: not known.
    """

    def __init__(
        self, mol: gto.Mole, *, xc: str, grid_level: int, auxiliary: str, memory_MB: float | None = None
    ) -> None:
        self.mol = mol
        self.overlap: FloatArray = mol.intor_symmetric("int1e_ovlp")
        self.core: FloatArray = SpinFreeX2CHelper(mol).get_hcore()
        self.nuclear: float = float(mol.energy_nuc())
        self.fit = df.DF(mol, auxbasis=auxiliary)
        self.fit.max_memory = _FIT_MB if memory_MB is None else _FIT_SHARE * memory_MB
        self.fit.build()
        cache_MB = _GRID_MB if memory_MB is None else _GRID_SHARE * memory_MB
        self.grid = XCGrid(mol, xc, grid_level, max_cache_bytes=cache_MB * 1e6)

    def coulomb(self, density: FloatArray) -> FloatArray:
        """Return the Coulomb matrix (nao, nao) of a total density matrix."""
        return np.asarray(self.fit.get_jk(density, with_k=False)[0])

    def fitted_charge(self, density: FloatArray) -> FloatArray:
        """Return the fitting coefficients c_P of a density, so that ``J_mn = sum_P (mn|P) c_P``; shape (naux,).

        PySCF keeps ``B = L^-1 (P|mn)`` with the Cholesky factor L of the Coulomb metric, hence ``c = L^-T B D``.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the fitting basis is linearly dependent (PySCF then keeps another factor).
        """
        factor = cholesky(self.fit.auxmol.intor_symmetric("int2c2e"), lower=True)
        packed = lib.pack_tril(density * 2 - np.diag(np.diag(density)))
        projected = np.concatenate([block @ packed for block in self.fit.loop()])
        return np.asarray(solve_triangular(factor, projected, lower=True, trans="T"))


@dataclass(frozen=True, slots=True, eq=False)
class KohnSham:
    """A self-consistent state.

    Attributes
    ----------
    energy
        Total energy in Hartree (functional evaluated in double precision).
    orbitals, levels, occupations
        Per channel: (nao, n) coefficients, (n,) eigenvalues in Hartree, (n,) occupations. One channel: closed
        shell, two electrons an orbital; two channels: alpha, beta.
    converged
        Whether both energy and gradient criteria were met.
    cycles
        SCF cycles used.
    gradient
        Largest element of the orbital gradient at the end, Hartree.
    """

    energy: float
    orbitals: tuple[FloatArray, ...]
    levels: tuple[FloatArray, ...]
    occupations: tuple[FloatArray, ...]
    converged: bool
    cycles: int
    gradient: float

    def scaled(self) -> list[FloatArray]:
        """Orbitals times the square root of their occupation, occupied ones only."""
        return [c[:, n > 0] * np.sqrt(n[n > 0]) for c, n in zip(self.orbitals, self.occupations, strict=True)]

    def density(self) -> list[FloatArray]:
        """Density matrix of each channel."""
        return [c @ c.T for c in self.scaled()]


def solve(
    hamiltonian: Hamiltonian,
    start: Sequence[FloatArray],
    occupy: Occupy,
    *,
    energy_tolerance: float = 1e-6,
    gradient_tolerance: float = 5e-4,
    max_cycles: int = 60,
    precise_energy: bool = True,
    aids: Aids = PLAIN,
) -> KohnSham:
    """Iterate to self-consistency with Pulay's DIIS.

    Parameters
    ----------
    hamiltonian
        Integrals and grid.
    start
        Per channel: scaled orbitals (nao, n) whose density starts the iteration.
    occupy
        Chooses occupations for new orbitals.
    energy_tolerance, gradient_tolerance
        Convergence in Hartree.
    max_cycles
        Limit; the state returned then has ``converged=False``.
    precise_energy
        Evaluate the functional once more in double precision for the returned energy. Without it the energy is that
        of the last cycle.
    aids
        Help on the way; taken away before the end.
    """
    h, s = hamiltonian.core, hamiltonian.overlap
    channels = len(start)
    scaled = [np.asarray(c) for c in (start if aids.begin is None else aids.begin)]
    pulay = _pulay(aids)
    helped, before = aids.alter_steps, None
    previous = np.inf
    orthonormal = _orthonormal(s)
    state: KohnSham | None = None
    for cycle in range(1, round(max_cycles * aids.cycles_factor) + 1):
        densities = [c @ c.T for c in scaled]
        total = np.asarray(sum(densities))
        coulomb = hamiltonian.coulomb(total)
        exc, derivative = hamiltonian.grid.potential(hamiltonian.grid.density(scaled))
        matrices = hamiltonian.grid.matrix(derivative)
        fock = [h + coulomb + v for v in matrices]
        energy = float(np.vdot(total, h) + 0.5 * np.vdot(total, coulomb) + exc + hamiltonian.nuclear)
        errors = [
            orthonormal.T @ (f @ d @ s - s @ d @ f) @ orthonormal
            for f, d in zip(fock, densities, strict=True)
        ]
        gradient = max(float(np.abs(e).max()) for e in errors)
        done = (
            state is not None and abs(energy - previous) < energy_tolerance and gradient < gradient_tolerance
        )
        previous = energy
        if done and helped:
            done = helped = False
            pulay, previous = _pulay(aids), np.inf
        if not done:
            if helped and before is not None and gradient > _DAMP_ABOVE:
                fock = [(1 - aids.damping) * f + aids.damping * b for f, b in zip(fock, before, strict=True)]
            before = fock
            stacked = np.asarray(fock)
            pulay_input = stacked if channels == 2 else stacked[0]
            mixed = pulay.update(
                s if channels == 1 else np.asarray([s, s]),
                np.asarray(densities) if channels == 2 else densities[0],
                pulay_input,
            )
            fock = list(mixed) if channels == 2 else [mixed]
        if helped and state is not None:
            fock = [f + aids.level_shift_Ha * _empty(s, c, n) for f, c, n in _channels(fock, state)]
        levels, orbitals = zip(*(_diagonalise(f, orthonormal) for f in fock), strict=True)
        occupations = occupy(orbitals)
        state = KohnSham(energy, orbitals, levels, tuple(occupations), done, cycle, gradient)
        if done:
            break
        scaled = state.scaled()
        if aids.watch is not None:
            aids.watch(scaled)
    assert state is not None
    return _with_precise_energy(hamiltonian, state) if precise_energy else state


def _pulay(aids: Aids) -> diis.CDIIS:
    pulay = diis.CDIIS()
    pulay.space = aids.diis_space
    return pulay


def _channels(
    fock: Sequence[FloatArray], state: KohnSham
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    return zip(fock, state.orbitals, state.occupations, strict=True)


def _empty(overlap: FloatArray, orbitals: FloatArray, occupations: FloatArray) -> FloatArray:
    """Return the projector on what is not occupied, as a matrix between basis functions: ``S - S C C^T S``."""
    inside = overlap @ orbitals[:, occupations > 0]
    return np.asarray(overlap - inside @ inside.T)


def _with_precise_energy(hamiltonian: Hamiltonian, state: KohnSham) -> KohnSham:
    scaled = state.scaled()
    total = np.asarray(sum(c @ c.T for c in scaled))
    energy = float(
        np.vdot(total, hamiltonian.core)
        + 0.5 * np.vdot(total, hamiltonian.coulomb(total))
        + hamiltonian.grid.energy(scaled)
        + hamiltonian.nuclear
    )
    return KohnSham(
        energy, state.orbitals, state.levels, state.occupations, state.converged, state.cycles, state.gradient
    )


def _orthonormal(overlap: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(overlap)
    keep = values > 1e-8
    return np.asarray(vectors[:, keep] / np.sqrt(values[keep]))


def _diagonalise(fock: FloatArray, orthonormal: FloatArray) -> tuple[FloatArray, FloatArray]:
    levels, vectors = eigh(orthonormal.T @ fock @ orthonormal)
    return levels, orthonormal @ vectors
