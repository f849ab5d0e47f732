"""Sticks and gridded spectra, on absolute energies, polarisation by polarisation.

Conventions, everywhere in htxas:

- energies are absolute transition energies in eV;
- a stick's strength is an oscillator strength per polarisation, ``f_a = 2 n_e (E_f - E_i) |<f|r_a|i>|^2`` in atomic
  units with ``n_e`` = 2 electrons in the 1s shell (Thomas-Reiche-Kuhn normalisation: f_a sums to the number of
  electrons over a complete set of final states);
- the isotropic value is the mean of x, y and z (Shibata et al., Sci. Data 9, 214 (2022));
- grids lie on whole multiples of the step, so two spectra with the same step always share their points: spectra
  are added point by point, never interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.units import BOHR_A, HARTREE_EV

__all__ = ["Spectrum", "Sticks", "broaden", "combine", "dsf_A2"]

FloatArray = npt.NDArray[np.float64]


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
        Shape (n, 3): x, y, z in oscillator strength per eV.
    sigma_eV
        Gaussian sigma in eV.
    """

    start: int
    step_eV: float
    intensity: FloatArray
    sigma_eV: float

    @property
    def energies_eV(self) -> FloatArray:
        """Absolute energies in eV, shape (n,)."""
        return np.asarray((self.start + np.arange(len(self.intensity))) * self.step_eV, dtype=np.float64)

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
    norm = 1.0 / (sigma_eV * math.sqrt(2 * math.pi))
    lines = norm * np.exp(-0.5 * ((grid[:, None] - sticks.energies_eV[None]) / sigma_eV) ** 2)
    return Spectrum(first, step_eV, lines @ sticks.strengths, sigma_eV)


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

    Outside its own grid (more than ``margin`` beyond its last stick) a spectrum is zero.

    Raises
    ------
    ValueError
        If steps or broadenings differ, or nothing is given: nothing is resampled silently.
    """
    if not spectra or len(spectra) != len(weights) or min(weights) <= 0:
        raise ValueError("combine needs one positive weight per spectrum")
    first = spectra[0]
    for s in spectra[1:]:
        if s.step_eV != first.step_eV or s.sigma_eV != first.sigma_eV:
            raise ValueError("spectra of different step or broadening are not combined")
    start = min(s.start for s in spectra)
    stop = max(s.start + len(s.intensity) for s in spectra)
    total = np.zeros((stop - start, 3))
    for s, w in zip(spectra, weights, strict=True):
        total[s.start - start : s.start - start + len(s.intensity)] += w * s.total[:, None]
    return Spectrum(start, first.step_eV, total / sum(weights), first.sigma_eV)
