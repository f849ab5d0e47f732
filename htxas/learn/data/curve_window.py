"""From a continuous spectrum to a row of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import REACH, Curve, smear
from htxas.errors import DatasetError
from htxas.learn.data.recipe import Align, Recipe, Scale, Window
from htxas.learn.data.records import Continuum

__all__ = ["METHOD", "curve_row", "known_eV", "refuse_unknown"]

FloatArray = npt.NDArray[np.floating[Any]]

METHOD = {
    False: "the code's points, with straight lines between them, read at each energy; nothing is shifted or smoothed",
    True: "the code's points, with straight lines between them, convolved exactly with the Gaussian",
}
"""What a card says of how a window is filled; True with a Gaussian."""

_SLACK_EV = 1e-6
_FAITHFUL = 0.02


def known_eV(continuum: Continuum, recipe: Recipe) -> tuple[float, float]:
    """Return where a spectrum begins and ends, on the window's axis: four sigmas within what the code gives.

    Raises
    ------
    DatasetError
        The window starts from an excitation energy.
    """
    reach_eV = REACH * (recipe.sigma_eV or 0.0)
    energies_eV = continuum.curve.energies_eV - _anchor_eV(continuum, recipe.window)
    return float(energies_eV[0]) + reach_eV, float(energies_eV[-1]) - reach_eV


def curve_row(continuum: Continuum, recipe: Recipe, where: str) -> npt.NDArray[np.float32] | None:
    """Return the mean of the three polarisations in the window, shape (points,); None if it is not known there.

    Beyond its ends a continuum is unknown, never zero.

    Raises
    ------
    DatasetError
        The window starts from an excitation energy, its step is too coarse for the spectrum or is none that can be
        broadened on, a number is not finite, or there is no area.
    """
    window, curve = recipe.window, continuum.curve
    low_eV, high_eV = known_eV(continuum, recipe)
    if not np.isfinite(curve.intensity).all() or not np.isfinite(low_eV + high_eV):
        raise DatasetError("a number of the spectrum is not finite", where=where)
    if low_eV > window.start_eV + _SLACK_EV or high_eV < window.stop_eV - _SLACK_EV:
        return None
    energies_eV = curve.energies_eV - _anchor_eV(continuum, window) - window.start_eV
    grid_eV = np.arange(window.points) * window.step_eV
    if recipe.sigma_eV is None:
        values = np.interp(grid_eV, energies_eV, curve.isotropic)
        _refuse_coarse(grid_eV, values, energies_eV, curve.isotropic, window, where)
    else:
        values = _smeared(Curve(energies_eV, curve.intensity), recipe.sigma_eV, window, where)
    if window.scale is Scale.AREA:
        area = float(values.sum() * window.step_eV)
        if not area > 0:
            raise DatasetError("the spectrum has no area in the window", where=where)
        values = values / area
    return np.asarray(values, dtype=np.float32)


def refuse_unknown(ranges: Mapping[str, tuple[float, float]], total: int, window: Window) -> None:
    """Refuse sites whose spectrum does not fill the window.

    Parameters
    ----------
    ranges
        Site -> where its spectrum begins and ends, on the window's axis.
    total
        Number of sites looked at.

    Raises
    ------
    DatasetError
        Always.
    """
    low_eV = max(low for low, _ in ranges.values())
    high_eV = min(high for _, high in ranges.values())
    start_eV = max(window.start_eV, np.ceil(low_eV / window.step_eV - 1e-6) * window.step_eV)
    points = int((min(high_eV, window.stop_eV) - start_eV) / window.step_eV + 1e-6) + 1
    first, (low, high) = next(iter(ranges.items()))
    raise DatasetError(
        f"{len(ranges)} of {total} sites are not known in all of the window, {window.start_eV:g} to "
        f"{window.stop_eV:g} eV ({first}: {low:.2f} to {high:.2f} eV)",
        hint=f"window.start_eV: {start_eV:.6g} with points: {points} is known of all; "
        "or drop_uncovered: true leaves them out"
        if points > 1
        else "drop_uncovered: true leaves them out",
    )


def _anchor_eV(continuum: Continuum, window: Window) -> float:
    if window.align is Align.EXCITATION_ENERGY:
        raise DatasetError(
            "a continuous spectrum has a threshold and no excitation energy", hint="window.align: edge"
        )
    return continuum.edge_eV if window.align is Align.EDGE else 0.0


def _refuse_coarse(
    grid_eV: FloatArray,
    values: FloatArray,
    energies_eV: FloatArray,
    intensity: FloatArray,
    window: Window,
    where: str,
) -> None:
    """Refuse a window whose points, with straight lines between them, miss the code's own points."""
    inside = (energies_eV >= grid_eV[0]) & (energies_eV <= grid_eV[-1])
    off = np.abs(np.interp(energies_eV[inside], grid_eV, values) - intensity[inside])
    worst = float(off.max(initial=0.0)) / float(np.abs(values).max() or 1.0)
    if worst > _FAITHFUL:
        raise DatasetError(
            f"steps of {window.step_eV:g} eV miss {worst:.1%} of the largest absorption of the spectrum",
            where=where,
            hint="a smaller window.step_eV, or a sigma_eV",
        )


def _smeared(curve: Curve, sigma_eV: float, window: Window, where: str) -> FloatArray:
    """Return a curve whose energies count from the window's start, broadened, at the window's energies."""
    if sigma_eV < 3 * window.step_eV - 1e-9:
        raise DatasetError(
            f"sigma {sigma_eV:g} eV is below three steps of {window.step_eV:g} eV", where=where
        )
    try:
        spectrum = smear(curve, sigma_eV=sigma_eV, step_eV=window.step_eV)
    except ValueError as error:
        raise DatasetError(str(error), where=where) from None
    return spectrum.total[-spectrum.start : window.points - spectrum.start]
