"""What a net must beat, on the same inputs: mean, ridge, neighbours, trees, and ridge on principal components."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BASELINES", "Baseline", "fit_baselines"]

FloatArray = npt.NDArray[np.float64]
Predict = Callable[[FloatArray], FloatArray]

BASELINES: dict[str, str] = {
    "mean": "mean",
    "ridge": "ridge",
    "knn": "kNN",
    "trees": "ExtraTrees",
    "pca_ridge": "PCA+ridge",
}
"""Baselines and how tables call them."""

_ALPHAS = tuple(10.0**e for e in np.arange(-3.0, 5.0, 0.5))
_NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20)
_COMPONENTS = (5, 10, 20, 40, 80)
_LEAVES = (1, 3)
_TREES = 100
_TREE_ROWS = 20_000
_TREE_OUTPUTS = 30
_CHUNK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A fitted baseline.

    Attributes
    ----------
    predict
        From standardised inputs (n, d) to outputs (n, o).
    chosen
        What the validation rows chose.
    """

    predict: Predict
    chosen: Mapping[str, Any]


def fit_baselines(
    x: FloatArray, y: FloatArray, x_validation: FloatArray, y_validation: FloatArray
) -> dict[str, Baseline]:
    """Fit all :data:`BASELINES` on the training rows, settings chosen by the validation rows' squared error.

    None is fitted again on training plus validation: the net does not get those rows either.

    Parameters
    ----------
    x, x_validation
        Standardised inputs, shape (n, d).
    y, y_validation
        Outputs, shape (n, o); one setting serves all o of them.
    """
    mean = y.mean(axis=0)
    fitted = {"mean": Baseline(lambda rows: np.tile(mean, (len(rows), 1)), {})}
    candidates: dict[str, Iterator[tuple[dict[str, Any], Predict, FloatArray]]] = {
        "ridge": _ridge(x, y, x_validation),
        "knn": _knn(x, y, x_validation),
        "trees": _trees(x, y, x_validation),
        "pca_ridge": _pca_ridge(x, y, x_validation),
    }
    for name, options in candidates.items():
        best = float("inf")
        for chosen, predict, seen in options:
            error = float(((seen - y_validation) ** 2).mean())
            if error < best:
                best, fitted[name] = error, Baseline(predict, chosen)
    return fitted


def _ridge(
    x: FloatArray, y: FloatArray, x_validation: FloatArray
) -> Iterator[tuple[dict[str, Any], Predict, FloatArray]]:
    for alpha, predict in _ridges(x, y):
        yield {"alpha": alpha}, predict, predict(x_validation)


def _pca_ridge(
    x: FloatArray, y: FloatArray, x_validation: FloatArray
) -> Iterator[tuple[dict[str, Any], Predict, FloatArray]]:
    from sklearn.decomposition import PCA

    most = min(max(_COMPONENTS), *x.shape)
    pca = PCA(most, svd_solver="full" if len(x) < 10 * x.shape[1] else "covariance_eigh").fit(x)
    scores, seen = pca.transform(x), pca.transform(x_validation)
    for count in sorted({min(c, most) for c in _COMPONENTS}):
        for alpha, ridge in _ridges(scores[:, :count], y):

            def predict(rows: FloatArray, count: int = count, ridge: Predict = ridge) -> FloatArray:
                return ridge(pca.transform(rows)[:, :count])

            yield {"components": count, "alpha": alpha}, predict, ridge(seen[:, :count])


def _ridges(x: FloatArray, y: FloatArray) -> Iterator[tuple[float, Predict]]:
    from sklearn.linear_model import Ridge

    for alpha in _ALPHAS:
        model = Ridge(alpha=alpha).fit(x, y)

        def predict(rows: FloatArray, model: Any = model, o: int = y.shape[1]) -> FloatArray:
            return np.asarray(model.predict(rows), dtype=np.float64).reshape(len(rows), o)

        yield alpha, predict


def _knn(
    x: FloatArray, y: FloatArray, x_validation: FloatArray
) -> Iterator[tuple[dict[str, Any], Predict, FloatArray]]:
    from sklearn.neighbors import NearestNeighbors

    finder = NearestNeighbors(n_neighbors=min(max(_NEIGHBOURS), len(x)), algorithm="brute", n_jobs=1).fit(x)
    found = finder.kneighbors(x_validation)
    for k in _NEIGHBOURS:
        if k > len(x):
            break
        for weights in ("uniform", "distance"):

            def predict(rows: FloatArray, k: int = k, weights: str = weights) -> FloatArray:
                distances, near = finder.kneighbors(rows, n_neighbors=k)
                return _average(distances, near, y, weights)

            chosen = {"neighbours": k, "weights": weights}
            yield chosen, predict, _average(found[0][:, :k], found[1][:, :k], y, weights)


def _average(
    distances: FloatArray, neighbours: npt.NDArray[np.intp], y: FloatArray, weights: str
) -> FloatArray:
    if weights == "uniform":
        w = np.ones_like(distances)
    else:  # rows at no distance alone count where there are any
        same = distances == 0
        with np.errstate(divide="ignore"):
            w = np.where(same.any(axis=1, keepdims=True), same, 1.0 / distances)
    w = w / w.sum(axis=1, keepdims=True)
    parts = [
        np.einsum("nk,nko->no", w[b : b + _CHUNK], y[neighbours[b : b + _CHUNK]])
        for b in range(0, len(w), _CHUNK)
    ]
    return np.concatenate(parts)


def _trees(
    x: FloatArray, y: FloatArray, x_validation: FloatArray
) -> Iterator[tuple[dict[str, Any], Predict, FloatArray]]:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import ExtraTreesRegressor

    # A tree's cost grows with its outputs: of a curve it predicts principal components.
    parts = (
        PCA(min(_TREE_OUTPUTS, *y.shape), svd_solver="full").fit(y) if y.shape[1] > _TREE_OUTPUTS else None
    )
    t = y if parts is None else parts.transform(y)
    outputs: dict[str, Any] = {} if parts is None else {"output_components": t.shape[1]}
    # Above 20,000 rows each tree is grown on as many, drawn with replacement: trees on all would outlast the nets.
    limits: dict[str, Any] = {"bootstrap": True, "max_samples": _TREE_ROWS} if len(x) > _TREE_ROWS else {}
    for leaf in _LEAVES:
        model = ExtraTreesRegressor(
            _TREES, min_samples_leaf=leaf, max_features=1 / 3, random_state=0, n_jobs=1, **limits
        ).fit(x, t if t.shape[1] > 1 else t[:, 0])

        def predict(rows: FloatArray, model: Any = model) -> FloatArray:
            found = np.asarray(model.predict(rows), dtype=np.float64).reshape(len(rows), t.shape[1])
            return found if parts is None else np.asarray(parts.inverse_transform(found))

        yield {"min_samples_leaf": leaf, "trees": _TREES, **limits, **outputs}, predict, predict(x_validation)
