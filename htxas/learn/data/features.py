"""From a spectrum to the numbers a net sees: an aligned window, then standardisation on the training split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Spectrum
from htxas.errors import DatasetError
from htxas.learn.data.recipe import Align, ModelKind, Scale, Window

__all__ = ["ENERGIES", "Standardiser", "check_grid", "inputs", "resample", "window_row"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

ENERGIES = {
    Align.EXCITATION_ENERGY: "relative to the excitation energy",
    Align.EDGE: "relative to the threshold",
    Align.ABSOLUTE: "absolute",
}
"""What the energies of a window are, in words."""

_MIN_STEPS_PER_SIGMA = 3.0
_SCALE_FLOOR = 0.01
_ON_GRID = 1e-6  # of a step


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """``(x - mean) / scale``, column by column.

    Attributes
    ----------
    mean, scale
        Shape (d,). A scale is the column's standard deviation on the training split, but at least 1% of the largest
        one among the spectrum's columns: where all spectra are zero (below the edge) noise is not blown up.
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, rows: npt.ArrayLike, *, floor_columns: int = 0) -> Standardiser:
        """Fit on training rows, shape (n, d); the floor applies to the first ``floor_columns`` columns."""
        x = np.asarray(rows, dtype=np.float64)
        scale = x.std(axis=0)
        if floor_columns:
            head = scale[:floor_columns]
            scale[:floor_columns] = np.maximum(head, _SCALE_FLOOR * head.max())
        scale[scale == 0] = 1.0  # a constant column becomes 0
        return cls(x.mean(axis=0), scale)

    def apply(self, rows: npt.ArrayLike) -> FloatArray:
        """Return standardised rows, shape (n, d)."""
        return np.asarray((np.asarray(rows, dtype=np.float64) - self.mean) / self.scale)

    def invert(self, rows: npt.ArrayLike) -> FloatArray:
        """Undo :meth:`apply`."""
        return np.asarray(np.asarray(rows, dtype=np.float64) * self.scale + self.mean)


def inputs(kind: ModelKind, spectra: npt.ArrayLike, ratios: npt.ArrayLike) -> FloatArray:
    """Return model inputs: spectra (n, points) for A, with the ratios (n, 3) appended for B.

    Raises
    ------
    DatasetError
        If B is to be given ratios that the dataset does not have.
    """
    x = np.asarray(spectra, dtype=np.float64)
    if kind is ModelKind.A:
        return x
    added = np.asarray(ratios, dtype=np.float64)
    if added.shape[-1] == 0:
        raise DatasetError(
            "Model-B is given composition ratios, and the dataset has none",
            hint="freeze it with qm9: {molecules: FILE}, or train model A",
        )
    return np.hstack([x, added])


def check_grid(spectrum: Spectrum, window: Window, where: str) -> None:
    """Refuse a spectrum whose grid or broadening cannot fill the window faithfully.

    Raises
    ------
    DatasetError
        Another step than the window's, or a broadening below three steps (a shift by part of a step would show).
    """
    if abs(spectrum.step_eV - window.step_eV) > 1e-9:
        raise DatasetError(
            f"the spectrum has a step of {spectrum.step_eV} eV, the window {window.step_eV} eV",
            where=where,
            hint="spectra are not resampled to another step; export them again or change window.step_eV",
        )
    if spectrum.sigma_eV < _MIN_STEPS_PER_SIGMA * spectrum.step_eV:
        raise DatasetError(
            f"sigma {spectrum.sigma_eV} eV is below three steps of {spectrum.step_eV} eV: alignment would distort it",
            where=where,
        )


def window_row(
    spectrum: Spectrum,
    anchor_eV: float,
    window: Window,
    *,
    where: str,
    zero_below: bool = True,
    zero_eV: float = 0.0,
) -> Float32Array:
    """Return the mean of the three polarisations in the window, shape (points,).

    The window starts at ``anchor_eV + start_eV``, in general between grid points: values come from a cubic spline
    through the grid (for a Gaussian of five steps' sigma its error stays below 2e-5 of the peak); on grid points they
    are the grid's. Below its first point a computed spectrum is zero: there is no transition under the first final
    state.

    Parameters
    ----------
    anchor_eV
        Excitation energy; ignored where the window is absolute.
    zero_below
        True for computed spectra. False for measured ones: they must cover the window's start too.
    zero_eV
        Absolute energy of what is 0 in the spectrum.

    Raises
    ------
    DatasetError
        If the spectrum does not cover the window, is not finite, or has no area.
    """
    check_grid(spectrum, window, where)
    return resample(
        spectrum.energies_eV,
        spectrum.total,
        anchor_eV,
        window,
        where=where,
        zero_below=zero_below,
        zero_eV=zero_eV,
    )


def resample(
    energies_eV: FloatArray,
    intensity: FloatArray,
    anchor_eV: float,
    window: Window,
    *,
    where: str,
    zero_below: bool,
    zero_eV: float = 0.0,
) -> Float32Array:
    """Return an intensity (n,) on ``energies_eV`` (n,) in the window; see :func:`window_row`.

    Raises
    ------
    DatasetError
        As :func:`window_row`.
    """
    offset = (0.0 if window.align is Align.ABSOLUTE else anchor_eV) - zero_eV
    grid = np.asarray(offset + window.start_eV + np.arange(window.points) * window.step_eV)
    if not (np.isfinite(energies_eV).all() and np.isfinite(intensity).all() and np.isfinite(offset)):
        raise DatasetError("a number of the spectrum is not finite", where=where)
    slack = 1e-6
    if grid[-1] > energies_eV[-1] + slack or grid[0] >= energies_eV[-1]:
        raise DatasetError(
            f"the spectrum ends at {energies_eV[-1] - offset:.1f} eV, the window at {window.stop_eV:.1f} eV"
            f" ({ENERGIES[window.align]})",
            where=where,
            hint="choose fewer window.points",
        )
    if not zero_below and grid[0] < energies_eV[0] - slack:
        raise DatasetError(
            f"the spectrum starts at {energies_eV[0] - offset:.1f} eV, the window at {window.start_eV:.1f} eV"
            f" ({ENERGIES[window.align]})",
            where=where,
        )
    values = _between(energies_eV, intensity, grid, window.step_eV)
    values[grid < energies_eV[0] - slack] = 0.0
    if window.scale is Scale.AREA:
        area = float(values.sum() * window.step_eV)
        if not area > 0:
            raise DatasetError("the spectrum has no area in the window", where=where)
        values = values / area
    return values.astype(np.float32)


def _between(energies_eV: FloatArray, intensity: FloatArray, grid: FloatArray, step_eV: float) -> FloatArray:
    """Return an intensity on another grid; beyond the ends, what is at the ends."""
    first = round((grid[0] - energies_eV[0]) / step_eV)
    at = np.clip(np.arange(first, first + len(grid)), 0, len(energies_eV) - 1)
    wanted = np.clip(grid, energies_eV[0], energies_eV[-1])
    if np.abs(energies_eV[at] - wanted).max() < _ON_GRID * step_eV:
        return np.asarray(intensity[at])
    from scipy.interpolate import CubicSpline

    return np.asarray(CubicSpline(energies_eV, intensity)(wanted))
