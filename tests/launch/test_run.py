from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.errors import Cause
from htxas.launch.recover import recover, requeue_forgotten
from htxas.launch.run import run_workers
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Tally = Callable[[], dict[str, int]]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def nothing_runs(store: Store, tally: Tally) -> bool:
    return store.counts()[State.RUNNING] == 0 and not {"RUNNING", "RESERVED"} & tally().keys()


@contextmanager
def running_worker(store: Store, owner: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start one worker process as `htxas run` does."""
    command = [sys.executable, "-m", "htxas.launch.worker", "--owner", owner, "--database", store.name]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def running_command(store: Store, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the supervisor of `htxas run` on this store."""
    code = (
        "import sys; from htxas.store.store import Store; from htxas.launch.run import run_workers; "
        "from htxas.launch.fireworks_pad import open_launchpad; "
        f"s = Store.open(name={store.name!r}); "
        "sys.exit(130 if run_workers(s, open_launchpad(s), jobs=2).interrupted else 0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def engines() -> list[str]:
    """Return the ids of running fake engines of this test's home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            environment = (path.parent / "environ").read_bytes()
        except OSError:
            continue
        if b"htxas.engines.fake.run" in words and os.environ["HTXAS_HOME"].encode() in environment:
            found.append(path.parent.name)
    return found


def test_two_workers_do_it_all_and_leave_nothing(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(1, 2, 3, 4))
    reports: list[Any] = []
    summary = run_workers(store, launchpad, jobs=2, on_report=reports.append)
    assert summary.progress["counts"]["done"] == 14
    assert set(tally()) == {"COMPLETED"}
    assert reports
    assert store.workers() == []
    assert {r.attempts for r in store.find()} == {1}
    assert len(list(store.molecular_spectra("chains"))) == 4
    assert engines() == []
    assert launchpad.workflows.count_documents({"locked": {"$exists": True}}) == 0
    second = run_workers(store, launchpad, jobs=2)
    assert second.progress["counts"]["done"] == 14
    assert {r.attempts for r in store.find()} == {1}


def test_split_molecules_run_ground_first(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(3,), seconds=0.05, batch={"target_s": 0.06, "split_above_s": 0.1, "at_least": 1})
    assert tally() == {"READY": 1, "WAITING": 3}
    summary = run_workers(store, launchpad, jobs=2)
    assert summary.progress["counts"]["done"] == 4
    assert tally() == {"COMPLETED": 4}


def test_only_the_campaign_asked_for(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted("one", sizes=(1, 2))
    submitted("two", sizes=(2, 3))
    run_workers(store, launchpad, jobs=1, campaign="two")
    assert store.counts("two")[State.DONE] == 7
    assert store.counts("one")[State.READY] == 2
    run_workers(store, launchpad, jobs=1)
    assert store.counts()[State.DONE] == 9
    assert {r.attempts for r in store.find()} == {1}


def test_a_worker_killed_with_sigkill_loses_nothing(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(8,), seconds=0.2, batch={"at_least": 1})
    with running_worker(store, "doomed") as worker:
        wait_for(lambda: store.counts()[State.DONE] >= 3 and store.counts()[State.RUNNING] == 1)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    done_before = {r.key for r in store.find(state=State.DONE)}
    wait_for(lambda: engines() == [], 5.0)
    assert tally() == {"RUNNING": 1}
    assert recover(store, launchpad) == 1
    assert tally() == {"READY": 1}
    assert store.counts()[State.RUNNING] == 0
    summary = run_workers(store, launchpad, jobs=1)
    assert summary.progress["counts"]["done"] == 9
    assert {r.attempts for r in store.find() if r.key in done_before} == {1}
    assert sum(r.attempts for r in store.find()) == 10


def test_a_dead_worker_of_a_run_is_replaced(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(6,), seconds=0.2, batch={"at_least": 1})
    killed: list[int] = []

    def kill_once(report: Any) -> None:
        workers = store.workers()
        if not killed and workers and store.counts()[State.RUNNING]:
            killed.append(workers[0]["info"]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    summary = run_workers(store, launchpad, jobs=1, on_report=kill_once)
    assert killed
    assert summary.respawned == 1
    assert summary.progress["counts"]["done"] == 7
    assert tally() == {"COMPLETED": 1}
    assert store.workers() == []


def test_a_calculation_that_kills_its_workers_does_not_stop_the_others(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "kill_worker"}, batch={"at_least": 1})
    summary = run_workers(store, launchpad, jobs=1)
    assert summary.progress["counts"]["done"] == 2
    assert summary.progress["causes"] == {"lost": 1}
    assert (summary.respawned, summary.problems) == (3, [])
    lost = next(store.find(state=State.FAILED))
    assert lost.attempts == 3
    assert lost.evidence["leases_without_outcome"] == 3
    assert "worker" in (lost.message or "")
    assert tally() == {"COMPLETED": 1}
    assert store.retry("chains", cause=Cause.LOST)
    assert store.calculation(lost.key).lost == 0


def test_workers_that_only_die_are_not_replaced_for_ever(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1,))
    monkeypatch.setattr("htxas.launch.run._DEATHS_IN_A_ROW", 1)
    # Python itself cannot start like that.
    monkeypatch.setattr(
        "htxas.launch.run.os.environ", {**os.environ, "PYTHONPATH": "/nowhere", "PYTHONHOME": "/"}
    )
    summary = run_workers(store, launchpad, jobs=1)
    assert summary.respawned == 2
    assert "workers keep ending with errors" in summary.problems[0]
    assert store.counts()[State.READY] == 2


def test_a_killed_engine_fails_one_site_and_is_replaced(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any]
) -> None:
    submitted(sizes=(4,), seconds=0.5, batch={"at_least": 1})
    killed: list[str] = []

    def kill_once(report: Any) -> None:
        if not killed and store.counts()[State.RUNNING] and engines():
            killed.extend(engines())
            os.kill(int(killed[0]), signal.SIGKILL)

    summary = run_workers(store, launchpad, jobs=1, on_report=kill_once)
    wrong = summary.progress["causes"]
    assert wrong in ({"engine_crash": 1}, {"engine_crash": 1, "ground_failed": 4})
    assert summary.respawned == 0


@pytest.mark.parametrize("how", [(signal.SIGINT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
def test_ctrl_c_leaves_nothing_running(
    how: tuple[signal.Signals, ...],
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    tally: Tally,
) -> None:
    at_once = how != (signal.SIGINT,)
    submitted(sizes=(5, 6), seconds=30.0 if at_once else 0.4)
    with running_command(store) as command:
        wait_for(lambda: store.counts()[State.RUNNING] == 2)
        for number in how:
            command.send_signal(number)
            time.sleep(0.4)
        assert command.wait(10) == 130
    assert nothing_runs(store, tally)
    assert "FIZZLED" not in tally()
    assert store.workers() == []
    assert engines() == []
    counts = store.counts()
    assert counts[State.READY] + counts[State.DONE] == 13
    assert counts[State.READY] > 0


def test_a_killed_supervisor_leaves_workers_that_stop(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(5, 6), seconds=30.0)
    with running_command(store) as command:
        wait_for(lambda: store.counts()[State.RUNNING] == 2)
        command.send_signal(signal.SIGKILL)
        command.wait()
    wait_for(lambda: nothing_runs(store, tally))
    assert engines() == []


def test_two_runs_side_by_side(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(1, 2, 3, 4, 5), seconds=0.02)
    with running_command(store) as other:
        run_workers(store, launchpad, jobs=1)
        assert other.wait(30) == 0
    run_workers(store, launchpad, jobs=1)
    assert store.counts()[State.DONE] == 20
    assert {r.attempts for r in store.find()} == {1}
    assert set(tally()) == {"COMPLETED"}


def test_recover_frees_what_was_killed_in_mid_checkout(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(1,))
    # FireWorks reserves before it records who did: after a kill in between nobody is named.
    old = "2020-01-01T00:00:00.000000"
    launchpad.fireworks.update_one({}, {"$set": {"state": "RESERVED", "updated_on": old}})
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    recover(store, launchpad)
    assert tally() == {"READY": 1}
    assert launchpad.workflows.count_documents({"locked": {"$exists": True}}) == 0


def test_recover_breaks_the_lock_of_a_dead_process_on_a_ready_workflow(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1,))
    monkeypatch.setattr("htxas.launch.recover._STALE_LOCK_S", 0.3)
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    recover(store, launchpad)
    assert launchpad.workflows.count_documents({"locked": {"$exists": True}}) == 0


def test_recover_leaves_alone_what_rlaunch_runs(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(1,))
    old = "2020-01-01T00:00:00.000000"
    launchpad.fireworks.update_one({}, {"$set": {"state": "RUNNING", "updated_on": old}})
    batch = launchpad.fireworks.find_one({})["spec"]["htxas"]["batch"]
    info = {"host": "elsewhere", "pid": 1, "batch": batch}
    store.heartbeat("not-the-name-rlaunch-has", info)
    recover(store, launchpad)
    assert tally() == {"RUNNING": 1}
    store.forget_worker("not-the-name-rlaunch-has")
    recover(store, launchpad)
    assert tally() == {"READY": 1}


def test_ready_calculations_of_finished_fireworks_are_queued_again(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(1,), fail={"C1F:ground": "nan", "CF:ground": "nan"}, fail_attempts=1)
    run_workers(store, launchpad, jobs=1)
    assert store.counts()[State.DONE] == 0
    store.retry("chains")  # a retry killed before it came to FireWorks
    assert tally() == {"COMPLETED": 1}
    assert requeue_forgotten(store, launchpad, None).fireworks == 1
    assert tally() == {"READY": 1}
    run_workers(store, launchpad, jobs=1)
    assert store.counts()[State.DONE] == 2
