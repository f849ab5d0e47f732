"""The training stage's Dask workers as jobs of a cluster's queue, by dask-jobqueue.

Jobs end, are preempted and killed, so: ``adapt`` (``scale`` never replaces a worker that died), a lifetime below the
walltime (a worker retires in time instead of being killed with its results), staggered (so they do not all retire at
once), and TLS with keys made for the one training (whoever may speak to a Dask scheduler may run code as its user).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict

from htxas.cluster.load import Config, load_config
from htxas.cluster.profile import Partition, Profile, Scheduler
from htxas.cluster.quantities import clock, memory_MB
from htxas.errors import DatasetError, UserError

__all__ = ["QueueWorkers", "job_script", "queue_client", "queue_workers"]

_Count = Annotated[int, Strict(), Field(ge=1)]
_Seconds = Annotated[int, Strict(), Field(ge=1)]
_MB = 1_000_000


class DaskModel(BaseModel):
    """The section ``dask:`` of a cluster in ``htxas.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: Annotated[str, Strict()] | None = None
    most_jobs: _Count = 4
    workers: _Count | None = None
    memory_per_worker_GB: Annotated[float, Strict(), Field(gt=0)] = 4.0
    margin_s: _Seconds = 120
    stagger_s: Annotated[int, Strict(), Field(ge=0)] = 60
    interface: Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9_.:-]+$")] | None = None
    deaths: _Count = 5


@dataclass(frozen=True, slots=True)
class QueueWorkers:
    """How workers are asked for.

    Attributes
    ----------
    profile, partition
        Where.
    most_jobs
        Most jobs at a time; there are fewer when fewer runs are left.
    workers
        Worker processes in a job, one core and one thread each.
    memory_per_worker_MB
        Memory of each.
    lifetime_s, stagger_s
        A worker retires after so many seconds, give or take.
    interface
        Network interface of this host that compute nodes reach; None leaves it to Dask.
    deaths
        A run that has cost this many workers is given up.
    """

    profile: Profile
    partition: Partition
    most_jobs: int
    workers: int
    memory_per_worker_MB: int
    lifetime_s: int
    stagger_s: int
    interface: str | None
    deaths: int


def queue_workers(name: str | None, config: Config | None = None) -> QueueWorkers:
    """Return how to ask cluster ``name`` of ``htxas.yaml`` for workers.

    Raises
    ------
    CampaignFileError
        A wrong key, or times that leave no time for work: file, line and key.
    NotFound
        No such cluster or partition.
    UserError
        If its scheduler cannot be asked from here.
    """
    config = config or load_config()
    profile = config.cluster(name)
    if profile.host is not None:
        raise UserError(
            f"{profile.name} is reached by ssh, but its nodes must reach the training's own process",
            where=profile.where,
            hint=f"run htxas train --cluster {profile.name} on {profile.host}",
        )
    model = config.section(DaskModel, profile.dask, "clusters", profile.name, "dask")
    partition = profile.partition(model.partition)
    lifetime_s = partition.walltime_s - model.margin_s - model.stagger_s
    if lifetime_s <= 0:
        raise UserError(
            f"a walltime of {partition.walltime_s} s leaves no time beside margin_s and stagger_s",
            where=f"{profile.where}.dask",
            hint="lower them, or name another partition",
        )
    return QueueWorkers(
        profile=profile,
        partition=partition,
        most_jobs=model.most_jobs,
        workers=model.workers or partition.cores,
        memory_per_worker_MB=memory_MB(model.memory_per_worker_GB),
        lifetime_s=lifetime_s,
        stagger_s=model.stagger_s,
        interface=model.interface,
        deaths=model.deaths,
    )


@contextmanager
def queue_client(
    asked: QueueWorkers, environment: Mapping[str, str], folder: Path, runs: int
) -> Iterator[Any]:
    """Give a Dask client whose workers come from the queue, for as many ``runs``.

    Parameters
    ----------
    asked
        How.
    environment
        Of workers, set before their interpreter starts.
    folder
        Folder that this host and the nodes see: logs, and the keys (mode 0600) while it lasts.
    runs
        How many runs there are; no more workers are asked for.

    Raises
    ------
    DatasetError
        If the scheduler refuses the jobs.
    """
    import distributed
    from dask import config

    settings = {
        "distributed.nanny.pre-spawn-environ": dict(environment),
        "distributed.scheduler.allowed-failures": asked.deaths - 1,
        "distributed.worker.memory.terminate": False,
    }
    jobs = min(asked.most_jobs, -(-runs // asked.workers))
    dask_api: Any = distributed
    with config.set(settings), ExitStack() as stack:
        try:
            cluster = stack.enter_context(_cluster(asked, environment, folder))
            client = stack.enter_context(dask_api.Client(cluster))
            if asked.profile.scheduler is not Scheduler.LOCAL:
                _submit_first(cluster)
                cluster.adapt(minimum_jobs=0, maximum_jobs=jobs)
        except (FileNotFoundError, RuntimeError) as error:
            raise DatasetError(
                f"{asked.profile.scheduler} does not take the jobs: {_said(error)}",
                where=asked.profile.where,
                hint=f"htxas queue check --cluster {asked.profile.name}",
            ) from error
        yield client


def _submit_first(cluster: Any) -> None:
    """Submit the first job here and now.

    What the scheduler says of one that ``scale`` or ``adapt`` submits is in Dask's log only, and whoever waits for its
    workers waits for ever.
    """
    from distributed.core import Status

    cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        cluster.sync(cluster._correct_state)
    except RuntimeError:
        for job in cluster._created:  # Dask insists on closing what was never accepted
            job.status = Status.closed
        cluster.worker_spec.clear()
        raise


def _said(error: Exception) -> str:
    """Return what the scheduler wrote, which dask-jobqueue hides among its own words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    spoken = [line for line in lines if "error" in line.lower() and "exit code" not in line.lower()]
    return next(iter([*spoken, *lines]), type(error).__name__)


def job_script(asked: QueueWorkers, environment: Mapping[str, str], folder: Path) -> str:
    """Return the script of one job; nothing is started but a scheduler that is closed at once."""
    with _cluster(asked, environment, folder) as cluster:
        return str(cluster.job_script())


def _cluster(asked: QueueWorkers, environment: Mapping[str, str], folder: Path) -> Any:
    profile, workers = asked.profile, asked.workers
    if profile.scheduler is Scheduler.LOCAL:
        import distributed

        local: Any = distributed
        return local.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        )
    import dask_jobqueue

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    kinds: Any = dask_jobqueue  # ships no types
    kind, particular = {
        Scheduler.SLURM: (kinds.SLURMCluster, _slurm),
        Scheduler.PBS: (kinds.PBSCluster, _pbs),
        Scheduler.SGE: (kinds.SGECluster, _sge),
        Scheduler.LSF: (kinds.LSFCluster, _lsf),
    }[profile.scheduler]
    # The nanny reads its own configuration, not ours: it travels in the job's environment.
    before_spawn = f"export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON='{json.dumps(dict(environment))}'"
    scheduler: dict[str, Any] = {
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "allowed_failures": asked.deaths - 1,
    }
    if asked.interface is not None:
        scheduler["interface"] = asked.interface
    return kind(
        cores=workers,
        processes=workers,
        memory=f"{workers * asked.memory_per_worker_MB * _MB}B",
        queue=asked.partition.queue,
        python=profile.python,
        job_name="htxas-train",
        job_script_prologue=[*profile.setup, before_spawn],
        worker_extra_args=["--lifetime", f"{asked.lifetime_s}s", "--lifetime-stagger", f"{asked.stagger_s}s"],
        log_directory=str(folder),
        security=True,
        protocol="tls",
        shared_temp_directory=str(folder),
        scheduler_options=scheduler,
        **{"walltime": clock(asked.partition.walltime_s), **particular(asked)},
    )


def _directives(asked: QueueWorkers) -> list[str]:
    return [*asked.profile.options, *asked.partition.options]


def _slurm(asked: QueueWorkers) -> dict[str, Any]:
    # The submitting shell's environment stays here: sbatch would pass all of it on, secrets included.
    return {"account": asked.profile.account, "job_extra_directives": ["--export=NONE", *_directives(asked)]}


def _pbs(asked: QueueWorkers) -> dict[str, Any]:
    return {"account": asked.profile.account, "job_extra_directives": _directives(asked)}


def _sge(asked: QueueWorkers) -> dict[str, Any]:
    p = asked.profile
    parallel = [f"-pe {p.parallel_environment} {asked.workers}"] if p.parallel_environment else []
    memory = f"{p.memory_resource}={asked.memory_per_worker_MB}M" if p.memory_resource else None
    return {
        "project": p.account,
        "resource_spec": memory,
        "job_extra_directives": [*parallel, *_directives(asked)],
    }


def _lsf(asked: QueueWorkers) -> dict[str, Any]:
    hours, minutes, _ = clock(asked.partition.walltime_s).split(":")
    return {
        "project": asked.profile.account,
        "walltime": f"{hours}:{minutes}",
        "job_extra_directives": _directives(asked),
    }
