"""The clerk of an agent without a database: what there is to do was given, what was done stays in the journals."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.engines.registry import get_engine
from htxas.errors import Cause
from htxas.launch.agent.books import Books, News
from htxas.launch.agent.delivery import AT_ONCE, Courier
from htxas.launch.agent.policy import Unfit
from htxas.launch.agent.stock import Stock
from htxas.launch.work.evidence import FULL
from htxas.launch.work.journal import JournalWriter, Returned
from htxas.launch.work.ladder import next_step
from htxas.launch.work.task import Task
from htxas.launch.work.worker import journal_path
from htxas.store.outcomes import Outcome, failed

__all__ = ["OfflineClerk"]

_log = logging.getLogger(__name__)


class OfflineClerk:
    """Keeps the books of a bundle.

    An attempt that asks for a correction waits for whoever collects: only the database gives a new attempt.

    Parameters
    ----------
    folder
        The agent's.
    tasks
        The bundle's.
    on_news
        Called when the agent should look.
    places
        Of the agent.
    """

    def __init__(
        self, folder: Path, tasks: Sequence[Task], on_news: Callable[[], None], places: int = 1
    ) -> None:
        self._places = places
        self.error: BaseException | None = None
        self.away_since: float | None = None
        self.last_ok = time.monotonic()
        self.dry, self.more, self.full = True, False, False
        self.fetching = False
        self.unfit: Unfit | None = None
        self.stock = Stock()
        self._courier = Courier(folder, None)
        self._journal = JournalWriter(journal_path(folder, 0))
        self._books = Books()
        self._news = News()
        self._unsaid: deque[Callable[[], None]] = deque()
        self._on_news = on_news
        self._over = False
        for task in tasks:
            self._books.take(task)
        self._news.add(tasks=tasks)
        on_news()

    @property
    def busy(self) -> bool:
        """Whether anything is in hand; what waits for a ground state that needs a correction is not."""
        return bool(self._news.tasks)

    def news(self) -> News:
        """Return what is new."""
        self._write()
        news, self._news = self._news, News()
        return news

    def want(self, room_s: float) -> None:
        """There is no more."""

    def flush(self) -> None:
        """There is nowhere to."""

    def concluded(self) -> None:
        """Read what was done."""
        while carried := self._courier.carry():
            for outcome, _ in carried:
                self._conclude(outcome)
            if len(carried) < AT_ONCE:
                return

    def _conclude(self, outcome: Outcome) -> None:
        task = self._books.ended(outcome.lease)
        if task is None or task.kind is not Kind.GROUND or outcome.state in (State.READY, State.DONE):
            return
        cause = str(outcome.entry["cause"])
        for site in self._books.waiting_for(task.key):
            message = (
                f"the ground state {task.key[:12]} has no result: {cause}: {outcome.fields.get('message')}"
            )
            evidence = {"ground": task.key, "ground_cause": cause}
            self._end(
                failed(site.lease, Cause.GROUND_FAILED, message, evidence, corrections=site.corrections)
            )
            self._books.ended(site.lease)
            self._news.add(forgotten={site.key: False})
        self._on_news()

    def gone(self, number: int, keys: Sequence[str], evidence: dict[str, Any], out_of_memory: bool) -> None:
        """Say in the journal what a dead worker was at: that is charged when the bundle is collected."""
        self.concluded()
        started = self._courier.in_hand(journal_path(Path(), number).name)
        left = [self._books.tasks[key] for key in keys if key in self._books.tasks]
        hit = next((t for t in left if started is not None and t.key == started.key), None)
        if hit is not None and out_of_memory:
            places = self._places
            step = next_step(get_engine(hit.engine), hit, Cause.OUT_OF_MEMORY, places=places, slots=hit.slots)
            again = None if step is None else step.to_dict()
            message = "out of memory; the kernel killed its worker"
            wrong = (hit.lease, Cause.OUT_OF_MEMORY, message, evidence)
            self._end(failed(*wrong, corrections=hit.corrections, again=again))
        elif hit is not None:
            how = evidence.get("signal") or f"status {evidence.get('returncode')}"
            message = f"its worker ended without a word ({how}): killed, out of memory, or a bug of htxas"
            _log.warning("%s: %s", hit.key, message)
            self._say(
                partial(self._journal.returned, Returned(hit.key, hit.attempt, Cause.LOST, message, evidence))
            )
        if hit is not None:
            self._books.ended(hit.lease)
        self._news.add(tasks=[task for task in left if task is not hit])
        self._on_news()

    def _end(self, outcome: Outcome) -> None:
        self._say(partial(self._journal.outcome, outcome))

    def _say(self, write: Callable[[], None]) -> None:
        self._unsaid.append(write)
        self._write()

    def _write(self) -> None:
        """Write into the journal what there is to say; on a full disk it waits."""
        while self._unsaid:
            try:
                self._unsaid[0]()
            except OSError as error:
                if error.errno not in FULL:
                    raise
                return
            self._unsaid.popleft()

    def interrupted(self, key: str, cause: Cause, message: str, evidence: dict[str, Any]) -> None:
        """Do once more what a full disk stopped; the rest is released when the bundle is collected."""
        if cause is Cause.DISK_FULL and key in self._books.tasks:
            self._news.add(tasks=[self._books.tasks[key]])
            self._on_news()

    def withdrawn(self, keys: Collection[str]) -> None:
        """Nothing to be done: what has no outcome is released when the bundle is collected."""

    def abandon(self) -> None:
        """There is nothing to give up."""

    def finish(self) -> None:
        """Bring the journal to disk."""
        self._over = True
        self._write()
        if self._unsaid:
            _log.warning("the disk is full: how %d calculations ended is not told", len(self._unsaid))
        try:
            self._journal.close()
        except OSError as error:
            if error.errno not in FULL:
                raise

    def join(self, timeout: float | None = None) -> None:
        """There is nothing to wait for."""

    def is_alive(self) -> bool:
        """Whether it is at work."""
        return not self._over
