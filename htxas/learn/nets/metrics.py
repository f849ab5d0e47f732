"""How good a prediction is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["score"]

FloatArray = npt.NDArray[np.float64]
_BOOTSTRAP = 1000


def score(true: FloatArray, predicted: FloatArray) -> Mapping[str, float]:
    """Return ``r2``, ``mae``, ``rmse`` and a 90% bootstrap range of R^2 (``r2_low``, ``r2_high``) over the rows.

    ``R^2 = 1 - sum (y - p)^2 / sum (y - mean y)^2`` over the rows given; below 0 is worse than their mean. The
    bootstrap (1000 draws of rows, fixed seed) tells how much of R^2 is the luck of a small test set.

    Parameters
    ----------
    true, predicted
        Shape (n,); ``true`` is not constant.
    """
    error = predicted - true
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(true), (_BOOTSTRAP, len(true)))
    spread = true[draws].var(axis=1)
    values = 1.0 - (error[draws] ** 2).mean(axis=1)[spread > 0] / spread[spread > 0]
    low, high = np.quantile(values, [0.05, 0.95])
    return {
        "r2": float(1.0 - (error**2).mean() / true.var()),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2_low": float(low),
        "r2_high": float(high),
    }
