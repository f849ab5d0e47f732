"""What lies under an edge: fitted to the part of a spectrum before it, taken away from all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError

__all__ = ["Background", "Fit", "fit_background"]

FloatArray = npt.NDArray[np.float64]
_SPARE = 3


class Background(StrEnum):
    """Form of the background."""

    NONE = "none"
    LINEAR = "linear"  # a + b E
    POLYNOMIAL = "polynomial"  # a + b E + c E^2
    VICTOREEN = (
        "victoreen"  # a / E^3 + b / E^4: other shells' absorption (Victoreen, J. Appl. Phys. 14, 95 (1943))
    )
    POWER = (
        "power-law"  # a E^-r: energy loss (Egerton, Electron Energy-Loss Spectroscopy, 3rd ed., section 4.4)
    )


_POWERS = {
    Background.LINEAR: (0, 1),
    Background.POLYNOMIAL: (0, 1, 2),
    Background.VICTOREEN: (-3, -4),
}
_FORMULAS = {
    Background.LINEAR: "a + b x",
    Background.POLYNOMIAL: "a + b x + c x^2",
    Background.VICTOREEN: "a / x^3 + b / x^4",
    Background.POWER: "a x^-r",
}


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted background.

    Attributes
    ----------
    formula
        In ``x = E / (1 eV)`` divided by ``centre_eV``.
    centre_eV
        Middle of the range that it was fitted in.
    coefficients
        By letter.
    rms
        Root mean square of what is left in that range, in the file's unit.
    points
        How many points it was fitted to.
    """

    formula: str
    centre_eV: float
    coefficients: dict[str, float]
    rms: float
    points: int
    _at: Callable[[FloatArray], FloatArray]

    def __call__(self, energies_eV: FloatArray) -> FloatArray:
        """Return the background, shape (n,)."""
        return self._at(energies_eV)


def fit_background(
    kind: Background,
    energies_eV: FloatArray,
    intensity: FloatArray,
    range_eV: tuple[float, float],
    where: str,
) -> Fit:
    """Fit a background by least squares to the points within ``range_eV``; a power law to their logarithms.

    Parameters
    ----------
    energies_eV, intensity
        Shape (n,).

    Raises
    ------
    DatasetError
        Too few points in the range, energies or intensities that the form does not take.
    """
    inside = (energies_eV >= range_eV[0]) & (energies_eV <= range_eV[1])
    wanted = (2 if kind is Background.POWER else len(_POWERS[kind])) + _SPARE
    span = f"{range_eV[0]:g} to {range_eV[1]:g} eV"
    if inside.sum() < wanted:
        raise DatasetError(
            f"{int(inside.sum())} points before the edge, {span}; a {kind} background needs {wanted}",
            where=where,
            hint=f"the file covers {energies_eV[0]:.1f} to {energies_eV[-1]:.1f} eV: another --pre-edge",
        )
    centre = float(energies_eV[inside].mean())
    if kind in (Background.VICTOREEN, Background.POWER) and energies_eV[0] <= 0:
        raise DatasetError(f"a {kind} background needs energies above zero", where=where)
    if kind is Background.POWER:
        y = intensity[inside]
        if (y <= 0).any():
            raise DatasetError(
                f"a power-law background needs intensities above zero in {span}",
                where=where,
                hint="--background linear",
            )
        slope, log_a = np.polyfit(np.log(energies_eV[inside] / centre), np.log(y), 1)
        a = float(np.exp(log_a))

        def at(e: FloatArray) -> FloatArray:
            return np.asarray(a * (e / centre) ** slope)

        coefficients = {"a": a, "r": float(-slope)}
    else:
        powers = np.array(_POWERS[kind])

        def basis(e: FloatArray) -> FloatArray:
            return np.asarray((e[:, None] / centre) ** powers)

        solved, *_ = np.linalg.lstsq(basis(energies_eV[inside]), intensity[inside], rcond=None)

        def at(e: FloatArray) -> FloatArray:
            return np.asarray(basis(e) @ solved)

        coefficients = {letter: float(v) for letter, v in zip("abc", solved, strict=False)}
    left = intensity[inside] - at(energies_eV[inside])
    return Fit(
        _FORMULAS[kind],
        centre,
        coefficients,
        float(np.sqrt((left**2).mean())),
        int(inside.sum()),
        at,
    )
