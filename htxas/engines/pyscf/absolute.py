"""Absolute energies and oscillator strengths from the core-hole states of a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.units import HARTREE_EV
from htxas.engines.pyscf.corehole import HoleState
from htxas.engines.pyscf.final_states import FinalStates
from htxas.engines.pyscf.ground import GroundState
from htxas.errors import Cause, EngineFailure

__all__ = ["AbsoluteSticks", "absolute_scale"]

FloatArray = npt.NDArray[np.float64]
_SAME_LEVEL_EV = 0.05  # final states this close count as one degenerate level when the electron is looked up
_MATCH = 0.3  # smallest share of the excited electron that its level must hold


@dataclass(frozen=True, slots=True, eq=False)
class AbsoluteSticks:
    """Sticks with their scale.

    Attributes
    ----------
    energies_eV, strengths
        As in :class:`htxas.domain.spectrum.Sticks`.
    ionization_eV
        Delta-KS 1s ionisation energy, eV.
    window_eV
        Range above the first stick for which sticks are kept, eV.
    scale
        How the scale was fixed.
    total_energies_eV
        By state, eV.
    extra
        Facts for the provenance.
    """

    energies_eV: FloatArray
    strengths: FloatArray
    ionization_eV: float
    window_eV: float
    scale: str
    total_energies_eV: dict[str, float]
    extra: dict[str, Any]


def absolute_scale(
    base: GroundState, states: Mapping[str, HoleState], final: FinalStates, parameters: Mapping[str, Any]
) -> AbsoluteSticks:
    """Put the final states on absolute energies and weigh them.

    ``ion``: ``E_f = [E(ion) - E(ground)] + eps_f``. ``neutral``: all levels are moved together so that the level
    which holds the excited electron lies at ``2 E(mixed) - E(triplet) - E(ground)`` (spin purification: Ziegler, Rauk,
    Baerends, Theor. Chim. Acta 43, 261 (1977)). Strengths: ``f_a = 2 * 2 * E_f |<f|r_a|1s>|^2`` in atomic units.

    Raises
    ------
    EngineFailure
        GATE_REJECTED if no final state holds the excited electron of the neutral.
    """
    energies = {
        "ground": base.state.energy,
        **{n: s.state.energy for n, s in states.items() if n != "transition_potential"},
    }
    ionization = energies["ion"] - energies["ground"]
    extra: dict[str, Any] = {}
    if parameters["scale"] == "ion":
        shift = ionization
        scale = "Delta-KS ion + transition potential"
    else:
        purified = 2 * energies["mixed"] - energies["triplet"]
        energies["neutral"] = purified
        level, share = _level_of_electron(base, states["triplet"], states["ion"], final)
        extra |= {"matched_state": level, "matched_share": share}
        if share < _MATCH:
            raise EngineFailure(
                Cause.GATE_REJECTED,
                f"no final state holds the excited electron (best share {share:.2f})",
                evidence=extra,
            )
        shift = purified - energies["ground"] - final.levels[level]
        scale = "Delta-KS core-excited neutral, 2 E(mixed) - E(triplet)"
    absolute = shift + final.levels
    window = min(float(parameters["window_eV"]), float((absolute[-1] - absolute[0]) * HARTREE_EV))
    keep = (absolute - absolute[0]) * HARTREE_EV <= window
    strengths = 4.0 * absolute[keep, None] * final.dipoles[keep] ** 2
    return AbsoluteSticks(
        absolute[keep] * HARTREE_EV,
        strengths,
        float(ionization * HARTREE_EV),
        window,
        scale,
        {name: float(e * HARTREE_EV) for name, e in energies.items()},
        extra,
    )


def _level_of_electron(
    base: GroundState, triplet: HoleState, ion: HoleState, final: FinalStates
) -> tuple[int, float]:
    """Return the final state that overlaps most with the neutral's excited orbital, and its level's share of it.

    The excited orbital is the occupied alpha orbital of the triplet that lies least in the ion's occupied alpha space.
    """
    overlap = base.hamiltonian.overlap
    occupied = triplet.state.scaled()[0]
    in_ion = ((ion.state.scaled()[0].T @ overlap @ occupied) ** 2).sum(axis=0)
    electron = occupied[:, int(in_ion.argmin())]
    share = (electron @ final.overlap[: base.hamiltonian.mol.nao] @ final.orbitals) ** 2
    best = int(share.argmax())
    same = np.abs(final.levels - final.levels[best]) * HARTREE_EV < _SAME_LEVEL_EV
    return best, float(share[same].sum())
