"""Options of commands that run on Dask: here, on a scheduler that exists, or as jobs of a queue."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["job_text", "on_dask"]

_F = TypeVar("_F", bound=Callable[..., Any])


def on_dask(command: _F) -> _F:
    """Add ``--workers``, ``--scheduler``, ``--cluster`` and ``--dry-run``; at most one of the first three."""

    @click.option(
        "--workers",
        type=click.IntRange(0),
        default=None,
        help="Local processes; 0: in this one. Default: one per GPU, without one, one per core.",
    )
    @click.option(
        "--scheduler", metavar="ADDR", help="Use this Dask scheduler; it must see the same folders."
    )
    @click.option("--cluster", metavar="NAME", help="Workers as jobs of this cluster of htxas.yaml.")
    @click.option("--dry-run", is_flag=True, help="Start nothing; with --cluster: print the script of a job.")
    @wraps(command)
    def checked(
        *args: Any, workers: int | None, scheduler: str | None, cluster: str | None, **others: Any
    ) -> Any:
        if sum(option is not None for option in (workers, scheduler, cluster)) > 1:
            raise click.UsageError("give one of --workers, --scheduler and --cluster")
        return command(*args, workers=workers, scheduler=scheduler, cluster=cluster, **others)

    return checked  # type: ignore[return-value]  # click adds to what it is given


def job_text(cluster: str | None) -> str:
    """Return the script of a job with Dask workers on a cluster of ``htxas.yaml``."""
    import tempfile

    from htxas.learn.runs.parallel import WORKER_ENVIRONMENT
    from htxas.learn.runs.queue_cluster import job_script, queue_workers

    with tempfile.TemporaryDirectory(prefix="htxas-train-") as folder:
        return job_script(queue_workers(cluster), WORKER_ENVIRONMENT, Path(folder))
