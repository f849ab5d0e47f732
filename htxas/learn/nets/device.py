"""Where nets are computed, and what makes two computations of them equal to the bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

__all__ = ["deterministic", "device"]


@cache
def device() -> torch.device:
    """Return the first GPU where there is one, else the CPU; decided once per process."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def deterministic() -> Iterator[None]:
    """Run torch and BLAS on one thread, and a GPU's kernels in a fixed order: then every digit is fixed.

    A GPU's digits are its own: equal to themselves, not to a CPU's.
    """
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    if device().type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads)
