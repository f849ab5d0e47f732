"""What an agent is told, and what it tells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from htxas.errors import Cause
from htxas.launch.agent.books import News
from htxas.launch.agent.policy import Unfit
from htxas.launch.agent.stock import Stock
from htxas.launch.disk.usage import DiskQuota
from htxas.launch.work.engine_run import Engines

__all__ = ["AgentConfig", "AgentReport", "AgentSummary", "Desk"]


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What an agent is told.

    Attributes
    ----------
    owner, folder
        Its name, unique for ever, and its folder.
    workers
        Places: worker processes.
    campaign
        Only this one, or None for all.
    end
        Unix seconds when the allocation ends, or None.
    margin_s
        Seconds before the end by which all is to be over; whatever runs half a margin later is stopped.
    cluster, pilot, job_id, restart
        Where it runs, for the heartbeat.
    engines
        How engines are started here.
    cores, threads
        Ids of the cores to pin workers to (empty: none), and how many each gets.
    linger_s
        How long to wait for work when there is none.
    ahead_s
        Work for so long is kept in hand, as long as there is plenty, for the time when the database is away.
    bundle
        Folder of the bundle it works on.
    quota
        What the run folders may take.
    full_patience_s
        How long to wait for room on a full disk before giving up.
    """

    owner: str
    folder: Path
    workers: int = 1
    campaign: str | None = None
    end: float | None = None
    margin_s: float = 0.0
    cluster: str | None = None
    pilot: str | None = None
    job_id: str | None = None
    restart: int = 0
    engines: Engines = field(default_factory=Engines)
    cores: tuple[int, ...] = ()
    threads: int = 1
    linger_s: float = 0.0
    ahead_s: float = 0.0
    bundle: Path | None = None
    quota: DiskQuota | None = None
    full_patience_s: float = 300.0


@dataclass(frozen=True, slots=True)
class AgentReport:
    """How it stands, once a second.

    Attributes
    ----------
    workers, running
        Worker processes, and tasks handed to them.
    stopping
        Whether nothing new is started.
    notes
        What a user should know, one line each.
    """

    workers: int
    running: int
    stopping: bool
    notes: tuple[str, ...]


@dataclass(slots=True)
class AgentSummary:
    """How it ended.

    Attributes
    ----------
    problems
        Why it gave up, one line each; empty if it did not.
    respawned
        Workers started again after they died.
    ended
        Attempts that ended, by state.
    engine_s, allocated_s
        Seconds of engines, and of all places.
    delivered
        Whether everything is in the database; if not, it is in the journals of the agent's folder.
    unfit
        What was left because it would not fit any allocation like this one.
    """

    problems: list[str] = field(default_factory=list)
    respawned: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    engine_s: float = 0.0
    allocated_s: float = 0.0
    delivered: bool = True
    unfit: Unfit | None = None


class Desk(Protocol):
    """What the agent needs of its clerk; see :class:`htxas.launch.agent.clerk.Clerk`."""

    error: BaseException | None
    last_ok: float
    dry: bool
    more: bool
    full: bool

    @property
    def away_since(self) -> float | None:
        """Unix seconds since which the database has not answered, or None."""
        ...

    @property
    def unfit(self) -> Unfit | None:
        """What is READY and would not fit any allocation like this one, as far as it is known."""
        ...

    @property
    def busy(self) -> bool:
        """Whether anything is in hand or to be done."""
        ...

    @property
    def fetching(self) -> bool:
        """Whether it has been asked for tasks and has not answered yet."""
        ...

    def news(self) -> News:
        """Return what is new."""
        ...

    def concluded(self) -> None:
        """Take note that an outcome is in a journal."""
        ...

    def flush(self) -> None:
        """Deliver at once what is in the journals."""
        ...

    @property
    def stock(self) -> Stock:
        """What is leased and has not been passed on."""
        ...

    def want(self, room_s: float) -> None:
        """Fetch tasks, of which something fits ``room_s``."""
        ...

    def gone(self, number: int, keys: Sequence[str], evidence: dict[str, Any], out_of_memory: bool) -> None:
        """Take note that a worker died which had these tasks."""
        ...

    def interrupted(self, key: str, cause: Cause, message: str, evidence: dict[str, Any]) -> None:
        """Take note that an attempt was cut short."""
        ...

    def withdrawn(self, keys: Collection[str]) -> None:
        """Take back tasks that were not run to their end."""
        ...

    def finish(self) -> None:
        """Deliver and give back what is left, then end."""
        ...

    def abandon(self) -> None:
        """End as soon as possible."""
        ...

    def is_alive(self) -> bool:
        """Return whether it is at work."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        ...
