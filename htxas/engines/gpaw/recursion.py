"""Levels and strengths from the recursion of GPAW.

The recursion makes a tridiagonal matrix T of the Hamiltonian, starting from the vector that the dipole operator makes
of the core orbital (M. P. Ljungberg, J. J. Mortensen, L. G. M. Pettersson, J. Electron Spectrosc. Relat. Phenom. 184,
427 (2011)). The eigenvalues of T are the poles of the spectrum; the squared norm of the vector times the squares of the
first components of the eigenvectors are the squared matrix elements. They converge from the ends; in the continuum they
are points and weights of a quadrature, whose broadened sum is what converges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.units import HARTREE_EV

__all__ = ["Poles", "read_poles"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Poles:
    """Energies (eV, counted from vacuum) and squared matrix elements (bohr^2), shape (n,), ascending."""

    energies_eV: FloatArray
    squares_a02: FloatArray


def read_poles(found: Mapping[str, Any]) -> list[Poles]:
    """Return the poles along x, y and z from what the step told of its recursion.

    Raises
    ------
    KeyError, TypeError, ValueError
        It is not whole.
    """
    from scipy.linalg import eigh_tridiagonal

    squares = np.array(found["squares_a02"], dtype=np.float64)
    diagonals = np.array(found["diagonals_Ha"], dtype=np.float64)
    besides = np.array(found["besides_Ha"], dtype=np.float64)
    if squares.shape != (3,) or len(diagonals) != 3 or besides.shape != (3, diagonals.shape[1] - 1):
        raise ValueError(f"a recursion of shapes {squares.shape}, {diagonals.shape} and {besides.shape}")
    poles = []
    for square, diagonal, beside in zip(squares, diagonals, besides, strict=True):
        values, vectors = eigh_tridiagonal(diagonal, beside)
        poles.append(Poles(values * HARTREE_EV, square * vectors[0] ** 2))
    return poles
