"""How far a spectrum lies from those a net was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Domain"]

FloatArray = npt.NDArray[np.float64]
_VARIANCE = 0.99
_MOST = 20
_NEIGHBOURS = 5
_OWN = 2000
_CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """Training rows in the space of their principal components, each scaled to variance 1.

    Attributes
    ----------
    mean, components
        Scores of standardised inputs z are ``(z - mean) @ components``; shapes (d,), (d, c). Components hold 99% of the
        variance, at most 20 of them.
    scores
        Of the training rows, shape (n, c), float32.
    own
        Sorted distances of training rows to the others, shape (k,): of all, or of 2000 spread over them.
    """

    mean: FloatArray
    components: FloatArray
    scores: npt.NDArray[np.float32]
    own: FloatArray

    @classmethod
    def fit(cls, z: FloatArray, groups: Sequence[str]) -> Domain:
        """Fit on standardised training rows (n, d); a row's own molecule is no neighbour of it."""
        from sklearn.decomposition import PCA

        pca = PCA(min(_MOST, *z.shape), svd_solver="full" if len(z) < 10 * z.shape[1] else "covariance_eigh")
        pca.fit(z)
        reached = np.cumsum(pca.explained_variance_ratio_)
        count = min(int(np.searchsorted(reached, _VARIANCE)) + 1, len(reached))
        components = pca.components_[:count].T / np.sqrt(pca.explained_variance_[:count])
        scores = ((z - pca.mean_) @ components).astype(np.float32)
        shown = np.unique(np.linspace(0, len(z) - 1, min(_OWN, len(z))).astype(int))
        _, member = np.unique(np.asarray(groups), return_inverse=True)
        own = _nearest(scores[shown], scores, (member[shown], member))[0].mean(axis=1)
        return cls(pca.mean_, components, scores, np.sort(own))

    def nearest(self, z: FloatArray) -> tuple[FloatArray, npt.NDArray[np.intp]]:
        """Return distances to, and places among the training rows of, the five nearest: shapes (n, 5)."""
        return _nearest(((z - self.mean) @ self.components).astype(np.float32), self.scores, None)

    def percentile(self, z: FloatArray) -> FloatArray:
        """Return for each row (n, d) the percentage of training rows that lie nearer to the others than it does.

        The distance is the mean over the five nearest training rows. 100: farther than any training row.
        """
        distance = self.nearest(z)[0].mean(axis=1)
        return np.asarray(100.0 * np.searchsorted(self.own, distance) / len(self.own))


def _nearest(
    queries: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    members: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None,
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    from scipy.spatial.distance import cdist

    k = min(_NEIGHBOURS, len(reference))
    distances, places = [], []
    for begin in range(0, len(queries), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        d = cdist(queries[part], reference)
        if members is not None:
            d[members[0][part, None] == members[1][None]] = np.inf
        near = np.argpartition(d, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(near, np.take_along_axis(d, near, 1).argsort(axis=1, kind="stable"), 1)
        distances.append(np.take_along_axis(d, near, 1))
        places.append(near)
    return np.concatenate(distances), np.concatenate(places)
