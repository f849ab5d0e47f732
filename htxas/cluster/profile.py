"""A cluster as htxas sees it: frozen, checked, resolved. Made from ``htxas.yaml`` by :mod:`htxas.cluster.load`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

from htxas.engines.registry import engine_names, get_engine
from htxas.errors import NotFound

__all__ = [
    "Database",
    "Dialect",
    "DiskLimits",
    "EngineProfile",
    "Partition",
    "Pilots",
    "Problem",
    "Profile",
    "Scheduler",
    "Scratch",
    "problems",
]

_LONGEST_WARNING_S = (
    900  # earlier than that a pilot takes a warning for that of a preemption; see launch/pilots
)
_LEAST_MARGIN_S = 10  # to end what runs and deliver; of a short walltime, this share will do
_LEAST_MARGIN_SHARE = 1 / 600
# What would change results or the interpreter behind provenance's back, and who counts the threads.
_HIDDEN = ("PYSCF_", "PYTHON", "LD_PRELOAD", "LD_AUDIT")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Scheduler(StrEnum):
    """Who starts jobs."""

    SLURM = "slurm"
    PBS = "pbs"
    SGE = "sge"
    LSF = "lsf"
    LOCAL = "local"


class Dialect(StrEnum):
    """Two schedulers share the command names of PBS and little else."""

    OPENPBS = "openpbs"  # OpenPBS and PBS Professional: -l select=, arrays -J, qstat -F json
    TORQUE = "torque"  # Torque: -l nodes=:ppn=, arrays -t, qstat -x (XML)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition or queue.

    Attributes
    ----------
    name
        Its name in ``htxas.yaml``.
    queue
        Its name in the scheduler.
    walltime_s
        Asked for by every job.
    cores, memory_MB
        Of one node; memory is None if not stated.
    nodes
        Nodes of one job.
    max_jobs
        Most jobs (array tasks count one each) of ours queued or running in it; None is no limit.
    max_array
        Most tasks in one job array; 1 is no arrays.
    workers
        Workers per node, where it differs from the cluster's pilots.
    options
        Further directives.
    """

    name: str
    queue: str
    walltime_s: int
    cores: int
    memory_MB: int | None = None
    nodes: int = 1
    max_jobs: int | None = None
    max_array: int = 1000
    workers: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pilots:
    """How pilots are cut.

    Attributes
    ----------
    most
        Most pilots of ours queued or running on the cluster.
    workers
        Worker processes per node.
    cores_per_worker, memory_per_worker_MB
        What each may use.
    margin_s
        Kept free before the end of the allocation: no calculation is started that would end in it.
    signal_s
        So long before the end the scheduler sends a warning, where it can.
    idle_s
        A pilot that finds no work for so long ends.
    ahead_s
        Work for so long is kept in hand, as long as there is plenty: a pilot goes on with it while the database is
        away.
    requeue
        Whether the scheduler may put an interrupted pilot back into the queue.
    """

    most: int
    workers: int
    cores_per_worker: int
    memory_per_worker_MB: int
    margin_s: int
    signal_s: int
    idle_s: int
    ahead_s: int
    requeue: bool


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """How one engine is started here.

    Attributes
    ----------
    name
        Engine name.
    workers, cores_per_worker, memory_per_worker_MB
        Where they differ from the pilots'.
    launcher
        Before the program: ``("srun", "-n", "16")``.
    program
        Instead of the engine's own; empty keeps that.
    environment
        Added to the engine's environment.
    """

    name: str
    workers: int | None = None
    cores_per_worker: int | None = None
    memory_per_worker_MB: int | None = None
    launcher: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Database:
    """How a compute node learns the database's address.

    Attributes
    ----------
    uri_file
        A file of mode 0600 on the cluster, or None.
    uri_env
        A variable the job's own environment has (login profile or ``setup:`` lines), or None.
    """

    uri_file: str | None = None
    uri_env: str | None = None

    @property
    def reachable(self) -> bool:
        """False: compute nodes cannot reach it; work travels in bundles."""
        return self.uri_file is not None or self.uri_env is not None


@dataclass(frozen=True, slots=True)
class Scratch:
    """A folder on the compute node.

    Attributes
    ----------
    variable
        Environment variable the path begins with, or None.
    path
        What follows it; absolute if there is no variable.
    """

    variable: str | None
    path: str

    def __str__(self) -> str:
        return f"${self.variable}{self.path}" if self.variable else self.path


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """What the run folders on this cluster may take; None is no limit."""

    most_bytes: int | None = None
    most_files: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One cluster.

    Attributes
    ----------
    name
        Its name in ``htxas.yaml``.
    scheduler, dialect
        Who is asked for jobs, and in which dialect (PBS only).
    host
        Where the scheduler's commands run, by ssh; None is this host.
    login_shell
        Run them from a login shell over there.
    timeout_s
        Patience with one of them.
    template
        The script template, an absolute path.
    account
        Whom the hours are charged to.
    home
        ``HTXAS_HOME`` on the cluster.
    python
        The interpreter with htxas on the cluster.
    setup
        Lines of the user's own shell, run before the pilot.
    scratch
        Folder for temporary files on the nodes; None leaves it to the system.
    database
        How nodes learn the database's address.
    options
        Further directives for every job.
    parallel_environment, memory_resource
        Grid Engine's names of these; both are the site's.
    partitions
        By name; the first is the default.
    pilots, engines, disk
        See there.
    dask
        The section of the training stage, unchecked.
    where
        ``file:line: key`` in ``htxas.yaml``, for messages.
    """

    name: str
    scheduler: Scheduler
    home: str
    python: str
    template: Path
    partitions: Mapping[str, Partition]
    pilots: Pilots
    database: Database
    dialect: Dialect = Dialect.OPENPBS
    host: str | None = None
    login_shell: bool = False
    timeout_s: float = 60.0
    account: str | None = None
    setup: tuple[str, ...] = ()
    scratch: Scratch | None = None
    options: tuple[str, ...] = ()
    parallel_environment: str | None = None
    memory_resource: str | None = None
    engines: Mapping[str, EngineProfile] = field(default_factory=dict)
    disk: DiskLimits = field(default_factory=DiskLimits)
    dask: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def partition(self, name: str | None = None) -> Partition:
        """Return a partition; the first without a name.

        Raises
        ------
        NotFound
            If there is none of that name.
        """
        if name is None:
            return next(iter(self.partitions.values()))
        if name not in self.partitions:
            known = ", ".join(self.partitions)
            raise NotFound(
                f"{self.name} has no partition {name!r}", where=self.where, hint=f"there is: {known}"
            )
        return self.partitions[name]

    def workers(self, partition: Partition) -> int:
        """Workers on one node of ``partition``."""
        return partition.workers or self.pilots.workers

    def cores(self, partition: Partition) -> int:
        """Cores of one node that a pilot asks for."""
        return self.workers(partition) * self.pilots.cores_per_worker

    def memory_MB(self, partition: Partition) -> int:
        """Memory of one node that a pilot asks for, in MB."""
        return self.workers(partition) * self.pilots.memory_per_worker_MB

    def engine(self, name: str) -> EngineProfile:
        """How an engine is started here; an engine without a section is started as it is everywhere."""
        return self.engines.get(name) or EngineProfile(name)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a profile that cannot work.

    Attributes
    ----------
    location
        Keys below the cluster, for the line number.
    message
        In one line.
    hint
        What to do.
    """

    location: tuple[str | int, ...]
    message: str
    hint: str | None = None


def problems(profile: Profile) -> Iterator[Problem]:
    """Yield what cannot work although every key by itself is right."""
    yield from _scheduler_problems(profile)
    for partition in profile.partitions.values():
        yield from _partition_problems(profile, partition)
    for engine in profile.engines.values():
        yield from _engine_problems(profile, engine)


def _scheduler_problems(p: Profile) -> Iterator[Problem]:
    sge, local = p.scheduler is Scheduler.SGE, p.scheduler is Scheduler.LOCAL
    if not sge:
        for key, value in (
            ("parallel_environment", p.parallel_environment),
            ("memory_resource", p.memory_resource),
        ):
            if value is not None:
                yield Problem((key,), f"belongs to scheduler: sge, not {p.scheduler}")
    if sge and p.parallel_environment is None and any(p.cores(q) > 1 for q in p.partitions.values()):
        yield Problem(
            ("parallel_environment",),
            "is missing: Grid Engine gives more than one core only through one",
            "qconf -spl lists those of your site",
        )
    if local and p.account is not None:
        yield Problem(("account",), "there is none without a scheduler")
    if local and p.options:
        yield Problem(("options",), "there are no directives without a scheduler")
    if p.pilots.signal_s > _LONGEST_WARNING_S:
        yield Problem(
            ("pilots", "signal_s"), f"{_LONGEST_WARNING_S} s at most: an earlier warning means preemption"
        )


def _partition_problems(p: Profile, q: Partition) -> Iterator[Problem]:
    at = ("partitions", q.name)
    workers_at = (*at, "workers") if q.workers else ("pilots", "workers")
    if q.nodes > 1 and p.scheduler is not Scheduler.SLURM:
        yield Problem(
            (*at, "nodes"),
            f"pilots of several nodes are started with srun, which {p.scheduler} does not have",
            "nodes: 1, and more pilots",
        )
    if (cores := p.cores(q)) > q.cores:
        yield Problem(
            workers_at,
            f"{p.workers(q)} workers of {p.pilots.cores_per_worker} cores are {cores}, but a node of {q.name!r} has "
            f"{q.cores}",
        )
    if q.memory_MB is not None and (memory := p.memory_MB(q)) > q.memory_MB:
        yield Problem(
            workers_at,
            f"{p.workers(q)} workers of {p.pilots.memory_per_worker_MB / 1000:g} GB are {memory / 1000:g} GB, but a "
            f"node of {q.name!r} has {q.memory_MB / 1000:g}",
            "lower workers or memory_per_worker_GB",
        )
    longest_s = max(p.pilots.margin_s, p.pilots.signal_s)
    if 2 * longest_s > q.walltime_s:
        key = "margin_s" if p.pilots.margin_s == longest_s else "signal_s"
        yield Problem(
            ("pilots", key),
            f"{longest_s} s leave less than half of the {q.walltime_s} s of {q.name!r} for work",
            f"lower {key}, or more walltime",
        )
    least_s = min(_LEAST_MARGIN_S, q.walltime_s * _LEAST_MARGIN_SHARE)
    if p.pilots.margin_s < least_s:
        yield Problem(
            ("pilots", "margin_s"),
            f"{p.pilots.margin_s} s are not enough to end and deliver what runs when the {q.walltime_s} s of "
            f"{q.name!r} are over: {math.ceil(least_s)} at least",
        )
    if p.scheduler is Scheduler.LOCAL and q.options:
        yield Problem((*at, "options"), "there are no directives without a scheduler")


def _engine_problems(p: Profile, e: EngineProfile) -> Iterator[Problem]:
    at = ("engines", e.name)
    if e.name not in engine_names():
        near = get_close_matches(e.name, engine_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(engine_names())}"
        yield Problem(at, f"no engine is called {e.name!r}", hint)
        return
    if e.launcher and get_engine(e.name).server_command() is not None:
        yield Problem(
            (*at, "launcher"),
            f"{e.name} is one process that serves many calculations: {e.launcher[0]} would start copies of it",
            "leave it out; what has to go before the interpreter, as a container, is the program: [..., python]",
        )
    for q in p.partitions.values():
        workers = e.workers or p.workers(q)
        cores = workers * (e.cores_per_worker or p.pilots.cores_per_worker)
        memory = workers * (e.memory_per_worker_MB or p.pilots.memory_per_worker_MB)
        if workers > p.workers(q):
            yield Problem(
                (*at, "workers"),
                f"{workers} are more than the {p.workers(q)} workers of a pilot in {q.name!r}",
            )
        if cores > p.cores(q):
            yield Problem(
                at,
                f"{workers} workers need {cores} cores, but pilots in {q.name!r} ask for {p.cores(q)}",
                "set workers and cores_per_worker here, or more in pilots",
            )
        if memory > p.memory_MB(q):
            yield Problem(
                at,
                f"{workers} workers need {memory / 1000:g} GB, but pilots in {q.name!r} ask for "
                f"{p.memory_MB(q) / 1000:g}",
                "set workers and memory_per_worker_GB here, or more in pilots",
            )
    for name in e.environment:
        here = (*at, "environment", name)
        if name.startswith("HTXAS_DB_"):
            yield Problem(here, "engines never see the database")
        elif name.startswith(_HIDDEN):
            yield Problem(here, "could change results or code unseen by provenance", "leave it out")
        elif name in _THREADS and not e.launcher:
            yield Problem(here, "threads are as many as cores_per_worker", "set that instead")
