"""What a net must beat: the mean, ridge regression and nearest neighbours, on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BASELINES", "Baseline", "fit_baselines"]

FloatArray = npt.NDArray[np.float64]

BASELINES: tuple[str, ...] = ("mean", "ridge", "knn")
_ALPHAS = tuple(10.0**e for e in np.arange(-3.0, 5.0, 0.5))
_NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20)


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A fitted baseline: its predictions of the test rows (n,), and what the validation split chose."""

    predicted: FloatArray
    chosen: Mapping[str, Any]


def fit_baselines(
    x: FloatArray, y: FloatArray, x_validation: FloatArray, y_validation: FloatArray, x_test: FloatArray
) -> dict[str, Baseline]:
    """Fit all :data:`BASELINES` on the training rows, settings chosen by the validation rows' squared error.

    None is fitted again on training plus validation: the net does not get those rows either.

    Parameters
    ----------
    x, x_validation, x_test
        Standardised inputs, shape (n, d).
    y, y_validation
        Target, shape (n,).
    """
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor

    candidates: dict[str, list[tuple[dict[str, Any], Any]]] = {
        "ridge": [({"alpha": a}, Ridge(alpha=a)) for a in _ALPHAS],
        "knn": [
            ({"neighbours": k, "weights": w}, KNeighborsRegressor(n_neighbors=k, weights=w))
            for k in _NEIGHBOURS
            if k <= len(x)
            for w in ("uniform", "distance")
        ],
    }
    fitted = {"mean": Baseline(np.full(len(x_test), y.mean()), {})}
    for name, options in candidates.items():
        errors = []
        for _, model in options:
            model.fit(x, y)
            errors.append(float(((model.predict(x_validation) - y_validation) ** 2).mean()))
        chosen, model = options[int(np.argmin(errors))]
        fitted[name] = Baseline(np.asarray(model.predict(x_test), dtype=np.float64), chosen)
    return fitted
