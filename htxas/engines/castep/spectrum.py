"""Absolute transition energies and oscillator strengths from CASTEP's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Sticks
from htxas.engines.castep.bands import Bands, OutputError
from htxas.engines.castep.log import CastepLog
from htxas.engines.transitions import core_energy_eV, oscillator_strengths

__all__ = ["Scale", "transition_energy", "transitions"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """The absolute energy of a first final state, and what it is made of; eV.

    Attributes
    ----------
    transition_eV
        E_TE.
    ground_eV, excited_eV
        Total energies of the pseudopotential calculations.
    core_eV
        What the pseudopotentials leave out: the difference of (all-electron minus pseudo) energies of the isolated
        atom with and without the hole.
    """

    transition_eV: float
    ground_eV: float
    excited_eV: float
    core_eV: float


def transition_energy(
    ground: CastepLog, excited: CastepLog, *, ground_label: str, excited_label: str, which: str
) -> Scale:
    """Return E_TE, see :func:`htxas.engines.transitions.core_energy_eV`.

    Parameters
    ----------
    ground, excited
        Logs of the same cell without and with the hole.
    ground_label, excited_label
        Species of the absorber in each.
    which
        Which total energy: ``final`` or ``zero_kelvin``.

    Raises
    ------
    OutputError
        An energy is missing.
    """
    totals, atoms = [], []
    for log, label in ((ground, ground_label), (excited, excited_label)):
        total, ae, pa = log.energy_eV(which), log.all_electron_eV.get(label), log.pseudo_eV.get(label)
        if total is None:
            raise OutputError("the log has no total energy")
        if ae is None or pa is None:
            raise OutputError(f"the log has no energies of the isolated atom {label}")
        totals.append(total)
        atoms.append((ae, pa))
    (e_gs, e_ex), core = totals, core_energy_eV(atoms[1], atoms[0])
    return Scale(e_ex - e_gs + core, e_gs, e_ex, core)


def transitions(bands: Bands, squared_Bohr2: FloatArray, first_eV: float) -> tuple[Sticks, float]:
    """Return the transitions to all final states and how far above the first they are complete, eV.

    Strengths carry the weight of their k point. A level that is half full with the excited electron was empty before.
    Above the highest level of the k point where that is lowest, levels are missing: they are cut off there.

    Parameters
    ----------
    bands
        Levels.
    squared_Bohr2
        ``|<f|r_a|1s>|^2``, shape (k, bands, 3).
    first_eV
        Energy of the transition to the lowest final state.

    Raises
    ------
    OutputError
        Levels and matrix elements do not belong together, or there is no final state.
    """
    if squared_Bohr2.shape[:2] != bands.levels_eV.shape:
        raise OutputError(
            f"there are matrix elements of {squared_Bohr2.shape[:2]} k points and bands, levels of "
            f"{bands.levels_eV.shape}"
        )
    final = bands.final_states()
    if not final.any(axis=1).all():
        raise OutputError("a k point has no final state")
    lowest = float(bands.levels_eV[final].min())
    top = float(bands.levels_eV.max(axis=1).min())
    kept = final & (bands.levels_eV <= top)
    point = np.nonzero(kept)[0]
    energies = first_eV + (bands.levels_eV[kept] - lowest)
    strengths = oscillator_strengths(energies, squared_Bohr2[kept]) * bands.weights[point][:, None]
    order = np.argsort(energies, kind="stable")
    return Sticks(energies[order], strengths[order]), top - lowest
