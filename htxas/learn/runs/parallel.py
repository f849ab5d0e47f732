"""Independent runs on Dask: workers get paths, one thread each; a lost worker costs its run, a finished run is kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from htxas.errors import DatasetError, HtxasError
from htxas.learn.runs.queue_cluster import QueueWorkers, queue_client
from htxas.learn.runs.run import RunSpec, execute, finished

__all__ = ["WORKER_ENVIRONMENT", "default_workers", "open_client", "run_all"]

_TRIM = str(2**28)
WORKER_ENVIRONMENT: dict[str, str] = {
    # Dask's own 64 KiB trim threshold makes every epoch give its memory back: 30-40% of the time.
    "MALLOC_TRIM_THRESHOLD_": _TRIM,
    "MALLOC_MMAP_THRESHOLD_": _TRIM,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Set by the nanny before a worker's interpreter starts: later is too late for malloc and OpenMP."""

_WORKER_DEATHS = 2  # a run that was in this many workers when they died is a suspect
_SCHEDULER_PATIENCE_S = 5.0
Report = Callable[[RunSpec, dict[str, Any]], None]


def run_all(
    dataset_path: Path,
    specs: Sequence[RunSpec],
    out_dir: Path,
    *,
    workers: int | None,
    scheduler: str | None = None,
    queue: QueueWorkers | None = None,
    on_done: Report | None = None,
) -> dict[str, dict[str, Any]]:
    """Run all specs and return their cards by :attr:`RunSpec.key`, in the order of ``specs``.

    Parameters
    ----------
    dataset_path
        Frozen dataset; with ``scheduler``, a path all workers see.
    specs
        Independent runs. Those already finished in ``out_dir`` are read, not repeated; one given twice is one run.
    out_dir
        Folder of the runs.
    workers
        Local worker processes; 0 runs in this process, with the same results to the bit; None: see
        :func:`default_workers`.
    scheduler
        Address of an existing Dask scheduler, used instead of local workers.
    queue
        Workers as jobs of a cluster, used instead of local ones; its nodes see both folders.
    on_done
        Called after each run, finished ones first.

    Raises
    ------
    DatasetError
        If runs failed; the others are finished and kept first.
    """
    workers = default_workers() if workers is None else workers
    cards: dict[str, dict[str, Any]] = {}
    specs = list({spec.key: spec for spec in specs}.values())

    def done(spec: RunSpec, card: dict[str, Any]) -> None:
        cards[spec.key] = card
        if on_done is not None:
            on_done(spec, card)

    waiting = []
    for spec in specs:
        card = finished(spec, out_dir)
        if card is None:
            waiting.append(spec)
        else:
            done(spec, card)
    errors: dict[str, str] = {}
    if waiting:
        paths = dataset_path.resolve(), waiting, out_dir.resolve()
        if workers == 0 and scheduler is None and queue is None:
            errors = _in_process(*paths, done)
        else:
            with open_client(workers, scheduler, queue, out_dir, len(waiting)) as client:
                errors = _on_dask(*paths, done, client)
    if errors:
        name, message = next(iter(errors.items()))
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise DatasetError(
            f"run {name}{more} failed: {message}", hint="finished runs are kept; start it again"
        )
    return {spec.key: cards[spec.key] for spec in specs}


def default_workers() -> int:
    """Return one worker per GPU where torch sees any, else one per core this process may use."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def _in_process(dataset_path: Path, specs: Sequence[RunSpec], out_dir: Path, done: Report) -> dict[str, str]:
    errors = {}
    for spec in specs:
        try:
            done(spec, execute(str(dataset_path), spec, str(out_dir)))
        except HtxasError as error:
            errors[spec.folder] = str(error)
    return errors


def _on_dask(
    dataset_path: Path, specs: Sequence[RunSpec], out_dir: Path, done: Report, client: Any
) -> dict[str, str]:
    """Run specs on workers; what may have killed them runs once more, alone, before it is blamed."""
    suspects: list[RunSpec] = []
    errors: dict[str, str] = {}

    def finish(future: Any, spec: RunSpec, *, alone: bool) -> None:
        from distributed.scheduler import KilledWorker

        error = future.exception()
        if error is None:
            done(spec, future.result())
        elif isinstance(error, KilledWorker):
            if alone:
                errors[spec.folder] = "its worker died again and again (out of memory, or out of walltime?)"
            else:
                suspects.append(spec)
        elif isinstance(error, HtxasError):
            errors[spec.folder] = str(error)
        else:
            raise error

    def submit(spec: RunSpec, attempt: str) -> Any:
        # Keys of one group: Dask then hands runs out one by one, and a worker's death is laid to the run it was at.
        key = (f"htxas-{attempt}", spec.folder)
        return client.submit(execute, str(dataset_path), spec, str(out_dir), key=key)

    import distributed

    futures = {submit(spec, "run"): spec for spec in specs}
    completed: Any = distributed
    for future in completed.as_completed(futures):
        finish(future, futures[future], alone=False)
    for spec in suspects:
        future = submit(spec, "alone")
        future.exception()  # waits
        finish(future, spec, alone=True)
    return errors


@contextmanager
def open_client(
    workers: int, scheduler: str | None, queue: QueueWorkers | None, out_dir: Path, tasks: int
) -> Iterator[Any]:
    """Give a Dask client of an existing scheduler, of a queue's jobs, or of local processes of one thread each.

    Parameters
    ----------
    workers, scheduler, queue
        As of :func:`run_all`; ``workers`` is at least 1.
    out_dir
        Where jobs of a queue leave their output.
    tasks
        No more workers than these.

    Raises
    ------
    DatasetError
        If no scheduler answers.
    """
    if queue is not None:
        with queue_client(queue, WORKER_ENVIRONMENT, out_dir.resolve() / "jobs", tasks) as client:
            yield client
    elif scheduler is not None:
        with _existing(scheduler) as client:
            yield client
    else:
        with _local(min(workers, tasks)) as client:
            yield client


@contextmanager
def _existing(scheduler: str) -> Iterator[Any]:
    import distributed

    library: Any = distributed  # its functions carry no types
    try:
        client = library.Client(scheduler, timeout=_SCHEDULER_PATIENCE_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise DatasetError(
            f"no Dask scheduler answers: {error}",
            where=scheduler,
            hint="dask scheduler; or leave --scheduler out",
        ) from None
    with client:
        yield client


@contextmanager
def _local(workers: int) -> Iterator[Any]:
    import dask
    import distributed
    import torch

    library: Any = distributed
    settings = {
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
        "distributed.scheduler.allowed-failures": _WORKER_DEATHS - 1,
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.worker.memory.terminate": False,
    }
    with (
        dask.config.set(settings),
        library.LocalCluster(
            n_workers=max(1, workers),
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        ) as cluster,
        library.Client(cluster) as client,
    ):
        if torch.cuda.device_count() > 1:
            from htxas.learn.runs.gpus import OneGpu

            client.register_plugin(OneGpu(torch.cuda.device_count()))
        yield client
