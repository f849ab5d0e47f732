"""Where a measured spectrum begins on the scale of computed ones: a landmark, and what training spectra say of it.

The first final state of a computed spectrum, which windows are aligned by, is often too weak to be seen. What is seen
is where the intensity rises. The landmark is where it first reaches, and keeps for 0.3 eV, 5% of the largest value in
the window. In training spectra the distance from it to the first final state is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.data.recipe import Window
from htxas.learn.nets.noise import smoothing_matrix

__all__ = ["LEVEL", "Landmark", "find_onset", "learn_landmark"]

FloatArray = npt.NDArray[np.float64]
LEVEL = 0.05
"""Of the largest value in the window."""

_KEPT_eV = 0.3
_ROUNDS = 20
_SETTLED_eV = 1e-4
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Landmark:
    """How far the first final state lies above the landmark in training spectra, eV.

    Attributes
    ----------
    low_eV, median_eV, high_eV
        5%, 50% and 95% of the training spectra are below.
    spectra
        How many.
    """

    low_eV: float
    median_eV: float
    high_eV: float
    spectra: int


def learn_landmark(spectra: npt.ArrayLike, window: Window) -> Landmark:
    """Return what training spectra (n, points) in the window, aligned by their first final state, say.

    Raises
    ------
    DatasetError
        If the window does not show the rise of a tenth of them.
    """
    rows = np.asarray(spectra, dtype=np.float64)
    grid: FloatArray = window.start_eV + np.arange(window.points, dtype=np.float64) * window.step_eV
    found = np.array([_rise(grid, row, LEVEL * row.max(), window.step_eV) for row in rows])
    seen = np.isfinite(found)
    if seen.mean() < 0.9:
        raise DatasetError(
            f"the model's window begins at {window.start_eV:g} eV, above the rise of its training spectra",
            hint="give --excitation-energy EV",
        )
    low, median, high = np.quantile(-found[seen], _QUANTILES)
    return Landmark(float(low), float(median), float(high), int(seen.sum()))


def find_onset(
    energies_eV: FloatArray,
    intensity: FloatArray,
    landmark: Landmark,
    window: Window,
    where: str,
    *,
    smooth_eV: float | None = None,
) -> tuple[float, float]:
    """Return landmark and first final state of a spectrum (n,), eV.

    The largest value is that within the window, which the onset places: both are found together, by repetition.

    Parameters
    ----------
    smooth_eV
        Width of the Savitzky-Golay filter that the spectrum will get; the rise is looked for behind it.

    Raises
    ------
    DatasetError
        If there is no rise, or the file begins above it, or no onset agrees with its own window.
    """
    grid = np.arange(energies_eV[0], energies_eV[-1], window.step_eV)
    values = np.interp(grid, energies_eV, intensity)
    if smooth_eV is not None:
        values = values @ smoothing_matrix(smooth_eV, window.step_eV, len(grid))
    top = values.max()
    before = np.nan
    for _ in range(_ROUNDS):
        rise = _rise(grid, values, LEVEL * top, window.step_eV)
        if not top > 0 or not np.isfinite(rise):
            raise DatasetError(
                f"nothing rises to {LEVEL:.0%} of the maximum from below: no onset is seen",
                where=where,
                hint="subtract a --background, --smooth noise, or give --excitation-energy EV",
            )
        onset = rise + landmark.median_eV
        if abs(onset - before) < _SETTLED_eV:
            return rise, onset
        before = onset
        inside = (grid >= onset + window.start_eV) & (grid <= onset + window.stop_eV)
        if not inside.any():
            raise DatasetError(
                "the file ends below the model's window", where=where, hint="give --excitation-energy EV"
            )
        top = values[inside].max()
    raise DatasetError(
        "no onset agrees with the maximum of its own window", where=where, hint="give --excitation-energy EV"
    )


def _rise(grid: FloatArray, values: FloatArray, level: float, step_eV: float) -> float:
    """Return where ``values`` first reach ``level`` and stay there for a while; nan if they begin above it."""
    above = values >= level
    kept = max(1, round(_KEPT_eV / step_eV))
    if len(above) <= kept:
        return np.nan
    runs: npt.NDArray[np.bool_] = np.lib.stride_tricks.sliding_window_view(above, kept).min(axis=1)
    at = int(np.argmax(runs))
    if not runs[at] or at == 0:
        return np.nan
    before, after = values[at - 1], values[at]
    return float(grid[at - 1] + (grid[at] - grid[at - 1]) * (level - before) / (after - before))
