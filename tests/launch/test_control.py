"""Campaigns paused, cancelled, resumed, put first and capped, on a real mongod with real agents."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fireworks import Firework, LaunchPad, Workflow

from htxas.cli.main import cli
from htxas.cluster.host import LocalHost
from htxas.cluster.jobs import Cancelled, JobInfo, JobState, Snapshot
from htxas.cluster.load import load_config
from htxas.cluster.profile import Profile
from htxas.cluster.queue import Queue
from htxas.domain.calculation import State
from htxas.errors import NotFound, UserError
from htxas.launch import control
from htxas.launch.pilots.surplus import release_pilots, surplus
from htxas.launch.run import run_workers
from htxas.launch.tasks import RunBatchTask
from htxas.store.records import ControlState, PilotRecord, PilotState
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Tally = Callable[[], dict[str, int]]
Submit = Callable[..., Any]


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@contextmanager
def running(store: Store) -> Iterator[subprocess.Popen[bytes]]:
    """Start an agent as `htxas run` does."""
    code = (
        "import htxas.launch.agent.source as source; source._CONTROLS_S = 0.5; "
        "from htxas.store.store import Store; from htxas.launch.run import run_workers; "
        "from htxas.launch.pad.launchpad import open_launchpad; "
        f"s = Store.open(name={store.name!r}); run_workers(s, open_launchpad(s), jobs=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def locks(launchpad: LaunchPad) -> int:
    return int(launchpad.workflows.count_documents({"locked": {"$exists": True}}))


def test_cancelled_and_taken_up_again(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.01})
    changed = control.cancel(store, launchpad, "chains")
    assert (changed.before.state, changed.control.state) == (ControlState.ACTIVE, ControlState.CANCELLED)
    assert (changed.fireworks, changed.ready) == (2, 7)
    assert tally() == {"DEFUSED": 2}
    assert launchpad.workflows.count_documents({"state": "DEFUSED"}) == 2
    assert control.cancel(store, launchpad, "chains").fireworks == 0
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 0
    with pytest.raises(UserError, match="cancelled"):
        control.pause(store, "chains")
    assert control.resume(store, launchpad, "chains").fireworks == 2
    assert control.resume(store, launchpad, "chains").fireworks == 0
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 7
    assert tally() == {"COMPLETED": 2}


def test_paused(store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally) -> None:
    submitted(sizes=(2,))
    assert control.pause(store, "chains").control.state is ControlState.PAUSED
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 0
    control.resume(store, launchpad, "chains")
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 3


def test_an_agent_at_work_stops_and_gives_back(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    submitted(sizes=(6,), seconds=20.0, batch={"at_least": 1})
    with running(store):
        wait_for(lambda: store.counts()[State.RUNNING] > 0)
        began = time.monotonic()
        control.cancel(store, launchpad, "chains")
        assert control.wait_until_stopped(store, launchpad, "chains", 20.0) == 0
        assert time.monotonic() - began < 15.0
        wait_for(lambda: "RUNNING" not in tally())
    control.enforce(store, launchpad)
    assert tally() == {"DEFUSED": 1}
    counts = store.counts()
    assert (counts[State.READY], counts[State.RUNNING]) == (7, 0)
    assert {r.lost for r in store.find()} == {0}
    assert locks(launchpad) == 0


def test_what_another_campaign_wants_goes_on(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    submitted("one", sizes=(1, 2), batch={"at_least": 2, "target_s": 0.01})
    submitted("two", sizes=(2,))
    assert control.cancel(store, launchpad, "one").fireworks == 1
    assert tally() == {"DEFUSED": 1, "READY": 1}
    run_workers(store, launchpad, jobs=1)
    assert store.counts("two")[State.DONE] == 3
    assert store.counts("one") == {
        State.READY: 2, State.RUNNING: 0, State.DONE: 3, State.FAILED: 0, State.QUARANTINED: 0,
    }  # fmt: skip


@pytest.mark.parametrize("how", ["pause", "cancel"])
def test_of_a_shared_batch_only_what_others_want_is_computed(
    how: str, store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    """As if the second had the same ground states and sites of its own: other parameters of the hole."""
    submitted("one", sizes=(3, 4))
    submitted("two", sizes=(9,))
    store._db["calculations"].update_many(
        {"kind": "ground", "campaigns": "one"}, {"$addToSet": {"campaigns": "two"}}
    )
    launchpad.fireworks.update_many(
        {"spec.htxas.campaign": "one"}, {"$addToSet": {"spec.htxas.shared_with": "two"}}
    )
    if how == "pause":
        control.pause(store, "one")
    else:
        control.cancel(store, launchpad, "one")
    run_workers(store, launchpad, jobs=1)
    assert store.counts("one")[State.READY] == 7  # its sites
    assert store.counts("two")[State.DONE] == 10 + 2
    assert tally()["COMPLETED"] < sum(tally().values())
    control.resume(store, launchpad, "one")
    run_workers(store, launchpad, jobs=1)
    assert store.counts("one")[State.DONE] == 9
    assert set(tally()) == {"COMPLETED"}


def test_cancelled_one_after_the_other(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    submitted("one", sizes=(1, 2), batch={"at_least": 2, "target_s": 0.01})
    submitted("two", sizes=(2,))
    control.cancel(store, launchpad, "one")
    control.cancel(store, launchpad, "two")
    assert tally() == {"DEFUSED": 2}
    control.resume(store, launchpad, "two")
    assert tally() == {"DEFUSED": 1, "READY": 1}
    run_workers(store, launchpad, jobs=1)
    assert store.counts("two")[State.DONE] == 3


def test_killed_half_way_and_done_again(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(2, 3, 4), batch={"at_least": 3, "target_s": 0.01})

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> int:
        raise Killed

    with monkeypatch.context() as patch:  # Fireworks are defused, their workflows do not know it yet
        patch.setattr("htxas.launch.pad.bulk.settle", kill)
        with pytest.raises(Killed):
            control.cancel(store, launchpad, "chains")
    assert store.controls()["chains"].state is ControlState.CANCELLED
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 0
    from htxas.launch.recovery.reconcile import reconcile

    reconcile(store, launchpad, {})
    assert tally() == {"DEFUSED": 3}
    assert launchpad.workflows.count_documents({"state": "DEFUSED"}) == 3
    assert locks(launchpad) == 0


def test_a_submission_after_the_cancellation_is_defused(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    submitted(sizes=(2,))
    store.set_control("chains", state=ControlState.CANCELLED)
    assert control.enforce(store, launchpad, dry_run=True) == 1
    assert tally() == {"READY": 1}
    assert control.enforce(store, launchpad) == 1
    assert control.enforce(store, launchpad) == 0
    assert tally() == {"DEFUSED": 1}


def test_priorities_decide_who_goes_first(store: Store, launchpad: LaunchPad, submitted: Submit) -> None:
    submitted("one", sizes=(1, 2), batch={"at_least": 2, "target_s": 0.01})
    submitted("two", sizes=(3, 4), batch={"at_least": 2, "target_s": 0.01})
    assert control.set_priority(store, launchpad, "two", 7).fireworks == 2
    assert control.set_priority(store, launchpad, "two", 7).fireworks == 0
    first = launchpad._get_a_fw_to_run(checkout=False)
    assert first.spec["htxas"]["campaign"] == "two"
    control.set_priority(store, launchpad, "one", 8)
    assert launchpad._get_a_fw_to_run(checkout=False).spec["htxas"]["campaign"] == "one"


def test_budgets(store: Store, launchpad: LaunchPad, submitted: Submit) -> None:
    submitted(sizes=(2,))
    store.spend("somebody", {"chains": 7200.0}, 1)
    changed = control.set_budget(store, "chains", 1.5)
    assert (changed.control.budget_node_h, changed.spent_node_h) == (1.5, 2.0)
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 0
    assert control.set_budget(store, "chains", math.inf).control.budget_node_h is None
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 3
    for wrong in (-1.0, math.nan):
        with pytest.raises(UserError, match="node hours"):
            control.set_budget(store, "chains", wrong)


def test_a_thousand_fireworks_are_cancelled_in_seconds_without_a_lock(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    submitted(sizes=(1,))
    spec = {"htxas": {"campaign": "chains"}}
    made = [
        Workflow([Firework(RunBatchTask(), spec={"htxas": {**spec["htxas"], "batch": f"b{i}"}}, fw_id=-1)])
        for i in range(1000)
    ]
    launchpad.bulk_add_wfs(made)
    began = time.perf_counter()
    assert control.cancel(store, launchpad, "chains").fireworks == 1001
    seconds = time.perf_counter() - began
    assert tally() == {"DEFUSED": 1001}
    assert launchpad.workflows.count_documents({"state": "DEFUSED"}) == 1001
    assert locks(launchpad) == 0
    assert seconds < 10.0  # 0.2 s on an idle machine


# ---- pilots


class FakeQueue(Queue):
    """A scheduler that keeps its jobs in a dictionary and forgets those that are cancelled."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, LocalHost())
        self.jobs: dict[str, JobInfo] = {}

    def snapshot(self, ids: Any = None) -> Snapshot:
        return Snapshot(dict(self.jobs), frozenset(ids or ()) - self.jobs.keys())

    def accounting(self, ids: Any) -> Snapshot:
        return Snapshot()

    def cancel(self, ids: Any) -> dict[str, Cancelled]:
        for i in ids:
            self.jobs[i] = replace(self.jobs[i], state=JobState.CANCELLED, raw="CANCELLED")
        return dict.fromkeys(ids, Cancelled.ASKED)


@pytest.fixture
def queue(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    cluster = {
        "scheduler": "slurm",
        "home": str(home),
        "database": {"uri_env": "MY_URI"},
        "partitions": {"main": {"walltime": "1:00:00", "cores": 8}},
        "pilots": {"most": 10, "workers": 2, "margin_s": 100, "signal_s": 60},
    }
    path = tmp_path / "htxas.yaml"
    path.write_text(json.dumps({"clusters": {"here": cluster}}))
    monkeypatch.setenv("HTXAS_CONFIG", str(path))
    return FakeQueue(load_config(path).cluster("here"))


def pilots(store: Store, queue: FakeQueue, *campaigns: str | None) -> None:
    for i, campaign in enumerate(campaigns):
        queue.jobs[f"{i}"] = JobInfo(f"{i}", JobState.PENDING, "PENDING", name=f"htxas-p{i}", restarts=0)
        store.put_pilots(
            [
                PilotRecord(
                    id=f"p{i}",
                    cluster="here",
                    job_id=f"{i}",
                    array_task=None,
                    state=PilotState.QUEUED,
                    campaign=campaign,
                    partition="main",
                    nodes=1,
                    cores=8,
                    walltime_s=3600.0,
                    submitted=datetime.now(UTC),
                )
            ]
        )


def test_its_own_pilots_and_those_too_many_leave_the_queue(
    store: Store, launchpad: LaunchPad, submitted: Submit, queue: FakeQueue
) -> None:
    submitted("one", sizes=(1,), seconds=10.0)
    submitted("two", sizes=(2,), seconds=10.0)
    pilots(store, queue, "one", None, None, "two")
    changed = control.cancel(store, launchpad, "one")
    assert [p.id for p in changed.pilots] == ["p0"]
    assert surplus(store, queue.profile) == ["p2"]
    released = release_pilots(store, {"here": (queue.profile, queue)}, changed.pilots)
    assert released.gone == {"here": ["p0", "p2"]}
    assert released.left == {}
    waiting = {p.id for p in store.pilots(active=True)}
    assert waiting == {"p1", "p3"}
    control.cancel(store, launchpad, "two")
    assert surplus(store, queue.profile) == ["p1"]


def test_pilots_of_a_cluster_without_a_profile_are_told(
    store: Store, launchpad: LaunchPad, submitted: Submit, queue: FakeQueue
) -> None:
    submitted(sizes=(1,))
    pilots(store, queue, "chains")
    changed = control.cancel(store, launchpad, "chains")
    assert "no profile of here" in release_pilots(store, {}, changed.pilots).left["p0"]


# ---- commands


@pytest.fixture
def htxas(store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command on the test's own database."""
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_commands(htxas: Callable[..., str], launchpad: LaunchPad, submitted: Submit, store: Store) -> None:
    submitted(sizes=(2,))
    assert "is paused" in htxas("campaign", "pause", "chains")
    assert json.loads(htxas("campaign", "resume", "chains", "--json"))["before"]["state"] == "paused"
    assert "priority 3" in htxas("campaign", "priority", "chains", "3")
    assert "priority -1" in htxas("campaign", "priority", "chains", "--", "-1")
    assert "0.0 of 12.5 node hours" in htxas("campaign", "budget", "chains", "--node-hours", "12.5")
    assert "has no cap" in htxas("campaign", "budget", "chains", "none")
    assert "1 Firework defused" in htxas("campaign", "cancel", "chains", "--wait", "0")
    assert "is active; 3 calculations wait" in htxas("campaign", "resume", "chains")
    assert json.loads(htxas("campaign", "list", "--json"))[0]["control"]["state"] == "active"
    assert "0 owners" in htxas("reconcile")
    assert json.loads(htxas("reconcile", "--dry-run", "--json"))["dry_run"] is True
    with pytest.raises(NotFound, match="no campaign is called 'nix'"):
        htxas("campaign", "cancel", "nix")
    wrong = CliRunner().invoke(cli, ["campaign", "budget", "chains", "--node-hours", "much"])
    assert wrong.exit_code != 0
    assert "not a number of node hours" in wrong.output
