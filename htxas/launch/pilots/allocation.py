"""What a job knows about itself: which job it is, on which node, with how many cores, how much memory, until when.

Each scheduler says it in its own way, and each says something less than all of it. What a machine has to be asked for
is behind :class:`Probes`, so that the rest is a function of the environment, the time and their answers.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

__all__ = ["Allocation", "Places", "Probes", "places", "read_allocation"]

_MB = 2**20
_COMMAND_S = 20.0
_UNLIMITED_MB = 1e9  # cgroup v1 says "no limit" with a number near 2**63
_STARTED = "HTXAS_JOB_STARTED"
_SLURM_MB = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True, slots=True)
class Allocation:
    """One job on one node.

    Attributes
    ----------
    scheduler
        ``slurm``, ``pbs``, ``sge``, ``lsf`` or ``local``.
    job_id
        As the scheduler's own commands name it, array task included; None outside a queue.
    array_task
        Index in the job array, or None.
    restart
        How often the scheduler started this job before.
    node
        Host name.
    node_index, nodes
        Which of the job's nodes this is, and how many there are.
    cores
        Ids of the CPUs this process may run on, siblings and sockets together.
    granted
        How many of them are this job's.
    memory_MB
        Memory of the job on this node, or None if nothing tells.
    end
        Unix seconds when the allocation ends, or None if nothing tells.
    end_source
        Where ``end`` comes from.
    """

    scheduler: str
    job_id: str | None
    array_task: int | None
    restart: int
    node: str
    node_index: int
    nodes: int
    cores: tuple[int, ...]
    granted: int
    memory_MB: float | None
    end: float | None
    end_source: str

    @property
    def pinnable(self) -> bool:
        """Whether the cores are known to be this job's alone.

        A scheduler that does not confine its jobs leaves all of the node's CPUs in the affinity mask. Two jobs that
        pinned themselves to the first few of them would share those and leave the others idle.
        """
        if self.scheduler == "local" and self.job_id is not None:  # such jobs do not know of each other
            return False
        return len(self.cores) == self.granted


@dataclass(frozen=True, slots=True)
class Probes:
    """Questions to the machine; tests answer them themselves.

    Attributes
    ----------
    cores
        Ids of the CPUs in this process's affinity mask, in an order that keeps neighbours together.
    node
        Host name.
    memory_MB
        The tightest of cgroup limit, address space limit and physical memory.
    slurm_end
        Unix seconds when a Slurm job ends, by asking Slurm; None if it does not answer.
    """

    cores: Callable[[], tuple[int, ...]]
    node: Callable[[], str]
    memory_MB: Callable[[], float | None]
    slurm_end: Callable[[str], float | None]

    @staticmethod
    def of_this_machine() -> Probes:
        """Return the probes that ask this machine."""
        return Probes(_cores, platform.node, _memory_MB, _slurm_end)


@dataclass(frozen=True, slots=True)
class Places:
    """The workers that an allocation has room for.

    Attributes
    ----------
    workers
        How many; at least one.
    cores
        CPU ids to pin them to, ``cores_per_worker`` each in this order; empty: not pinned.
    notes
        What differs from what was asked for, one line each.
    """

    workers: int
    cores: tuple[int, ...]
    notes: tuple[str, ...]


def read_allocation(
    environ: Mapping[str, str], now: float, probes: Probes, *, walltime_s: float | None, earlier: int = 0
) -> Allocation:
    """Return what the environment of a job, and the machine it runs on, tell.

    Parameters
    ----------
    environ
        Environment of the job.
    now
        Unix seconds.
    probes
        How to ask the machine.
    walltime_s
        What was asked for; decides the end where the scheduler tells none. Counted from ``$HTXAS_JOB_STARTED``, which
        our scripts set first thing, or else from now.
    earlier
        Starts of this job already on record; the restart count where the scheduler keeps none.
    """
    cores = probes.cores()
    kind = _scheduler(environ)
    job_id, array_task = _JOB[kind](environ)
    node_index, nodes = _position(kind, environ)
    granted = _granted(kind, environ, probes.node(), node_index)
    end, source = _end(kind, environ, now, probes, walltime_s)
    return Allocation(
        scheduler=kind,
        job_id=job_id,
        array_task=array_task,
        restart=_restart(kind, environ, earlier),
        node=environ.get("SLURMD_NODENAME", probes.node()) if kind == "slurm" else probes.node(),
        node_index=node_index,
        nodes=nodes,
        cores=cores,
        granted=min(granted, len(cores)) if granted else len(cores),
        memory_MB=_memory(kind, environ, granted or len(cores), probes.memory_MB()),
        end=end,
        end_source=source,
    )


def places(
    allocation: Allocation, *, workers: int, cores_per_worker: int, memory_per_worker_MB: float
) -> Places:
    """Return how many workers fit: fewer than asked for where cores or memory do not suffice, and why."""
    notes: list[str] = []
    fit = workers
    by_cores = max(1, allocation.granted // cores_per_worker)
    if by_cores < fit:
        fit = by_cores
        notes.append(
            f"{by_cores} of {workers} workers: {allocation.granted} cores on {allocation.node}, "
            f"{cores_per_worker} each"
        )
    memory = allocation.memory_MB
    if memory is not None and memory_per_worker_MB > 0:
        by_memory = max(1, int(memory // memory_per_worker_MB))
        if by_memory < fit:
            fit = by_memory
            notes.append(
                f"{by_memory} of {workers} workers: {memory:,.0f} MB on {allocation.node}, "
                f"{memory_per_worker_MB:,.0f} MB each"
            )
        if memory < memory_per_worker_MB:
            notes.append(
                f"{memory:,.0f} MB are less than the {memory_per_worker_MB:,.0f} MB that one worker is to have"
            )
    if allocation.granted < cores_per_worker:
        notes.append(
            f"{allocation.granted} cores are less than the {cores_per_worker} that one worker is to have"
        )
        return Places(fit, (), tuple(notes))
    if not allocation.pinnable:
        notes.append(
            f"workers are not pinned: {len(allocation.cores)} CPUs are visible, {allocation.granted} are the job's"
        )
        return Places(fit, (), tuple(notes))
    return Places(fit, allocation.cores[: fit * cores_per_worker], tuple(notes))


def _scheduler(environ: Mapping[str, str]) -> str:
    for kind, variable in (("slurm", "SLURM_JOB_ID"), ("pbs", "PBS_JOBID"), ("lsf", "LSB_JOBID")):
        if environ.get(variable):
            return kind
    if environ.get("JOB_ID") and environ.get("SGE_TASK_ID"):  # JOB_ID alone is too common a name
        return "sge"
    return "local"


def _number(environ: Mapping[str, str], *names: str) -> int | None:
    """Return the first of these variables that is a whole number."""
    for name in names:
        text = environ.get(name, "").strip()
        if text.isdecimal():
            return int(text)
    return None


def _slurm_job(environ: Mapping[str, str]) -> tuple[str | None, int | None]:
    task = _number(environ, "SLURM_ARRAY_TASK_ID")
    if task is None:
        return environ["SLURM_JOB_ID"], None
    return f"{environ.get('SLURM_ARRAY_JOB_ID', environ['SLURM_JOB_ID'])}_{task}", task


def _pbs_job(environ: Mapping[str, str]) -> tuple[str | None, int | None]:
    # 123[4].server in OpenPBS, 123-4.server or 123[4].server in Torque: the id says it itself.
    return environ["PBS_JOBID"], _number(environ, "PBS_ARRAY_INDEX", "PBS_ARRAYID")


def _sge_job(environ: Mapping[str, str]) -> tuple[str | None, int | None]:
    task = _number(environ, "SGE_TASK_ID")  # "undefined" outside arrays
    return (environ["JOB_ID"], None) if task is None else (f"{environ['JOB_ID']}.{task}", task)


def _lsf_job(environ: Mapping[str, str]) -> tuple[str | None, int | None]:
    task = _number(environ, "LSB_JOBINDEX") or None  # 0 outside arrays
    return (environ["LSB_JOBID"], None) if task is None else (f"{environ['LSB_JOBID']}[{task}]", task)


def _local_job(environ: Mapping[str, str]) -> tuple[str | None, int | None]:
    return environ.get("HTXAS_LOCAL_JOB"), _number(environ, "HTXAS_ARRAY_TASK")


_JOB = {"slurm": _slurm_job, "pbs": _pbs_job, "sge": _sge_job, "lsf": _lsf_job, "local": _local_job}


def _restart(kind: str, environ: Mapping[str, str], earlier: int) -> int:
    counted = _number(environ, "SLURM_RESTART_COUNT") or 0 if kind == "slurm" else 0
    # Where the scheduler only says that it is a restart (SGE, LSF) or not even that (PBS), our own records count. They
    # also make up for a controller that lost its state and counts from zero again.
    again = (kind == "sge" and environ.get("RESTARTED") == "1") or (
        kind == "lsf" and environ.get("LSB_RESTART") == "Y"
    )
    return max(counted, earlier, int(again))


def _position(kind: str, environ: Mapping[str, str]) -> tuple[int, int]:
    if kind == "slurm":
        return _number(environ, "SLURM_NODEID") or 0, _number(
            environ, "SLURM_JOB_NUM_NODES", "SLURM_NNODES"
        ) or 1
    return 0, 1


def _granted(kind: str, environ: Mapping[str, str], node: str, node_index: int) -> int | None:
    """Return the job's cores on this node, or None if the scheduler does not say."""
    if kind == "slurm":
        here = _number(environ, "SLURM_CPUS_ON_NODE")
        if here is not None:
            return here
        per_node = _expanded(environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
        return per_node[node_index] if node_index < len(per_node) else None
    if kind == "pbs":
        return _number(environ, "NCPUS", "PBS_NUM_PPN", "PBS_NP")
    if kind == "sge":
        return _in_hostfile(environ.get("PE_HOSTFILE"), node) or _number(environ, "NSLOTS")
    if kind == "lsf":
        words = environ.get("LSB_MCPU_HOSTS", "").split()  # hostA 4 hostB 2
        for host, count in zip(words[::2], words[1::2], strict=False):
            if _same_host(host, node) and count.isdecimal():
                return int(count)
        return _number(environ, "LSB_DJOB_NUMPROC")
    return None


def _expanded(text: str) -> list[int]:
    """Return Slurm's ``4(x2),3`` as ``[4, 4, 3]``."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            return []
        found += [int(match[1])] * int(match[2] or 1)
    return found


def _in_hostfile(path: str | None, node: str) -> int | None:
    """Return the slots of ``node`` in SGE's file of ``host slots queue cores`` lines."""
    if not path:
        return None
    try:
        rows = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return None
    counts = [int(r[1]) for r in rows if len(r) > 1 and _same_host(r[0], node) and r[1].isdecimal()]
    return sum(counts) or None


def _same_host(one: str, other: str) -> bool:
    return one.split(".")[0] == other.split(".")[0]


def _memory(kind: str, environ: Mapping[str, str], cores: int, machine_MB: float | None) -> float | None:
    limits = [] if machine_MB is None else [machine_MB]
    if kind == "slurm":
        per_node = _slurm_size(environ.get("SLURM_MEM_PER_NODE"))
        per_core = _slurm_size(environ.get("SLURM_MEM_PER_CPU"))
        if per_node:  # 0 is all of the node
            limits.append(per_node)
        elif per_core:
            limits.append(per_core * cores)
    return min(limits, default=None)


def _slurm_size(text: str | None) -> float | None:
    match = re.fullmatch(r"(\d+)([KMGT]?)", (text or "").strip())
    return None if match is None else int(match[1]) * _SLURM_MB[match[2]]


def _end(
    kind: str, environ: Mapping[str, str], now: float, probes: Probes, walltime_s: float | None
) -> tuple[float | None, str]:
    if kind == "slurm":
        told = _number(environ, "SLURM_JOB_END_TIME")
        # A step of an interactive allocation may inherit the variable of another one: the past is no end time.
        if told is not None and told > now:
            return float(told), "SLURM_JOB_END_TIME"
        asked = probes.slurm_end(environ["SLURM_JOB_ID"])
        if asked is not None:
            return asked, "squeue"
    started = _number(environ, _STARTED)
    start = float(started) if started is not None and started <= now else now
    told = _number(environ, "PBS_WALLTIME") if kind == "pbs" else None  # Torque
    if told:
        return start + told, "PBS_WALLTIME"
    return (None, "nothing tells") if walltime_s is None else (start + walltime_s, "walltime asked for")


def _cores() -> tuple[int, ...]:
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return tuple(range(os.cpu_count() or 1))
    return tuple(sorted(os.sched_getaffinity(0), key=_topology))


def _topology(cpu: int) -> tuple[int, int, int]:
    """Return socket, physical core, CPU: sorted by this, hyperthreads and sockets stay together."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        socket = int((folder / "physical_package_id").read_text())
        core = int((folder / "core_id").read_text())
    except (OSError, ValueError):
        return 0, cpu, cpu
    return socket, core, cpu


def _memory_MB() -> float | None:
    limits = [m for m in (_cgroup_MB(), _address_space_MB(), _physical_MB()) if m is not None]
    return min(limits, default=None)


def _cgroup_MB(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return the tightest memory limit of this process's cgroup and those above it, versions 1 and 2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = base / path.lstrip("/")
        for level in (folder, *folder.parents):
            try:
                text = (level / file).read_text().strip()
            except OSError:
                text = ""
            if text.isdecimal():
                limits.append(int(text) / _MB)
            if level == base:
                break
    return min((m for m in limits if m < _UNLIMITED_MB), default=None)


def _address_space_MB() -> float | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)  # Grid Engine's h_vmem
    return None if limit == resource.RLIM_INFINITY else limit / _MB


def _physical_MB() -> float | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _MB
    except (OSError, ValueError):
        return None


def _slurm_end(job_id: str) -> float | None:
    command = ["squeue", "-h", "-j", job_id, "-o", "%e"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=True, stdin=subprocess.DEVNULL
        )
        # Local time without a zone: that of this host, which is the job's.
        return datetime.fromisoformat(answer.stdout.strip()).timestamp()
    except (OSError, subprocess.SubprocessError, ValueError):  # ValueError: N/A, or garbage
        return None
