"""How far a measured spectrum agrees with a computed one: where it lies, what shape it has, how strong it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Agreement", "agreement"]

FloatArray = npt.NDArray[np.float64]
_STEP_eV = 0.05
_SHIFT_STEP_eV = 0.01
_LEAST_eV = 5.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What :func:`agreement` found.

    Attributes
    ----------
    shift_eV
        Measured minus computed energies.
    searched_eV
        The shift is the best of those up to this far on either side of 0; None if it was given.
    correlation, unshifted
        Pearson's r of the two curves with the shift, and without it.
    strength
        Integral of the measured curve over that of the computed one; 1 is agreement only if both have one unit.
    low_eV, high_eV
        The range that was compared, on the computed spectrum's own axis.
    """

    shift_eV: float
    searched_eV: float | None
    correlation: float
    unshifted: float
    strength: float
    low_eV: float
    high_eV: float


def agreement(
    measured: tuple[FloatArray, FloatArray],
    computed: tuple[FloatArray, FloatArray],
    range_eV: tuple[float, float],
    *,
    shift_eV: float | None = None,
    within_eV: float = 3.0,
) -> Agreement:
    """Lay a measured spectrum over a computed one.

    Between their points both are straight lines. The computed spectrum is moved rigidly; nothing else is fitted, and a
    scale does not change the correlation.

    Parameters
    ----------
    measured, computed
        Energies (n,), ascending, and intensities (n,).
    range_eV
        What is compared, on the computed spectrum's axis, eV.
    shift_eV
        Measured minus computed energies. None: where the correlation is largest, in steps of 0.01 eV.
    within_eV
        How far it is looked for, on either side of 0.

    Raises
    ------
    ValueError
        The two do not overlap by 5 eV in the range at some shift, one of them is flat or not above zero there, or the
        correlation is largest at the end of the search.
    """
    first, last = float(measured[0][0]), float(measured[0][-1])
    least, most = (-within_eV, within_eV) if shift_eV is None else (min(0.0, shift_eV), max(0.0, shift_eV))
    # One range for all shifts: correlations over different ranges do not compare.
    low = max(range_eV[0], float(computed[0][0]), first - least)
    high = min(range_eV[1], float(computed[0][-1]), last - most)
    if high - low < _LEAST_eV:
        raise ValueError(
            f"measured from {first:.1f} to {last:.1f} eV, shifted by {least:g} to {most:g} eV: less than "
            f"{_LEAST_eV:g} eV of the computed {range_eV[0]:.1f} to {range_eV[1]:.1f} eV are left to compare"
        )
    grid = np.linspace(low, high, round((high - low) / _STEP_eV) + 1)
    there = np.interp(grid, *computed)
    if not there.sum() > 0 or np.ptp(there) <= 0:
        raise ValueError(f"the computed spectrum is flat from {low:.1f} to {high:.1f} eV")

    def beside(shift: float) -> tuple[float, FloatArray]:
        here = np.interp(grid + shift, *measured)
        if np.ptp(here) <= 0:
            raise ValueError(f"the measured spectrum is flat from {low + shift:.1f} to {high + shift:.1f} eV")
        return float(np.corrcoef(here, there)[0, 1]), here

    searched: float | None = None
    if shift_eV is None:
        searched = within_eV
        half = round(within_eV / _SHIFT_STEP_eV)
        shifts = np.arange(-half, half + 1) * _SHIFT_STEP_eV
        values = [beside(float(s))[0] for s in shifts]
        at = int(np.argmax(values))
        if at in (0, len(shifts) - 1):
            raise ValueError(
                f"the correlation still grows {shifts[at]:+g} eV away: no shift up to {within_eV:g} eV fits"
            )
        shift_eV = float(shifts[at])
    correlation, here = beside(shift_eV)
    if not here.sum() > 0:
        raise ValueError("the measured spectrum has no area above zero there: subtract its background")
    return Agreement(
        shift_eV,
        searched,
        correlation,
        beside(0.0)[0],
        float(here.sum() / there.sum()),
        float(grid[0]),
        float(grid[-1]),
    )
