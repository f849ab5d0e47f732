"""Which of many molecules to take, and in which order: by uncertainty, by diversity, at random.

Pure functions on arrays: what the command does and what the study measures is the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["Picked", "Strategy", "by_diversity", "by_uncertainty", "spread"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

_DIRECTIONS = 256
_SPACE = 16
_NOISE = 0.1


class Strategy(StrEnum):
    """How to choose."""

    UNCERTAINTY = "uncertainty"  # what takes most disagreement out of the model over the whole list
    DIVERSITY = "diversity"  # what is farthest from everything computed or chosen before
    RANDOM = "random"  # the measure of the other two


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """Rows in the order they were picked, with why.

    Attributes
    ----------
    rows
        Row numbers, shape (n,).
    score
        Shape (n,). By uncertainty: which share of the list's disagreement (its variance over the trees, added up)
        computing the molecule is expected to take away, after all picked before it. By diversity: distance to the
        nearest molecule that is computed or was picked before.
    """

    rows: npt.NDArray[np.intp]
    score: FloatArray


def spread(deviations: Float32Array) -> FloatArray:
    """Return the standard deviation over the trees, outputs added up, shape (n,)."""
    return np.asarray(np.sqrt(np.einsum("np,np->n", deviations, deviations, dtype=np.float64)))


def by_uncertainty(deviations: Float32Array, n: int, *, given: Sequence[int] = ()) -> Picked:
    """Pick one after another the row that takes most variance out of all rows together.

    The trees are taken for draws from a Gaussian process: knowing row i leaves the covariance
    ``C - c_i c_i^T / (C_ii + noise)`` and takes ``sum_j C_ij^2 / (C_ii + noise)`` away (Cohn, Ghahramani, Jordan, J.
    Artif. Intell. Res. 4, 129 (1996); the update is that of an ensemble Kalman filter). A near copy of a picked row has
    nothing left to tell, and a row that is like no other tells of nothing but itself. Noise: a tenth of the median
    variance. Kept are the leading 256 directions.

    Parameters
    ----------
    deviations
        As :meth:`htxas.learn.choose.forest.Forest.deviations`, shape (n_rows, p).
    n
        How many; not more than there are rows that are not given.
    given
        Rows that will be known anyway (submitted already): they come first and are not returned.
    """
    a = _leading(deviations)
    n_rows = len(a)
    noise = _NOISE * float(np.median(np.einsum("np,np->n", a, a))) or 1e-12
    variance = np.einsum("np,np->n", a, a)
    total = float(variance.sum()) or 1.0
    gram = a.T @ a
    squares = np.einsum("np,pq,nq->n", a, gram, a, optimize=True)  # sum_j C_ij^2
    sigma = np.eye(a.shape[1])
    free = np.ones(n_rows, dtype=bool)
    free[list(given)] = False
    rows, scores = [], []
    for step in range(len(given) + n):
        gains = squares / (variance + noise)
        if step < len(given):
            i = given[step]
        else:
            i = int(np.argmax(np.where(free, gains, -np.inf)))
            rows.append(i)
            scores.append(float(gains[i]) / total)
            free[i] = False
        weights = sigma @ a[i]
        column = a @ weights  # C_i
        known = float(column[i]) + noise
        through = a @ (sigma @ (a.T @ column))  # C C_i
        squares += column**2 * (float(column @ column) / known**2) - 2.0 * column * through / known
        variance -= column**2 / known
        sigma -= np.outer(weights, weights) / known
        np.maximum(squares, 0.0, out=squares)
        np.maximum(variance, 0.0, out=variance)
    return Picked(np.array(rows, dtype=np.intp), np.array(scores))


def _leading(deviations: Float32Array) -> FloatArray:
    """Return the rows in their leading directions: products of rows stay what they were, nearly."""
    gram = (deviations.T @ deviations).astype(np.float64)
    _, vectors = np.linalg.eigh(gram)
    return np.asarray(deviations @ vectors[:, ::-1][:, :_DIRECTIONS].astype(np.float32), dtype=np.float64)


def by_diversity(descriptors: FloatArray, n: int, *, given: Sequence[int]) -> Picked:
    """Pick one after another the row that is farthest from its nearest given or picked one.

    Farthest-first traversal (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)) in the 16 leading principal components of
    the standardised descriptors: what only one molecule in thousands has does not stretch the space.

    Parameters
    ----------
    descriptors
        Of all rows, shape (n_rows, d).
    n
        How many; not more than there are rows that are not given.
    given
        Rows that are computed or will be; at least one.
    """
    space = _principal(descriptors)
    distance = np.full(len(space), np.inf)
    for i in given:
        np.minimum(distance, _distances(space, i), out=distance)
    free = np.ones(len(space), dtype=bool)
    free[list(given)] = False
    rows, scores = [], []
    for _ in range(n):
        i = int(np.argmax(np.where(free, distance, -np.inf)))
        rows.append(i)
        scores.append(float(distance[i]))
        free[i] = False
        np.minimum(distance, _distances(space, i), out=distance)
    return Picked(np.array(rows, dtype=np.intp), np.array(scores))


def _principal(descriptors: FloatArray) -> FloatArray:
    scale = descriptors.std(axis=0)
    scale[scale < 1e-9] = np.inf  # a constant column says nothing
    z = (descriptors - descriptors.mean(axis=0)) / scale
    _, vectors = np.linalg.eigh(z.T @ z)
    return np.asarray(z @ vectors[:, ::-1][:, :_SPACE])


def _distances(space: FloatArray, i: int) -> FloatArray:
    return np.asarray(np.linalg.norm(space - space[i], axis=1))
