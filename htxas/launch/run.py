"""Local workers and the process that looks after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.errors import Cause
from htxas.launch.evidence import log_tail
from htxas.launch.fireworks_pad import campaign_query, database_errors, prepare_launchpad
from htxas.launch.liveness import LOG_FILE, new_owner, worker_folder
from htxas.launch.recover import free_fireworks, recover, requeue_forgotten
from htxas.launch.worker import STOPPED, UNFIT
from htxas.store.store import Store

__all__ = ["Report", "RunSummary", "run_workers"]

_POLL_S = 0.2
_LOOK_S = 1.0
_RECOVER_S = 60.0
_DEATHS_IN_A_ROW = 12


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
        Dead workers whose work was freed.
    respawned
        Workers started again after they died.
    unsubmitted
        READY calculations that no batch carries.
    unfinished
        Campaigns whose submission has not come to its end.
    problems
        Why workers gave up, one line each.
    progress
        The last look at the store.
    """

    interrupted: bool = False
    recovered: int = 0
    respawned: int = 0
    unsubmitted: int = 0
    unfinished: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Worker:
    owner: str
    process: subprocess.Popen[bytes]


class _Interrupts:
    """Counts Ctrl-C: the first ends after the calculations in hand, the second at once, the third kills."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        def on_signal(number: int, _frame: FrameType | None) -> None:
            # SIGTERM comes from a queue or a system that will not wait for a calculation.
            self.count = max(self.count + 1, 2 if number == signal.SIGTERM else 1)

        before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
        What to work on; each worker opens its own connection.
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
    DatabaseUnavailable
        If the database goes away and does not come back; workers end by themselves then.
    """
    if campaign is not None:
        store.campaign(campaign)
    prepare_launchpad(launchpad)
    summary = RunSummary(recovered=recover(store, launchpad))
    interrupts = _Interrupts()
    with interrupts.caught():
        crew = _Crew(store, launchpad, campaign, summary, interrupts, on_report)
        try:
            _rounds(crew, jobs)
        finally:
            crew.end()
    summary.interrupted = interrupts.count > 0
    summary.progress = store.progress(campaign)
    summary.unfinished = store.unfinished_submissions(campaign)
    return summary


def _rounds(crew: _Crew, jobs: int) -> None:
    """Run, then look for calculations without a Firework; again while that finds some and brings them further."""
    ended = -1
    if not crew.ready():
        crew.requeue()
    while ready := crew.ready():
        crew.man(min(jobs, ready))
        crew.attend()
        counts = crew.store.counts(crew.campaign)
        now = sum(n for s, n in counts.items() if s not in (State.READY, State.RUNNING))
        if crew.interrupts.count or crew.summary.problems or now == ended:
            return
        ended = now
        if not crew.requeue():
            return


class _Crew:
    def __init__(
        self,
        store: Store,
        launchpad: LaunchPad,
        campaign: str | None,
        summary: RunSummary,
        interrupts: _Interrupts,
        on_report: Callable[[Report], None] | None,
    ) -> None:
        self.store = store
        self.campaign = campaign
        self.summary = summary
        self.interrupts = interrupts
        self._launchpad = launchpad
        self._on_report = on_report
        self._workers: list[_Worker] = []
        self._signalled = 0
        self._jobs = 0
        self._deaths = 0
        self._outcomes = -1

    def ready(self) -> int:
        """Return how many Fireworks could start, up to a hundred."""
        query = {**campaign_query(self.campaign), "state": "READY"}
        with database_errors():
            return int(self._launchpad.fireworks.count_documents(query, limit=100))

    def requeue(self) -> int:
        found = requeue_forgotten(self.store, self._launchpad, self.campaign)
        self.summary.unsubmitted = found.unsubmitted
        return found.fireworks

    def man(self, jobs: int) -> None:
        self._jobs = jobs
        while len(self._workers) < jobs:
            self._workers.append(self._spawn())

    def _spawn(self) -> _Worker:
        owner = new_owner()
        folder = worker_folder(owner)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "htxas.launch.guard", str(os.getpid()), str(int(signal.SIGTERM))]
        command += [
            sys.executable,
            "-m",
            "htxas.launch.worker",
            "--owner",
            owner,
            "--database",
            self.store.name,
        ]
        if self.campaign is not None:
            command += ["--campaign", self.campaign]
        # The connection goes through the environment, which only this user can read; arguments are public.
        environment = {**os.environ, "HTXAS_DB_URI": self.store.uri_for_launchpad(), "OMP_NUM_THREADS": "1"}
        with (folder / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        return _Worker(owner, process)

    def attend(self) -> None:
        """Look after the workers until all have ended."""
        looked = recovered = time.monotonic()
        while self._workers:
            self._pass_on_interrupts()
            self._bury()
            now = time.monotonic()
            if now - looked >= _LOOK_S:
                looked = now
                self._report()
            if now - recovered >= _RECOVER_S:
                recovered = now
                self.summary.recovered += recover(self.store, self._launchpad)
            if self._workers:
                time.sleep(_POLL_S)
        self._report()

    def _pass_on_interrupts(self) -> None:
        if self.interrupts.count <= self._signalled:
            return
        self._signalled = self.interrupts.count
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[min(self._signalled, 3) - 1]
        for worker in self._workers:
            worker.process.send_signal(number)

    def _bury(self) -> None:
        for worker in list(self._workers):
            status = worker.process.poll()
            if status is None:
                continue
            self._workers.remove(worker)
            if status == STOPPED:
                continue
            self._free(worker)
            if status == UNFIT:
                self._give_up(worker)
            elif not self.interrupts.count:
                self._replace(worker, status)

    def _free(self, worker: _Worker) -> None:
        self.store.release_owner(worker.owner)
        free_fireworks(self._launchpad, {worker.owner})
        self.store.forget_worker(worker.owner)

    def _give_up(self, worker: _Worker) -> None:
        tail = log_tail(worker_folder(worker.owner) / LOG_FILE)
        self.summary.problems.append(tail[-1] if tail else "a worker gave up")

    def _replace(self, worker: _Worker, status: int) -> None:
        """Start another worker, unless they die one after the other without anything coming of it.

        A calculation that ends its worker each time is taken out of the queue after a few, hence the room.
        """
        progress = self.store.progress(self.campaign)
        counts = progress["counts"]
        outcomes = (
            counts["done"] + counts["failed"] + counts["quarantined"] - progress["causes"].get(Cause.LOST, 0)
        )
        if outcomes != self._outcomes:
            self._outcomes, self._deaths = outcomes, 0
        self._deaths += 1
        log = worker_folder(worker.owner) / LOG_FILE
        if self._deaths > _DEATHS_IN_A_ROW + self._jobs:
            tail = log_tail(log)
            self.summary.problems.append(
                f"workers keep ending with errors: {tail[-1] if tail else status} ({log})"
            )
            return
        self.summary.respawned += 1
        self._workers.append(self._spawn())

    def _report(self) -> None:
        if self._on_report is None:
            return
        self.summary.progress = self.store.progress(self.campaign)
        notes = tuple(self.summary.problems)
        self._on_report(Report(self.summary.progress, len(self._workers), bool(self.interrupts.count), notes))

    def end(self) -> None:
        """End what still runs, after an error of this process; free what it held."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
        for worker in self._workers:
            self._free(worker)
        self._workers.clear()
