"""Rows of numbers, added one by one: kept in blocks, not as objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RowTable"]

_BLOCK_BYTES = 1 << 22


class RowTable:
    """A table that grows by rows of one length.

    Parameters
    ----------
    dtype
        Of its numbers.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._blocks: list[npt.NDArray[Any]] = []
        self._used = 0  # of the last block

    def add(self, row: npt.ArrayLike) -> None:
        """Append a row, shape (columns,)."""
        if not self._blocks or self._used == len(self._blocks[-1]):
            columns = len(np.atleast_1d(np.asarray(row)))
            rows = max(1, _BLOCK_BYTES // max(1, columns * self._dtype.itemsize))
            self._blocks.append(np.empty((min(rows, 1 << 16), columns), self._dtype))
            self._used = 0
        self._blocks[-1][self._used] = row
        self._used += 1

    def taken(self, order: Sequence[int]) -> npt.NDArray[Any]:
        """Return its rows in an order, shape (rows, columns), and forget them block by block."""
        if not self._blocks:
            return np.empty((0, 0), self._dtype)
        self._blocks[-1] = self._blocks[-1][: self._used]
        total = sum(len(b) for b in self._blocks)
        place = np.empty(total, dtype=np.intp)
        place[np.asarray(order, dtype=np.intp)] = np.arange(total)
        out = np.empty((total, self._blocks[0].shape[1]), self._dtype)
        start = 0
        while self._blocks:
            block = self._blocks.pop(0)
            out[place[start : start + len(block)]] = block
            start += len(block)
        return out
