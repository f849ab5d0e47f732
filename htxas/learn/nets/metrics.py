"""How good a prediction is; how far that is luck is asked of molecules, not of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Bootstrap", "score", "score_curve"]

FloatArray = npt.NDArray[np.float64]
_DRAWS = 1000
_RANGE = (0.05, 0.95)


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Draws of groups with replacement, the same for every method that is scored: 1000 of them, fixed seed.

    Attributes
    ----------
    members
        Group number of each row, shape (n,).
    draws
        How often each group is in each draw, shape (1000, groups).
    """

    members: npt.NDArray[np.intp]
    draws: FloatArray

    @classmethod
    def of(cls, groups: Sequence[str]) -> Bootstrap:
        """Return the draws for rows of these groups; several rows of a molecule are not independent."""
        names, members = np.unique(np.asarray(groups), return_inverse=True)
        g = len(names)
        draws = np.random.default_rng(0).multinomial(g, np.full(g, 1.0 / g), size=_DRAWS)
        return cls(members, draws.astype(np.float64))

    def sums(self, rows: FloatArray) -> FloatArray:
        """Return the sum over each draw's rows of ``rows`` (n,) or (n, k): (1000,) or (1000, k)."""
        per_group = np.zeros((self.draws.shape[1], *rows.shape[1:]))
        np.add.at(per_group, self.members, rows)
        return np.asarray(self.draws @ per_group)

    def mean(self, rows: FloatArray) -> tuple[float, float, float]:
        """Return the mean of ``rows`` (n,), every group weighing the same, and the 5% and 95% quantile of its draws."""
        weight = 1.0 / np.bincount(self.members)[self.members]
        low, high = np.quantile(self.sums(rows * weight) / self.sums(weight), _RANGE)
        return float((rows * weight).sum() / weight.sum()), float(low), float(high)


def score(true: FloatArray, predicted: FloatArray, bootstrap: Bootstrap) -> dict[str, float]:
    """Return ``r2``, ``mae``, ``rmse`` and a 90% bootstrap range of R^2 (``r2_low``, ``r2_high``).

    ``R^2 = 1 - sum (y - p)^2 / sum (y - mean y)^2`` over the rows given; below 0 is worse than their mean. The
    bootstrap over molecules tells how much of R^2 is the luck of a small test set.

    Parameters
    ----------
    true, predicted
        Shape (n,); ``true`` is not constant.
    bootstrap
        Of the rows' molecules.
    """
    error = predicted - true
    return {
        **_r2(true[:, None], predicted[:, None], bootstrap),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
    }


def score_curve(
    true: FloatArray, predicted: FloatArray, bootstrap: Bootstrap, *, step: float, zero: int | None
) -> dict[str, float]:
    """Return how near curves (n, m) are.

    ``mse``: mean over rows and points. ``r2`` with its range as for numbers, sums over rows and points, the mean being
    the mean curve. ``wasserstein``: mean over rows of ``step sum_i |step sum_(j<=i) (p_j - y_j)|``
    (:func:`htxas.learn.nets.losses.wasserstein`). ``cosine``: mean over rows of ``p.y / |p||y|``; a row where either is
    zero throughout has none and is not in the mean. ``mse_below``, ``mse_above``: below the point ``zero``, and
    from it on. Where 0 is the HOMO, half of its own broadened level is on either side.
    """
    square = (predicted - true) ** 2
    carried = np.abs(np.cumsum(predicted - true, axis=1)).sum(axis=1) * step**2
    norms = np.linalg.norm(true, axis=1) * np.linalg.norm(predicted, axis=1)
    known = norms > 0
    cosines = (true * predicted).sum(axis=1)[known] / norms[known]
    found = {
        **_r2(true, predicted, bootstrap),
        "mse": float(square.mean()),
        "mae": float(np.abs(predicted - true).mean()),
        "rmse": float(np.sqrt(square.mean())),
        "wasserstein": float(carried.mean()),
        "cosine": float(cosines.mean()),
    }
    if zero is not None:
        found |= {
            "mse_below": float(square[:, :zero].mean()),
            "mse_above": float(square[:, zero:].mean()),
        }
    return found


def _r2(true: FloatArray, predicted: FloatArray, bootstrap: Bootstrap) -> dict[str, float]:
    centred = true - true.mean(axis=0)  # keeps digits of large numbers that vary little
    error = ((predicted - true) ** 2).sum(axis=1)
    n = bootstrap.sums(np.ones(len(true)))
    spread = bootstrap.sums((centred**2).sum(axis=1)) - (bootstrap.sums(centred) ** 2).sum(axis=1) / n
    varied = spread > 1e-12 * (centred**2).sum()  # a draw of one molecule only has no R^2
    values = 1.0 - bootstrap.sums(error)[varied] / spread[varied]
    low, high = np.quantile(values, _RANGE)
    return {
        "r2": float(1.0 - error.sum() / (centred**2).sum()),
        "r2_low": float(low),
        "r2_high": float(high),
    }
