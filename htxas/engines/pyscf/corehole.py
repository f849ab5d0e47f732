"""Core-hole states of one site: transition potential, ion, core-excited neutral.

The hole is followed by overlap: in every cycle it is put into the orbital that overlaps most with the localised 1s
of the site (maximum-overlap method, Gilbert, Besley, Gill, J. Phys. Chem. A 112, 13164 (2008), with a fixed reference).
The other electrons fill the lowest orbitals. That can fail in two ways where the hole brings lone pairs to one level:
the cycles slosh without end, or they converge on a shake-up state, with an electron moved between lone pairs and
an energy several eV off. So every state is compared with the orbitals it started from, and where electrons have left
their space, the whole space is followed by overlap instead. A state that cannot be kept is a failure, never a result.

Corrections help only the state that fails: each is iterated plainly first, and if it converges that is the answer,
whatever aids the attempt has. So no correction can move a state that the plain iteration finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.engines.pyscf.ground import GroundState
from htxas.engines.pyscf.scf import PLAIN, Aids, At, Helped, KohnSham, Occupy, helped, plainly, solve

__all__ = ["HoleState", "excited_neutral", "ion", "transition_potential"]

FloatArray = npt.NDArray[np.float64]
_CYCLES_BEFORE_FOLLOWING = 30  # three times what a well-behaved state takes
_LEAST_OVERLAP = 0.8  # as the gate has it: a hole that is elsewhere
_MOST_ELECTRONS_LOST = 0.4  # seen: at most 0.28 in sound states, at least 0.54 in shake-up states


@dataclass(frozen=True, slots=True, eq=False)
class HoleState:
    """A state with a core hole.

    Attributes
    ----------
    state
        The Kohn-Sham state.
    hole
        Index of the hole orbital in its channel (channel 0 of one, channel 1 of two).
    overlap
        |<hole|localised 1s of the site>|.
    followed
        Whether all occupied orbitals were followed by overlap because filling the lowest failed.
    electrons_lost
        Electrons that have left the space of the reference orbitals, the larger of the two spins: relaxation alone
        costs up to 0.3, a shake-up state 0.5 or more.
    ends
        Last energies of the phases (``lowest``, ``follow``) it took, Hartree.
    helped
        If the plain iteration failed and aids found the state: how that ended.
    """

    state: KohnSham
    hole: int
    overlap: float
    followed: bool = False
    electrons_lost: float = 0.0
    ends: Mapping[str, float] = field(default_factory=dict)
    helped: Helped | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the state still is the one it was started as."""
        return self.electrons_lost <= _MOST_ELECTRONS_LOST

    @property
    def needs_help(self) -> bool:
        """Whether aids may be tried: it did not converge, or lost its hole. A shake-up state is refused, not shaken."""
        return not self.state.converged or self.overlap < _LEAST_OVERLAP


def _with_help(iterate: Callable[[Aids, str], HoleState], aids: Aids) -> HoleState:
    """Iterate plainly, and once more with ``aids`` only if that failed; ``iterate`` takes aids and a prefix of phases.

    Where neither leads anywhere, what the plain iteration had converged on is returned, for the gate to judge.
    """
    plain = iterate(PLAIN, "")
    if not (plain.needs_help and aids.any):
        return plain
    found = iterate(aids, "aided ")
    if plain.state.converged and (found.needs_help or not found.is_kept):
        return plain
    # To be patient in the first of two phases is another way: the plain iteration would go on to the second.
    last_phase = found.followed or "follow" not in plain.ends
    same_way = aids.only_longer and last_phase and not plain.state.converged
    return replace(found, helped=helped(plain.state, plain.ends, found.state, same_way=same_way))


def _find(orbitals: FloatArray, target: FloatArray) -> tuple[int, float]:
    overlaps = np.abs(target @ orbitals)
    index = int(overlaps.argmax())
    return index, float(overlaps[index])


def _settings(ground: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "energy_tolerance": ground["energy_tolerance_Ha"],
        "gradient_tolerance": ground["gradient_tolerance_Ha"],
        "max_cycles": ground["max_cycles"],
    }


def transition_potential(
    ground: GroundState,
    site: int,
    parameters: Mapping[str, Any],
    *,
    aids: Aids = PLAIN,
    at: At = plainly,
) -> HoleState:
    """Half a hole: closed shell with 1.5 electrons in the 1s of the site.

    Transition-potential method: Triguero, Pettersson, Agren, Phys. Rev. B 58, 8097 (1998).

    Parameters
    ----------
    ground
        Ground state.
    site
        Position of the absorber in ``ground.core_atoms``.
    parameters
        Ground-state parameters (SCF limits).
    aids
        Of a correction; used only if the plain iteration fails.
    at
        Of an attempt that was cut short.
    """
    core = ground.cores[:, site]
    target = core @ ground.hamiltonian.overlap
    n = ground.n_occupied

    def occupy(orbitals: Sequence[FloatArray]) -> list[FloatArray]:
        hole, _ = _find(orbitals[0], target)
        others = [i for i in range(n + 1) if i != hole][: n - 1]
        occupations = np.zeros(orbitals[0].shape[1])
        occupations[others] = 2.0
        occupations[hole] = 1.5
        return [occupations]

    occupied = ground.state.orbitals[0][:, :n]
    rest = _without(occupied, core, ground.hamiltonian.overlap)
    start = np.column_stack([rest * np.sqrt(2.0), core * np.sqrt(1.5)])
    # only its potential is used, never its energy
    settings = _settings(parameters)

    def iterate(given: Aids, prefix: str) -> HoleState:
        given = at(given, f"{prefix}lowest")
        state = solve(ground.hamiltonian, [start], occupy, precise_energy=False, aids=given, **settings)
        return HoleState(state, *_find(state.orbitals[0], target), ends={"lowest": state.energy})

    return _with_help(iterate, aids)


def _without(occupied: FloatArray, core: FloatArray, overlap: FloatArray) -> FloatArray:
    """Return an orthonormal basis of the occupied space without ``core``."""
    inside = occupied.T @ overlap @ core
    complement = np.linalg.svd(inside[:, None], full_matrices=True)[0][:, 1:]
    return np.asarray(occupied @ complement)


def _unrestricted(core_target: FloatArray, n_alpha: int, n_beta: int) -> Occupy:
    def occupy(orbitals: Sequence[FloatArray]) -> list[FloatArray]:
        alpha = np.zeros(orbitals[0].shape[1])
        alpha[:n_alpha] = 1.0
        beta = np.zeros(orbitals[1].shape[1])
        hole, _ = _find(orbitals[1], core_target)
        filled = [i for i in range(n_beta + 1) if i != hole][:n_beta]
        beta[filled] = 1.0
        return [alpha, beta]

    return occupy


def _follow(start: Sequence[FloatArray], overlap: FloatArray, core_target: FloatArray) -> Occupy:
    """Occupy, beside the hole, the orbitals that lie most in the space of the starting ones."""
    references = [c.T @ overlap for c in start]

    def occupy(orbitals: Sequence[FloatArray]) -> list[FloatArray]:
        out = []
        for channel, (c, reference) in enumerate(zip(orbitals, references, strict=True)):
            share = ((reference @ c) ** 2).sum(axis=0)
            if channel == 1:
                share[_find(c, core_target)[0]] = -1.0
            occupations = np.zeros(c.shape[1])
            occupations[np.argsort(-share)[: len(reference)]] = 1.0
            out.append(occupations)
        return out

    return occupy


def _relax(
    ground: GroundState,
    start: Sequence[FloatArray],
    occupy: Occupy,
    core_target: FloatArray,
    parameters: Mapping[str, Any],
    *,
    reference: Sequence[FloatArray],
    aids: Aids,
    at: At,
) -> HoleState:
    settings = _settings(parameters)
    first_try = {**settings, "max_cycles": min(settings["max_cycles"], _CYCLES_BEFORE_FOLLOWING)}
    overlap = ground.hamiltonian.overlap
    follow = _follow(start, overlap, core_target)

    def begin(given: Aids, phase: str) -> Aids:
        given = at(given, phase)
        if given.begin is not None and _lost(given.begin, reference, overlap) > _MOST_ELECTRONS_LOST:
            return replace(
                given, begin=None
            )  # the attempt that was cut short was on its way to another state
        return given

    def iterate(given: Aids, prefix: str) -> HoleState:
        ends: dict[str, float] = {}

        def finish(state: KohnSham, *, followed: bool) -> HoleState:
            ends["follow" if followed else "lowest"] = state.energy
            lost = _electrons_lost(state, reference, overlap)
            return HoleState(state, *_find(state.orbitals[1], core_target), followed, lost, ends)

        following = begin(given, f"{prefix}follow")
        if not given.follow and following.begin is None:  # else the first phase is known to fail
            lowest = begin(given, f"{prefix}lowest")
            state = finish(solve(ground.hamiltonian, start, occupy, aids=lowest, **first_try), followed=False)
            if state.state.converged and state.is_kept:
                return state
        return finish(solve(ground.hamiltonian, start, follow, aids=following, **settings), followed=True)

    return _with_help(iterate, aids)


def _electrons_lost(state: KohnSham, reference: Sequence[FloatArray], overlap: FloatArray) -> float:
    """Return the electrons of ``reference`` that have left its space, the larger of the two spins."""
    return _lost(state.scaled(), reference, overlap)


def _lost(occupied: Sequence[FloatArray], reference: Sequence[FloatArray], overlap: FloatArray) -> float:
    """Return ``max over spins of n - sum |<reference_i|occupied_j>|^2`` for orthonormal reference orbitals."""
    return max(
        float(r.shape[1] - ((r.T @ overlap @ c) ** 2).sum()) for r, c in zip(reference, occupied, strict=True)
    )


def ion(
    ground: GroundState,
    half: HoleState,
    site: int,
    parameters: Mapping[str, Any],
    *,
    aids: Aids = PLAIN,
    at: At = plainly,
) -> HoleState:
    """Full hole: unrestricted ion with the beta 1s of the site empty, started from the half-hole orbitals."""
    core = ground.cores[:, site]
    target = core @ ground.hamiltonian.overlap
    n = ground.n_occupied
    orbitals = half.state.orbitals[0]
    occupied = [i for i in range(orbitals.shape[1]) if half.state.occupations[0][i] > 0]
    start = [orbitals[:, occupied], orbitals[:, [i for i in occupied if i != half.hole]]]
    occupy = _unrestricted(target, n, n - 1)
    return _relax(ground, start, occupy, target, parameters, reference=start, aids=aids, at=at)


def excited_neutral(
    ground: GroundState,
    cation: HoleState,
    site: int,
    parameters: Mapping[str, Any],
    *,
    triplet: bool,
    aids: Aids = PLAIN,
    at: At = plainly,
) -> HoleState:
    """Core-excited neutral: the ion with one more electron in its lowest empty orbital.

    Parameters
    ----------
    ground, site, parameters, aids, at
        As for :func:`ion`.
    cation
        The ion; its density starts the iteration.
    triplet
        True: the electron has alpha spin (M_S = 1). False: beta spin, the mixed M_S = 0 determinant.
    """
    core = ground.cores[:, site]
    target = core @ ground.hamiltonian.overlap
    n = ground.n_occupied
    occupy = _unrestricted(target, n + 1, n - 1) if triplet else _unrestricted(target, n, n)
    occupations = occupy(cation.state.orbitals)
    start = [c[:, o > 0] for c, o in zip(cation.state.orbitals, occupations, strict=True)]
    # the excited electron may go where it likes; the ion beneath it must stay
    reference = cation.state.scaled()
    return _relax(ground, start, occupy, target, parameters, reference=reference, aids=aids, at=at)
