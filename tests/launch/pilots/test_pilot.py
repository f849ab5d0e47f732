"""Pilots as processes of their own, started by the scheduler that is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.cluster.load import load_config
from htxas.cluster.queue import Queue, open_queue
from htxas.domain.calculation import State
from htxas.errors import DatabaseUnavailable
from htxas.launch.agent.config import AgentSummary
from htxas.launch.agent.delivery import deliver_journals
from htxas.launch.bundles.site import bundle_maker, collect_all
from htxas.launch.pilots import pilot as module
from htxas.launch.pilots.cancel import cancel_pilots
from htxas.launch.pilots.exit import PilotExit, Why, read_exit
from htxas.launch.pilots.look import describe, refresh
from htxas.launch.pilots.submit import submit_pilots
from htxas.launch.watching.watch import look
from htxas.launch.work.stop import Stop
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Make = Callable[..., Queue]
Tally = Callable[[], dict[str, int]]


@pytest.fixture
def local(home: Path, tmp_path: Path, mongod_uri: str) -> Make:
    """Return the queue of a cluster without a scheduler."""

    def make(walltime: str = "0:10:00", database: Any = None, **pilots: Any) -> Queue:
        uri_file = tmp_path / "uri"
        uri_file.touch(0o600)
        uri_file.write_text(mongod_uri)
        cluster = {
            "scheduler": "local",
            "home": str(home),
            "database": database or {"uri_file": str(uri_file)},
            "partitions": {"here": {"walltime": walltime, "cores": 2}},
            "pilots": {
                "workers": 2,
                "memory_per_worker_GB": 0.1,
                "margin_s": 2,
                "signal_s": 2,
                "idle_s": 0,
                **pilots,
            },
        }
        path = tmp_path / "htxas.yaml"
        path.write_text(json.dumps({"clusters": {"here": cluster}}))
        return open_queue(load_config(path).cluster("here"))

    return make


def wait_for(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def over(store: Store, queue: Queue) -> bool:
    return not refresh(store, queue.profile, queue).pilots


def exits(home: Path) -> list[PilotExit]:
    found = [read_exit(path.read_text()) for path in sorted(home.glob("pilots/*/*.exit.json"))]
    assert all(found)
    return [e for e in found if e is not None]


def pilot(store: Store) -> PilotRecord:
    (found,) = store.pilots()
    return found


def test_a_pilot_does_it_all_and_says_so(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally, local: Make, home: Path
) -> None:
    submitted(sizes=(1, 2, 3))
    queue = local()
    done = submit_pilots(store, queue.profile, queue, adaptive=True)
    assert len(done.submitted) == 1
    wait_for(lambda: over(store, queue))
    assert store.counts()[State.DONE] == 9
    assert set(tally()) == {"COMPLETED"}
    assert store.workers() == []
    (told,) = exits(home)
    assert (told.why, told.counts, told.restart) == (Why.IDLE, {"done": 9}, 0)
    assert told.engine_s <= told.allocated_s
    record = pilot(store)
    assert record.state is PilotState.ENDED
    assert record.reason == "idle: no work for 0 s"
    assert (record.job_id, record.owner) == (told.job_id, told.owner)
    assert record.end_time is not None
    assert record.allocated_s == pytest.approx(told.allocated_s)
    assert describe(store, [record])[0]["utilisation"] is not None
    assert store.spent()["chains"] > 0


def test_cancelled_it_gives_back_and_goes_at_once(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally, local: Make, home: Path
) -> None:
    submitted(sizes=(1, 2, 3), seconds=30.0)
    queue = local()
    submit_pilots(store, queue.profile, queue, pilots=1)
    wait_for(lambda: store.counts()[State.RUNNING] > 0)
    refresh(store, queue.profile, queue)
    (row,) = describe(store, store.pilots())
    wait_for(lambda: describe(store, store.pilots())[0]["alive"] is True)
    assert row["state"] == "running"
    began = time.monotonic()
    done = cancel_pilots(store, queue.profile, queue)
    assert len(done.gone) == 1
    assert time.monotonic() - began < 8
    assert store.counts()[State.READY] == 9
    assert set(tally()) <= {"READY", "WAITING"}
    assert store.workers() == []
    assert not any(r.interrupted for r in store.find())
    (told,) = exits(home)
    assert told.why is Why.TERMINATED
    assert pilot(store).reason == "cancelled"


def test_the_end_of_time_starts_nothing_that_does_not_fit(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], local: Make, home: Path
) -> None:
    submitted(sizes=(1, 2, 3, 4, 5), seconds=1.0)
    queue = local(walltime="0:00:07", idle_s=60)
    submit_pilots(store, queue.profile, queue, pilots=1)
    wait_for(lambda: over(store, queue))
    counts = store.counts()
    assert counts[State.RUNNING] == 0
    assert 1 <= counts[State.DONE] < 20
    assert not any(r.interrupted for r in store.find())
    assert pilot(store).state is PilotState.ENDED
    (told,) = exits(home)
    assert told.why is Why.DEADLINE
    assert (told.ended - told.started) < 7


@pytest.fixture
def start(store: Store, home: Path) -> Any:
    """Start a pilot by hand, as its script would."""
    processes = []

    def begin(*arguments: str, job: str = "77", restarts: int = 0) -> subprocess.Popen[bytes]:
        folder = home / "pilots" / "abc"
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "database": store.name,
            "engines": {},
            "most_bytes": None,
            "most_files": None,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "htxas.launch.pilots.pilot", "--pilot", "abc", "--cluster", "here"]
        command += ["--workers", "1", "--walltime-s", "600", "--margin-s", "5", *arguments]
        environment = {
            **os.environ,
            "SLURM_JOB_ID": job,
            "SLURM_CPUS_ON_NODE": "1",
            "SLURM_RESTART_COUNT": str(restarts),
            "SLURM_JOB_END_TIME": str(int(time.time()) + 3600),
        }
        log = (home / "pilots" / "abc" / "log").open("ab")
        with log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def test_preempted_it_finishes_what_is_in_hand(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Any, home: Path
) -> None:
    submitted(sizes=(1, 2, 3), seconds=1.0)
    process = start()
    wait_for(lambda: bool(list(store.find(state=State.RUNNING))))
    wait_for(lambda: bool(store.workers()) and bool(list((home / "runs").glob("??/*/1/calculation.json"))))
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 0
    counts = store.counts()
    assert counts[State.RUNNING] == 0
    assert 1 <= counts[State.DONE] <= 3
    assert not any(r.interrupted for r in store.find())
    (told,) = exits(home)
    assert told.why is Why.DEADLINE
    assert told.message.startswith("SIGUSR1")


def test_a_scheduler_that_terminates_engines_and_workers_first_makes_no_failures(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Any, home: Path
) -> None:
    submitted(sizes=(1, 2), seconds=30.0)
    process = start()
    wait_for(lambda: bool(list((home / "runs").glob("??/*/1/calculation.json"))))
    below = descendants(process.pid)
    assert len(below) >= 2
    for pid in reversed(below):  # as Slurm does it: the whole container, in any order
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert store.counts()[State.READY] == 5
    assert not any(r.interrupted or r.history for r in store.find())
    assert store.workers() == []
    (folder,) = (home / "runs" / "workers").glob("*-*")
    # Even if the agent had been killed before it gave all back.
    assert deliver_journals(store, folder).in_hand == set()


def descendants(pid: int) -> list[int]:
    """Return the processes below one, parents first."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def test_requeued_it_settles_what_its_earlier_start_left(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Any, home: Path, tally: Tally
) -> None:
    submitted(sizes=(1, 2), seconds=0.5)
    first = start()
    wait_for(lambda: bool(list((home / "runs").glob("??/*/1/calculation.json"))))
    first.kill()
    first.wait()
    (worker,) = store.workers()
    second = start("--linger-s", "0", restarts=1)
    assert second.wait(60) == 0
    assert store.counts()[State.DONE] == 5
    assert set(tally()) == {"COMPLETED"}
    charged = [r for r in store.find() if r.interrupted]
    assert len(charged) <= 1
    assert all(r.interrupted == {"node_failure": 1} for r in charged)
    assert "started job 77 again" in (home / "pilots" / "abc" / "log").read_text() or not charged
    record = pilot(store)  # put on record by the pilot itself
    assert (record.state, record.restart, record.cluster) == (PilotState.ENDED, 1, "here")
    assert worker["owner"] not in {w["owner"] for w in store.workers()}


def test_that_all_work_is_too_long_is_its_last_word(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Any, home: Path
) -> None:
    submitted(sizes=(1,), seconds=5000.0, batch={"at_least": 1})
    assert start("--linger-s", "0", "--walltime-s", "120").wait(60) == 0
    (told,) = exits(home)
    assert told.why is Why.IDLE
    assert told.message.startswith("2 calculations need up to")
    assert told.message.endswith("a longer partition is needed")
    seen = look(store)
    assert seen["unfit"] is not None
    assert seen["unfit"]["reason"] == str(told)
    store._db["calculations"].update_many({}, {"$set": {"state": State.FAILED.value}})
    assert look(store)["unfit"] is None  # nothing waits any more


def test_one_script_submitted_twice_is_two_jobs(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], start: Any, home: Path
) -> None:
    submitted(sizes=(2,), seconds=60.0, batch={"at_least": 1})
    start(job="77")
    wait_for(lambda: bool(list((home / "runs").glob("??/*/1/calculation.json"))))
    (worker,) = store.workers()
    held = len(store.held(worker["owner"]))
    assert start("--linger-s", "0", job="78").wait(60) == 0
    assert [w["owner"] for w in store.workers()] == [worker["owner"]]
    assert len(store.held(worker["owner"])) == held
    assert not any(r.interrupted for r in store.find())
    (told,) = exits(home)
    assert (told.job_id, told.restart, told.why) == ("78", 1, Why.IDLE)


def test_another_one_that_settles_is_no_reason_to_end(
    store: Store, launchpad: LaunchPad, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"pilot": "abc", "cluster": "here", "job_id": "77", "restart": 0, "host": "elsewhere"}
    store.heartbeat("elsewhere-1-abcdef", gone)
    begun = begin(home, monkeypatch)
    monkeypatch.setattr(module, "_BUSY_S", 0.1)
    with store.lock("recovery"):
        module._conclude_earlier(store, launchpad, begun)
    assert len(store.workers()) == 1
    module._conclude_earlier(store, launchpad, begun)
    assert store.workers() == []


def begin(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the second start of job 77, in this process."""
    folder = home / "pilots" / "abc"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(
        json.dumps({"database": "any", "engines": {}, "most_bytes": None, "most_files": None})
    )
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    options = module._options(["--pilot", "abc", "--cluster", "here", "--workers", "1", "--walltime-s", "60"])
    return module._begin(options, folder, module.Alarm(Stop()))


@pytest.mark.parametrize("delivered", [True, False])
def test_its_word_comes_before_the_database_is_told(
    delivered: bool, store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    class Ended:
        def __init__(self, *_: Any) -> None: ...

        def run(self, *_: Any, **__: Any) -> AgentSummary:
            return AgentSummary(delivered=delivered)

    def away(**options: Any) -> Store:
        told.append((len(exits(home)), options["patience_s"]))
        raise DatabaseUnavailable("the database does not answer")

    begun = begin(home, monkeypatch)
    with monkeypatch.context() as patch:
        patch.chdir(home)
        patch.setattr(module, "Agent", Ended)
        patch.setattr(module, "_patiently", lambda start, stack: store)
        patch.setattr(Store, "open", away)
        ending = module._online(begun)
    assert told == ([(1, 3.0)] if delivered else [])
    assert exits(home)[0].why is ending.why is Why.IDLE


def test_without_a_count_our_own_records_tell_of_restarts(home: Path) -> None:
    from htxas.launch.pilots.allocation import Probes, read_allocation
    from htxas.launch.pilots.pilot import _claim

    folder = home / "pilots" / "abc"
    folder.mkdir(parents=True)
    probes = Probes(lambda: (0,), lambda: "n1", lambda: None, lambda job_id: None)
    found = read_allocation({"PBS_JOBID": "7"}, 0.0, probes, walltime_s=None)
    assert [_claim(folder, found) for _ in range(3)] == [0, 1, 2]


def test_no_database_is_waited_for_and_told(
    store: Store, start: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "HTXAS_DB_URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200&connectTimeoutMS=200"
    )
    process = start()
    wait_for(lambda: "trying again" in (home / "pilots" / "abc" / "log").read_text())
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    (told,) = exits(home)
    assert told.why is Why.TERMINATED


def test_bundles_for_nodes_without_a_database(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally, local: Make, home: Path
) -> None:
    submitted(sizes=(1, 2, 3))
    queue = local(database="none")
    prepare = bundle_maker(store, launchpad, queue.profile, queue)
    done = submit_pilots(store, queue.profile, queue, adaptive=True, prepare=prepare)
    assert len(done.submitted) == 1
    assert pilot(store).bundle is not None
    assert store.counts()[State.RUNNING] == 9
    wait_for(lambda: over(store, queue))
    (collected,) = collect_all(store, launchpad, queue.profile, queue)
    assert (collected.stored, collected.closed) == (9, True)
    assert store.counts()[State.DONE] == 9
    assert set(tally()) == {"COMPLETED"}
    assert store.workers() == []
    assert collect_all(store, launchpad, queue.profile, queue) == []
    assert pilot(store).allocated_s > 0
    (told,) = exits(home)
    assert told.counts == {"done": 9}
    again = submit_pilots(store, queue.profile, queue, pilots=3, prepare=prepare)
    assert again.submitted == {}


def test_a_cancelled_bundle_gives_its_work_back(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally, local: Make
) -> None:
    submitted(sizes=(1, 2, 3), seconds=20.0)
    queue = local(database="none")
    prepare = bundle_maker(store, launchpad, queue.profile, queue)
    # The second finds nothing left to lease.
    done = submit_pilots(store, queue.profile, queue, pilots=2, prepare=prepare)
    assert len(done.submitted) == 1
    assert done.notes == ["nothing more is ready that fits: no further pilots"]
    collect_all(store, launchpad, queue.profile, queue)
    assert store.counts()[State.RUNNING] == 9
    cancel_pilots(store, queue.profile, queue)
    (collected,) = collect_all(store, launchpad, queue.profile, queue)
    assert (collected.released, collected.closed) == (9, True)
    assert store.counts()[State.READY] == 9
    assert not any(r.interrupted for r in store.find())
    assert set(tally()) <= {"READY", "WAITING"}
