"""One GPU per worker."""

from __future__ import annotations

import os
from typing import Any

from distributed import WorkerPlugin

__all__ = ["OneGpu"]


class OneGpu(WorkerPlugin):
    """Shows a worker one GPU, by the worker's number: set before anything in its process asks for GPUs.

    Parameters
    ----------
    count
        Number of GPUs.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def setup(self, worker: Any) -> None:
        """Choose: Dask calls this in each worker, also in one that takes a dead one's place."""
        os.environ["CUDA_VISIBLE_DEVICES"] = str(int(worker.name) % self.count)
