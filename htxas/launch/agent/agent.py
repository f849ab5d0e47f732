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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from htxas.launch.agent.clerk import Clerk
from htxas.launch.agent.config import AgentConfig, AgentReport, AgentSummary, Desk
from htxas.launch.agent.crew import Crew, Gone
from htxas.launch.agent.delivery import Courier
from htxas.launch.agent.floor import Floor
from htxas.launch.agent.heart import Heart
from htxas.launch.agent.meter import Meter
from htxas.launch.agent.offline import OfflineClerk
from htxas.launch.agent.room import RoomWatch
from htxas.launch.agent.source import Source
from htxas.launch.disk.keeper import Keeper
from htxas.launch.disk.usage import DiskQuota
from htxas.launch.work.stop import Stop
from htxas.launch.work.task import Task

__all__ = ["Agent", "AgentConfig", "AgentReport", "AgentSummary"]

_TICK_S = 0.5
_REPORT_S = 1.0
_TOGETHER_S = 0.02
_AHEAD_S = 10.0
_ASK_S = (0.5, 5.0)
_LOOK_S = 2.0
_FOR_EVER_S = 1e9
_WAIT_S = 60.0
_GRACE_S = 10.0
_log = logging.getLogger(__name__)


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
        self._meter = Meter(config.workers, time.monotonic())
        self._room = RoomWatch(config.quota or DiskQuota(), config.full_patience_s)
        self._summary = AgentSummary()
        self._ask_at = self._ask_s = 0.0
        self._hungry: dict[str, Any] | None = None
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
            What :func:`htxas.launch.agent.liveness.hold_alive` gave, for the heartbeat.

        Raises
        ------
        HtxasError
            What the database refuses for good; journals and leases stay as they are.
        """
        c = self._config
        self._stop = stop
        # A calculation of several places uses their cores: a worker pinned to its own could not reach them.
        cores = () if c.engines.wide else c.cores
        self._crew = Crew(c.owner, c.folder, c.workers, cores=cores, threads=c.threads, engines=c.engines)
        heart: Heart | None = None
        try:
            if self._source is None:
                self._clerk: Desk = OfflineClerk(c.folder, self._given, self._crew.wake, c.workers)
                self._floor = self._open()
            else:
                keeper = Keeper(self._source.store, c.quota)
                courier = Courier(c.folder, self._source.store)
                ahead_s, room = c.ahead_s, self._room_ahead_s
                clerk = Clerk(courier, self._source, self._crew.wake, keeper, ahead_s=ahead_s, room=room)
                self._clerk = clerk
                self._floor = self._open()
                heart = Heart(
                    self._source.store, c.owner, clerk, self._meter, lambda: self._facts(facts or {})
                )
                heart.begin()
                clerk.start()
            self._work(on_report)
            self._hungry = None
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
        self._summary.ended = dict(self._floor.ended)
        self._summary.unfit = self._clerk.unfit
        self._summary.respawned = self._floor.respawned
        self._summary.engine_s = self._meter.engine_s(now)
        self._summary.allocated_s = self._meter.allocated_s(now)
        return self._summary

    def _open(self) -> Floor:
        c = self._config
        return Floor(self._crew, self._clerk, self._meter, self._room, c.folder, c.workers)

    def _facts(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document of the heartbeat; called from another thread."""
        c, now = self._config, time.monotonic()
        return {
            "host": platform.node(),
            "pid": os.getpid(),
            "folder": str(c.folder),
            "campaign": c.campaign,
            "workers": c.workers,
            "in_hand": list(self._floor.pool.running),
            "held": self._floor.held + len(self._clerk.stock),
            "cluster": c.cluster,
            "pilot": c.pilot,
            "job_id": c.job_id,
            "restart": c.restart,
            "end": c.end,
            "engine_s": self._meter.engine_s(now),
            "allocated_s": self._meter.allocated_s(now),
            "started": self._started,
            "waiting_s": self._floor.pool.waiting_s + self._clerk.stock.seconds,
            "hungry": self._hungry,
            "bundle": None if c.bundle is None else str(c.bundle),
            "until": None,
            **facts,
        }

    # ---- the loop

    def _work(self, on_report: Callable[[AgentReport], None] | None) -> None:
        floor, reported, looked, tick_s = self._floor, 0.0, 0.0, 0.0
        while True:
            events, tick_s = self._crew.wait(tick_s), _TICK_S
            for event in events:
                if isinstance(event, Gone):
                    floor.bury(event)
                else:
                    floor.hear(event)
            now = time.monotonic()
            if events and now - looked < _TOGETHER_S and not floor.pool.idle:
                continue  # while everybody is at work, many answers are one occasion to look further
            looked = now
            floor.read(self._clerk.news())
            self._mind_the_clock()
            full = self._room.full()
            self._clerk.full = full
            self._summary.problems = [*floor.problems, *filter(None, [self._room.problem])]
            if not (full or self._stopping):
                floor.dispatch(self._room_s())
                self._demand()
            self._hungry = None if self._stopping else self._hunger()
            if floor.pool.resting:
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
        if self._floor.at_work:
            self._quiet_since = now
            return False
        if self._stopping or self._room_s() <= 0 or not self._clerk.is_alive():
            return True
        if self._floor.pool.ready or self._clerk.busy:
            return False
        return self._clerk.dry and not self._clerk.more and now - self._quiet_since >= self._config.linger_s

    def _room_s(self) -> float:
        """Return the seconds left for calculations."""
        c = self._config
        left = math.inf if c.end is None else c.end - c.margin_s - time.time()
        return min(left, self._stop.room_s())

    def _room_ahead_s(self) -> float:
        """Return the seconds left for what is leased ahead; called from another thread."""
        return 0.0 if self._stopping else self._room_s()

    def _mind_the_clock(self) -> None:
        """Stop what must not run on; give back what will not fit any more."""
        c, now = self._config, time.monotonic()
        pool = self._floor.pool
        hard_s = min(math.inf if c.end is None else c.end - c.margin_s / 2 - time.time(), self._stop.room_s())
        if self._stop.now or self._clerk.error is not None:
            self._floor.stop_all("withdrawn")
        elif hard_s <= 0:
            self._floor.stop_all("walltime")
        elif self._room.problem:
            self._floor.stop_full()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        self._floor.kill_overdue()
        if self._room_s() < math.inf:
            self._floor.withdraw({item.key: False for item in pool.too_long(self._room_s())})
        waits_s = now - self._quiet_since
        if not self._floor.at_work and not pool.ready and waits_s > max(_WAIT_S, c.linger_s):
            # All that is left waits for ground states in other hands: in the queue it waits as well.
            self._floor.withdraw({item.key: False for item in pool})

    def _demand(self) -> None:
        """Ask for more before the workers run dry; less and less often where there is none."""
        if self._room_s() <= 0 or (self._clerk.fetching and self._clerk.away_since is None):
            return
        # Sites behind a ground state count: they will be ready, and what one agent holds no other can compute.
        pool = self._floor.pool
        enough = pool.waiting_s >= _AHEAD_S * self._config.workers
        if enough and not pool.idle:
            return
        now = time.monotonic()
        if not self._clerk.dry and not enough:
            self._ask_s = _ASK_S[0]
        elif now < self._ask_at:
            return
        else:
            self._ask_s = min(max(1.5 * self._ask_s, _ASK_S[0]), _ASK_S[1])
        self._ask_at = now + self._ask_s
        self._clerk.want(self._room_s())

    def _hunger(self) -> dict[str, Any] | None:
        """Return what to tell others if workers wait and the queue has nothing: they may have work on stock."""
        pool, room_s = self._floor.pool, self._room_s()
        can = self._source is not None and self._source.can_take and not self._clerk.full
        if not can or room_s <= 0 or pool.ready or not (pool.idle and self._clerk.dry):
            return None
        return {"room_s": min(room_s, _FOR_EVER_S), "workers": pool.idle}

    def _report(self) -> AgentReport:
        notes, running = list(self._summary.problems), len(self._floor.pool.running)
        if self._clerk.away_since is not None:
            minutes = (time.time() - self._clerk.away_since) / 60
            notes.append(f"the database has been away for {minutes:.0f} min; going on with what is in hand")
        if self._room.why:
            notes.append(f"waiting for room on the disk: {self._room.why}")
        return AgentReport(len(self._crew), running, self._stopping, tuple(notes))

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
