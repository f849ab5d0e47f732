"""The agent of a node: feeds its workers from a pool of leased tasks, and never waits for the database itself.

This thread speaks with the workers and decides; the clerk's speaks with the database, the heart's tells that the agent
lives. What the workers did is in their journals before anybody is told.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from htxas.domain.calculation import Kind, State
from htxas.errors import Cause
from htxas.launch.books import News
from htxas.launch.clerk import Clerk
from htxas.launch.crew import Answer, Crew, Gone, worker_log
from htxas.launch.delivery import Courier
from htxas.launch.disk import Keeper
from htxas.launch.engine_process import EngineRun
from htxas.launch.heart import Heart
from htxas.launch.maker import item_of
from htxas.launch.meter import Meter
from htxas.launch.offline import OfflineClerk
from htxas.launch.policy import Pool
from htxas.launch.room import RoomWatch
from htxas.launch.source import Source
from htxas.launch.stop import Stop
from htxas.launch.task import Task
from htxas.launch.usage import DiskQuota

__all__ = ["Agent", "AgentConfig", "AgentReport", "AgentSummary"]

_TICK_S = 0.5
_REPORT_S = 1.0
_TOGETHER_S = 0.02
_CHUNK_S, _CHUNK = 0.5, 32
_AHEAD_S = 10.0
_ASK_S = (0.5, 5.0)
_TOO_LONG_S = 5.0
_GRACE_S = 10.0
_REMEMBERED = 5_000
_CRASHES_IN_A_ROW = 10
_DEATHS_IN_A_ROW = 12
_log = logging.getLogger(__name__)


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
        How engines are started here, by name.
    cores, threads
        Ids of the cores to pin workers to (empty: none), and how many each gets.
    linger_s
        How long to wait for work when there is none.
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
    engines: Mapping[str, EngineRun] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    threads: int = 1
    linger_s: float = 0.0
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
    """

    problems: list[str] = field(default_factory=list)
    respawned: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    engine_s: float = 0.0
    allocated_s: float = 0.0
    delivered: bool = True


class Desk(Protocol):
    """What the agent needs of its clerk; see :class:`htxas.launch.clerk.Clerk`."""

    error: BaseException | None
    last_ok: float
    dry: bool
    more: bool
    full: bool

    @property
    def away_since(self) -> float | None: ...
    @property
    def busy(self) -> bool: ...
    @property
    def fetching(self) -> bool: ...
    def news(self) -> News: ...
    def concluded(self) -> None: ...
    def flush(self) -> None: ...
    def want(self, room_s: float) -> None: ...
    def gone(
        self, number: int, keys: Sequence[str], evidence: dict[str, Any], out_of_memory: bool
    ) -> None: ...
    def interrupted(self, key: str, cause: Cause, message: str, evidence: dict[str, Any]) -> None: ...
    def withdrawn(self, keys: Collection[str]) -> None: ...
    def finish(self) -> None: ...
    def abandon(self) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...


class Agent:
    """Runs workers until nothing is left to do, or asked to stop.

    Parameters
    ----------
    config
        See :class:`AgentConfig`.
    source
        Where tasks come from and outcomes go; None for a bundle.
    tasks
        Those of a bundle.
    """

    def __init__(self, config: AgentConfig, source: Source | None, tasks: Sequence[Task] = ()) -> None:
        self._config = config
        self._source = source
        self._given = tasks
        self._stop = Stop()
        self._pool = Pool(config.workers)
        self._tasks: dict[str, Task] = {}  # waiting, or with a worker
        self._grounds: OrderedDict[str, str] = OrderedDict()  # done -> directory
        self._dropping: dict[str, str] = {}  # asked back from a worker -> why
        self._meter = Meter(config.workers, time.monotonic())
        self._room = RoomWatch(config.quota or DiskQuota(), config.full_patience_s)
        self._summary = AgentSummary()
        self._crashes = self._deaths = 0
        self._ask_at = self._ask_s = 0.0
        self._looked_at = self._quiet_since = time.monotonic()
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def run(
        self,
        stop: Stop,
        on_report: Callable[[AgentReport], None] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> AgentSummary:
        """Work; return how it ended.

        Parameters
        ----------
        stop
            How it is asked to stop.
        on_report
            Called about once a second.
        facts
            What :func:`htxas.launch.liveness.hold_alive` gave, for the heartbeat.

        Raises
        ------
        HtxasError
            What the database refuses for good; journals and leases stay as they are.
        """
        c = self._config
        self._stop = stop
        self._crew = Crew(c.owner, c.folder, c.workers, cores=c.cores, threads=c.threads, engines=c.engines)
        heart: Heart | None = None
        try:
            if self._source is None:
                self._clerk: Desk = OfflineClerk(c.folder, self._given, self._crew.wake)
            else:
                keeper = Keeper(self._source.store, c.quota)
                clerk = Clerk(Courier(c.folder, self._source.store), self._source, self._crew.wake, keeper)
                self._clerk = clerk
                heart = Heart(
                    self._source.store, c.owner, clerk, self._meter, lambda: self._facts(facts or {})
                )
                heart.begin()
                clerk.start()
            self._work(on_report)
            self._clerk.finish()
            self._crew.dismiss()
            self._finish(heart)
        finally:
            self._crew.close()
            if heart is not None:
                heart.quiet()
        if self._clerk.error is not None:
            raise self._clerk.error
        now = time.monotonic()
        self._summary.engine_s = self._meter.engine_s(now)
        self._summary.allocated_s = self._meter.allocated_s(now)
        return self._summary

    def _facts(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document of the heartbeat; called from another thread."""
        c, now = self._config, time.monotonic()
        return {
            "host": platform.node(),
            "pid": os.getpid(),
            "folder": str(c.folder),
            "campaign": c.campaign,
            "workers": c.workers,
            "in_hand": list(self._pool.running),
            "held": len(self._tasks),
            "cluster": c.cluster,
            "pilot": c.pilot,
            "job_id": c.job_id,
            "restart": c.restart,
            "end": c.end,
            "engine_s": self._meter.engine_s(now),
            "allocated_s": self._meter.allocated_s(now),
            "started": self._started,
            "bundle": None if c.bundle is None else str(c.bundle),
            "until": None,
            **facts,
        }

    # ---- the loop

    def _work(self, on_report: Callable[[AgentReport], None] | None) -> None:
        reported = looked = tick_s = 0.0
        while True:
            events, tick_s = self._crew.wait(tick_s), _TICK_S
            for event in events:
                if isinstance(event, Gone):
                    self._bury(event)
                else:
                    self._hear(event)
            now = time.monotonic()
            if events and now - looked < _TOGETHER_S and not self._pool.idle:
                continue  # while everybody is at work, many answers are one occasion to look further
            looked = now
            self._read(self._clerk.news())
            self._mind_the_clock()
            full = self._room.full()
            self._clerk.full = full
            if self._room.problem and self._room.problem not in self._summary.problems:
                self._summary.problems.append(self._room.problem)
            if not full:
                self._dispatch()
                self._demand()
            if not self._pool.running:
                self._clerk.flush()  # nobody is at work: a second is worth more than a transaction
            if on_report is not None and time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                on_report(self._report())
            if self._over():
                return

    @property
    def _stopping(self) -> bool:
        return self._stop.asked or bool(self._summary.problems) or self._clerk.error is not None

    def _over(self) -> bool:
        now = time.monotonic()
        if self._pool.running or self._dropping:
            self._quiet_since = now
            return False
        if self._stopping or self._room_s() <= 0 or not self._clerk.is_alive():
            return True
        if self._pool.ready or self._clerk.busy:
            return False
        return self._clerk.dry and not self._clerk.more and now - self._quiet_since >= self._config.linger_s

    def _room_s(self) -> float:
        """Return the seconds left for calculations."""
        c = self._config
        left = math.inf if c.end is None else c.end - c.margin_s - time.time()
        return min(left, self._stop.room_s())

    def _mind_the_clock(self) -> None:
        """Stop what must not run on; give back what will not fit any more."""
        c, now = self._config, time.monotonic()
        running = self._pool.running
        hard_s = min(math.inf if c.end is None else c.end - c.margin_s / 2 - time.time(), self._stop.room_s())
        if self._stop.now or self._clerk.error is not None:
            self._drop([key for key in running if key not in self._dropping], "withdrawn")
        elif hard_s <= 0:
            self._drop([key for key in running if key not in self._dropping], "walltime")
        if self._room_s() < math.inf and now - self._looked_at >= _TOO_LONG_S:
            self._looked_at = now
            self._withdraw({item.key: False for item in self._pool.too_long(self._room_s())})

    def _drop(self, keys: Sequence[str], why: str) -> None:
        """Have tasks back that workers have."""
        places: dict[int, list[str]] = {}
        running = self._pool.running
        for key in keys:
            if key in running:
                self._dropping[key] = why
                places.setdefault(running[key], []).append(key)
        for place, dropped in places.items():
            self._crew.drop(place, dropped)

    def _withdraw(self, keys: Mapping[str, bool]) -> None:
        waiting = [key for key in keys if self._pool.remove(key)]
        for key in waiting:
            del self._tasks[key]
        if waiting:
            self._clerk.withdrawn(waiting)
        self._drop([key for key, stop in keys.items() if stop], "withdrawn")

    def _dispatch(self) -> None:
        if self._stopping:
            return
        now, room_s = time.monotonic(), self._room_s()
        for place in range(self._config.workers):
            if not self._pool.ready:
                return
            if not self._pool.is_idle(place):
                continue
            most = min(_CHUNK, 1 + self._pool.ready // (2 * self._config.workers))
            items = self._pool.take(place, now, room_s=room_s, chunk_s=_CHUNK_S, most=most)
            if not items:
                continue
            if not self._crew.mans(place):
                self._crew.start(place)
            self._meter.start(place, self._tasks[items[0].key].campaign, items[0].slots, now)
            self._crew.give(place, [self._tasks[item.key] for item in items])

    def _demand(self) -> None:
        """Ask for more before the workers run dry; less and less often where there is none."""
        if self._stopping or self._clerk.fetching or self._room_s() <= 0:
            return
        # Sites behind a ground state count: they will be ready, and what one agent holds no other can compute.
        if not self._pool.idle and self._pool.waiting_s >= _AHEAD_S * self._config.workers:
            return
        now = time.monotonic()
        if not self._clerk.dry:
            self._ask_s = _ASK_S[0]
        elif now < self._ask_at:
            return
        else:
            self._ask_s = min(1.5 * self._ask_s, _ASK_S[1])
        self._ask_at = now + self._ask_s
        self._clerk.want(self._room_s())

    def _report(self) -> AgentReport:
        notes = list(self._summary.problems)
        if self._clerk.away_since is not None:
            minutes = (time.time() - self._clerk.away_since) / 60
            notes.append(f"the database has been away for {minutes:.0f} min; going on with what is in hand")
        if self._room.why:
            notes.append(f"waiting for room on the disk: {self._room.why}")
        return AgentReport(len(self._crew), len(self._pool.running), self._stopping, tuple(notes))

    # ---- what workers and clerk say

    def _hear(self, answer: Answer) -> None:
        said = answer.said
        if "full" in said:
            self._room.notice("no room for outcomes in a journal")
        key = said.get("key")
        if key is None:
            return
        item = self._pool.ended(answer.place, key)
        task = self._tasks[key]
        places = 1 if item is None else item.slots
        self._meter.ran(float(said.get("wall_s") or said.get("elapsed_s") or 0.0), places)
        if self._pool.is_idle(answer.place):
            self._meter.stop(answer.place, time.monotonic())
        why = self._dropping.pop(key, None)
        if "state" in said:
            self._ended(task, said)
        elif said["returned"] == "ground":
            self._pool.add(item_of(task))
        elif said["returned"] == "disk_full":
            del self._tasks[key]
            self._room.notice(said["message"])
            facts = {"host": platform.node(), **{k: said[k] for k in ("elapsed_s", "directory")}}
            self._clerk.interrupted(key, Cause.DISK_FULL, said["message"], facts)
        else:
            del self._tasks[key]
            self._dropped(key, why, said)

    def _dropped(self, key: str, why: str | None, said: Mapping[str, Any]) -> None:
        elapsed_s = float(said.get("elapsed_s") or 0.0)
        if why == "walltime" and elapsed_s > 0:
            facts = {"host": platform.node(), "elapsed_s": elapsed_s, "directory": said.get("directory")}
            message = f"the allocation ended after {elapsed_s:.0f} s of it"
            self._clerk.interrupted(key, Cause.WALLTIME, message, facts)
        elif why != "forgotten":
            self._clerk.withdrawn([key])

    def _ended(self, task: Task, said: Mapping[str, Any]) -> None:
        del self._tasks[task.key]
        state = said["state"]
        self._summary.ended[state] = self._summary.ended.get(state, 0) + 1
        self._deaths = 0
        self._crashes = self._crashes + 1 if said["cause"] == Cause.ENGINE_CRASH else 0
        if self._crashes == _CRASHES_IN_A_ROW:
            self._summary.problems.append(
                f"{self._crashes} calculations in a row crashed the engine: htxas failures"
            )
        if task.kind is Kind.GROUND and state == State.DONE:
            self._ground_done(task.key, said["directory"])
        self._clerk.concluded()

    def _ground_done(self, key: str, directory: str) -> None:
        self._grounds[key] = directory
        if len(self._grounds) > _REMEMBERED:
            self._grounds.popitem(last=False)
        for item in self._pool.met(key):
            self._tasks[item.key] = replace(self._tasks[item.key], ground_directory=directory)

    def _bury(self, gone: Gone) -> None:
        now = time.monotonic()
        self._meter.stop(gone.place, now)
        keys = [item.key for item in self._pool.dropped(gone.place)]
        for key in keys:
            self._dropping.pop(key, None)
        log = worker_log(self._config.folder, gone.place)
        _log.warning(
            "worker %d ended: %s", gone.place, {k: v for k, v in gone.evidence.items() if k != "log"}
        )
        self._clerk.gone(gone.number, keys, gone.evidence, gone.out_of_memory)
        self._deaths += 1
        if self._deaths > _DEATHS_IN_A_ROW + self._config.workers:
            tail = gone.evidence["log"]
            last = tail[-1] if tail else gone.evidence["returncode"]
            self._summary.problems.append(f"workers keep ending with errors: {last} ({log})")
        elif not self._stopping:
            self._summary.respawned += 1

    def _read(self, news: News) -> None:
        for task in news.tasks:
            if task.key in self._pool or task.key in self._pool.running:
                continue
            directory = self._grounds.get(task.ground_key or "")
            if task.ground_directory is None and directory is not None:
                task = replace(task, ground_directory=directory)
            self._tasks[task.key] = task
            self._pool.add(item_of(task))
        for key, directory in news.grounds.items():
            self._ground_done(key, directory)
        self._withdraw(news.withdrawn)
        for key in news.forgotten:
            if self._pool.remove(key):
                del self._tasks[key]
        self._drop([key for key, stop in news.forgotten.items() if stop], "forgotten")

    def _finish(self, heart: Heart | None) -> None:
        """Have the clerk deliver and give back; not for ever if the database is away and the end is near."""
        asked = time.monotonic()
        while self._clerk.is_alive():
            self._clerk.join(_TICK_S)
            quiet = time.monotonic() - max(asked, self._clerk.last_ok)
            end = self._config.end
            late = end is not None and time.time() > end - self._config.margin_s / 4
            if late or (self._stopping and quiet > _GRACE_S):
                self._summary.delivered = False
                self._clerk.abandon()
                _log.warning("the database is away; what was computed is in %s", self._config.folder)
                return
        if heart is not None and self._clerk.error is None:
            heart.end()
