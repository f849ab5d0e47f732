"""Sticks and gridded spectra, on absolute energies, polarisation by polarisation.

Conventions, everywhere in htxas:

- energies are absolute transition energies in eV;
- a stick's strength is an oscillator strength per polarisation, ``f_a = 2 n_e (E_f - E_i) |<f|r_a|i>|^2`` in atomic
  units with ``n_e`` = 2 electrons in the 1s shell (Thomas-Reiche-Kuhn normalisation: f_a sums to the number of
  electrons over a complete set of final states);
- the isotropic value is the mean of x, y and z (Shibata et al., Sci. Data 9, 214 (2022));
- grids lie on whole multiples of the step, so two spectra with the same step always share their points: spectra
  are added point by point, never interpolated;
- what a spectrum is in is said (:class:`Quantity`), and spectra of different quantities are never added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from htxas.domain.units import BOHR_A, HARTREE_EV

__all__ = [
    "REACH",
    "Curve",
    "Quantity",
    "Spectrum",
    "Sticks",
    "broaden",
    "combine",
    "dsf_A2",
    "gaussians",
    "smear",
]

FloatArray = npt.NDArray[np.float64]


REACH = 4.0
"""In sigmas: what lies farther away has 6e-5 of the weight."""

_DEEPEST = -600.0


class Quantity(StrEnum):
    """What the intensity of a spectrum is in."""

    OSCILLATOR_STRENGTH = "oscillator_strength_per_eV"  # of sticks: nothing lies beyond the last of them
    DSF = "squared_dipole_A2_per_eV"  # of sticks, too, without the factor of energy: what is published
    ABSORPTION = "normalised_absorption"  # of a continuum, 1 is the bare atom's: unknown beyond its ends


@dataclass(frozen=True, slots=True, eq=False)
class Sticks:
    """Discrete transitions of one site.

    Attributes
    ----------
    energies_eV
        Absolute transition energies in eV, shape (n,), ascending.
    strengths
        Oscillator strengths along x, y, z of the structure's frame, shape (n, 3).
    """

    energies_eV: FloatArray
    strengths: FloatArray

    def __post_init__(self) -> None:
        n = len(self.energies_eV)
        if self.energies_eV.shape != (n,) or self.strengths.shape != (n, 3):
            raise ValueError(f"sticks of shapes {self.energies_eV.shape} and {self.strengths.shape}")

    @property
    def isotropic(self) -> FloatArray:
        """Mean of the three polarisations, shape (n,)."""
        return np.asarray(self.strengths.mean(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A continuous spectrum of one site as a code gives it: points, with straight lines between them.

    Attributes
    ----------
    energies_eV
        Absolute transition energies in eV, shape (n,), ascending.
    intensity
        Normalised absorption along x, y, z of the structure's frame, shape (n, 3); a code that averages over all
        orientations gives the same three times.
    """

    energies_eV: FloatArray
    intensity: FloatArray

    def __post_init__(self) -> None:
        n = len(self.energies_eV)
        if self.energies_eV.shape != (n,) or self.intensity.shape != (n, 3):
            raise ValueError(f"a curve of shapes {self.energies_eV.shape} and {self.intensity.shape}")

    @property
    def isotropic(self) -> FloatArray:
        """Mean of the three polarisations, shape (n,)."""
        return np.asarray(self.intensity.mean(axis=1))


def dsf_A2(sticks: Sticks) -> FloatArray:
    """Return squared dipole matrix elements ``|<f|r_a|i>|^2`` in A^2, shape (n, 3): the published ``dsf``.

    Inverts the definition of the oscillator strength with two electrons in the shell.
    """
    hartree = sticks.energies_eV / HARTREE_EV
    return np.asarray(sticks.strengths / (4.0 * hartree[:, None]) * BOHR_A**2)


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """A broadened spectrum on the grid ``step_eV * (start + k)``.

    Attributes
    ----------
    start
        Integer grid index of the first point: its energy is ``start * step_eV``.
    step_eV
        Grid step in eV.
    intensity
        Shape (n, 3): x, y, z in ``quantity``.
    sigma_eV
        Gaussian sigma in eV.
    quantity
        What the intensity is in.
    """

    start: int
    step_eV: float
    intensity: FloatArray
    sigma_eV: float
    quantity: Quantity = Quantity.OSCILLATOR_STRENGTH

    @property
    def energies_eV(self) -> FloatArray:
        """Absolute energies in eV, shape (n,)."""
        return np.asarray((self.start + np.arange(len(self.intensity))) * self.step_eV, dtype=np.float64)

    @property
    def last_eV(self) -> float:
        """Energy of the last point."""
        return (self.start + len(self.intensity) - 1) * self.step_eV

    @property
    def total(self) -> FloatArray:
        """Mean of the three polarisations, shape (n,)."""
        return np.asarray(self.intensity.mean(axis=1))

    @property
    def columns(self) -> FloatArray:
        """Shape (n, 4): total, x, y, z; the published column order."""
        return np.column_stack([self.total, self.intensity])


def broaden(
    sticks: Sticks, *, sigma_eV: float = 0.5, step_eV: float = 0.1, margin_eV: float = 3.0
) -> Spectrum:
    """Broaden sticks with area-preserving Gaussians.

    The grid runs from ``floor(min - margin)`` to ``ceil(max + margin)`` eV.

    Raises
    ------
    ValueError
        Without sticks, or if 1 eV is not a whole number of steps.
    """
    if len(sticks.energies_eV) == 0:
        raise ValueError("no sticks to broaden")
    per_eV = _steps_per_eV(step_eV)
    first = int(np.floor(sticks.energies_eV.min() - margin_eV)) * per_eV
    last = int(np.ceil(sticks.energies_eV.max() + margin_eV)) * per_eV
    grid = np.arange(first, last + 1) * step_eV
    lines = gaussians(grid[:, None] - sticks.energies_eV, sigma_eV)
    return Spectrum(first, step_eV, lines @ sticks.strengths, sigma_eV)


def gaussians(from_eV: FloatArray, sigma_eV: float) -> FloatArray:
    """Return Gaussians of area 1 at distances ``from_eV`` (any shape) from their centres, in 1/eV.

    Beyond 34 sigmas they are 1e-261 of the top rather than zero: numbers below 1e-308 take five times as long.
    """
    x = np.asarray(from_eV / sigma_eV)
    np.square(x, out=x)
    x *= -0.5
    np.maximum(x, _DEEPEST, out=x)
    np.exp(x, out=x)
    x *= 1.0 / (sigma_eV * math.sqrt(2 * math.pi))
    return x


def smear(curve: Curve, *, sigma_eV: float = 0.5, step_eV: float = 0.1) -> Spectrum:
    """Broaden a continuous spectrum with an area-preserving Gaussian, on top of what it has already.

    The straight lines between its points are convolved exactly. The grid covers only what is known: it begins and ends
    four sigmas within the curve.

    Raises
    ------
    ValueError
        If the curve is no longer than that, or 1 eV is not a whole number of steps.
    """
    from scipy.special import ndtr

    per_eV = _steps_per_eV(step_eV)
    e, y = curve.energies_eV, curve.intensity
    first = math.ceil((e[0] + REACH * sigma_eV) * per_eV - 1e-6) if len(e) else 0
    last = math.floor((e[-1] - REACH * sigma_eV) * per_eV + 1e-6) if len(e) else -1
    if last < first:
        raise ValueError("the curve is too short to be broadened")
    grid = np.arange(first, last + 1) * step_eV
    total = np.column_stack([np.interp(grid, e, column) for column in y.T])
    # Straight lines are their own convolution but near the points where they meet: a change of slope by k at e adds
    # k sigma (N(z) - |z| Phi(-|z|)), z = (grid - e) / sigma. Beyond the ends they are taken to go on.
    kinks = np.diff(np.diff(y, axis=0) / np.diff(e)[:, None], axis=0)
    reach = math.ceil(2 * REACH * sigma_eV * per_eV)
    index = np.rint(e[1:-1] * per_eV).astype(np.int64)[:, None] - first + np.arange(-reach, reach + 1)
    inside = (index >= 0) & (index < len(grid))
    z = np.abs((index + first) * step_eV - e[1:-1, None]) / sigma_eV
    rounding = sigma_eV * (np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) - z * ndtr(-z))
    for axis in range(3):
        weights = (kinks[:, axis, None] * rounding)[inside]
        total[:, axis] += np.bincount(index[inside], weights, minlength=len(grid))
    return Spectrum(first, step_eV, total, sigma_eV, Quantity.ABSORPTION)


def _steps_per_eV(step_eV: float) -> int:
    per_eV = round(1.0 / step_eV)
    if per_eV < 1 or abs(per_eV * step_eV - 1.0) > 1e-9:
        raise ValueError(f"a step of {step_eV} eV does not divide 1 eV")
    return per_eV


def combine(spectra: Sequence[Spectrum], weights: Sequence[float]) -> Spectrum:
    """Return the orientation-averaged weighted mean of spectra on the union of their grids.

    A weight is a multiplicity: equivalent atoms share their isotropic spectrum, but their x, y, z parts are rotated
    against each other, so a sum of the representatives' x, y, z would depend on which atom represents its orbit. Hence
    the result holds the isotropic mean in all three columns.

    Outside its own grid (more than ``margin`` beyond its last stick) a spectrum of sticks is zero, and the grids are
    united. A continuum is unknown there: its sum ends where the first of them ends.

    Raises
    ------
    ValueError
        If steps, broadenings or quantities differ, nothing is given, or no energy is common to all continua: nothing is
        resampled silently.
    """
    if not spectra or len(spectra) != len(weights) or min(weights) <= 0:
        raise ValueError("combine needs one positive weight per spectrum")
    first = spectra[0]
    for s in spectra[1:]:
        if s.step_eV != first.step_eV or s.sigma_eV != first.sigma_eV:
            raise ValueError("spectra of different step or broadening are not combined")
        if s.quantity is not first.quantity:
            raise ValueError(f"{s.quantity} and {first.quantity} are not added")
    united = first.quantity is not Quantity.ABSORPTION
    start = (min if united else max)(s.start for s in spectra)
    stop = (max if united else min)(s.start + len(s.intensity) for s in spectra)
    if stop <= start:
        raise ValueError("the spectra have no energy in common")
    total = np.zeros((stop - start, 3))
    for s, w in zip(spectra, weights, strict=True):
        low, high = max(s.start, start), min(s.start + len(s.intensity), stop)
        total[low - start : high - start] += w * s.total[low - s.start : high - s.start, None]
    return Spectrum(start, first.step_eV, total / sum(weights), first.sigma_eV, first.quantity)
