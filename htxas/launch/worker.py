"""A worker: takes Fireworks from the LaunchPad one after the other and computes their batches.

FireWorks' own Rocket checks out and completes, so ``lpad`` tells the truth. What a Rocket does not do, the worker adds:
a batch that is given back becomes READY again, and a heartbeat says who is alive and renews the leases.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, TextIO

from fireworks import FWorker, LaunchPad
from fireworks.core.rocket import Rocket

from htxas.errors import HtxasError
from htxas.launch.batch_runner import LEASE_S, RUNNER, BatchRunner, WorkerUnfit
from htxas.launch.fireworks_pad import campaign_query, launchpad_of
from htxas.launch.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.recover import free_fireworks
from htxas.launch.stop import BatchReturned, Stop, listen
from htxas.store.store import Store

__all__ = ["BUG", "STOPPED", "UNFIT", "main", "standalone_runner", "work"]

STOPPED = 0
"""Exit status: nothing left to do, or asked to stop."""
UNFIT = 3
"""Exit status: going on would fail every calculation; the last line of the log says why."""

BUG = 2
"""Exit status: an error of htxas or the database; the log has the traceback."""

_HEARTBEAT_S = 10.0
_IDLE_S = 0.5
_log = logging.getLogger(__name__)


class _Noting(BatchRunner):
    """Remembers how the last batch ended, which Rocket does not tell."""

    returned: BatchReturned | None = None
    failed = False

    def run(self, batch_id: str) -> dict[str, int]:
        self.returned, self.failed = None, True
        try:
            tally = super().run(batch_id)
        except BatchReturned as error:
            self.returned = error
            raise
        self.failed = False
        _log.info("batch %s: %s", batch_id[:12], tally)
        return tally


@contextmanager
def _heart(store: Store, runner: BatchRunner, info: dict[str, object], stop: Stop) -> Iterator[None]:
    """Beat while the worker works; ask it to stop if its parent has gone."""
    quiet = threading.Event()
    parent = os.getppid()

    def beat() -> None:
        while not quiet.wait(_HEARTBEAT_S):
            if os.getppid() != parent:
                stop.after_this = True
            try:
                store.renew(runner.owner, LEASE_S)
                now = {"calculation": runner.current, "batch": runner.batch_id}
                store.heartbeat(runner.owner, {**info, **now})
            except (
                HtxasError
            ) as error:  # a missed beat is made up for; without any, others would take the work
                _log.warning("no heartbeat: %s", error)

    store.heartbeat(runner.owner, info)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        quiet.set()
        thread.join()
        store.release_owner(runner.owner)
        store.forget_worker(runner.owner)


def work(
    store: Store, launchpad: LaunchPad, owner: str, campaign: str | None, stop: Stop, errors: TextIO
) -> int:
    """Work until nothing is left that could become READY, or asked to stop; return the exit status."""
    folder = worker_folder(owner)
    fworker = FWorker(name=owner, query=campaign_query(campaign))
    with hold_alive(owner) as facts:
        runner = _Noting(store, owner, folder, stop)
        token = RUNNER.set(runner)
        status = STOPPED
        try:
            with _heart(store, runner, {**facts, "campaign": campaign}, stop):
                try:
                    status = _rockets(launchpad, fworker, runner, stop, errors)
                finally:
                    runner.close()
                    free_fireworks(launchpad, {owner})
        finally:
            RUNNER.reset(token)
    return status


def _rockets(launchpad: LaunchPad, fworker: FWorker, runner: _Noting, stop: Stop, errors: TextIO) -> int:
    while not stop.asked:
        runner.failed = False
        if not Rocket(launchpad, fworker, None).run(err_file=errors):
            if not _more_to_come(launchpad, fworker):
                return STOPPED
            time.sleep(_IDLE_S)
            continue
        if isinstance(runner.returned, WorkerUnfit):
            _log.error("%s", runner.returned)
            return UNFIT
        if runner.failed and runner.returned is None:
            _log.error("the batch ended with an error in htxas; its traceback is above")
            return BUG
    return STOPPED


def _more_to_come(launchpad: LaunchPad, fworker: FWorker) -> bool:
    """Whether a Firework waits for one that somebody may still complete."""
    query = {k: v for k, v in fworker.query.items() if k != "state"}
    states = launchpad.fireworks.distinct("state", {**query, "state": {"$in": ["WAITING", "READY"]}})
    if "READY" in states:
        return True
    active = {**query, "state": {"$in": ["RUNNING", "RESERVED"]}}
    return "WAITING" in states and launchpad.fireworks.find_one(active, {"_id": 1}) is not None


@contextmanager
def standalone_runner() -> Iterator[BatchRunner]:
    """Give a runner to a task that FireWorks' own ``rlaunch`` started."""
    owner, stop = new_owner(), Stop()
    with Store.open() as store, hold_alive(owner) as facts:
        runner = BatchRunner(store, owner, worker_folder(owner), stop)
        with _heart(store, runner, {**facts, "campaign": None}, stop):
            try:
                yield runner
            finally:
                runner.close()


def main(arguments: list[str]) -> int:
    """Run one worker: ``--owner NAME [--campaign NAME] [--database NAME]``; the connection is in the environment."""
    parser = argparse.ArgumentParser(prog="python -m htxas.launch.worker")
    parser.add_argument("--owner", required=True)
    parser.add_argument("--campaign")
    parser.add_argument("--database", default="htxas")
    options = parser.parse_args(arguments)
    stop = Stop()
    listen(stop)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("pymongo").setLevel(logging.WARNING)
    for name in ("rocket.launcher", "launchpad"):  # FireWorks gives them handlers of their own
        logging.getLogger(name).propagate = False
    folder = worker_folder(options.owner)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # FireWorks writes FW.json where it stands
    with Store.open(name=options.database) as store, launchpad_of(store) as launchpad:
        return work(store, launchpad, options.owner, options.campaign, stop, sys.stderr)


def _exit(code: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # FireWorks leaves a ping thread that sleeps for an hour after some errors: not waited for


def _log_and_exit(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.error("the worker ends with an error", exc_info=(kind, error, trace))
    _exit(BUG)


if __name__ == "__main__":
    sys.excepthook = _log_and_exit
    _exit(main(sys.argv[1:]))
