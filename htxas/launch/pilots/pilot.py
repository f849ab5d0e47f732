"""A pilot, run by a queue job on each of its nodes: ``python -m htxas.launch.pilots.pilot --pilot ID --cluster NAME``.

It finds out what the job was given, runs an agent with as many workers as fit, heeds the scheduler's signals, and
leaves a word behind. SIGUSR1 says that the time is nearly up, or that the job is to make room for another; SIGTERM
that the job ends at once, with SIGKILL seconds away.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from htxas.errors import Busy, Cause, DatabaseUnavailable, HtxasError, NotFound
from htxas.launch.agent.agent import Agent, AgentConfig, AgentSummary
from htxas.launch.agent.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.agent.source import Source
from htxas.launch.pad.launchpad import launchpad_of, prepare_launchpad
from htxas.launch.pilots.allocation import Allocation, Places, Probes, places, read_allocation
from htxas.launch.pilots.exit import PilotExit, Why, pilot_home, write_exit
from htxas.launch.pilots.settings import SETTINGS_FILE, SiteSettings, read_settings
from htxas.launch.work.stop import Stop
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

__all__ = ["main"]

_NEARLY_UP_S = 900.0
_WAIT_FOR_DATABASE_S = 600.0
_RETRY_S = (1.0, 15.0)
_TELL_END_S = 3.0
_BUSY_S = 10.0
_START = ".start"
_STATUS = {Why.IDLE: 0, Why.DEADLINE: 0, Why.TERMINATED: 0, Why.UNFIT: 1, Why.ERROR: 2}
_log = logging.getLogger("htxas.pilot")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    pilot: str
    cluster: str
    workers: int
    cores_per_worker: int
    memory_per_worker_MB: float
    walltime_s: float | None
    margin_s: float
    linger_s: float
    campaign: str | None
    bundle: Path | None


@dataclass(slots=True)
class Alarm:
    """What the scheduler has said.

    Attributes
    ----------
    stop
        The agent's.
    end
        When the allocation ends.
    said
        The last signal, for people.
    """

    stop: Stop
    end: float | None = None
    said: str = ""

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Listen; from the first moment on: a signal that nobody listens to kills."""
        numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM, signal.SIGXCPU)
        before = {n: signal.signal(n, self._hear) for n in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.said = signal.Signals(number).name
        # Grid Engine warns of its limits with SIGUSR1 (soft) and SIGUSR2 (kill), LSF of the run limit with SIGUSR2.
        if number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
            nearly = self.end is not None and self.end - time.time() < _NEARLY_UP_S
            if not nearly:  # preempted: nobody says how long there is until SIGTERM
                self.stop.after_this = True
            return  # the agent knows the end of the allocation, and what still fits before it
        self.stop.after_this = self.stop.now = True


@dataclass(slots=True)
class _Start:
    """One start of a pilot on one node."""

    options: Options
    allocation: Allocation
    places: Places
    settings: SiteSettings
    owner: str
    folder: Path
    alarm: Alarm
    began: float = field(default_factory=time.time)
    told: _Ending | None = None

    @property
    def leads(self) -> bool:
        """Whether it speaks for the whole job: the first of its nodes does."""
        return self.allocation.node_index == 0

    def config(self) -> AgentConfig:
        o, a = self.options, self.allocation
        return AgentConfig(
            owner=self.owner,
            folder=worker_folder(self.owner),
            workers=self.places.workers,
            campaign=o.campaign,
            end=a.end,
            margin_s=o.margin_s,
            cluster=o.cluster,
            pilot=o.pilot,
            job_id=a.job_id,
            restart=a.restart,
            engines=self.settings.how(o.cluster, o.cores_per_worker, o.memory_per_worker_MB),
            cores=self.places.cores,
            threads=o.cores_per_worker,
            linger_s=o.linger_s,
            ahead_s=self.settings.ahead_s,
            quota=self.settings.quota(),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a pilot; return the exit status: 0 in order, 1 nothing could have worked here, 2 a bug of ours."""
    alarm = Alarm(Stop())
    with alarm.heeded():
        options = _options(arguments)
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
        for noisy in ("pymongo", "launchpad", "rocket.launcher"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        folder = pilot_home(options.pilot)
        folder.mkdir(parents=True, exist_ok=True)
        start = _begin(options, folder, alarm)
        ending = _Ending(Why.ERROR, "")
        try:
            ending = _in_bundle(start) if options.bundle is not None else _online(start)
        except HtxasError as error:
            _log.error("%s", error)
            ending = _Ending(Why.UNFIT, str(error))
        except BaseException as error:  # not swallowed: told, then raised
            ending = _Ending(Why.ERROR, f"{type(error).__name__}: {error}")
            traceback.print_exc()
            raise
        finally:
            _leave_word(start, ending)
    return _STATUS[ending.why]


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m htxas.launch.pilots.pilot")
    parser.add_argument("--pilot", required=True)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--cores-per-worker", type=int, default=1)
    parser.add_argument("--memory-per-worker-MB", type=float, default=0.0, dest="memory_per_worker_MB")
    parser.add_argument("--walltime-s", type=float)
    parser.add_argument("--margin-s", type=float, default=0.0)
    parser.add_argument("--linger-s", type=float, default=0.0)
    parser.add_argument("--campaign")
    parser.add_argument("--bundle", type=Path)
    return Options(**vars(parser.parse_args(arguments)))


def _begin(options: Options, folder: Path, alarm: Alarm) -> _Start:
    told = read_allocation(os.environ, time.time(), Probes.of_this_machine(), walltime_s=options.walltime_s)
    restart = _claim(folder, told)
    allocation = replace(told, restart=restart)
    found = places(
        allocation,
        workers=options.workers,
        cores_per_worker=options.cores_per_worker,
        memory_per_worker_MB=options.memory_per_worker_MB,
    )
    alarm.end = allocation.end
    submission = pilot_home(options.pilot.partition("-")[0])
    start = _Start(
        options, allocation, found, read_settings(submission / SETTINGS_FILE), new_owner(), folder, alarm
    )
    _log.info(
        "pilot %s, start %d: job %s on %s, %d workers, until %s (%s)",
        options.pilot,
        restart,
        allocation.job_id,
        allocation.node,
        found.workers,
        "-"
        if allocation.end is None
        else datetime.fromtimestamp(allocation.end, UTC).isoformat(" ", "seconds"),
        allocation.end_source,
    )
    for note in found.notes:
        _log.warning("%s", note)
    return start


def _claim(folder: Path, allocation: Allocation) -> int:
    """Return the number of this start, and put it on record: schedulers count restarts badly, or not at all."""
    restart = allocation.restart
    suffix = f"-{allocation.node_index}" if allocation.node_index else ""
    while True:
        try:
            with (folder / f"{restart}{suffix}{_START}").open("x") as stream:
                stream.write(f"{allocation.job_id} {allocation.node}\n")
            return restart
        except FileExistsError:
            restart += 1


# ---- with the database


@dataclass(frozen=True, slots=True)
class _Ending:
    why: Why
    message: str
    summary: AgentSummary = field(default_factory=AgentSummary)


def _online(start: _Start) -> _Ending:
    with ExitStack() as stack:
        store = _patiently(start, stack)
        if store is None:
            return _ended(start, AgentSummary())
        launchpad = stack.enter_context(launchpad_of(store))
        prepare_launchpad(launchpad)
        config = start.config()
        config.folder.mkdir(parents=True, exist_ok=True)
        facts = stack.enter_context(hold_alive(start.owner))
        if start.leads:
            _tell_start(store, start)
            _conclude_earlier(store, launchpad, start)
        os.chdir(config.folder)
        source = Source(
            store, launchpad, start.owner, config.folder, config.campaign, config.workers, config.engines
        )
        summary = Agent(config, source).run(start.alarm.stop, facts=facts)
        ending = _ended(start, summary)
        _leave_word(
            start, ending
        )  # first: seconds after SIGTERM the scheduler kills, and a database may be away
        if summary.delivered:
            _tell_end(start, ending)
    return ending


def _patiently(start: _Start, stack: ExitStack) -> Store | None:
    """Open the store; wait for a database that is away as long as it may be worth it. None if told to stop.

    Raises
    ------
    DatabaseUnavailable
        If it does not come.
    """
    stop, pause = start.alarm.stop, _RETRY_S[0]
    patience_s = max(start.options.linger_s, _WAIT_FOR_DATABASE_S)
    until = time.time() + patience_s
    if start.allocation.end is not None:
        until = min(until, start.allocation.end - start.options.margin_s)
    while not stop.asked:
        try:
            return stack.enter_context(Store.open(name=start.settings.database))
        except DatabaseUnavailable as error:
            if time.time() + pause > until:
                raise
            _log.warning("%s; trying again", error)
            time.sleep(pause)
            pause = min(2 * pause, _RETRY_S[1])
    return None


def _tell_start(store: Store, start: _Start) -> None:
    o, a = start.options, start.allocation
    fields = {
        "job_id": a.job_id,
        "array_task": a.array_task,
        "state": PilotState.RUNNING,
        "started": datetime.fromtimestamp(start.began, UTC),
        "ended": None,
        "end_time": None if a.end is None else datetime.fromtimestamp(a.end, UTC),
        "owner": start.owner,
        "restart": a.restart,
        "reason": None,
    }
    try:
        store.update_pilot(o.pilot, **fields)
    except NotFound:  # its script was submitted by hand
        store.put_pilots(
            [
                PilotRecord(
                    id=o.pilot,
                    cluster=o.cluster,
                    campaign=o.campaign,
                    partition=os.environ.get("SLURM_JOB_PARTITION", "unknown"),
                    nodes=a.nodes,
                    cores=a.granted * a.nodes,
                    walltime_s=o.walltime_s or 0.0,
                    submitted=datetime.now(UTC),
                    **fields,  # type: ignore[arg-type]
                )
            ]
        )


def _conclude_earlier(store: Store, launchpad: object, start: _Start) -> None:
    """Settle the affairs of earlier starts of this job: it runs here now, so they are over.

    Of another job with the same pilot id nothing is known: a script may be submitted by hand, and more than once.
    """
    from htxas.launch.recovery.recover import conclude_owner, recovery_lock

    a, o = start.allocation, start.options
    earlier = [
        w
        for w in store.workers()
        if w["info"].get("pilot") == o.pilot
        and w["info"].get("cluster") == o.cluster
        and a.job_id is not None
        and w["info"].get("job_id") == a.job_id
        and int(w["info"].get("restart") or 0) < a.restart
    ]
    if not earlier:
        return
    try:
        with recovery_lock(store, _BUSY_S):
            for worker in earlier:
                why = f"the scheduler started job {a.job_id} again on {a.node}"
                settled = conclude_owner(
                    store,
                    launchpad,
                    worker["owner"],
                    Cause.NODE_FAILURE,
                    why,
                    info=worker["info"],
                    last=worker["seen"],
                )
                _log.info("%s is over: %s", worker["owner"], settled)
    except Busy as error:  # whoever is at it, or the next one, finds that this job was started again
        _log.warning("%s; going on without settling what earlier starts left", error)


def _ended(start: _Start, summary: AgentSummary) -> _Ending:
    """Return why the agent ended."""
    stop, a, o = start.alarm.stop, start.allocation, start.options
    if stop.now:
        return _Ending(Why.TERMINATED, start.alarm.said, summary)
    if summary.problems:
        return _Ending(Why.UNFIT, summary.problems[0], summary)
    if stop.after_this:
        return _Ending(Why.DEADLINE, f"{start.alarm.said}: nothing new was started", summary)
    if a.end is not None and time.time() >= a.end - o.margin_s - 1.0:
        return _Ending(Why.DEADLINE, f"the allocation ends {_iso(a.end)}", summary)
    if summary.unfit is not None:
        return _Ending(Why.IDLE, str(summary.unfit), summary)
    return _Ending(Why.IDLE, f"no work for {o.linger_s:.0f} s", summary)


def _iso(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(" ", "seconds")


def _tell_end(start: _Start, ending: _Ending) -> None:
    """Bring the pilot's record up to date; what the database does not hear in time, the exit file says."""
    pilot, used = start.options.pilot, ending.summary
    try:
        with Store.open(name=start.settings.database, patience_s=_TELL_END_S) as store:
            store.count_pilot_time(pilot, allocated_s=used.allocated_s, engine_s=used.engine_s)
            # With other nodes still at work, or told to end and perhaps on its way back into the queue, how the job
            # goes on is for the scheduler to say; and the record may be about a later start.
            alone = start.allocation.nodes == 1 and ending.why is not Why.TERMINATED
            if alone and store.pilot(pilot).owner == start.owner:
                reason = f"{ending.why.value}: {ending.message}"
                store.update_pilot(pilot, state=PilotState.ENDED, ended=datetime.now(UTC), reason=reason)
    except HtxasError as error:
        _log.warning("the end of this pilot is not on record: %s", error)


# ---- without


def _in_bundle(start: _Start) -> _Ending:
    from htxas.launch.bundles.run import run_bundle

    assert start.options.bundle is not None
    summary = run_bundle(start.options.bundle, start.config(), start.alarm.stop)
    return _ended(start, summary)


# ---- the end


def _leave_word(start: _Start, ending: _Ending) -> None:
    if start.told == ending:
        return
    start.told = ending
    a, summary = start.allocation, ending.summary
    written = PilotExit(
        pilot=start.options.pilot,
        owner=start.owner,
        node=a.node,
        job_id=a.job_id,
        restart=a.restart,
        why=ending.why,
        message=ending.message,
        started=start.began,
        ended=time.time(),
        allocated_s=summary.allocated_s,
        engine_s=summary.engine_s,
        counts=summary.ended,
        notes=start.places.notes,
    )
    try:
        write_exit(start.folder, written, a.node_index)
    except OSError as error:  # a full disk: the scheduler will say that the job has ended
        _log.warning("no exit file: %s", error)
    _log.info("the pilot ends: %s", written)


def _exit(code: int) -> NoReturn:
    """End now: a thread that waits for a database must not keep the allocation."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
