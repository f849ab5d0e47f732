"""A worker: tasks on standard input, answers on standard output, outcomes in its journal first. No database.

Lines, each one JSON object. In: first ``{"agent", "folder", "place", "number", "cores", "engines"}``; then
``{"tasks": [...]}`` as often as the agent likes, and ``{"drop": [keys]}`` to have tasks back, the one in hand included.
The end of the input is the end of the worker. Out: ``{"ready": pid}``, and for every task one of

- ``{"key", "state", "cause", "wall_s", "directory"}``: it ended, and the outcome is in the journal;
- ``{"key", "returned": why, ...}``: it did not, for ``dropped``, ``disk_full`` or ``ground`` (its ground state, of the
  same chunk, has no result).

``{"full": true}`` says that an outcome waits for room on the disk; the worker tries until there is some.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

from htxas.domain.calculation import Kind, State
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.registry import get_engine
from htxas.errors import Cause, EngineFailure, InternalError, StoreError
from htxas.launch.work.compute import attempt_directory, compute, gate_limits
from htxas.launch.work.engine_process import EngineProcess
from htxas.launch.work.engine_run import Engines
from htxas.launch.work.evidence import FULL
from htxas.launch.work.guard import die_with
from htxas.launch.work.journal import JournalWriter
from htxas.launch.work.journal import Returned as HandedBack
from htxas.launch.work.ladder import next_step
from htxas.launch.work.stop import Returned, Stop
from htxas.launch.work.task import Task
from htxas.settings import runs_folder
from htxas.store.outcomes import Outcome, done, failed, quarantined

__all__ = ["journal_path", "main"]

_TRY_AGAIN_S = 1.0
_REMEMBERED = 64


def journal_path(folder: Path, number: int) -> Path:
    """Return the journal of a worker process; each process has a number of its own."""
    return folder / f"journal-{number}.bin"


class Inbox:
    """What the agent has said: read in a thread, because a calculation in hand must hear it, too."""

    def __init__(self, stream: IO[str]) -> None:
        self.stop = Stop()
        self._stream = stream
        self._tasks: deque[dict[str, Any]] = deque()
        self._dropped: list[str] = []
        self._in_hand: str | None = None
        self._over = False
        self._news = threading.Condition()

    def listen(self) -> None:
        """Read until the input ends."""
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError):  # half a line: the agent ended while it wrote
            for line in self._stream:
                said = json.loads(line)
                with self._news:
                    self._tasks.extend(said.get("tasks", ()))
                    self._drop(set(said.get("drop", ())))
                    self._news.notify()
        self.end()

    def _drop(self, keys: set[str]) -> None:
        if not keys:
            return
        self._dropped += [t["key"] for t in self._tasks if t["key"] in keys]
        self._tasks = deque(t for t in self._tasks if t["key"] not in keys)
        if self._in_hand in keys:
            self.stop.now = True

    def next(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Wait; return the next task, None if there will be none, and the keys dropped before they started."""
        with self._news:
            self._in_hand = None
            while not (self._tasks or self._dropped or self._over):
                self._news.wait()
            dropped, self._dropped = self._dropped, []
            if self._over:
                return None, dropped
            self.stop.now = False
            task = self._tasks.popleft() if self._tasks else None
            self._in_hand = None if task is None else task["key"]
            return task, dropped

    def end(self) -> None:
        """Take no more, and stop what is in hand."""
        with self._news:
            self._over = self.stop.now = True
            self._news.notify()

    def on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        """Heed SIGTERM: a scheduler that ends a job sends it to all of its processes, in any order.

        What is in hand goes back. The agent, which gets the signal as well, must not take this for a crash.
        """
        self.stop.now = True
        threading.Thread(target=self.end, daemon=True).start()  # this thread may hold the lock

    @property
    def over(self) -> bool:
        """Whether the agent has nothing more to say, or is dead."""
        return self._over


class Worker:
    """Computes tasks one after the other.

    Parameters
    ----------
    inbox
        Where tasks come from.
    answers
        Where answers go.
    setting
        The first line of the input.
    """

    def __init__(self, inbox: Inbox, answers: IO[str], setting: dict[str, Any]) -> None:
        self._inbox = inbox
        self._answers = answers
        self._folder = Path(setting["folder"])
        self._place = int(setting["place"])
        self._journal = JournalWriter(journal_path(self._folder, int(setting["number"])))
        self._places = int(setting["places"])
        self._engines = Engines.from_dict(setting["engines"])
        self._processes: dict[str, EngineProcess] = {}
        self._grounds: OrderedDict[str, str] = OrderedDict()
        self._host = platform.node()
        self._runs = runs_folder()
        self._last: tuple[Mapping[str, Any], Structure] | None = None

    def work(self) -> None:
        """Work until the input ends."""
        while True:
            document, dropped = self._inbox.next()
            for key in dropped:
                self._say(key=key, returned="dropped")
            if document is not None:
                self._one(Task.from_dict(document))
            elif self._inbox.over:
                return

    def close(self) -> None:
        """End the engine processes and bring the journal to disk."""
        for process in self._processes.values():
            process.close()
        with contextlib.suppress(OSError):  # on a full disk; what it has is written
            self._journal.close()

    def _say(self, **answer: Any) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _one(self, task: Task) -> None:
        ground = task.ground_directory
        if ground is None and task.ground_key is not None:
            ground = self._grounds.get(task.ground_key)
        if task.ground_key is not None and ground is None:
            self._say(key=task.key, returned="ground")
            return
        directory = attempt_directory(task.key, task.attempt, self._runs)
        began = time.monotonic()
        try:
            self._journal.started(task.key, task.attempt)
            outcome = self._attempt(task, directory, Path(ground) if ground else None, began)
        except Returned:
            self._return(task, "dropped", directory, began)
            return
        except EngineFailure as error:  # only DISK_FULL leaves _attempt: nobody's fault
            self._return(task, "disk_full", directory, began, error.message)
            return
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._return(task, "disk_full", directory, began, "no space left on device")
            return
        if self._record(outcome):
            self._tell(task, outcome, directory)
        else:
            self._return(task, "disk_full", directory, began, "no room for the outcome in the journal")

    def _return(self, task: Task, why: str, directory: Path, began: float, message: str = "") -> None:
        # Should the agent die now, this attempt was not in hand any more. On a full disk it counts as if it were.
        with contextlib.suppress(OSError):
            self._journal.returned(HandedBack(task.key, task.attempt))
        self._say(
            key=task.key,
            returned=why,
            message=message,
            elapsed_s=time.monotonic() - began,
            directory=str(directory) if directory.exists() else None,
        )

    def _tell(self, task: Task, outcome: Outcome, directory: Path) -> None:
        if task.kind is Kind.GROUND and outcome.state is State.DONE:
            self._grounds[task.key] = str(directory)
            if len(self._grounds) > _REMEMBERED:
                self._grounds.popitem(last=False)
        self._say(
            key=task.key,
            state=outcome.state.value,
            cause=outcome.entry["cause"],
            wall_s=outcome.entry["wall_s"],
            directory=str(directory),
        )

    def _record(self, outcome: Outcome) -> bool:
        """Write an outcome to the journal; wait for room if there is none. False if asked to stop before."""
        said = False
        while True:
            try:
                self._journal.outcome(outcome)
            except OSError as error:
                if error.errno not in FULL:
                    raise
            else:
                return True
            if not said:
                self._say(full=True)
                said = True
            if self._inbox.stop.now:
                return False
            time.sleep(_TRY_AGAIN_S)

    def _attempt(self, task: Task, directory: Path, ground: Path | None, began: float) -> Outcome:
        engine = get_engine(task.engine)
        calculation, structure = task.calculation(), self._structure(task)
        grid = {"sigma_eV": task.sigma_eV, "step_eV": task.step_eV}
        made = task.corrections
        previous = Path(task.previous_directory) if task.previous_directory else None
        try:
            if calculation.key != task.key or structure.key != task.structure_key:
                # Before its folder is cleared: that may be another calculation's.
                raise EngineFailure(Cause.BAD_INPUT, "the task is not of the calculation that its key says")
            result, rejection = compute(
                self._process(task.engine),
                engine,
                Job(
                    calculation,
                    structure,
                    ground,
                    task.numerics,
                    previous,
                    task.memory_factor,
                    self._memory_MB(task),
                    task.ground_energy_eV,
                    task.ground_numerics,
                ),
                directory,
                limits=gate_limits(task.gate),
                timeout_s=task.timeout_s,
            )
            result = _with_run(result, self._engines.told(task.engine))
            try:
                if rejection is None:
                    return done(task.lease, calculation, structure, result, **grid, corrections=made)
                step = next_step(engine, task, rejection.cause, places=self._places, slots=task.slots)
                again = None if step is None else step.to_dict()
                return quarantined(
                    task.lease,
                    calculation,
                    structure,
                    result,
                    rejection,
                    **grid,
                    corrections=made,
                    again=again,
                )
            except (InternalError, StoreError) as error:
                raise EngineFailure(
                    Cause.BAD_OUTPUT,
                    f"the result cannot be stored: {error}",
                    evidence={"error": error.to_dict()},
                ) from error
        except EngineFailure as error:
            if error.cause is Cause.DISK_FULL:
                raise
            step = next_step(engine, task, error.cause, places=self._places, slots=task.slots)
            where = {"host": self._host, "wall_s": time.monotonic() - began}
            if directory.exists():
                where["directory"] = str(directory)
            again = None if step is None else step.to_dict()
            return failed(
                task.lease, error.cause, error.message, error.evidence, where, corrections=made, again=again
            )

    def _structure(self, task: Task) -> Structure:
        """Return a task's structure; sites of a molecule follow each other, and its key is a hash of all atoms."""
        if self._last is None or self._last[0] != task.structure:
            self._last = (task.structure, task.atoms())
        return self._last[1]

    def _memory_MB(self, task: Task) -> float | None:
        """Return the memory an attempt may use: its share of the places it has, which are never more than there are."""
        run = self._engines.of(task.engine)
        return (
            None if run.memory_MB is None else run.memory_MB * min(task.memory_factor, task.slots / run.slots)
        )

    def _process(self, engine: str) -> EngineProcess:
        if engine not in self._processes:
            log = self._folder / f"engine-{engine}-{self._place}.log"
            how = self._engines.of(engine)
            self._processes[engine] = EngineProcess(get_engine(engine), log, self._inbox.stop, how)
        return self._processes[engine]


def _with_run(result: Result, told: Mapping[str, Any]) -> Result:
    """Return a result whose provenance tells how its engine was started."""
    provenance = result.provenance
    return replace(result, provenance=replace(provenance, extra={**provenance.extra, "run": dict(told)}))


def main() -> None:
    """Run one worker for the agent that started it."""
    # LSF warns all processes of a job, not the pilot alone, minutes before its end; each of these would end us. The
    # pilot is whom they concern. Ignored is inherited through exec: the engines do not die of them either.
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    die_with(os.getppid())
    # Libraries print; the agent must not take that for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setting = json.loads(sys.stdin.readline())
    if os.getppid() != setting["agent"]:  # it died before the request took hold
        return
    if setting["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, setting["cores"])
    inbox = Inbox(sys.stdin)
    signal.signal(signal.SIGTERM, inbox.on_terminate)
    worker = Worker(inbox, answers, setting)
    inbox.listen()
    worker._say(ready=os.getpid())
    try:
        worker.work()
    except BrokenPipeError:  # the agent is dead: the journal says what there is to say
        pass
    finally:
        worker.close()


if __name__ == "__main__":
    main()
