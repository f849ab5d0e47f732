"""Transitions from the recursion of ``xspectra.x``.

The recursion makes a tridiagonal matrix T of the Hamiltonian, starting from the vector the dipole operator makes of the
core orbital (Gougoussis et al., Phys. Rev. B 80, 075102 (2009)). Its spectrum is ``|v|^2 <1|(E - T)^-1|1>``: the
eigenvalues of T are where it has poles, and ``|v|^2`` times the squares of the first components of the eigenvectors are
the squared matrix elements. They converge from the ends of the spectrum; in the continuum they are the points and
weights of a quadrature, whose broadened sum is what converges. No broadening is in them, and occupied levels can
be left out one by one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.domain.units import HARTREE_EV
from htxas.engines.qe.scf import OutputError

__all__ = ["Poles", "is_converged", "read_poles"]

FloatArray = npt.NDArray[np.float64]
_RYDBERG_EV = HARTREE_EV / 2
_CONVERGED = re.compile(r"=> CONVERGED at iter")
_NOT = re.compile(r"NOT CONVERGED|did not converge|not converged", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Poles:
    """One polarisation.

    Attributes
    ----------
    energies_eV, squares_a02
        Energies on the scale of ``pw.x``, and squared matrix elements (bohr^2, times k weights), shape (n,).
    converged
        Whether the recursion ended before its limit at every k point. What ``xspectra.x`` prints is of some of them
        only if it ran in pools.
    """

    energies_eV: FloatArray
    squares_a02: FloatArray
    converged: bool


def read_poles(path: Path, k_weights: FloatArray, axis: tuple[float, float, float]) -> Poles:
    """Return the poles of one polarisation from the file ``xspectra.x`` saves.

    Parameters
    ----------
    path
        The file.
    k_weights
        Of the k points it must have, adding up to 1.
    axis
        The polarisation it must be of.

    Raises
    ------
    OutputError
        It is not there, cut short, or of something else.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        raise OutputError(f"there is no {path.name}") from None
    if "xanes_dipole" not in text:
        raise OutputError(f"{path.name} is no finished dipole spectrum")
    reading = iter([w for line in text.splitlines() if not line.startswith("#") for w in line.split()])

    def numbers(count: int) -> FloatArray:
        return np.array([float(next(reading)) for _ in range(count)])

    try:
        spins, _ = next(reading), next(reading)
        _, points, limit, stored = (int(next(reading)) for _ in range(4))
        numbers(5)  # tabulated core level, Fermi level, wave vector
        found = numbers(3)
        if spins != "F" or points != len(k_weights):
            raise OutputError(f"{path.name} has {points} k points, pw.x had {len(k_weights)}")
        if not np.allclose(found, axis, atol=1e-6):
            raise OutputError(f"{path.name} is of another polarisation")
        norms, counts = numbers(points), numbers(points).astype(int)
        diagonals = numbers(points * stored).reshape(points, stored)
        besides = numbers(points * stored).reshape(points, stored)
    except StopIteration:
        raise OutputError(f"{path.name} is cut short") from None
    except RuntimeError as error:  # a generator's way to say so
        raise OutputError(f"{path.name} is cut short: {error}") from None
    except ValueError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path.name}: {error}") from None
    energies, squares = [], []
    for weight, norm, count, diagonal, beside in zip(
        k_weights, norms, counts, diagonals, besides, strict=True
    ):
        e, square = _poles(diagonal[:count], beside[: count - 1], norm)
        energies.append(e)
        squares.append(weight * square)
    order = np.argsort(np.concatenate(energies), kind="stable")
    return Poles(
        np.concatenate(energies)[order], np.concatenate(squares)[order], bool((counts < limit).all())
    )


def _poles(diagonal: FloatArray, beside: FloatArray, norm: float) -> tuple[FloatArray, FloatArray]:
    from scipy.linalg import eigh_tridiagonal

    values, vectors = eigh_tridiagonal(diagonal, beside)
    return values * _RYDBERG_EV, norm**2 * vectors[0] ** 2


def is_converged(output: str) -> bool | None:
    """Return whether the recursion says it converged; None if it says nothing."""
    if _NOT.search(output):
        return False
    return True if _CONVERGED.search(output) else None
