"""Owners that die in every way, and what reconciliation makes of them, on a real mongod."""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fireworks import LaunchPad

from htxas.cluster.host import Completed, LocalHost
from htxas.cluster.jobs import JobInfo, JobState, Snapshot, Unknown
from htxas.cluster.load import load_config
from htxas.cluster.profile import Profile
from htxas.cluster.queue import Queue
from htxas.domain.calculation import State
from htxas.engines.base import JOB_FILE
from htxas.errors import Cause, DatabaseUnavailable
from htxas.launch import control
from htxas.launch.agent.liveness import boot_id, new_owner, worker_folder
from htxas.launch.agent.source import Source
from htxas.launch.pad.bulk import make_ready
from htxas.launch.pad.checkout import Taken, take
from htxas.launch.pad.launchpad import launchpad_of
from htxas.launch.recovery.judge import Life, Reason
from htxas.launch.recovery.reconcile import UNREADABLE_S, Cluster, Owner, Report, reconcile
from htxas.launch.recovery.recover import (
    conclude_owner,
    free_ownerless,
    recover,
    recovery_lock,
    requeue_forgotten,
)
from htxas.launch.run import run_workers
from htxas.launch.work.compute import attempt_directory
from htxas.launch.work.journal import JournalWriter, read_journal
from htxas.settings import read_secret, runs_folder
from htxas.store.outcomes import Outcome, failed
from htxas.store.records import ControlState, Lease, Leased, PilotRecord, PilotState
from htxas.store.server import PrivateServer
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Tally = Callable[[], dict[str, int]]
JOB = "4711"


class FakeQueue(Queue):
    """A scheduler with one job."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, LocalHost())
        self.jobs: dict[str, JobInfo] = {}
        self.accounts: dict[str, JobInfo] = {}
        self.silent: str | None = None
        self.asked = 0

    def snapshot(self, ids: Collection[str] | None = None) -> Snapshot | Unknown:
        self.asked += 1
        if self.silent is not None:
            return Unknown(self.silent)
        wanted = set(self.jobs if ids is None else ids)
        return Snapshot(
            {i: j for i, j in self.jobs.items() if i in wanted}, frozenset(wanted - self.jobs.keys())
        )

    def accounting(self, ids: Collection[str]) -> Snapshot | Unknown:
        return Snapshot({i: self.accounts[i] for i in ids if i in self.accounts})

    def says(self, state: JobState, restarts: int | None = 0, **fields: Any) -> None:
        self.jobs = {JOB: JobInfo(JOB, state, state.name, name="htxas-p1", restarts=restarts, **fields)}


def outcome(lease: Lease) -> Outcome:
    return failed(lease, Cause.BAD_INPUT, "refused", {}, {"host": "x", "wall_s": 1.0})


@dataclass
class Agent:
    """What an agent leaves: a lock, a heartbeat, Fireworks, leases, a journal. Dies on demand."""

    store: Store
    launchpad: LaunchPad
    owner: str
    info: dict[str, Any] = field(default_factory=dict)
    leased: list[Leased] = field(default_factory=list)
    fireworks: list[Taken] = field(default_factory=list)
    journals: int = 0

    def __post_init__(self) -> None:
        self.folder = worker_folder(self.owner)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "alive.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.info = {
            "host": platform.node(),
            "pid": os.getpid(),
            "lock": str(self.folder / "alive.lock"),
            "folder": str(self.folder),
            "boot": boot_id(),
            "held": 0,
            "in_hand": [],
            "started": datetime.now(UTC).isoformat(),
            **self.info,
        }
        self.beat()

    def beat(self, **facts: Any) -> None:
        self.info |= facts
        self.store.heartbeat(self.owner, self.info)

    def silent_for(self, seconds: float) -> None:
        seen = {"$set": {"seen": datetime.now(UTC) - timedelta(seconds=seconds)}}
        self.store._db["workers"].update_one({"_id": self.owner}, seen)
        then = time.time() - seconds
        for journal in self.folder.glob("journal-*"):
            os.utime(journal, (then, then))

    def take(self, most: int = 10) -> list[Lease]:
        query = {"spec.htxas.batch": {"$exists": True}}
        self.fireworks += take(self.launchpad, query, self.owner, self.folder, most)
        for firework in self.fireworks:
            self.leased += self.store.lease_many(self.store.batch(firework.batch).keys, self.owner)
        self.beat(held=len(self.leased))
        return [one.lease for one in self.leased]

    def write(self, finished: list[Lease], in_hand: Lease | None = None) -> None:
        """Journal results that are not delivered, and one that is being computed."""
        with JournalWriter(self.folder / f"journal-{self.journals}.bin") as journal:
            for lease in finished:
                journal.started(lease.key, lease.attempt)
                journal.outcome(outcome(lease))
            if in_hand is not None:
                journal.started(in_hand.key, in_hand.attempt)
        self.journals += 1

    def die(self) -> None:
        self._lock.close()


Start = Callable[..., Agent]


@pytest.fixture
def start(store: Store, launchpad: LaunchPad) -> Iterator[Start]:
    with ExitStack() as stack:

        def make(**info: Any) -> Agent:
            agent = Agent(store, launchpad, info.pop("owner", None) or new_owner(), info=info)
            stack.callback(agent.die)
            return agent

        yield make


@pytest.fixture
def queue(home: Path, tmp_path: Path) -> FakeQueue:
    cluster = {
        "scheduler": "slurm",
        "home": str(home),
        "database": {"uri_env": "MY_URI"},
        "partitions": {"main": {"walltime": "1:00:00", "cores": 8}},
        "pilots": {"most": 10, "workers": 2},
    }
    path = tmp_path / "htxas.yaml"
    path.write_text(json.dumps({"clusters": {"here": cluster}}))
    return FakeQueue(load_config(path).cluster("here"))


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, start: Start) -> Start:
    """Start an agent of a pilot on another machine that shares the file system."""

    def make(**info: Any) -> Agent:
        return start(host="node17", cluster="here", job_id=JOB, pilot="p1", **info)

    return make


@pytest.fixture
def settled_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has been up for long."""
    monkeypatch.setattr(Store, "server_up_s", lambda self: 3 * 86400.0)


def look(store: Store, launchpad: LaunchPad, queue: FakeQueue, **options: Any) -> Report:
    return reconcile(store, launchpad, {"here": Cluster(queue.profile, queue)}, **options)


def only_owner(report: Report) -> Owner:
    assert len(report.owners) == 1
    return report.owners[0]


def pilot_record(**fields: Any) -> PilotRecord:
    known: dict[str, Any] = {
        "id": "p1",
        "cluster": "here",
        "job_id": JOB,
        "array_task": None,
        "state": PilotState.RUNNING,
        "campaign": None,
        "partition": "main",
        "nodes": 1,
        "cores": 8,
        "walltime_s": 3600.0,
        "submitted": datetime.now(UTC) - timedelta(hours=1),
    }
    return PilotRecord(**{**known, **fields})


# ---- on this machine


def test_what_it_finished_is_stored_and_only_what_was_in_hand_counts(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Start, tally: Tally
) -> None:
    submitted(sizes=(5,), batch={"at_least": 1})
    agent = start()
    leases = agent.take()
    assert len(leases) == 6
    agent.write(leases[:3], in_hand=leases[3])
    assert recover(store, launchpad) == 0
    agent.die()
    assert recover(store, launchpad) == 1
    counts = store.counts()
    assert (counts[State.FAILED], counts[State.READY], counts[State.RUNNING]) == (3, 3, 0)
    assert tally() == {"READY": 1}
    assert store.workers() == []
    interrupted = store.calculation(leases[3].key)
    assert interrupted.interrupted == {"lost": 1}
    assert interrupted.history[-1]["cause"] == "lost"
    assert store.calculation(leases[4].key).interrupted == {}
    assert recover(store, launchpad) == 0


def test_an_attempt_began_when_its_input_was_written(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Start
) -> None:
    submitted(sizes=(1,), batch={"at_least": 1})
    agent = start()
    known, unknown = agent.take()
    began = time.time() - 5000.0
    for lease in (known, unknown):
        attempt_directory(lease.key, lease.attempt).mkdir(parents=True)
    job = attempt_directory(known.key, known.attempt) / JOB_FILE
    job.write_text("{}")
    os.utime(job, (began, began))
    (job.parent / "log").write_text("a file that came just now")
    for lease in (known, unknown):
        agent.write([], in_hand=lease)
    last = datetime.fromtimestamp(began + 4000.0, UTC)
    assert conclude_owner(store, launchpad, agent.owner, Cause.WALLTIME, "over", last=last).charged == 2
    (entry,) = store.calculation(known.key).history
    assert entry["wall_s"] == pytest.approx(4000.0, abs=1.0)
    assert entry["shown_s"] == 2 * entry["wall_s"]
    assert entry["directory"] == str(job.parent)
    (entry,) = store.calculation(unknown.key).history  # nothing had begun
    assert (entry["wall_s"], "shown_s" in entry) == (None, False)


def test_an_attempt_given_back_does_not_charge_the_next(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Start
) -> None:
    submitted(sizes=(1,), batch={"at_least": 1})
    agent = start()
    first, second = agent.take()
    agent.write([], in_hand=first)
    store.release([first])
    (again,) = store.lease_many([first.key], agent.owner)
    assert again.lease.attempt == first.attempt + 1
    agent.write([], in_hand=second)
    assert conclude_owner(store, launchpad, agent.owner, Cause.LOST, "gone").charged == 1
    assert store.calculation(first.key).interrupted == {}
    assert store.calculation(second.key).interrupted == {"lost": 1}


def test_a_real_agent_killed_with_an_undelivered_journal(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(8,), seconds=0.1, batch={"at_least": 1})
    code = (
        "import htxas.launch.agent.clerk as clerk; clerk._DELIVER_S = 1e9; clerk.AT_ONCE = 10**9; "
        "from htxas.store.store import Store; from htxas.launch.run import run_workers; "
        "from htxas.launch.pad.launchpad import open_launchpad; "
        f"s = Store.open(name={store.name!r}); run_workers(s, open_launchpad(s), jobs=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30.0
        while written() < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    finished = written()
    assert store.counts()[State.DONE] == 0
    deadline = time.monotonic() + 10.0
    while (
        recover(store, launchpad) == 0
    ):  # its workers, which hold its lock no longer than it, die a moment later
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = {r.key for r in store.find(state=State.DONE)}
    assert finished <= len(done) <= finished + 1
    assert tally() == {"READY": 1}
    summary = run_workers(store, launchpad, jobs=1)
    assert summary.progress["counts"]["done"] == 9
    assert {r.attempts for r in store.find() if r.key in done} == {1}
    begun = [p for p in runs_folder().glob("??/*/*") if p.is_dir()]
    assert len(begun) <= 10  # at most what was in hand was begun twice
    assert sum(r.lost for r in store.find()) <= 1


def written() -> int:
    """Count the results in all journals."""
    paths = (runs_folder() / "workers").glob("*/journal-*.bin")
    return sum(isinstance(record, Outcome) for path in paths for record, _ in read_journal(path))


def test_a_database_that_was_restarted(
    tmp_path: Path, home: Path, queue: FakeQueue, require_mongod: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pilot whose job is not to be asked about was silent because nobody could hear it."""
    folder = Path(tempfile.mkdtemp(prefix="htxas-db-"))
    server = PrivateServer(folder / "db")
    server.up()
    try:
        uri = read_secret(server.uri_file)
        queue.silent = "no answer within 60 s"
        with Store.open(uri, patience_s=30) as store, launchpad_of(store) as launchpad:
            past = {"host": "node17", "cluster": "here", "job_id": JOB, "end": time.time() - 9000}
            store.heartbeat("node17-1-abcdef", past)
            seen = {"$set": {"seen": datetime.now(UTC) - timedelta(hours=2)}}
            store._db["workers"].update_one({}, seen)
            server.down()
            server.up()
            assert store.server_up_s() < 30
            found = only_owner(look(store, launchpad, queue))
            assert (found.life, found.reason) == (Life.UNKNOWN, Reason.DATABASE_WAS_AWAY)
    finally:
        server.down()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_ghost_is_refused(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Start, tally: Tally
) -> None:
    submitted(sizes=(1,), batch={"at_least": 1})
    ghost = start()
    leases = ghost.take()
    conclude_owner(store, launchpad, ghost.owner, Cause.NODE_FAILURE, "its job was started again")
    heir = start()
    again = heir.take()
    assert [x.key for x in again] == [x.key for x in leases]
    assert store.deliver([outcome(x) for x in leases]) == ["refused", "refused"]
    assert store.deliver([outcome(x) for x in again]) == ["stored", "stored"]
    assert store.deliver([outcome(x) for x in leases]) == ["refused", "refused"]
    assert store.release(leases) == {x.key: "refused" for x in leases}
    assert tally() == {"RUNNING": 1}


def test_killed_at_any_point_of_its_settlement(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    start: Start,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(4,), batch={"at_least": 1})
    agent = start()
    leases = agent.take()
    agent.write(leases[:2], in_hand=leases[2])
    agent.die()

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    for place in ("held", "release_owner", "forget_worker"):
        with monkeypatch.context() as patch:
            patch.setattr(Store, place, kill)
            with pytest.raises(Killed):
                recover(store, launchpad)
    assert recover(store, launchpad) == 1
    counts = store.counts()
    assert (counts[State.FAILED], counts[State.READY], counts[State.RUNNING]) == (2, 3, 0)
    assert store.calculation(leases[2].key).interrupted == {"lost": 1}
    assert tally() == {"READY": 1}


def test_a_torn_journal_loses_only_its_torn_end(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Start
) -> None:
    submitted(sizes=(3,), batch={"at_least": 1})
    agent = start()
    leases = agent.take()
    agent.write(leases[:2])
    path = agent.folder / "journal-0.bin"
    path.write_bytes(path.read_bytes()[:-7])
    agent.die()
    assert recover(store, launchpad) == 1
    assert store.counts()[State.FAILED] == 1
    assert store.calculation(leases[1].key).interrupted == {"lost": 1}


def test_leases_of_nobody(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Start, settled_database: None
) -> None:
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.1})
    here = start()
    here.take(1)
    store.forget_worker(here.owner)
    assert recover(store, launchpad) == 0
    here.die()
    assert recover(store, launchpad) == 1
    agent = start(owner="node17-1-abcdef")
    agent.take()
    agent.die()
    store.forget_worker(agent.owner)
    assert recover(store, launchpad) == 0
    old = datetime.now(UTC) - timedelta(hours=1)
    store._db["calculations"].update_many({}, {"$set": {"updated": old}})
    assert recover(store, launchpad) == 1
    assert store.counts()[State.READY] == 7
    assert {r.lost for r in store.find()} == {0}


def test_what_an_owner_gave_back_is_another_ones(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    first, second = source(store, launchpad), source(store, launchpad)
    held = first.checkout(math.inf)
    assert held is not None
    first.give_back([held])
    assert launchpad.launches.count_documents({"state": "RUNNING"}) == 0
    theirs = second.checkout(math.inf)
    assert theirs is not None
    first.sweep([], {})
    first.give_back([held])
    conclude_owner(store, launchpad, first.owner, Cause.LOST, "gone")
    assert tally() == {"RUNNING": 1}
    store.heartbeat(second.owner, {})
    old = datetime.now(UTC) - timedelta(minutes=5)
    launchpad.fireworks.update_many({}, {"$set": {"updated_on": old}})
    assert free_ownerless(store, launchpad) == 0
    second.sweep([], {})
    assert tally() == {"READY": 1}


def test_what_a_user_defused_stays_so(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.1})
    launchpad.defuse_fw(1)
    control.cancel(store, launchpad, "chains")
    store.set_control("chains", state=ControlState.ACTIVE)  # resumed, and killed on the way
    assert tally() == {"DEFUSED": 2}
    assert requeue_forgotten(store, launchpad, None, dry_run=True).fireworks == 1
    assert requeue_forgotten(store, launchpad, None).fireworks == 1
    assert tally() == {"DEFUSED": 1, "READY": 1}
    assert launchpad.fireworks.find_one({"state": "DEFUSED"})["fw_id"] == 1


def source(store: Store, launchpad: LaunchPad) -> Source:
    owner = new_owner()
    return Source(store, launchpad, owner, worker_folder(owner), None, 1)


def test_a_firework_of_nobody(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    start: Start,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("htxas.launch.recovery.recover._TIDY_EVERY_S", 0.0)
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.1})
    living = start()
    living.take(1)
    taken = take(launchpad, {}, "never-seen", Path("/nowhere"), 1)
    assert tally() == {"RUNNING": 2}
    recover(store, launchpad)
    assert tally() == {"RUNNING": 2}
    old = datetime.now(UTC) - timedelta(minutes=5)
    launchpad.fireworks.update_many({}, {"$set": {"updated_on": old}})
    recover(store, launchpad)
    assert tally() == {"RUNNING": 1, "READY": 1}
    assert launchpad.fireworks.find_one({"fw_id": taken[0].fw_id})["state"] == "READY"
    living.die()


def test_recovery_is_cheap_when_there_is_nothing(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any]
) -> None:
    submitted()
    began = time.perf_counter()
    assert recover(store, launchpad) == 0
    assert time.perf_counter() - began < 1.0


def test_a_thousand_agents_at_work_cost_a_moment(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted()
    for i in range(1000):
        store.heartbeat(f"node{i}-1-abcdef", {"host": f"node{i}", "folder": "/somewhere", "held": 30})
    monkeypatch.setattr(
        "htxas.launch.recovery.witness.owner_folder", None
    )  # nobody looks at folders of those that beat
    began = time.perf_counter()
    assert recover(store, launchpad) == 0
    assert time.perf_counter() - began < 2.0


# ---- elsewhere


def test_a_killed_pilot_is_settled_once_the_scheduler_says_so(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    tally: Tally,
    settled_database: None,
) -> None:
    submitted(sizes=(4,), batch={"at_least": 1})
    store.put_pilots([pilot_record()])
    agent = away(end=time.time() - 100)
    leases = agent.take()
    agent.write(leases[:2], in_hand=leases[2])
    queue.says(JobState.RUNNING)
    assert only_owner(look(store, launchpad, queue)).life is Life.ALIVE
    agent.silent_for(200)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.UNREACHABLE
    assert store.counts()[State.RUNNING] == 5
    assert recover(store, launchpad) == 0
    queue.says(JobState.TIMEOUT)
    found = only_owner(look(store, launchpad, queue))
    assert (found.life, found.cause) == (Life.DEAD, Cause.WALLTIME)
    assert found.settled is not None
    assert (found.settled.stored, found.settled.released, found.settled.charged) == (2, 3, 1)
    assert store.calculation(leases[2].key).interrupted == {"walltime": 1}
    assert store.pilot("p1").state is PilotState.ENDED
    assert tally() == {"READY": 1}
    assert look(store, launchpad, queue).owners == []


def test_a_pilot_that_died_on_this_machine_is_charged_with_what_ended_its_job(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    start: Start,
    settled_database: None,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = start(cluster="here", job_id=JOB, pilot="p1")
    leases = agent.take()
    agent.write([], in_hand=leases[0])
    agent.die()
    assert recover(store, launchpad) == 0  # asks no scheduler, so it waits
    queue.says(JobState.COMPLETING)
    assert "not told yet" in str(only_owner(look(store, launchpad, queue)).left)
    queue.says(JobState.TIMEOUT)
    assert only_owner(look(store, launchpad, queue)).settled is not None
    assert store.calculation(leases[0].key).interrupted == {"walltime": 1}


@pytest.mark.parametrize("nonsense", ["", "slurm_load_jobs error: Unable to contact slurm controller", "}{"])
def test_garbage_is_never_death(
    nonsense: str,
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = away()
    agent.take()
    agent.silent_for(3000)

    class Mad(LocalHost):
        def run(self, argv: Any, **_: Any) -> Completed:
            said = "me\n" if argv[0] == "id" else nonsense
            return Completed(tuple(argv), 0, said, "")

    real = Queue(queue.profile, Mad())
    for _ in range(3):
        report = reconcile(store, launchpad, {"here": Cluster(queue.profile, real)})
        assert only_owner(report).life is Life.UNKNOWN
        assert store.counts()[State.RUNNING] == 3


def test_absent_needs_a_second_look(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = away()
    agent.take()
    agent.silent_for(3000)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.ABSENT_ONCE
    assert only_owner(look(store, launchpad, queue)).reason == Reason.ABSENT_ONCE
    queue.says(JobState.RUNNING)  # the controller is back and knows it again
    assert only_owner(look(store, launchpad, queue)).reason == Reason.UNREACHABLE
    queue.jobs = {}
    assert only_owner(look(store, launchpad, queue)).reason == Reason.ABSENT_ONCE
    long_ago = {"$set": {"first": datetime.now(UTC) - timedelta(minutes=2)}}
    store._db["looks"].update_many({}, long_ago)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.JOB_GONE
    assert store.counts()[State.READY] == 3


def test_a_number_given_to_another_job_is_no_sign_of_life(
    store: Store, launchpad: LaunchPad, queue: FakeQueue, away: Start, settled_database: None
) -> None:
    """A controller killed before it wrote a submission down forgets it, and counts on from the last it knows."""
    away().silent_for(3000)
    queue.says(JobState.RUNNING)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.UNREACHABLE
    queue.jobs[JOB] = replace(queue.jobs[JOB], name="htxas-another")
    queue.accounts[JOB] = replace(queue.jobs[JOB], state=JobState.DONE)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.ABSENT_ONCE
    store._db["looks"].update_many({}, {"$set": {"first": datetime.now(UTC) - timedelta(minutes=2)}})
    assert only_owner(look(store, launchpad, queue)).reason == Reason.JOB_GONE


def test_two_looks_are_in_a_row_only_without_a_sign_of_life_between(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = away()
    agent.take()
    agent.silent_for(100)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.ABSENT_ONCE
    days_ago = datetime.now(UTC) - timedelta(days=2)
    store._db["looks"].update_many({}, {"$set": {"first": days_ago, "last": days_ago}})
    for _ in range(2):  # silent for the second time
        assert only_owner(look(store, launchpad, queue)).reason == Reason.ABSENT_ONCE
    assert store.counts()[State.RUNNING] == 3


def test_schedulers_are_not_asked_under_the_lock(
    store: Store, launchpad: LaunchPad, queue: FakeQueue, away: Start, settled_database: None
) -> None:
    agent = away()
    agent.silent_for(3000)
    real, asked = queue.snapshot, []

    def slow(ids: Collection[str] | None = None) -> Snapshot | Unknown:
        with recovery_lock(store, wait_s=0.0):  # a pilot starts, and settles what its earlier start left
            asked.append(ids)
        return real(ids)

    queue.snapshot = slow  # type: ignore[method-assign]
    queue.says(JobState.FAILED)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.JOB_ENDED
    assert asked


def test_absent_with_an_entry_in_the_accounting(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = away()
    leases = agent.take()
    agent.write([], in_hand=leases[0])
    agent.silent_for(3000)
    queue.accounts = {JOB: JobInfo(JOB, JobState.NODE_FAIL, "NODE_FAIL")}
    found = only_owner(look(store, launchpad, queue))
    assert (found.reason, found.cause) == (Reason.JOB_ENDED, Cause.NODE_FAILURE)
    assert store.calculation(leases[0].key).interrupted == {"node_failure": 1}


def test_a_requeued_job_is_another_owner(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
) -> None:
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.1})
    older = away(restart=0)
    older.take(1)
    older.silent_for(100)
    queue.says(JobState.RUNNING, restarts=1)
    newer = away(restart=1)
    newer.take(1)
    report = look(store, launchpad, queue)
    lives = {o.name: (o.life, o.reason) for o in report.owners}
    assert lives[older.owner] == (Life.DEAD, Reason.REQUEUED)
    assert lives[newer.owner] == (Life.ALIVE, Reason.BEATING)
    assert store.held(older.owner) == []
    assert len(store.held(newer.owner)) == len(newer.leased)


def test_an_old_job_of_the_same_number_says_nothing(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
) -> None:
    agent = away()
    agent.silent_for(100)
    queue.says(JobState.FAILED, end=time.time() - 9e6)
    assert only_owner(look(store, launchpad, queue)).life is Life.UNKNOWN


def test_after_a_restart_of_the_database_owners_get_time_to_beat(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = away(end=time.time() - 9000)
    agent.take()
    agent.silent_for(5000)
    queue.silent = "no answer within 60 s"
    monkeypatch.setattr(Store, "server_up_s", lambda self: 20.0)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.DATABASE_WAS_AWAY
    monkeypatch.setattr(Store, "server_up_s", lambda self: 400.0)
    assert only_owner(look(store, launchpad, queue)).reason == Reason.ALLOCATION_OVER


def test_journals_that_cannot_be_read_are_waited_for(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = away(folder="/not/visible/from/here")
    agent.take()
    agent.silent_for(100)
    queue.says(JobState.PREEMPTED)
    found = only_owner(look(store, launchpad, queue))
    assert found.life is Life.DEAD
    assert "cannot be seen from here" in (found.left or "")
    assert store.counts()[State.RUNNING] == 3
    long_ago = {"$set": {"first": datetime.now(UTC) - timedelta(seconds=UNREADABLE_S + 1)}}
    store._db["looks"].update_many({}, long_ago)
    assert only_owner(look(store, launchpad, queue)).settled is not None
    assert store.counts()[State.READY] == 3


def test_whoever_sees_the_folder_settles_what_another_found_out(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    away: Start,
    settled_database: None,
) -> None:
    """A workstation learns from the scheduler that a pilot ended; the next pilot there brings in its results."""
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = away()
    leases = agent.take()
    agent.write(leases[:2])
    agent.silent_for(100)
    store.put_pilots([pilot_record()])
    assert recover(store, launchpad) == 0
    store.update_pilot("p1", state=PilotState.ENDED, reason="PREEMPTED")
    assert recover(store, launchpad) == 1
    assert store.counts()[State.FAILED] == 2


def test_results_on_disk_of_an_owner_off_the_list(
    store: Store, launchpad: LaunchPad, queue: FakeQueue, submitted: Callable[..., Any], start: Start
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    agent = start(owner="node17-1-abcdef")
    leases = agent.take()
    agent.write(leases[:1])
    store.forget_worker(agent.owner)
    assert look(store, launchpad, queue).journals["stored"] == 0  # its lock is held: not ours to read
    agent.die()
    assert look(store, launchpad, queue, dry_run=True).journals["stored"] == 1
    assert store.counts()[State.FAILED] == 0
    assert look(store, launchpad, queue).journals["stored"] == 1
    assert store.counts()[State.FAILED] == 1
    assert look(store, launchpad, queue).journals["stored"] == 0


def test_a_dry_run_writes_nothing(
    store: Store,
    launchpad: LaunchPad,
    queue: FakeQueue,
    submitted: Callable[..., Any],
    away: Start,
    start: Start,
    settled_database: None,
) -> None:
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.1})
    store.put_pilots([pilot_record()])
    remote, here = away(), start()
    remote.take(1)
    remote.silent_for(100)
    here.write(here.take(1)[:1])
    here.die()
    queue.says(JobState.NODE_FAIL)
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    before = dump(store, launchpad)
    report = look(store, launchpad, queue, dry_run=True)
    assert dump(store, launchpad) == before
    assert not (here.folder / "delivered.json").exists()
    assert len(report.dead) == 2
    assert all(o.settled is None for o in report.owners)
    launchpad.workflows.update_one({}, {"$unset": {"locked": True}})
    assert len(look(store, launchpad, queue).dead) == 2
    assert look(store, launchpad, queue).clean


def dump(store: Store, launchpad: LaunchPad) -> dict[str, Any]:
    found = {
        name: list(store._db[name].find(sort=[("_id", 1)])) for name in store._db.list_collection_names()
    }
    for name in ("fireworks", "workflows", "launches"):
        found[f"fw {name}"] = list(launchpad.db[name].find(sort=[("_id", 1)]))
    return found


# ---- what is left over


def test_over_while_calculations_are_ready(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.1})
    launchpad.fireworks.update_many({}, {"$set": {"state": "COMPLETED"}})
    assert requeue_forgotten(store, launchpad, "chains", dry_run=True).fireworks == 2
    assert tally() == {"COMPLETED": 2}
    assert requeue_forgotten(store, launchpad, "chains").fireworks == 2
    assert requeue_forgotten(store, launchpad, "chains").fireworks == 0
    assert tally() == {"READY": 2}


def test_cancelled_batches_stay_unless_another_campaign_wants_them(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted("one", sizes=(1, 2), batch={"at_least": 2, "target_s": 0.01})
    control.cancel(store, launchpad, "one")
    assert requeue_forgotten(store, launchpad, None).fireworks == 0
    submitted("two", sizes=(2,))
    assert requeue_forgotten(store, launchpad, None).fireworks == 1
    assert tally() == {"DEFUSED": 1, "READY": 1}


def test_a_cancelled_batch_that_was_running_when_another_campaign_came_to_want_it(
    store: Store, launchpad: LaunchPad, queue: FakeQueue, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted("one", sizes=(1, 2), batch={"at_least": 2, "target_s": 0.01})
    taken = take(launchpad, {}, "somebody", Path("/nowhere"), 2)
    submitted("two", sizes=(2,))
    make_ready(launchpad, [t.fw_id for t in taken])
    control.cancel(store, launchpad, "one")
    assert tally() == {"DEFUSED": 2}
    for _ in range(2):
        look(store, launchpad, queue)
        assert tally() == {"DEFUSED": 1, "READY": 1}
    run_workers(store, launchpad, jobs=1)
    assert store.counts("two")[State.DONE] == 3


def test_fireworks_that_were_deleted_are_made_again(
    store: Store, launchpad: LaunchPad, queue: FakeQueue, submitted: Callable[..., Any], tally: Tally
) -> None:
    submitted(sizes=(2, 3), batch={"at_least": 2, "target_s": 0.01})
    for collection in (launchpad.fireworks, launchpad.workflows):
        collection.delete_many({})  # as `lpad reset` does
    with store.lock("submission of chains", ttl_s=3.0):
        assert look(store, launchpad, queue).fireworks_requeued == 0
    assert look(store, launchpad, queue, dry_run=True).fireworks_requeued == 2
    assert tally() == {}
    assert look(store, launchpad, queue).fireworks_requeued == 2
    assert tally() == {"READY": 2}
    assert run_workers(store, launchpad, jobs=1).progress["counts"]["done"] == 7


def test_the_service_outlasts_what_goes_wrong(
    store: Store,
    launchpad: LaunchPad,
    home: Path,
    submitted: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from htxas.cli import reconcile as command

    submitted(sizes=(1,))
    real, calls = reconcile, []

    def sometimes(*args: Any, **kwargs: Any) -> Report:
        calls.append(kwargs["thorough"])
        if len(calls) == 2:
            raise DatabaseUnavailable("the database does not answer")
        return real(*args, **kwargs)

    opened = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: opened(**{"name": store.name, **kw})))
    monkeypatch.setattr("htxas.launch.recovery.reconcile.reconcile", sometimes)
    monkeypatch.setattr(command, "_rounds", lambda every: iter(range(3)))
    result = CliRunner().invoke(command.reconcile, ["--watch", "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert [json.loads(line)["dry_run"] for line in result.stdout.splitlines()] == [False, False]
    assert "does not answer" in result.stderr
    assert calls == [True, False, False]
    assert "reconcile" in store.stamps()


def test_a_lock_that_a_dead_process_left(
    store: Store, launchpad: LaunchPad, queue: FakeQueue, submitted: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr("htxas.launch.recovery.recover._STALE_LOCK_S", 0.3)
    submitted(sizes=(1,))
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert look(store, launchpad, queue).locks == 1
    assert launchpad.workflows.count_documents({"locked": {"$exists": True}}) == 0


def test_ready_calculations_without_a_batch_are_told(
    store: Store, launchpad: LaunchPad, queue: FakeQueue, submitted: Callable[..., Any]
) -> None:
    submitted(sizes=(2,))
    store._db["calculations"].update_many({}, {"$set": {"batch": None}})
    assert look(store, launchpad, queue).unsubmitted == 3
