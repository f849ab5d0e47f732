"""Intervals that hold: the ensemble's spread says where errors are larger, validation molecules say how large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LEVEL", "Intervals", "grouped_quantile"]

FloatArray = npt.NDArray[np.float64]
LEVEL = 0.9
"""Fraction of new molecules' values that an interval shall cover."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """``prediction +- quantile * (spread + floor)``, output by output; infinite where too few molecules calibrated it.

    Attributes
    ----------
    quantile, floor
        Shape (o,). The floor is the median spread over training rows: a spread of almost nothing is not believed.
    """

    quantile: FloatArray
    floor: FloatArray

    @classmethod
    def calibrate(
        cls,
        true: FloatArray,
        predicted: FloatArray,
        spread: FloatArray,
        groups: Sequence[str],
        *,
        floor: FloatArray,
        block: int = 1,
    ) -> Intervals:
        """Calibrate on rows that were not trained on.

        Parameters
        ----------
        true, predicted, spread
            Shape (n, o); the spread is the members' standard deviation.
        groups
            Molecule of each row, length n.
        floor
            Shape (o,), from training rows only.
        block
            Neighbouring outputs that share a quantile: of a curve, the band then holds for a random point of the block
            of a new molecule (pointwise; it is no band for the whole curve at once).
        """
        floor = np.maximum(floor, 1e-6 * floor.max())
        ratio = np.abs(true - predicted) / (spread + floor)
        o = true.shape[1]
        quantile = np.empty(o)
        for begin in range(0, o, block):
            part = ratio[:, begin : begin + block]
            quantile[begin : begin + block] = grouped_quantile(
                part.ravel(), np.repeat(np.asarray(groups), part.shape[1]), LEVEL
            )
        return cls(quantile, floor)

    def half_width(self, spread: FloatArray) -> FloatArray:
        """Return half the width of each interval, shape (n, o)."""
        return np.asarray(self.quantile * (spread + self.floor))


def grouped_quantile(scores: FloatArray, groups: npt.ArrayLike, level: float) -> float:
    """Return the value that the score of a row of a new group stays below with probability ``level``.

    Hierarchical conformal prediction (Lee, Barber and Willett, arXiv:2306.06342 (2023)): of K groups each weighs
    1/(K+1), shared evenly by its rows, and the group to come weighs 1/(K+1) at infinity. With one row per group it is
    split conformal prediction. Infinite if K is below ``level / (1 - level)``.

    Parameters
    ----------
    scores, groups
        Shape (n,).
    level
        Between 0 and 1.
    """
    _, member, count = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    weight = 1.0 / ((len(count) + 1) * count[member])
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weight[order])
    at = int(np.searchsorted(reached, level - 1e-12))
    return float(scores[order[at]]) if at < len(order) else math.inf
