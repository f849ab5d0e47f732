from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from htxas.cluster.host import LocalHost
from htxas.cluster.jobs import (
    Cancelled,
    JobInfo,
    JobState,
    Refused,
    Snapshot,
    Submission,
    Submitted,
    Unclear,
    Unknown,
)
from htxas.cluster.load import load_config
from htxas.cluster.profile import Profile
from htxas.cluster.queue import Queue
from htxas.cluster.script import Job
from htxas.domain.calculation import State
from htxas.errors import Busy, ClusterError, NotFound
from htxas.launch.pilots.cancel import cancel_pilots
from htxas.launch.pilots.exit import PilotExit, Why, write_exit
from htxas.launch.pilots.look import array_task, refresh
from htxas.launch.pilots.settings import read_settings
from htxas.launch.pilots.submit import pilots_lock, submit_pilots
from htxas.store.records import ControlState, PilotRecord, PilotState
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


class FakeQueue(Queue):
    """A scheduler that keeps its jobs in a dictionary."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, LocalHost())
        self.jobs: dict[str, JobInfo] = {}
        self.accounts: dict[str, JobInfo] = {}
        self.out_of_order: str | None = None
        self.refuses: str | None = None
        self.loses_answer = False
        self.submissions: list[Job] = []
        self.asked: list[Collection[str] | None] = []
        self.number = 100

    def submit(self, job: Job) -> Submission:
        if self.refuses is not None:
            return Refused(self.refuses)
        self.submissions.append(job)
        self.number += 1
        ids = [f"{self.number}_{k}" if job.array > 1 else f"{self.number}" for k in range(1, job.array + 1)]
        for i in ids:
            self.jobs[i] = JobInfo(
                i, JobState.PENDING, "PENDING", name=job.name, restarts=0, reason="Resources"
            )
        return Unclear("no answer in time") if self.loses_answer else Submitted(tuple(ids))

    def snapshot(self, ids: Collection[str] | None = None) -> Snapshot | Unknown:
        self.asked.append(ids)
        if self.out_of_order is not None:
            return Unknown(self.out_of_order)
        return Snapshot(dict(self.jobs), frozenset(ids or ()) - self.jobs.keys())

    def accounting(self, ids: Collection[str]) -> Snapshot | Unknown:
        return Snapshot({i: self.accounts[i] for i in ids if i in self.accounts})

    def cancel(self, ids: Iterable[str]) -> dict[str, Cancelled]:
        done = {}
        for i in ids:
            done[i] = Cancelled.ASKED if i in self.jobs else Cancelled.ENDED_BEFORE
            self.set(i, JobState.CANCELLED)
        return done

    def set(self, job_id: str, state: JobState, **fields: Any) -> None:
        self.jobs[job_id] = replace(self.jobs[job_id], state=state, raw=state.name, **fields)


Make = Callable[..., FakeQueue]


@pytest.fixture
def cluster(home: Path, tmp_path: Path) -> Make:
    """Return a queue on a cluster with two partitions."""

    def make(**changes: Any) -> FakeQueue:
        pilots = {"most": 10, "workers": 2, "margin_s": 100, "signal_s": 60, **changes.pop("pilots", {})}
        cluster = {
            "scheduler": "slurm",
            "home": str(home),
            "database": {"uri_env": "MY_URI"},
            "partitions": {
                "main": {"walltime": "1:00:00", "cores": 8, "max_array": 4, "max_jobs": 8},
                "long": {"walltime": "10:00:00", "cores": 8, "max_array": 1},
            },
            "pilots": pilots,
            **changes,
        }
        path = tmp_path / "htxas.yaml"
        path.write_text(json.dumps({"clusters": {"here": cluster}}))
        return FakeQueue(load_config(path).cluster("here"))

    return make


@pytest.fixture
def work(store: Store, submitted: Callable[..., Any]) -> Callable[..., None]:
    """Submit a campaign whose every calculation is expected to take so many seconds."""

    def make(seconds: float, name: str = "chains", sizes: tuple[int, ...] = (1, 2, 3)) -> None:
        submitted(name, sizes=sizes, seconds=seconds, batch={"at_least": 1})

    return make


def states(store: Store) -> list[PilotState]:
    return [p.state for p in store.pilots()]


def age(store: Store, seconds: float) -> None:
    """Make all pilots older."""
    for pilot in store.pilots():
        store.update_pilot(pilot.id, submitted=pilot.submitted - timedelta(seconds=seconds))


def test_pilots_as_the_work_needs_and_none_the_second_time(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(1000.0)  # 9 calculations; a pilot of 2 workers has 3,500 s
    done = submit_pilots(store, queue.profile, queue, adaptive=True)
    assert len(done.submitted) == done.plan.needed == 2
    assert not done.problems
    assert [(j.array, j.name) for j in queue.submissions] == [(2, "htxas-" + queue.submissions[0].submission)]
    pilots = store.pilots()
    assert [p.id for p in pilots] == list(done.submitted)
    assert [(p.job_id, p.array_task, p.state) for p in pilots] == [
        ("101_1", 1, PilotState.QUEUED),
        ("101_2", 2, PilotState.QUEUED),
    ]
    assert {(p.partition, p.nodes, p.cores, p.walltime_s) for p in pilots} == {("main", 1, 2, 3600.0)}
    again = submit_pilots(store, queue.profile, queue, adaptive=True)
    assert again.submitted == {}
    assert len(queue.submissions) == 1


def test_settings_lie_beside_the_script(store: Store, cluster: Make, work: Any, home: Path) -> None:
    queue = cluster(
        engines={"fake": {"program": ["apptainer", "exec", "python"], "environment": {"A": "b"}}},
        disk={"most_files": 1000},
    )
    work(10.0)
    submit_pilots(store, queue.profile, queue, adaptive=True)
    (path,) = home.glob("pilots/*/settings.json")
    settings = read_settings(path)
    assert settings.database == store.name
    assert settings.engines["fake"].program == ("apptainer", "exec", "python")
    assert settings.most_files == 1000
    assert settings.quota() is not None
    assert "mongodb" not in path.read_text()


def test_no_pilots_for_what_no_agent_would_take(
    store: Store, cluster: Make, work: Callable[..., None]
) -> None:
    """Eight hours fit into ten, but agents keep a reserve; and what was learned since counts, not what was stored."""
    queue = cluster()
    work(8 * 3600.0, sizes=(1, 2))
    for adaptive in (True, False):
        done = submit_pilots(store, queue.profile, queue, pilots=2, adaptive=adaptive)
        assert not done.submitted
        assert done.notes[0].startswith("5 calculations fit into no partition: they need up to")
        assert done.notes[0].endswith("a longer partition is needed")
    about = {"state": State.DONE.value, "wall_s": 10.0, "host": "n1", "finished": datetime.now(UTC)}
    calculations = store._db["calculations"]
    work(8 * 3600.0, "more", sizes=(3, 4, 5, 6))
    calculations.update_many({"campaigns": "more"}, {"$set": about})
    assert submit_pilots(store, queue.profile, queue, pilots=2, adaptive=True).plan.submit == {"main": 1}


def test_long_calculations_choose_the_long_partition(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(5000.0)
    done = submit_pilots(store, queue.profile, queue, pilots=2)
    assert [j.partition.name for j in queue.submissions] == ["long", "long"]  # no arrays there
    assert len(done.submitted) == 2


def test_nothing_ready_nothing_submitted(store: Store, cluster: Make) -> None:
    queue = cluster()
    for pilots in (None, 3):
        done = submit_pilots(store, queue.profile, queue, pilots=pilots)
        assert done.notes == ["nothing is ready to run: no pilots are needed"]
    assert queue.submissions == []


def test_arrays_are_cut_and_caps_hold(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(10.0)
    done = submit_pilots(store, queue.profile, queue, pilots=20)
    assert [j.array for j in queue.submissions] == [4, 4]
    assert len(done.submitted) == 8
    assert any("max_jobs" in note for note in done.notes)
    assert submit_pilots(store, queue.profile, queue, pilots=20).submitted == {}


def test_garbage_from_the_scheduler_submits_nothing_and_concludes_nothing(
    store: Store, cluster: Make, work: Any
) -> None:
    queue = cluster()
    work(10.0)
    submit_pilots(store, queue.profile, queue, pilots=1)
    queue.out_of_order = "squeue: 4 lines of garbage"
    age(store, 10_000)
    done = submit_pilots(store, queue.profile, queue, pilots=3)
    assert done.submitted == {}
    assert done.problems == [
        "nothing is submitted while the scheduler gives no usable answer: squeue: 4 lines of garbage"
    ]
    assert states(store) == [PilotState.QUEUED]


def test_a_lost_answer_makes_no_second_job(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(10.0)
    queue.loses_answer = True
    done = submit_pilots(store, queue.profile, queue, pilots=3)
    assert done.submitted == {}
    assert "may or may not be in the queue" in done.problems[0]
    assert states(store) == [PilotState.SUBMITTING] * 3
    queue.loses_answer = False
    again = submit_pilots(store, queue.profile, queue, pilots=3)
    assert again.submitted == {}
    assert [(p.state, p.job_id) for p in store.pilots()] == [
        (PilotState.QUEUED, f"101_{k}") for k in (1, 2, 3)
    ]
    assert len(queue.submissions) == 1


def test_killed_between_record_and_job(
    store: Store, cluster: Make, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = cluster()
    work(10.0)

    def die(job: Job) -> Submission:
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "submit", die)
    with pytest.raises(KeyboardInterrupt):
        submit_pilots(store, queue.profile, queue, pilots=1)
    monkeypatch.undo()
    queue.out_of_order = None
    # For two minutes the job may still be on its way; then there is none.
    assert submit_pilots(store, queue.profile, queue, pilots=1).submitted == {}
    age(store, 121)
    assert len(submit_pilots(store, queue.profile, queue, pilots=1).submitted) == 1
    assert [(p.state, p.reason) for p in store.pilots()] == [
        (PilotState.ENDED, "never reached the queue"),
        (PilotState.QUEUED, None),
    ]


def test_a_refusal_is_told_and_leaves_no_active_pilot(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(10.0)
    queue.refuses = "sbatch: error: invalid account"
    done = submit_pilots(store, queue.profile, queue, pilots=1)
    assert done.problems == ["sbatch: error: invalid account"]
    assert states(store) == [PilotState.ENDED]


def test_one_submission_at_a_time(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    with store.lock(pilots_lock("here"), ttl_s=5), pytest.raises(Busy):
        submit_pilots(store, queue.profile, queue, adaptive=True)


def test_an_unknown_campaign(store: Store, cluster: Make) -> None:
    queue = cluster()
    with pytest.raises(NotFound):
        submit_pilots(store, queue.profile, queue, campaign="nope")


def test_a_dry_run_changes_nothing(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(10.0)
    queue.out_of_order = "must not be asked"
    done = submit_pilots(store, queue.profile, queue, pilots=3, dry_run=True)
    assert done.plan.submit == {"main": 3}
    assert "#SBATCH --array=1-3" in done.scripts["main"]
    assert store.pilots() == []


def test_paused_campaigns_need_no_pilots(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(10.0)
    store.set_control("chains", state=ControlState.PAUSED)
    assert submit_pilots(store, queue.profile, queue, pilots=1).submitted == {}
    done = submit_pilots(store, queue.profile, queue, pilots=1, campaign="chains")
    assert done.submitted == {}
    assert "chains is paused" in done.notes[0]


def test_budget(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(1000.0, sizes=(1, 2, 3, 4, 5))
    store.set_control("chains", budget_node_h=2.5)
    assert len(submit_pilots(store, queue.profile, queue, pilots=4).submitted) == 2  # of an hour each
    store.spend("somebody", {"chains": 3600.0}, 1)
    for pilot in store.pilots():
        store.update_pilot(pilot.id, state=PilotState.ENDED, owner="n1-77-abc")
    queue.jobs.clear()
    assert len(submit_pilots(store, queue.profile, queue, pilots=4).submitted) == 1
    store.spend("somebody", {"chains": 10_000.0}, 2)
    done = submit_pilots(store, queue.profile, queue, pilots=4)
    assert done.submitted == {}
    assert done.notes[0].startswith("chains has used up its budget of 2.5 node hours")


@pytest.fixture
def queued(store: Store, cluster: Make, work: Any) -> FakeQueue:
    """Return a queue with one pilot in it, job 101."""
    queue = cluster()
    work(10.0)
    submit_pilots(store, queue.profile, queue, pilots=1)
    return queue


def pilot(store: Store) -> PilotRecord:
    (found,) = store.pilots()
    return found


def test_the_life_of_a_pilot(store: Store, queued: FakeQueue) -> None:
    now = time.time()
    queued.set("101", JobState.RUNNING, start=now, end=now + 3600, nodes="n1")
    assert refresh(store, queued.profile, queued).changed == 1
    assert pilot(store).state is PilotState.RUNNING
    assert pilot(store).started == pytest.approx(
        datetime.fromtimestamp(now, UTC), abs=timedelta(seconds=0.01)
    )
    assert pilot(store).end_time is not None
    queued.set("101", JobState.REQUEUED, restarts=1)
    refresh(store, queued.profile, queued)
    assert (pilot(store).state, pilot(store).restart) == (PilotState.QUEUED, 1)
    queued.set("101", JobState.NODE_FAIL, end=now + 60)
    seen = refresh(store, queued.profile, queued)
    assert seen.pilots == []
    assert (pilot(store).state, pilot(store).reason) == (PilotState.ENDED, "NODE_FAIL (Resources)")


def test_a_pilot_that_the_scheduler_forgot_is_told_by_the_accounting(store: Store, queued: FakeQueue) -> None:
    queued.accounts["101"] = JobInfo("101", JobState.TIMEOUT, "TIMEOUT", end=time.time())
    queued.jobs.clear()
    refresh(store, queued.profile, queued)
    assert (pilot(store).state, pilot(store).reason) == (PilotState.ENDED, "TIMEOUT")


def test_a_forgotten_pilot_is_not_the_job_that_has_its_number_now(store: Store, queued: FakeQueue) -> None:
    queued.jobs["101"] = JobInfo("101", JobState.RUNNING, "RUNNING", name="htxas-another")
    seen = refresh(store, queued.profile, queued)
    assert seen.replaced == {pilot(store).id}
    assert pilot(store).state is PilotState.QUEUED
    done = cancel_pilots(store, queued.profile, queued, patience_s=0.1)
    assert done.gone == [pilot(store).id]
    assert queued.jobs["101"].state is JobState.RUNNING


def test_or_by_its_own_exit_file(store: Store, queued: FakeQueue, home: Path) -> None:
    found = pilot(store)
    store.update_pilot(found.id, state=PilotState.RUNNING, owner="n1-77-abc")
    folder = home / "pilots" / found.id
    folder.mkdir(exist_ok=True)
    ending = PilotExit(found.id, "n1-77-abc", "n1", "101", 0, Why.IDLE, "no work for 300 s", 1.0, 2.0)
    write_exit(folder, replace(ending, message="of its second node"), node_index=1)
    write_exit(folder, ending)
    (folder / "7.exit.json").write_text("garbage")
    queued.jobs.clear()
    refresh(store, queued.profile, queued)
    assert (pilot(store).state, pilot(store).reason) == (PilotState.ENDED, "idle: no work for 300 s")


def test_the_word_of_an_earlier_start_says_nothing_about_this_one(
    store: Store, queued: FakeQueue, home: Path
) -> None:
    found = pilot(store)
    store.update_pilot(found.id, state=PilotState.RUNNING, owner="n1-77-abc", restart=1)
    folder = home / "pilots" / found.id
    folder.mkdir(exist_ok=True)
    write_exit(folder, PilotExit(found.id, "n1-66-abc", "n1", "101", 0, Why.TERMINATED, "SIGTERM", 1.0, 2.0))
    queued.set("101", JobState.DONE)
    refresh(store, queued.profile, queued)
    assert (pilot(store).state, pilot(store).reason) == (PilotState.ENDED, "DONE (Resources)")


def test_or_by_a_second_good_answer(store: Store, queued: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    queued.jobs.clear()
    age(store, 200)
    refresh(store, queued.profile, queued)
    assert pilot(store).state is PilotState.LOST_TRACK
    monkeypatch.setattr("htxas.launch.pilots.look._GONE_S", 0.01)
    time.sleep(0.02)
    refresh(store, queued.profile, queued)
    assert pilot(store).state is PilotState.ENDED
    assert pilot(store).reason == "the scheduler no longer lists it, and it left no word"


def test_one_that_is_listed_again_is_not_lost(store: Store, queued: FakeQueue) -> None:
    jobs = dict(queued.jobs)
    queued.jobs.clear()
    refresh(store, queued.profile, queued)
    assert pilot(store).state is PilotState.QUEUED  # too young to be missed
    age(store, 200)
    refresh(store, queued.profile, queued)
    assert pilot(store).state is PilotState.LOST_TRACK
    queued.jobs.update(jobs)
    assert len(refresh(store, queued.profile, queued).pilots) == 1
    assert pilot(store).state is PilotState.QUEUED


def test_a_beating_pilot_runs_whatever_the_scheduler_forgot(store: Store, queued: FakeQueue) -> None:
    store.update_pilot(pilot(store).id, state=PilotState.RUNNING)
    store.heartbeat("n1-77-abc", {"pilot": pilot(store).id, "job_id": "101"})
    queued.jobs.clear()
    age(store, 1000)
    assert len(refresh(store, queued.profile, queued).pilots) == 1
    assert (pilot(store).state, pilot(store).owner) == (PilotState.RUNNING, "n1-77-abc")


def test_a_word_we_do_not_know_changes_nothing(store: Store, queued: FakeQueue) -> None:
    queued.set("101", JobState.UNKNOWN)
    refresh(store, queued.profile, queued)
    assert pilot(store).state is PilotState.QUEUED


def test_a_pilot_that_could_not_be_started_makes_room_for_another(store: Store, queued: FakeQueue) -> None:
    queued.set("101", JobState.HELD, reason="launch failed requeued held")
    done = submit_pilots(store, queued.profile, queued, pilots=1)
    assert list(done.submitted.values()) == ["102"]
    assert "could not be started and is cancelled" in done.notes[0]
    assert queued.jobs["101"].state is JobState.CANCELLED
    refresh(store, queued.profile, queued)
    assert [p.job_id for p in store.pilots(active=True)] == ["102"]


def test_one_that_a_person_holds_keeps_its_place(store: Store, queued: FakeQueue) -> None:
    queued.set("101", JobState.HELD, reason="JobHeldUser")
    done = submit_pilots(store, queued.profile, queued, pilots=1)
    assert done.submitted == {}
    assert "is held and keeps its place" in done.notes[0]
    assert queued.jobs["101"].state is JobState.HELD


def test_cancel_is_confirmed(store: Store, queued: FakeQueue) -> None:
    done = cancel_pilots(store, queued.profile, queued)
    assert done.gone == [pilot(store).id]
    assert (done.left, done.failed) == ({}, [])
    assert pilot(store).state is PilotState.ENDED
    assert cancel_pilots(store, queued.profile, queued, [pilot(store).id]).gone == [pilot(store).id]


def test_cancel_only_what_waits(store: Store, queued: FakeQueue) -> None:
    submit_pilots(store, queued.profile, queued, pilots=2)
    queued.set("101", JobState.RUNNING)
    done = cancel_pilots(store, queued.profile, queued, pending=True)
    assert len(done.gone) == 1
    assert queued.jobs["101"].state is JobState.RUNNING
    assert [p.state for p in store.pilots()] == [PilotState.RUNNING, PilotState.ENDED]


def test_a_job_that_will_not_die_is_told(
    store: Store, queued: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "cancel", lambda ids: dict.fromkeys(ids, Cancelled.ASKED))
    queued.set("101", JobState.COMPLETING)
    done = cancel_pilots(store, queued.profile, queued, patience_s=0.1)
    assert done.left == {pilot(store).id: "COMPLETING"}
    assert pilot(store).state is PilotState.RUNNING
    monkeypatch.setattr(queued, "cancel", lambda ids: dict.fromkeys(ids, Cancelled.FAILED))
    assert cancel_pilots(store, queued.profile, queued, patience_s=0.1).failed == [pilot(store).id]


def test_cancel_without_an_answer_or_of_others(store: Store, queued: FakeQueue) -> None:
    with pytest.raises(NotFound):
        cancel_pilots(store, queued.profile, queued, ["nope"])
    queued.out_of_order = "squeue: timeout"
    with pytest.raises(ClusterError):
        cancel_pilots(store, queued.profile, queued)


@pytest.mark.parametrize(
    ("job_id", "task"),
    [
        ("12", None),
        ("12_3", 3),
        ("12[3].head", 3),
        ("12.3", 3),
        ("12[3]", 3),
        ("12.head", None),
        ("12-3.head", 3),
    ],
)
def test_array_tasks_in_ids(job_id: str, task: int | None) -> None:
    assert array_task(job_id) == task


def test_a_thousand_pilots_are_submitted_in_seconds(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster(
        pilots={"most": 1000},
        partitions={"main": {"walltime": "1:00:00", "cores": 8, "max_array": 1000}},
    )
    work(10.0)
    began = time.monotonic()
    done = submit_pilots(store, queue.profile, queue, pilots=1000)
    assert len(done.submitted) == 1000
    assert time.monotonic() - began < 20


def die_at_once(queue: FakeQueue) -> None:
    for job_id, job in queue.jobs.items():
        if not job.state.ended:
            queue.set(job_id, JobState.FAILED, reason="NonZeroExitCode")


def earlier(store: Store, seconds: float) -> None:
    """Move all that happened to pilots into the past."""
    for found in store.pilots():
        times = {k: t for k in ("submitted", "started", "ended") if (t := getattr(found, k)) is not None}
        store.update_pilot(found.id, **{k: t - timedelta(seconds=seconds) for k, t in times.items()})


def test_pilots_that_die_at_once_are_tried_one_by_one_and_ever_later(
    store: Store, cluster: Make, work: Any
) -> None:
    queue = cluster()
    work(1000.0, sizes=(1, 2, 3, 4, 5))

    def go(**how: Any) -> Any:
        return submit_pilots(store, queue.profile, queue, adaptive=True, **how)

    assert len(go().submitted) == 3
    for pause_s in (60, 120, 240):
        die_at_once(queue)
        told = go()
        assert told.submitted == {}
        assert "ended without having worked, the latest with 'FAILED (NonZeroExitCode)'" in told.notes[-1]
        assert "htxas queue check --cluster here" in told.notes[-1]
        assert go().notes == told.notes  # nothing in it that changes, so that --watch says it once
        earlier(store, pause_s - 10)
        assert go().submitted == {}
        earlier(store, 15)
        assert len(go().submitted) == 1
        assert "no others before" in go().notes[-1]
        assert go().submitted == {}
    earlier(store, 1000)
    (probe,) = store.pilots(active=True)
    assert probe.job_id is not None
    began = time.time() - 400
    queue.set(probe.job_id, JobState.RUNNING, start=began, end=began + 3600)
    store.update_pilot(probe.id, owner="n1-77-abc")
    assert len(go().submitted) > 1  # it works again


def test_a_person_who_asks_once_need_not_wait(store: Store, queued: FakeQueue) -> None:
    die_at_once(queued)
    assert submit_pilots(store, queued.profile, queued, pilots=3).submitted == {}
    assert len(submit_pilots(store, queued.profile, queued, pilots=3, patient=False).submitted) == 1
    assert submit_pilots(store, queued.profile, queued, pilots=3, patient=False).submitted == {}


def test_refusals_are_slowed_down(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster()
    work(10.0)
    queue.refuses = "sbatch: error: invalid account"
    assert submit_pilots(store, queue.profile, queue, pilots=3).problems
    again = submit_pilots(store, queue.profile, queue, pilots=3)
    assert (again.problems, len(store.pilots())) == ([], 3)
    assert "invalid account" in again.notes[-1]


def test_jobs_that_cannot_be_started_are_slowed_down(store: Store, queued: FakeQueue) -> None:
    """Taken out of the queue by us: the scheduler says cancelled then, but nobody wished it."""
    queued.set("101", JobState.HELD, reason="launch failed requeued held")
    assert list(submit_pilots(store, queued.profile, queued, pilots=1).submitted.values()) == ["102"]
    queued.set("102", JobState.HELD, reason="launch failed requeued held")
    assert submit_pilots(store, queued.profile, queued, pilots=1).submitted == {}
    refresh(store, queued.profile, queued)
    assert {p.reason for p in store.pilots()} == {"could not be started: launch failed requeued held"}


def test_the_last_pilots_are_few_and_newest_first(store: Store, queued: FakeQueue) -> None:
    submit_pilots(store, queued.profile, queued, pilots=4)
    for k, found in enumerate(store.pilots()[:3]):
        ended = datetime.now(UTC) - timedelta(seconds=k)
        store.update_pilot(found.id, state=PilotState.ENDED, ended=ended)
    ids = [p.id for p in store.pilots()]
    assert [p.id for p in store.last_pilots("here", 2)] == ids[:2]
    assert [p.id for p in store.last_pilots("here", 9)] == ids[:3]
    assert store.last_pilots("there", 9) == []
    assert [p.id for p in store.pilots("here", state=PilotState.QUEUED)] == ids[3:]


def test_pbs_is_asked_about_our_jobs_only(store: Store, cluster: Make, work: Any) -> None:
    queue = cluster(scheduler="pbs")
    work(10.0)
    submit_pilots(store, queue.profile, queue, pilots=2)
    refresh(store, queue.profile, queue)
    assert queue.asked == [["101_1", "101_2"]]
    store.update_pilot(store.pilots()[0].id, job_id=None)  # to be found by its name
    refresh(store, queue.profile, queue)
    assert queue.asked[1:] == [None]
    assert [p.job_id for p in store.pilots()] == ["101_1", "101_2"]


def test_slurm_is_asked_about_all(store: Store, queued: FakeQueue) -> None:
    refresh(store, queued.profile, queued)
    assert queued.asked == [None]


def test_a_cancelled_pilot_slows_nobody(store: Store, queued: FakeQueue) -> None:
    cancel_pilots(store, queued.profile, queued)
    assert len(submit_pilots(store, queued.profile, queued, pilots=2).submitted) == 2


def test_the_word_of_a_pilot_that_never_reached_the_database(
    store: Store, queued: FakeQueue, home: Path
) -> None:
    found = pilot(store)
    folder = home / "pilots" / found.id
    folder.mkdir(exist_ok=True)
    why = "no database at db:27017"
    write_exit(folder, PilotExit(found.id, "n1-7-a", "n1", "101", 0, Why.UNFIT, why, 1.0, time.time()))
    queued.set("101", JobState.FAILED)
    told = submit_pilots(store, queued.profile, queued, pilots=1)
    assert pilot(store).reason == f"unfit: {why}"
    assert why in told.notes[-1]
