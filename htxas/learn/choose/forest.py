"""From a molecule's description to its spectrum: an ensemble of trees whose disagreement is the uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TREES", "Forest"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

TREES = 100
_COMPONENTS = 8
_FEATURES = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Extremely randomised trees (Geurts, Ernst, Wehenkel, Mach. Learn. 63, 3 (2006)), several outputs at once.

    Outputs are the leading principal components of the spectra, divided by the root mean square deviation of a
    spectrum from the mean one, and the standardised targets: the whole spectrum counts as much as one target.

    Attributes
    ----------
    mean, components
        Of the spectra, shapes (points,) and (k, points); components have norm 1.
    scale
        Root mean square deviation of a training spectrum from the mean one (norm over its points).
    target_mean, target_scale
        Shape (t,).
    """

    _model: Any
    mean: FloatArray
    components: FloatArray
    scale: float
    target_mean: FloatArray
    target_scale: FloatArray

    @classmethod
    def fit(
        cls,
        descriptors: FloatArray,
        spectra: npt.ArrayLike,
        targets: FloatArray,
        *,
        seed: int,
        trees: int = TREES,
    ) -> Forest:
        """Fit to n molecules: descriptors (n, d), spectra (n, points), targets (n, t)."""
        from sklearn.ensemble import ExtraTreesRegressor

        values = np.asarray(spectra, dtype=np.float64)
        mean = values.mean(axis=0)
        _, _, components = np.linalg.svd(values - mean, full_matrices=False)
        components = components[:_COMPONENTS]
        scale = float(np.sqrt(((values - mean) ** 2).sum(axis=1).mean())) or 1.0
        target_scale = targets.std(axis=0)
        target_scale[target_scale == 0] = 1.0
        outputs = np.hstack(
            [(values - mean) @ components.T / scale, (targets - targets.mean(axis=0)) / target_scale]
        )
        model = ExtraTreesRegressor(trees, max_features=_FEATURES, random_state=seed)
        model.fit(descriptors, outputs)
        return cls(model, mean, components, scale, targets.mean(axis=0), target_scale)

    def outputs(self, descriptors: FloatArray) -> FloatArray:
        """Return the mean over the trees in the units of the outputs, shape (n, k + t)."""
        return np.asarray(self._model.predict(descriptors), dtype=np.float64)

    def deviations(self, descriptors: FloatArray) -> Float32Array:
        """Return how each tree departs from the mean, shape (n, trees * outputs), divided by sqrt(trees).

        The product of two rows is the covariance of two molecules over the trees, added up over the outputs; that of
        a row with itself is its variance.
        """
        x = np.ascontiguousarray(descriptors, dtype=np.float32)
        trees = self._model.estimators_
        mean = self.outputs(descriptors).astype(np.float32)
        rows = np.empty((len(x), len(trees), mean.shape[1]), dtype=np.float32)
        for i, tree in enumerate(trees):
            rows[:, i] = tree.predict(x).reshape(mean.shape) - mean
        return rows.reshape(len(x), -1) / np.float32(np.sqrt(len(trees)))

    def predict(self, descriptors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return spectra (n, points) and targets (n, t)."""
        outputs = self.outputs(descriptors)
        k = len(self.components)
        spectra = outputs[:, :k] * self.scale @ self.components + self.mean
        return spectra, outputs[:, k:] * self.target_scale + self.target_mean
