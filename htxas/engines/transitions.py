"""Formulas that codes with pseudopotentials share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from htxas.domain.units import HARTREE_EV

__all__ = ["core_energy_eV", "oscillator_strengths"]

FloatArray = npt.NDArray[np.float64]
_ELECTRONS_1S = 2  # before the excitation: both count, see htxas.domain.spectrum


def core_energy_eV(with_hole: tuple[float, float], without: tuple[float, float]) -> float:
    """Return what pseudopotentials leave out of a transition energy: ``(AE_ex - PA_ex) - (AE_gs - PA_gs)``, eV.

    Added to the difference of total energies with and without the hole it is E_TE (Mizoguchi, Tanaka, Gao, Pickard, J.
    Phys.: Condens. Matter 21, 104204 (2009)).

    Parameters
    ----------
    with_hole, without
        All-electron and pseudo energy of the isolated atom, eV.
    """
    return (with_hole[0] - with_hole[1]) - (without[0] - without[1])


def oscillator_strengths(energies_eV: FloatArray, squares_a02: FloatArray) -> FloatArray:
    """Return ``2 n_e E |<f|r_a|1s>|^2`` in atomic units, of transitions from a full 1s shell to spin-degenerate levels.

    Parameters
    ----------
    energies_eV
        Of the transitions, eV.
    squares_a02
        Squared matrix elements of r_a, bohr^2, along the same first axis.
    """
    energies = np.asarray(energies_eV)[(...,) + (None,) * (np.ndim(squares_a02) - np.ndim(energies_eV))]
    return np.asarray(2.0 * _ELECTRONS_1S * energies / HARTREE_EV * squares_a02)
