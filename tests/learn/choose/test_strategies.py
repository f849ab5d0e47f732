from __future__ import annotations

import numpy as np

from htxas.learn.choose.strategies import by_diversity, by_uncertainty, spread


def brute_force(a: np.ndarray, n: int, given: tuple[int, ...] = ()) -> list[int]:
    """Condition the whole covariance matrix, one row after another."""
    c = a @ a.T
    noise = 0.1 * np.median(np.diag(c))
    picked: list[int] = []
    for step in range(len(given) + n):
        gains = (c**2).sum(axis=0) / (np.diag(c) + noise)
        gains[[*given, *picked]] = -1
        i = given[step] if step < len(given) else int(gains.argmax())
        if step >= len(given):
            picked.append(i)
        c = c - np.outer(c[:, i], c[i]) / (c[i, i] + noise)
    return picked


def test_uncertainty_is_the_conditioned_covariance() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 20)).astype(np.float32) * rng.uniform(0.2, 2.0, (60, 1)).astype(np.float32)
    assert list(by_uncertainty(a, 12).rows) == brute_force(a.astype(float), 12)
    assert list(by_uncertainty(a, 8, given=(3, 7)).rows) == brute_force(a.astype(float), 8, (3, 7))


def test_near_copies_are_not_chosen_twice() -> None:
    rng = np.random.default_rng(1)
    kinds = np.eye(4, dtype=np.float32) * np.array([3.0, 2.0, 1.5, 1.0], dtype=np.float32)[:, None]
    a = np.repeat(kinds, 25, axis=0) + 0.01 * rng.normal(size=(100, 4)).astype(np.float32)
    naive = np.argsort(-spread(a))[:4] // 25
    assert set(naive) == {0}
    picked = by_uncertainty(a, 4)
    assert list(picked.rows // 25) == [0, 1, 2, 3]
    assert np.all(np.diff(picked.score) < 0)
    # the first kind will be computed anyway
    assert list(by_uncertainty(a, 3, given=(5,)).rows // 25) == [1, 2, 3]


def test_what_is_like_nothing_tells_of_nothing_else() -> None:
    a = np.zeros((21, 2), dtype=np.float32)
    a[:20, 0] = 1.0
    a[20, 1] = 2.0  # the most uncertain, alone
    assert by_uncertainty(a, 1).rows[0] != 20


def test_diversity_goes_farthest_first() -> None:
    x = np.array([[0.0], [0.1], [5.0], [10.0], [9.9]])
    picked = by_diversity(x, 3, given=(0,))
    assert list(picked.rows) == [3, 2, 1] or list(picked.rows) == [3, 2, 4]
    assert picked.score[0] > picked.score[1] > picked.score[2]
