"""Counting noise on spectra, as a detector makes it, and the smoothing that is applied against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from htxas.errors import DatasetError

__all__ = ["Distortion", "Noise", "smoothing_matrix"]

_SMOOTHING_ORDER = 2


@dataclass(frozen=True, slots=True)
class Noise:
    """What is done to a spectrum before a net sees it.

    Attributes
    ----------
    counts
        Poisson dose: expected counts at the spectrum's maximum. None: no noise, smoothing only.
    counts_to
        Doses are drawn log-uniformly from ``counts`` to here, one per spectrum; None: all have ``counts``.
    smoothing_eV
        Width of a Savitzky-Golay filter, applied after the noise; None: not smoothed.
    """

    counts: float | None
    counts_to: float | None = None
    smoothing_eV: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a dose.

        Raises
        ------
        DatasetError
            A dose or a width that is not positive, a range upside down, or nothing at all.
        """
        if self.counts is None and (self.smoothing_eV is None or self.counts_to is not None):
            raise DatasetError("noise without counts: give counts, or a smoothing alone")
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < float("inf"):
                raise DatasetError(f"noise.{name} is {value}; a positive number is needed")
        if self.counts is not None and self.counts_to is not None and self.counts_to <= self.counts:
            raise DatasetError(f"noise.counts_to {self.counts_to} is not above noise.counts {self.counts}")

    @property
    def label(self) -> str:
        """Short name for tables: ``100 counts, 0.3 eV``."""
        dose = "" if self.counts is None else f"{self.counts:g}"
        dose += "" if self.counts_to is None else f"-{self.counts_to:g}"
        width = "" if self.smoothing_eV is None else f"{self.smoothing_eV:g} eV"
        return ", ".join(part for part in (f"{dose} counts" if dose else "", width) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Noise:
        """Rebuild from :meth:`to_dict`."""
        return cls(**data)


def smoothing_matrix(width_eV: float, step_eV: float, points: int) -> npt.NDArray[np.float64]:
    """Return the Savitzky-Golay filter as a matrix (points, points): smoothed = spectrum @ matrix.

    Anal. Chem. 36, 1627 (1964). A parabola is fitted (a line for a width of three points, which a parabola would pass
    through); within half a width of either end the outermost fit is read off.

    Raises
    ------
    DatasetError
        If the width is not an odd number of steps, at least three, within the window.
    """
    from scipy.signal import savgol_filter

    length = round(width_eV / step_eV)
    if abs(length * step_eV - width_eV) > 1e-6 or length % 2 == 0 or not 3 <= length <= points:
        raise DatasetError(
            f"smoothing over {width_eV} eV is not an odd number of steps of {step_eV} eV",
            hint=f"such as {3 * step_eV:g} or {5 * step_eV:g} eV",
        )
    order = min(_SMOOTHING_ORDER, length - 2)
    return np.asarray(savgol_filter(np.eye(points), length, order, axis=1), dtype=np.float64)


class Distortion:
    """Draws noisy spectra.

    A spectrum I becomes ``n max(I) / counts`` with n from Poisson's distribution of mean ``counts I / max(I)``; values
    below zero, which a spline may leave beside zeros, have mean 0. Chen et al., J. Phys. Chem. Lett. 14, 4858 (2023)
    train on such noise; what exactly their lambda multiplies is not known here.

    Parameters
    ----------
    noise
        What to draw.
    step_eV
        Step of the spectra.
    points
        Points of a spectrum.
    unit_area
        Divide the outcome by its area, as spectra of area 1 are made from measured ones.
    """

    def __init__(self, noise: Noise, step_eV: float, points: int, *, unit_area: bool) -> None:
        self.noise = noise
        self._step_eV = step_eV
        self._unit_area = unit_area
        self._smooth = (
            None
            if noise.smoothing_eV is None
            else torch.from_numpy(smoothing_matrix(noise.smoothing_eV, step_eV, points).astype(np.float32))
        )

    def draw(self, spectra: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return distorted spectra (n, points) and the log10 of each one's dose (n,); infinite without noise.

        Raises
        ------
        DatasetError
            If nothing is left of a spectrum whose area is to be 1.
        """
        n, device = len(spectra), spectra.device
        log_dose = torch.full((n,), math.inf, device=device)
        out = spectra
        if self.noise.counts is not None:
            low = math.log10(self.noise.counts)
            log_dose = torch.full((n,), low, device=device)
            if self.noise.counts_to is not None:
                span = math.log10(self.noise.counts_to) - low
                log_dose = log_dose + span * torch.rand((n,), generator=generator, device=device)
            unit = spectra.amax(dim=1, keepdim=True) / (10.0**log_dose)[:, None]
            out = torch.poisson((spectra / unit).clamp_min(0.0), generator=generator) * unit
        if self._smooth is not None:
            out = out @ self._smooth.to(device)
        if self._unit_area:
            area = out.sum(dim=1, keepdim=True) * self._step_eV
            if not bool((area > 0).all()):
                raise DatasetError("a noisy spectrum has no area", hint="a larger noise.counts")
            out = out / area
        return out, log_dose
