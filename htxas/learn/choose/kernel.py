"""Ridge regression with a Laplacian kernel, on landmarks where there are many rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["kernel_regression"]

FloatArray = npt.NDArray[np.float64]

_GAMMA = 0.3  # times the mean absolute difference of standardised columns
_RIDGE = 1e-3
_LANDMARKS = 1500
_ROWS_AT_ONCE = 4000
_JITTER = 1e-8


def kernel_regression(x: npt.ArrayLike, y: FloatArray, x_test: npt.ArrayLike, *, seed: int) -> FloatArray:
    """Fit y (n, t) on x (n, d) and return what is said of x_test (m, d), shape (m, t).

    ``k(a, b) = exp(-0.3 mean_k |a_k - b_k|)`` on columns standardised by the training rows. Up to 1,500 rows all are
    landmarks, and this is kernel ridge regression; beyond, that many drawn rows are (the subset of regressors of
    Quinonero-Candela and Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005)), and memory does not grow with n.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the landmarks' kernel is not positive definite: a bug, a jitter of 1e-8 makes equal rows harmless.
    """
    from scipy.linalg import cholesky, solve, solve_triangular
    from sklearn.metrics.pairwise import laplacian_kernel

    rows, rows_test = np.asarray(x, dtype=np.float64), np.asarray(x_test, dtype=np.float64)
    scale = rows.std(axis=0)
    keep = scale > 1e-9
    mean, scale = rows[:, keep].mean(axis=0), scale[keep]
    gamma = _GAMMA / max(1, int(keep.sum()))

    def standard(part: FloatArray) -> FloatArray:
        return np.asarray((part[:, keep] - mean) / scale)

    drawn = np.random.default_rng(seed).permutation(len(rows))[:_LANDMARKS]
    landmarks = standard(rows[np.sort(drawn)])
    among = laplacian_kernel(landmarks, gamma=gamma)
    lower = cholesky(among + _JITTER * np.eye(len(landmarks)), lower=True)

    def features(part: FloatArray) -> FloatArray:
        cross = laplacian_kernel(landmarks, standard(part), gamma=gamma)
        return np.asarray(solve_triangular(lower, cross, lower=True).T)

    offset = y.mean(axis=0)
    gram = _RIDGE * np.eye(len(landmarks))
    right = np.zeros((len(landmarks), y.shape[1]))
    for part in _slices(len(rows)):
        phi = features(rows[part])
        gram += phi.T @ phi
        right += phi.T @ (y[part] - offset)
    weights = solve(gram, right, assume_a="pos")
    said = np.empty((len(rows_test), y.shape[1]))
    for part in _slices(len(rows_test)):
        said[part] = features(rows_test[part]) @ weights + offset
    return said


def _slices(n: int) -> Iterator[slice]:
    for begin in range(0, n, _ROWS_AT_ONCE):
        yield slice(begin, min(begin + _ROWS_AT_ONCE, n))
