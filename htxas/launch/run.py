"""``htxas run``: an agent on this machine, and what surrounds it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.engines.registry import get_engine
from htxas.errors import DatabaseUnavailable, HtxasError, UserError
from htxas.launch.agent.agent import Agent, AgentConfig, AgentReport, AgentSummary
from htxas.launch.agent.liveness import LOG_FILE, hold_alive, new_owner, worker_folder
from htxas.launch.agent.source import Held, Source
from htxas.launch.pad.launchpad import campaign_query, database_errors, prepare_launchpad
from htxas.launch.recovery.recover import recover, requeue_forgotten
from htxas.launch.work.engine_run import EngineRun, absent
from htxas.launch.work.stop import Returned, Stop, listening
from htxas.store.store import Store

__all__ = ["Report", "RunSummary", "logged", "run_batch", "run_workers"]

_LOOK_S = 1.0
_RECOVER_S = 60.0
_log = logging.getLogger("htxas.launch")


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a run, once a second."""

    progress: dict[str, Any]
    workers: int
    stopping: bool
    notes: tuple[str, ...]


@dataclass(slots=True)
class RunSummary:
    """How a run ended.

    Attributes
    ----------
    interrupted
        Whether it was asked to stop.
    recovered
        Dead agents whose work was freed.
    respawned
        Workers started again after they died.
    unsubmitted
        READY calculations that no batch carries.
    unfinished
        Campaigns whose submission has not come to its end.
    problems
        Why it gave up, one line each.
    undelivered
        Folder with outcomes that are not in the database, or None.
    progress
        The last look at the store.
    """

    interrupted: bool = False
    recovered: int = 0
    respawned: int = 0
    unsubmitted: int = 0
    unfinished: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    undelivered: Path | None = None
    progress: dict[str, Any] = field(default_factory=dict)


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Have what this process says about its work written to the agent's log."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / LOG_FILE, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.setLevel(level)
        _log.removeHandler(handler)
        handler.close()


class _Watch(threading.Thread):
    """Looks at the progress every second and after dead agents every minute; the agent waits for neither."""

    def __init__(self, store: Store, launchpad: LaunchPad, campaign: str | None, summary: RunSummary) -> None:
        super().__init__(name="watch", daemon=True)
        self._store = store
        self._launchpad = launchpad
        self._campaign = campaign
        self._summary = summary
        self._over = threading.Event()

    def run(self) -> None:
        recovered = time.monotonic()
        while not self._over.wait(_LOOK_S):
            try:
                self._summary.progress = self._store.progress(self._campaign)
                if time.monotonic() - recovered >= _RECOVER_S:
                    recovered = time.monotonic()
                    self._summary.recovered += recover(self._store, self._launchpad)
            except HtxasError as error:  # a look that fails hurts nobody; the next one comes
                _log.warning("%s", error)

    def end(self) -> None:
        self._over.set()
        self.join(_LOOK_S)


def run_workers(
    store: Store,
    launchpad: LaunchPad,
    *,
    jobs: int,
    campaign: str | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> RunSummary:
    """Run ``jobs`` workers until nothing is left to run; return how it ended.

    Parameters
    ----------
    store, launchpad
        What to work on.
    jobs
        Worker processes, one core each.
    campaign
        Only this campaign, or None for all.
    on_report
        Called about once a second.

    Raises
    ------
    NotFound
        If there is no such campaign.
    UserError
        If its engine cannot be started here.
    DatabaseUnavailable
        If the database is away at the start. Later it is waited for.
    """
    if campaign is not None:
        name = store.campaign(campaign)["engine"]
        why = absent(get_engine(name), EngineRun())
        if why is not None:
            raise UserError(why, where=f"{campaign}: engine {name}")
    prepare_launchpad(launchpad)
    stop, summary = Stop(), RunSummary()
    with listening(stop):
        summary.recovered = recover(store, launchpad)
        summary.progress = store.progress(campaign)
        watch = _Watch(store, launchpad, campaign, summary)
        watch.start()

        def report(said: AgentReport) -> None:
            if on_report is not None:
                notes = said.notes
                on_report(Report(summary.progress, said.workers, bool(stop.asked), notes))

        try:
            _rounds(store, launchpad, jobs, campaign, stop, summary, report)
        finally:
            watch.end()
    summary.interrupted = stop.asked
    if summary.undelivered is None:
        summary.progress = store.progress(campaign)
        summary.unfinished = store.unfinished_submissions(campaign)
        if on_report is not None:
            on_report(Report(summary.progress, 0, stop.asked, tuple(summary.problems)))
    return summary


def _rounds(
    store: Store,
    launchpad: LaunchPad,
    jobs: int,
    campaign: str | None,
    stop: Stop,
    summary: RunSummary,
    report: Callable[[AgentReport], None],
) -> None:
    """Work, then look for calculations without a Firework; again while that finds some and brings them further."""
    ended = -1
    if not _ready(launchpad, campaign):
        summary.unsubmitted = requeue_forgotten(store, launchpad, campaign).unsubmitted
    while _ready(launchpad, campaign):
        owner = new_owner()
        folder = worker_folder(owner)
        source = Source(store, launchpad, owner, folder, campaign, jobs)
        config = AgentConfig(owner, folder, workers=jobs, campaign=campaign)
        with logged(folder), hold_alive(owner) as facts:
            did = Agent(config, source).run(stop, report, facts)
        _add(summary, did, folder)
        if stop.asked or summary.problems:
            return
        counts = store.counts(campaign)
        now = sum(n for s, n in counts.items() if s not in (State.READY, State.RUNNING))
        if now == ended:
            return
        ended = now
        found = requeue_forgotten(store, launchpad, campaign)
        summary.unsubmitted = found.unsubmitted
        if not found.fireworks:
            return


def _add(summary: RunSummary, did: AgentSummary, folder: Path) -> None:
    summary.respawned += did.respawned
    summary.problems += did.problems
    if not did.delivered:
        summary.undelivered = folder


def _ready(launchpad: LaunchPad, campaign: str | None) -> bool:
    with database_errors():
        query = {**campaign_query(campaign), "state": "READY"}
        return launchpad.fireworks.find_one(query, {"_id": 1}) is not None


class _OneBatch(Source):
    """Gives one batch, which FireWorks' own launcher has checked out."""

    def __init__(self, store: Store, owner: str, folder: Path, batch_id: str) -> None:
        super().__init__(store, None, owner, folder, None, 1)
        self.tally: dict[str, int] = {}
        self._batch_id: str | None = batch_id

    def checkout(self, room_s: float, *, whole: bool = False) -> Held | None:
        batch_id, self._batch_id = self._batch_id, None
        return None if batch_id is None else self.hold(batch_id)

    def complete(self, held: Sequence[Held]) -> None:
        for one in held:
            self.tally = dict(one.tally)


def run_batch(batch_id: str) -> dict[str, int]:
    """Compute one batch for FireWorks' own ``rlaunch``; return how many calculations ended in which way.

    Raises
    ------
    Returned
        If it came to no end: FireWorks marks the Firework FIZZLED, and ``htxas run`` or ``reconcile`` frees it.
    DatabaseUnavailable
        If what was computed could not be delivered; it is in the agent's journal.
    """
    owner, stop = new_owner(), Stop()
    folder = worker_folder(owner)
    with Store.open() as store, logged(folder), hold_alive(owner) as facts:
        source = _OneBatch(store, owner, folder, batch_id)
        did = Agent(AgentConfig(owner, folder), source).run(stop, None, facts)
    if not did.delivered:
        raise DatabaseUnavailable(
            "the database went away; the outcomes wait in the journal", where=str(folder)
        )
    if did.problems or not source.tally:
        raise Returned(did.problems[0] if did.problems else "others compute what is left of the batch")
    return source.tally
