"""From VASP's dielectric function of a core level to normalised absorption."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Curve
from htxas.domain.strength import bare_atom_density
from htxas.domain.units import HARTREE_EV
from htxas.engines.vasp.outcar import OutputError
from htxas.engines.vasp.write import AMPLIFICATION

__all__ = ["Absorption", "absorption", "strength_per_eV"]

FloatArray = npt.NDArray[np.float64]
_FIRST_PEAK = 0.1  # of the bare atom's jump: what is lower is no peak
_BEFORE_EV = 5.0  # of the spectrum, kept below its first peak
_NOTHING = 1e-3  # of the bare atom's jump
_BELOW_TOP_EV = 1.0  # levels there are less accurate, and the Gaussians of missing ones lack


@dataclass(frozen=True, slots=True, eq=False)
class Absorption:
    """A spectrum over VASP's own energies.

    Attributes
    ----------
    curve
        In units of the bare atom's jump.
    background
        The bare atom's, shape (n,).
    threshold_eV
        Where the first peak is.
    jump
        Oscillator strength per eV that 1 stands for.
    doubts
        What makes the numbers doubtful.
    """

    curve: Curve
    background: FloatArray
    threshold_eV: float
    jump: float
    doubts: tuple[str, ...]


def strength_per_eV(energies_eV: FloatArray, imaginary: FloatArray, volume_a03: float) -> FloatArray:
    """Return the oscillator strength per eV of both 1s electrons, shape as ``imaginary``.

    ``df/dE = E V eps_2(E) / (2 pi^2)`` in atomic units: with ``eps_2 = (4 pi^2 / V) 2 sum |<f|r|i>|^2 delta(E - E_fi)``
    (Karsai et al., Phys. Rev. B 98, 235205 (2018), both spins) this is ``2 n_e E |<f|r|i>|^2`` with n_e = 2, and its
    integral is the number of electrons (Thomas-Reiche-Kuhn).

    Parameters
    ----------
    energies_eV
        Of the transitions, eV, shape (n,).
    imaginary
        Of the dielectric function, not amplified, shape (n, 3).
    volume_a03
        Of the cell, bohr^3.
    """
    per_Ha = energies_eV[:, None] / HARTREE_EV * volume_a03 * imaginary / (2 * math.pi**2)
    return np.asarray(per_Ha / HARTREE_EV)


def absorption(
    energies_eV: FloatArray,
    amplified: FloatArray,
    *,
    volume_a03: float,
    element: str,
    edge: str,
    complete_eV: float,
    window_eV: float,
    broadening_eV: float,
) -> Absorption:
    """Return the spectrum from a table of ``OUTCAR``.

    It ends at the window, or 1 eV below the highest energy up to which all k points have levels. Below its first energy
    VASP's table goes on with zeros.

    Parameters
    ----------
    energies_eV, amplified
        The table: shape (n,) and (n, 3).
    volume_a03
        Of the cell, bohr^3.
    element, edge
        Absorber.
    complete_eV
        How far above the first final state all levels are there.
    window_eV
        How far above its first peak the spectrum is kept.
    broadening_eV
        Of the Gaussian VASP was told to put on.

    Raises
    ------
    OutputError
        There is no peak.
    """
    step = float(np.diff(energies_eV).mean())
    bare = bare_atom_density(element, edge, np.zeros(1))
    assert bare is not None  # a campaign of another absorber is refused
    jump = float(bare[0])
    mu = strength_per_eV(energies_eV, amplified / AMPLIFICATION, volume_a03) / jump
    y = mu.mean(axis=1)
    peaks = np.flatnonzero((y[1:-1] > y[:-2]) & (y[1:-1] >= y[2:]) & (y[1:-1] >= _FIRST_PEAK)) + 1
    if len(peaks) == 0:
        raise OutputError(
            f"the spectrum has no peak: at most {y.max():.2g} of what the bare atom absorbs at its edge"
        )
    threshold = float(energies_eV[peaks[0]])
    doubts = []
    if step > broadening_eV:
        doubts.append(
            f"the energies are {step:.3f} eV apart, and each transition {broadening_eV:g} eV wide: more points"
        )
    if y[0] > _NOTHING:
        doubts.append("VASP's table begins inside the spectrum")
    lack = math.ceil(max(0.0, energies_eV[0] - (threshold - _BEFORE_EV)) / step)
    energies = np.concatenate([energies_eV[0] + step * np.arange(-lack, 0), energies_eV])
    mu = np.concatenate([np.zeros((lack, 3)), mu])
    end = threshold + min(window_eV, complete_eV - _BELOW_TOP_EV)
    kept = (energies >= threshold - _BEFORE_EV) & (energies <= end)
    background = bare_atom_density(element, edge, energies[kept] - threshold)
    assert background is not None
    return Absorption(Curve(energies[kept], mu[kept]), background / jump, threshold, jump, tuple(doubts))
