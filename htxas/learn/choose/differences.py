"""How far two ways to choose differ, and how surely. Repeats share molecules: they are not so many measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "over_molecules", "over_repeats"]

FloatArray = npt.NDArray[np.float64]
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Relative difference of two errors: -0.05 is an error that is 5 % smaller.

    Attributes
    ----------
    by_size, by_size_error
        At each number of training molecules, and its standard error, shape (k,).
    mean, error
        Mean over all sizes but the first, where both have the same molecules, and its standard error.
    """

    by_size: FloatArray
    by_size_error: FloatArray
    mean: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return {
            "by_size": self.by_size.tolist(),
            "by_size_error": self.by_size_error.tolist(),
            "mean": self.mean,
            "error": self.error,
        }


def over_repeats(ours: FloatArray, chance: FloatArray, test: int, sizes: FloatArray) -> Difference:
    """Compare errors (repeats, k) of repeats that divide one set of molecules anew into training and test.

    Training sets overlap, so the variance between repeats is multiplied by ``1 / repeats + test / size`` instead of
    ``1 / repeats`` (Nadeau and Bengio, Machine Learning 52, 239 (2003)).

    Parameters
    ----------
    ours, chance
        Root mean square errors, paired by repeat.
    test, sizes
        Molecules tested in a repeat, and trained on, shape (k,).
    """
    relative = ours / chance - 1.0
    means, repeats = relative[:, 1:].mean(axis=1), len(relative)
    by_size_error, error = np.full(len(sizes), np.inf), np.inf
    if repeats > 1:
        by_size_error = relative.std(axis=0, ddof=1) * np.sqrt(1.0 / repeats + test / sizes)
        error = float(means.std(ddof=1) * np.sqrt(1.0 / repeats + test / sizes[1:].mean()))
    return Difference(relative.mean(axis=0), by_size_error, float(means.mean()), float(error))


def over_molecules(ours: FloatArray, chance: FloatArray, seed: int) -> Difference:
    """Compare squared errors of the same test molecules, shapes (molecules, k): mean squares over the repeats of each.

    The standard error is that of 2000 bootstrap samples of the molecules: what other test molecules would change. What
    another run of the choice would change is not in it.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(ours), (_RESAMPLES, len(ours)))

    def relative(rows: npt.NDArray[np.intp]) -> FloatArray:
        return np.asarray(np.sqrt(ours[rows].mean(axis=-2) / chance[rows].mean(axis=-2)) - 1.0)

    found = relative(np.arange(len(ours)))
    again = np.array([relative(rows) for rows in drawn])
    return Difference(
        found, again.std(axis=0), float(found[1:].mean()), float(again[:, 1:].mean(axis=1).std())
    )
