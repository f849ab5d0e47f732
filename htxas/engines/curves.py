"""Spectra in a code's own units, of codes that know no bare atom to normalise them by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Curve

__all__ = ["LEVEL_FROM_EV", "by_own_level"]

FloatArray = npt.NDArray[np.float64]
LEVEL_FROM_EV = 5.0
"""The level of a spectrum is its mean from here on, eV above the edge: where the gate looks at it, too."""


def by_own_level(
    energies_eV: FloatArray, absorption: FloatArray, edge_eV: float, *, units: str
) -> tuple[Curve, FloatArray, str]:
    """Return a spectrum divided by its own mean, the background 1 that stands for it, and words for both.

    Such a level passes the gate whatever it was: the words say so.

    Parameters
    ----------
    energies_eV
        Absolute transition energies, shape (n,).
    absorption
        Along x, y, z, shape (n, 3).
    edge_eV
        Of the first final state.
    units
        What the code's own units are called.

    Raises
    ------
    ValueError
        It ends before there is something to divide by, or is nothing there.
    """
    above = energies_eV >= edge_eV + LEVEL_FROM_EV
    if above.sum() < 2:
        raise ValueError(f"the spectrum does not reach {LEVEL_FROM_EV:g} eV above the edge")
    isotropic = absorption.mean(axis=1)
    level = float(np.trapezoid(isotropic[above], energies_eV[above])) / float(np.ptp(energies_eV[above]))
    if not level > 0:
        raise ValueError(f"the spectrum is empty from {LEVEL_FROM_EV:g} eV above the edge on")
    reach = energies_eV[-1] - edge_eV
    told = (
        f"its own mean from {LEVEL_FROM_EV:g} to {reach:.0f} eV above the edge ({level:.4e} {units}); "
        "there is no bare atom's, so the level says nothing"
    )
    return Curve(energies_eV, absorption / level), np.ones(len(energies_eV)), told
