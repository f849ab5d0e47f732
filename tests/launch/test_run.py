from __future__ import annotations

import math
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
from htxas.launch.agent.agent import Agent, AgentConfig, AgentReport
from htxas.launch.agent.delivery import deliver_journals, journals
from htxas.launch.agent.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.agent.source import Source
from htxas.launch.recovery.recover import recover, requeue_forgotten
from htxas.launch.run import run_workers
from htxas.launch.work.journal import read_journal
from htxas.launch.work.stop import Stop
from htxas.store.outcomes import Outcome
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
def running_command(store: Store, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the supervisor of `htxas run` on this store."""
    code = (
        "import sys; from htxas.store.store import Store; from htxas.launch.run import run_workers; "
        "from htxas.launch.pad.launchpad import open_launchpad; "
        f"s = Store.open(name={store.name!r}); "
        "sys.exit(130 if run_workers(s, open_launchpad(s), jobs=2).interrupted else 0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def worker_folders() -> list[Path]:
    """Return the folders of all agents of this test."""
    return sorted((Path(os.environ["HTXAS_HOME"]) / "runs" / "workers").iterdir())


def finished_in(folder: Path) -> dict[str, State]:
    """Return what the journals of a folder say was concluded."""
    records = [record for path in journals(folder) for record, _ in read_journal(path)]
    return {r.lease.key: r.state for r in records if isinstance(r, Outcome)}


def engines() -> list[str]:
    """Return the ids of running fake engines of this test's home."""
    return processes("htxas.engines.fake.run")


def processes(*modules: str) -> list[str]:
    """Return the ids of the running processes of this test's home that run one of these modules."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            environment = (path.parent / "environ").read_bytes()
        except OSError:
            continue
        if {m.encode() for m in modules} & set(words) and os.environ["HTXAS_HOME"].encode() in environment:
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


def test_an_agent_killed_with_sigkill_loses_only_what_it_had_in_hand(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(9, 8), seconds=0.2, batch={"at_least": 1})
    with running_command(store) as command:
        wait_for(lambda: store.counts()[State.DONE] >= 3)
        command.send_signal(signal.SIGKILL)
        command.wait()
    wait_for(lambda: processes("htxas.engines.fake.run", "htxas.launch.work.worker") == [], 5.0)
    (folder,) = worker_folders()
    finished = finished_in(folder)
    done_before = {r.key for r in store.find(state=State.DONE)}
    assert done_before <= finished.keys()
    summary = run_workers(store, launchpad, jobs=2)
    assert summary.recovered == 1
    assert summary.progress["counts"]["done"] == 19
    assert {r.attempts for r in store.find() if r.key in finished} == {1}
    twice = [r for r in store.find() if r.attempts > 1 and r.history[0]["cause"] == "lost"]
    assert len(twice) <= 2
    assert nothing_runs(store, tally)
    assert store.workers() == []


def test_outcomes_that_only_the_journal_has_are_delivered_before_anything_is_released(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(4,), batch={"at_least": 1})
    with monkeypatch.context() as patch:
        # As if the agent had been killed right after its workers had written their journals.
        patch.setattr("htxas.launch.agent.delivery.Courier.carry", lambda self: [])
        patch.setattr("htxas.launch.agent.ledger.Ledger.settle", lambda self, **how: None)
        patch.setattr("htxas.launch.agent.source.Source.release", lambda self, leases, **why: None)
        patch.setattr("htxas.launch.agent.heart.Heart.end", lambda self: None)
        stop = Stop()

        def end(report: AgentReport) -> None:
            stop.after_this = bool(finished_in(folder))

        owner = new_owner()
        folder = worker_folder(owner)
        source = Source(store, launchpad, owner, folder, None, 1)
        with hold_alive(owner) as facts:
            Agent(AgentConfig(owner, folder), source).run(stop, end, facts)
    left = finished_in(folder)
    assert left
    assert store.counts()[State.RUNNING] == 5
    assert recover(store, launchpad) == 1
    counts = store.counts()
    assert (counts[State.DONE], counts[State.READY]) == (len(left), 5 - len(left))
    assert deliver_journals(store, folder).again == 0  # all noted as delivered
    (folder / "delivered.json").unlink()
    assert deliver_journals(store, folder).again == len(left)
    run_workers(store, launchpad, jobs=1)
    assert {r.attempts for r in store.find() if r.key in left} == {1}
    assert store.counts()[State.DONE] == 5


def test_a_killed_engine_costs_one_attempt_and_is_replaced(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any]
) -> None:
    submitted(sizes=(4,), seconds=1.5, batch={"at_least": 1})
    killed_at = -math.inf

    def kill_until_felt(report: Any) -> None:
        """An engine that has just left its result is not missed: then the next one is killed."""
        nonlocal killed_at
        felt = any(r.history for r in store.find())
        if felt or time.monotonic() - killed_at < 3 or not store.counts()[State.RUNNING]:
            return
        for pid in engines():
            killed_at = time.monotonic()
            os.kill(int(pid), signal.SIGKILL)

    summary = run_workers(store, launchpad, jobs=1, on_report=kill_until_felt)
    assert summary.progress["counts"]["done"] == 5
    assert [r.history[0]["cause"] for r in store.find() if r.attempts > 1] == ["engine_crash"]
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
        wait_for(lambda: len(engines()) == 2)
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
    monkeypatch.setattr("htxas.launch.recovery.recover._STALE_LOCK_S", 0.3)
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
    store.heartbeat("not-the-name-rlaunch-has", {"host": "elsewhere", "pid": 1})
    store.lease_many(store.batch(batch).keys, "not-the-name-rlaunch-has")
    recover(store, launchpad)
    assert tally() == {"RUNNING": 1}
    store.release_owner("not-the-name-rlaunch-has")
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
