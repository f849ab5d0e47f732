"""The workers' side of an agent: who gets what, what they say, what becomes of those that die."""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.errors import Cause
from htxas.launch.agent.books import News
from htxas.launch.agent.config import Desk
from htxas.launch.agent.crew import Answer, Crew, Gone, worker_log
from htxas.launch.agent.maker import item_of
from htxas.launch.agent.meter import Meter
from htxas.launch.agent.policy import Pool
from htxas.launch.agent.room import RoomWatch
from htxas.launch.work.task import Task

__all__ = ["Floor"]

_CHUNK_S, _CHUNK = 1.0, 64
_REMEMBERED = 5_000
_CRASHES_IN_A_ROW = 10
_DEATHS_IN_A_ROW = 12
_OVERDUE_S = 60.0
_ANSWER_S = 30.0
_FROZEN_S = 10.0
_log = logging.getLogger(__name__)


class Floor:
    """Tasks in hand and the workers that compute them.

    Parameters
    ----------
    crew, clerk, meter, room
        The agent's.
    folder, workers
        Its folder, and the number of its places.

    Attributes
    ----------
    pool
        Who computes what, and what waits.
    held
        Number of tasks in hand.
    ended
        Attempts that ended, by state.
    respawned
        Workers that died and were, or will be, replaced.
    problems
        Why to give up, one line each.
    """

    def __init__(
        self, crew: Crew, clerk: Desk, meter: Meter, room: RoomWatch, folder: Path, workers: int
    ) -> None:
        self.pool = Pool(workers)
        self.ended: Counter[str] = Counter()
        self.respawned = 0
        self.problems: list[str] = []
        self._crew = crew
        self._clerk = clerk
        self._meter = meter
        self._room = room
        self._folder = folder
        self._workers = workers
        self._tasks: dict[str, Task] = {}  # waiting, or with a worker
        self._grounds: OrderedDict[str, str] = OrderedDict()  # done -> directory
        self._dropping: dict[str, str] = {}  # asked back from a worker -> why
        self._later: dict[
            str, Task | None
        ] = {}  # what takes the place of a task when its worker has answered
        self._latest: dict[int, float] = {}  # place -> when even the slowest would have ended
        self._full: set[int] = set()  # places whose workers wait for room in their journals
        self._looked = time.monotonic()
        self._crashes = self._deaths = 0

    @property
    def held(self) -> int:
        """Number of tasks in hand."""
        return len(self._tasks)

    @property
    def at_work(self) -> bool:
        """Whether anything is with a worker."""
        return bool(self._dropping) or not self.pool.resting

    def dispatch(self, room_s: float) -> None:
        """Give idle workers what fits the seconds left."""
        now = time.monotonic()
        for place in range(self._workers):
            if not self.pool.ready:
                return
            if not self.pool.is_idle(place):
                continue
            most = min(_CHUNK, 1 + self.pool.ready // (2 * self._workers))
            items = self.pool.take(place, now, room_s=room_s, chunk_s=_CHUNK_S, most=most)
            if not items:
                continue
            if not self._crew.mans(place):
                self._crew.start(place)
            self._meter.start(place, self._tasks[items[0].key].campaign, items[0].slots, now)
            tasks = [self._tasks[item.key] for item in items]
            self._latest[place] = now + sum(task.timeout_s for task in tasks) + _OVERDUE_S
            self._crew.give(place, tasks)

    def drop(self, keys: Sequence[str], why: str) -> None:
        """Have tasks back that workers have."""
        places: dict[int, list[str]] = {}
        running = self.pool.running
        for key in keys:
            if key in running:
                self._dropping[key] = why
                places.setdefault(running[key], []).append(key)
        for place, dropped in places.items():
            self._crew.drop(place, dropped)
            if all(key in self._dropping for key, where in running.items() if where == place):
                soon = time.monotonic() + _ANSWER_S
                self._latest[place] = min(soon, self._latest.get(place, soon))

    def stop_all(self, why: str) -> None:
        """Have all tasks back that workers have: ``withdrawn``, or ``walltime`` if it is their own length."""
        self.drop([key for key in self.pool.running if key not in self._dropping], why)

    def kill_overdue(self) -> None:
        """Kill workers that should long have ended: they keep the clock of their engines, and are frozen."""
        now = time.monotonic()
        frozen_s, self._looked = now - self._looked, now
        if frozen_s > _FROZEN_S:  # the whole job was, perhaps: the workers have the same to make up for
            self._latest = {place: latest + frozen_s for place, latest in self._latest.items()}
        for place, latest in list(self._latest.items()):
            if now > latest and not self.pool.is_idle(place):
                _log.warning("worker %d does not answer: killed", place)
                self._crew.kill(place)
                del self._latest[place]

    def stop_full(self) -> None:
        """Have back what cannot be recorded: there will be no room."""
        running = self.pool.running
        self.drop([k for k, p in running.items() if p in self._full and k not in self._dropping], "withdrawn")

    def withdraw(self, keys: Mapping[str, bool]) -> None:
        """Give tasks back: those that wait, and those that run if it says so."""
        waiting = [key for key in keys if self.pool.remove(key)]
        for key in waiting:
            del self._tasks[key]
        later = [key for key in keys if self._later.get(key) is not None]
        self._later |= dict.fromkeys(later)
        if waiting or later:
            self._clerk.withdrawn([*waiting, *later])
        self.drop([key for key, stop in keys.items() if stop], "withdrawn")

    def hear(self, answer: Answer) -> None:
        """Take a worker's answer."""
        said = answer.said
        if "full" in said:
            self._room.notice("no room for outcomes in a journal")
            self._full.add(answer.place)
            self._latest.pop(answer.place, None)  # that may take longer than any calculation
        key = said.get("key")
        if key is None:
            return
        self._full.discard(answer.place)
        item = self.pool.ended(answer.place, key)
        task = self._tasks[key]
        places = 1 if item is None else item.slots
        self._meter.ran(float(said.get("wall_s") or said.get("elapsed_s") or 0.0), places)
        if self.pool.is_idle(answer.place):
            self._meter.stop(answer.place, time.monotonic())
        why = self._dropping.pop(key, None)
        replaced, later = key in self._later, self._later.pop(key, None)
        if said.get("returned") == "disk_full":
            self._room.notice(said["message"])
        if "state" in said:
            self._end(task, said)
        elif replaced:  # no longer ours when its worker gave it back
            del self._tasks[key]
        elif said["returned"] == "ground":
            self.pool.add(item_of(task))
        elif said["returned"] == "disk_full":
            del self._tasks[key]
            facts = {"host": platform.node(), **{k: said[k] for k in ("elapsed_s", "directory")}}
            self._clerk.interrupted(key, Cause.DISK_FULL, said["message"], facts)
        else:
            del self._tasks[key]
            self._dropped(key, why, said)
        if later is not None:
            self._take(later)

    def _dropped(self, key: str, why: str | None, said: Mapping[str, Any]) -> None:
        elapsed_s = float(said.get("elapsed_s") or 0.0)
        if why == "walltime" and elapsed_s > 0:
            facts = {"host": platform.node(), "elapsed_s": elapsed_s, "directory": said.get("directory")}
            message = f"the allocation ended after {elapsed_s:.0f} s of it"
            self._clerk.interrupted(key, Cause.WALLTIME, message, facts)
        elif why != "forgotten":
            self._clerk.withdrawn([key])

    def _end(self, task: Task, said: Mapping[str, Any]) -> None:
        del self._tasks[task.key]
        state = said["state"]
        self.ended[state] += 1
        self._deaths = 0
        self._crashes = self._crashes + 1 if said["cause"] == Cause.ENGINE_CRASH else 0
        if self._crashes == _CRASHES_IN_A_ROW:
            self.problems.append(f"{self._crashes} calculations in a row crashed the engine: htxas failures")
        if task.kind is Kind.GROUND and state == State.DONE:
            self._ground_done(task.key, said["directory"])
        self._clerk.concluded()

    def _ground_done(self, key: str, directory: str) -> None:
        self._grounds[key] = directory
        if len(self._grounds) > _REMEMBERED:
            self._grounds.popitem(last=False)
        for item in self.pool.met(key):
            self._tasks[item.key] = replace(self._tasks[item.key], ground_directory=directory)

    def bury(self, gone: Gone) -> None:
        """Take leave of a worker that died; its place gets another one with its next task."""
        now = time.monotonic()
        self._meter.stop(gone.place, now)
        self._latest.pop(gone.place, None)
        self._full.discard(gone.place)
        keys, later = [], []
        for item in self.pool.dropped(gone.place):
            self._dropping.pop(item.key, None)
            del self._tasks[item.key]
            if item.key in self._later:
                later.append(self._later.pop(item.key))
            else:
                keys.append(item.key)
        for task in filter(None, later):
            self._take(task)
        log = worker_log(self._folder, gone.place)
        _log.warning(
            "worker %d ended: %s", gone.place, {k: v for k, v in gone.evidence.items() if k != "log"}
        )
        self._clerk.gone(gone.number, keys, gone.evidence, gone.out_of_memory)
        self._deaths += 1
        if self._deaths > _DEATHS_IN_A_ROW + self._workers:
            tail = gone.evidence["log"]
            last = tail[-1] if tail else gone.evidence["returncode"]
            self.problems.append(f"workers keep ending with errors: {last} ({log})")
        else:
            self.respawned += 1

    def read(self, news: News) -> None:
        """Take what the clerk has to tell."""
        running = self.pool.running
        for key in news.forgotten:
            if self.pool.remove(key):
                del self._tasks[key]
            elif key in running:
                self._later[key] = None
        self.drop([key for key, stop in news.forgotten.items() if stop], "forgotten")
        for task in news.tasks:
            if task.key not in running:
                self._take(task)
            elif task.attempt > self._tasks[task.key].attempt:
                # Its outcome was read in the journal, and it was leased again, before its worker told us.
                self._later[task.key] = task
        for key, directory in news.grounds.items():
            self._ground_done(key, directory)
        self.withdraw(news.withdrawn)

    def _take(self, task: Task) -> None:
        """Put a task among those that wait, instead of an earlier attempt if one is there."""
        self.pool.remove(task.key)
        directory = self._grounds.get(task.ground_key or "")
        if task.ground_directory is None and directory is not None:
            task = replace(task, ground_directory=directory)
        self._tasks[task.key] = task
        self.pool.add(item_of(task))
