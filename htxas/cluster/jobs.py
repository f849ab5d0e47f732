"""What a scheduler says about jobs, in one vocabulary for all schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "Cancelled",
    "JobInfo",
    "JobState",
    "NodeInfo",
    "Refused",
    "Snapshot",
    "Submission",
    "Submitted",
    "Unclear",
    "Unknown",
]


class JobState(StrEnum):
    """Where a job is. Each member says why it is not its neighbour."""

    PENDING = "pending"  # will start by itself; a held one will not
    HELD = "held"  # pending, but waits for a person (user or administrator hold, Eqw, a failed login environment)
    RUNNING = "running"  # has its nodes, and processes on them may run
    SUSPENDED = "suspended"  # has its nodes, but its processes are stopped: silent, and alive
    COMPLETING = "completing"  # its script has ended, processes on its nodes may still be dying
    REQUEUED = "requeued"  # was running, is on its way back to pending under the same id; not ended
    DONE = "done"  # its script returned 0; says nothing about the work in it
    FAILED = "failed"  # its script returned something else, or a signal ended it, and no other member names the cause
    CANCELLED = "cancelled"  # somebody ended it by a command
    TIMEOUT = "timeout"  # the scheduler ended it at its time limit (or deadline)
    NODE_FAIL = "node_fail"  # a node went away under it, or could not boot; the job is not to blame
    OUT_OF_MEMORY = "out_of_memory"  # the scheduler or the kernel ended it for its memory
    PREEMPTED = "preempted"  # ended for a job that goes first, and not put back into the queue
    ENDED = "ended"  # it is over, and the scheduler no longer says how; others name the way
    UNKNOWN = "unknown"  # the scheduler used a word we do not know: neither alive nor ended may be concluded

    @property
    def waiting(self) -> bool:
        """Not started, or going to start again: no process of it runs now."""
        return self in _WAITING

    @property
    def on_nodes(self) -> bool:
        """Holds nodes: processes of it may be alive."""
        return self in _ON_NODES

    @property
    def ended(self) -> bool:
        """Is over for good: will not run again. False for UNKNOWN."""
        return self in _ENDED


_WAITING = frozenset({JobState.PENDING, JobState.HELD, JobState.REQUEUED})
_ON_NODES = frozenset({JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING})
_ENDED = frozenset(JobState) - _WAITING - _ON_NODES - {JobState.UNKNOWN}


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One job, or one task of a job array.

    Attributes
    ----------
    id
        As the scheduler's commands take it: ``123``, ``123_4`` (Slurm), ``123[4].server`` (PBS), ``123.4`` (Grid
        Engine), ``123[4]`` (LSF).
    state
        One of ours.
    raw
        The scheduler's own words.
    name
        Job name; empty if not told.
    nodes
        Where it runs or ran; as the scheduler writes it.
    submitted, start, end
        Unix seconds, or None if not told. ``start`` of a waiting job is a forecast or None; ``end`` of a running
        one is its limit.
    restarts
        How often it was put back into the queue; None if the scheduler does not count.
    reason
        Why it waits, or what the scheduler says about its end.
    exit_code, exit_signal
        Of its script, once ended; None if not told.
    """

    id: str
    state: JobState
    raw: str
    name: str = ""
    nodes: str = ""
    submitted: float | None = None
    start: float | None = None
    end: float | None = None
    restarts: int | None = None
    reason: str = ""
    exit_code: int | None = None
    exit_signal: int | None = None

    @property
    def stranded(self) -> bool:
        """Held by the scheduler itself because it could not start the job (Slurm after a failed launch, Eqw)."""
        launch_failed = "launch failed" in self.reason.lower().replace("_", " ")
        return self.state is JobState.HELD and (launch_failed or self.raw.startswith("Eq"))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A good answer of the scheduler about jobs.

    Attributes
    ----------
    jobs
        By id.
    absent
        Ids that were asked about and are not in the answer. **Not** "gone": a scheduler forgets ended jobs, but a
        controller restarted after a crash forgets running ones, too. Callers ask the accounting and look for the
        pilot's own exit file before they conclude anything.
    """

    jobs: Mapping[str, JobInfo] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unknown:
    """No usable answer: nothing about any job may be concluded from it.

    Attributes
    ----------
    reason
        In one line, for people: which command, and what was wrong with its answer.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """Accepted.

    Attributes
    ----------
    ids
        One per array task in order of their index (from 1), or the one id.
    """

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The scheduler said no: no job exists.

    Attributes
    ----------
    reason
        Its words, in one line.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """The job may or may not exist (no answer in time, connection lost): look for it by name, do not submit again.

    Attributes
    ----------
    reason
        In one line.
    """

    reason: str


Submission = Submitted | Refused | Unclear


class Cancelled(StrEnum):
    """What became of a request to cancel one job."""

    ASKED = "asked"  # the scheduler took the request; the job may take a while to die
    ENDED_BEFORE = "ended_before"  # there was nothing to cancel any more
    FAILED = "failed"  # the request did not arrive or was refused: the job may still be there


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the scheduler thinks of a node.

    Attributes
    ----------
    name
        Node name.
    raw
        The scheduler's words.
    up
        True: answers. False: down, or does not answer. None: the word is not known.
    """

    name: str
    raw: str
    up: bool | None
