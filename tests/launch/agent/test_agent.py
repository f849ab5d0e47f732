"""What an agent does with batches: causes, ladders, leases, clocks, stops."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.domain.calculation import Kind, State
from htxas.engines.base import read_job
from htxas.errors import Cause
from htxas.launch.agent import agent as agent_module
from htxas.launch.agent import clerk as clerk_module
from htxas.launch.agent import source as source_module
from htxas.launch.agent.agent import Agent, AgentConfig, AgentReport, AgentSummary
from htxas.launch.agent.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.agent.maker import Ground, shown_s
from htxas.launch.agent.source import Source
from htxas.launch.retry import retry
from htxas.launch.run import RunSummary
from htxas.launch.work.engine_run import EngineRun, Engines
from htxas.launch.work.stop import Stop
from htxas.store.outcomes import failed
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Go = Callable[..., AgentSummary]
Submit = Callable[..., Any]

WAYS = {
    "unconverged": (State.QUARANTINED, Cause.SCF_UNCONVERGED),
    "hole_left": (State.QUARANTINED, Cause.HOLE_LEFT_SITE),
    "nan": (State.QUARANTINED, Cause.GATE_REJECTED),
    "crash": (State.FAILED, Cause.ENGINE_CRASH),
    "hang": (State.FAILED, Cause.WALLTIME),
    "bad_output": (State.FAILED, Cause.BAD_OUTPUT),
    "truncated": (State.FAILED, Cause.BAD_OUTPUT),
    "disk_full": (State.FAILED, Cause.DISK_FULL),
    "oom": (State.FAILED, Cause.OUT_OF_MEMORY),
}


@pytest.fixture
def go(store: Store, launchpad: LaunchPad, home: Path) -> Go:
    """Run an agent to its end."""

    def run(
        workers: int = 1,
        stop: Stop | None = None,
        on_report: Callable[[AgentReport], None] | None = None,
        **config: Any,
    ) -> AgentSummary:
        owner = config.pop("owner", None) or new_owner()
        folder = worker_folder(owner)
        with hold_alive(owner) as facts:
            source = Source(
                store, launchpad, owner, folder, config.get("campaign"), workers, config.get("engines")
            )
            agent = Agent(AgentConfig(owner, folder, workers=workers, **config), source)
            return agent.run(stop or Stop(), on_report, facts)

    return run


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "_REPORT_S", 0.05)
    monkeypatch.setattr(agent_module, "_TICK_S", 0.05)
    monkeypatch.setattr(source_module, "_CONTROLS_S", 0.1)
    monkeypatch.setattr(clerk_module, "_IDLE_S", 0.1)
    monkeypatch.setattr("htxas.launch.agent.room._LOOK_S", 0.05)
    monkeypatch.setattr(agent_module, "_LOOK_S", 0.2)


def sites(store: Store) -> Mapping[int, Any]:
    return {r.atom: r for r in store.find(kind=Kind.SITE)}


def ground(store: Store) -> Any:
    return next(store.find(kind=Kind.GROUND))


def holders(store: Store) -> Mapping[str, int]:
    """Return how many leases each owner has."""
    return Counter(d["worker"] for d in store._db["calculations"].find({"state": "running"}))


def at_rest(store: Store, tally: Callable[[], dict[str, int]]) -> bool:
    return not holders(store) and not {"RUNNING", "RESERVED"} & tally().keys() and store.workers() == []


def test_each_way_to_fail_has_its_cause_and_stops_nothing_else(
    store: Store, go: Go, submitted: Submit, tally: Callable[[], dict[str, int]]
) -> None:
    n = len(WAYS) + 1
    fail = {f"C{n}F:{atom}": mode for atom, mode in enumerate(WAYS)}
    submitted(sizes=(n,), fail=fail, batch={"walltime_s": 0.6, "at_least": 1})
    did = go(workers=2)
    assert did.problems == []
    found = sites(store)
    assert {a: (found[a].state, found[a].cause) for a in range(len(WAYS))} == dict(enumerate(WAYS.values()))
    assert found[n - 1].state is State.DONE
    crash = found[list(WAYS).index("crash")]
    assert crash.evidence["signal"] == "SIGKILL"
    assert crash.attempts > 1  # the ladder's
    assert [e["attempt"] for e in crash.history] == list(range(1, crash.attempts + 1))
    assert any("not physics" in line for line in crash.evidence["log"])
    full = found[list(WAYS).index("disk_full")]
    assert full.attempts == 10  # never blamed for it, but not for ever
    assert tally() == {"COMPLETED": 1}
    assert at_rest(store, tally)


def test_a_failure_with_a_cure_is_corrected_and_told(store: Store, go: Go, submitted: Submit) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "crash"}, fail_attempts=1, batch={"at_least": 1})
    go()
    cured = sites(store)[0]
    assert (cured.state, cured.attempts) == (State.DONE, 2)
    assert [e["cause"] for e in cured.history] == ["engine_crash", None]
    assert cured.history[-1]["corrections"] == ["again_after_crash"]


def test_a_task_of_two_places_gets_them(store: Store, go: Go, submitted: Submit) -> None:
    submitted(sizes=(4,), fail={"C4F:0": "oom"}, fail_attempts=1, seconds=0.05, batch={"at_least": 1})
    go(workers=2)
    cured = sites(store)[0]
    assert cured.state is State.DONE
    assert cured.ladder is not None
    assert cured.ladder["memory_factor"] == 2.0


def test_an_engine_that_needs_several_places_gets_them_and_provenance_tells(
    store: Store, go: Go, submitted: Submit
) -> None:
    submitted(sizes=(4,), seconds=0.3, batch={"at_least": 1}, fail={"C4F:0": "oom"}, fail_attempts=1)
    run = EngineRun(threads=2, environment={"NOTE": "private"}, slots=2, memory_MB=3000.0)
    at_once: list[int] = []
    go(
        on_report=lambda said: at_once.append(said.running),
        workers=4,
        engines=Engines({"fake": run}, EngineRun(), "mine"),
        cores=(0, 1),
    )
    assert store.counts()[State.DONE] == 5
    assert max(at_once) == 2  # of four workers
    done = [r for r in store.find() if r.provenance is not None]
    told = {"threads": 2, "environment": ["NOTE"], "memory_MB": 3000.0, "cluster": "mine"}
    assert [r.provenance["extra"]["run"] for r in done if r.provenance] == [told] * 5
    assert {read_job(Path(r.directory or "")).memory_MB for r in done} == {3000.0, 6000.0}


def test_without_a_section_an_engine_gets_the_threads_of_a_worker(
    store: Store, go: Go, submitted: Submit
) -> None:
    submitted(sizes=(1,))
    go(engines=Engines(otherwise=EngineRun(threads=4)))
    assert {r.provenance["extra"]["run"]["threads"] for r in store.find() if r.provenance} == {4}


def test_a_failed_ground_state_fails_its_sites_by_name_and_retry_brings_all_back(
    store: Store, launchpad: LaunchPad, go: Go, submitted: Submit
) -> None:
    submitted(sizes=(2,), fail={"C2F:ground": "nan"}, fail_attempts=1, batch={"at_least": 1})
    go()
    first = ground(store)
    assert (first.state, first.cause) == (State.QUARANTINED, Cause.GATE_REJECTED)
    for site in store.find(kind=Kind.SITE):
        assert site.cause is Cause.GROUND_FAILED
        assert first.key[:12] in (site.message or "")
        assert site.evidence == {"ground": first.key, "ground_cause": "gate_rejected"}
    assert retry(store, launchpad, "chains", Cause.GATE_REJECTED).calculations == 3
    go()
    assert store.counts()[State.DONE] == 3
    assert [r.attempts for r in store.find(kind=Kind.GROUND)] == [2]


def test_a_second_pass_computes_nothing(
    store: Store, launchpad: LaunchPad, go: Go, submitted: Submit, tally: Callable[[], dict[str, int]]
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    go()
    launchpad.rerun_fw(1)
    assert tally() == {"READY": 1}
    did = go()
    assert did.ended == {}
    assert tally() == {"COMPLETED": 1}
    assert {r.attempts for r in store.find()} == {1}


def test_molecules_are_added_up_when_complete(store: Store, go: Go, submitted: Submit) -> None:
    submitted(sizes=(1, 2), fail={"C2F:0": "nan"})
    go()
    assert store._db["molecular_spectra"].count_documents({}) == 1


def test_an_engine_that_always_crashes_does_not_burn_the_campaign(
    store: Store, go: Go, submitted: Submit, tally: Callable[[], dict[str, int]]
) -> None:
    submitted(sizes=(30,), fail={f"C30F:{i}": "crash" for i in range(30)}, batch={"at_least": 1})
    did = go()
    assert "10 calculations in a row crashed the engine" in did.problems[0]
    counts = store.counts()
    assert counts[State.FAILED] <= 5
    assert counts[State.READY] >= 20
    assert tally() == {"READY": 1}
    assert at_rest(store, tally)


def test_a_site_waits_for_a_ground_state_in_other_hands(store: Store, go: Go, submitted: Submit) -> None:
    submitted(sizes=(1,), batch={"at_least": 1})
    (lent,) = store.lease_many([ground(store).key], "another")
    told: list[float] = []

    def give_up() -> None:
        told.append(time.monotonic())
        store.release([lent.lease])

    timer = threading.Timer(1.0, give_up)
    timer.start()
    go()
    timer.join()
    assert time.monotonic() > told[0]
    assert store.counts()[State.DONE] == 2
    assert ground(store).attempts == 2


def test_a_batch_that_others_compute_waits_in_the_queue(
    store: Store,
    go: Go,
    submitted: Submit,
    tally: Callable[[], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clerk_module, "_ELSEWHERE_S", 0.3)
    submitted(sizes=(1,), batch={"at_least": 1})
    store.lease_many([r.key for r in store.find()], "another")
    did = go()
    assert did.ended == {}
    assert tally() == {"READY": 1}
    assert holders(store) == {"another": 2}


def test_what_comes_after_the_lease_was_lost_is_refused(store: Store, go: Go, submitted: Submit) -> None:
    submitted(sizes=(1,), seconds=0.6, batch={"at_least": 1})
    stop = Stop()

    def rob(report: AgentReport) -> None:
        record = ground(store)
        if record.worker != "another" and record.state is State.RUNNING and report.running:
            store.release_owner(str(record.worker))
            assert store.lease_many([record.key], "another")
        elif record.worker == "another" and not report.running:
            stop.after_this = True  # its engine came to an end, and its answer was delivered

    did = go(on_report=rob, stop=stop)
    assert did.ended["done"] >= 1  # the site may follow: it is ours, and its ground state lies there
    record = ground(store)
    assert (record.worker, record.state, record.attempts) == ("another", State.RUNNING, 2)
    assert record.history == ()


def test_one_refusal_is_reason_to_ask_after_all_leases(
    store: Store, go: Go, submitted: Submit, home: Path
) -> None:
    submitted(sizes=(8,), seconds=0.4, batch={"at_least": 1})
    stop, robbed = Stop(), []

    def rob(report: AgentReport) -> None:
        if not robbed and report.running:
            keys = [r.key for r in store.find()]
            assert store.release_owner(str(ground(store).worker)) == len(keys)
            robbed.extend(store.lease_many(keys, "another"))
        elif robbed and not report.running:
            stop.after_this = True

    go(on_report=rob, stop=stop)
    assert len(robbed) == 9
    begun = list((home / "runs").glob("??/*/1"))
    assert (
        len(begun) <= 3
    )  # what was running, and what began before the answer; the next heartbeat is 10 s away


def test_who_was_declared_dead_takes_nothing_before_it_is_known_again(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.heart.BEAT_S", 0.2)
    submitted(sizes=(2,), batch={"at_least": 1})
    lease, taken = Store.lease_many, []

    def settled_meanwhile(self: Store, keys: Any, owner: str, *rest: Any, **kinds: Any) -> Any:
        leased = lease(self, keys, owner, *rest, **kinds)
        if not taken:
            taken.extend(one.lease.key for one in leased)
            store.forget_worker(owner)
        return leased

    monkeypatch.setattr(Store, "lease_many", settled_meanwhile)
    did = go()
    assert did.ended["done"] == 3
    assert taken
    assert {store.calculation(k).attempts for k in taken} == {2}
    assert all(store.calculation(k).history[0]["attempt"] == 2 for k in taken)


def test_a_lease_that_is_gone_stops_the_engine(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.heart.BEAT_S", 0.2)
    submitted(sizes=(1,), seconds=30.0, batch={"at_least": 1})
    stop, robbed = Stop(), []

    def rob(report: AgentReport) -> None:
        record = ground(store)
        if not robbed and record.state is State.RUNNING:
            store.release_owner(str(record.worker))
            robbed.append(store.lease_many([record.key], "another"))
        if robbed and report.running == 0:
            stop.after_this = True

    start = time.monotonic()
    go(on_report=rob, stop=stop)
    assert robbed
    assert time.monotonic() - start < 10
    assert ground(store).worker == "another"


@pytest.mark.parametrize("state", ["paused", "cancelled"])
def test_controls_are_heeded_in_the_middle(
    state: str, store: Store, go: Go, submitted: Submit, tally: Callable[[], dict[str, int]]
) -> None:
    submitted(sizes=(3,), seconds=0.8, batch={"at_least": 1})

    def change(report: AgentReport) -> None:
        if store.counts()[State.RUNNING] == 4 and report.running:
            store.set_control("chains", state=state)

    did = go(on_report=change)
    counts = store.counts()
    assert did.problems == []
    assert counts[State.DONE] == (1 if state == "paused" else 0)  # what runs may end, or is stopped
    assert counts[State.READY] == 4 - counts[State.DONE]
    assert tally() == {"READY": 1}
    assert sum(r.attempts for r in store.find(state=State.READY)) <= 4
    assert go().ended == {}
    store.set_control("chains", state="active")
    go()
    assert store.counts()[State.DONE] == 4


def test_a_budget_that_is_used_up_stops_the_campaign(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.heart.BEAT_S", 0.1)
    submitted(sizes=(9,), seconds=0.3, batch={"at_least": 1})
    store.set_control("chains", budget_node_h=0.6 / 3600)
    did = go()
    spent_s = 3600 * store.spent()["chains"]
    assert 0 < store.counts()[State.DONE] < 10
    assert 0.6 <= spent_s < 2.5
    assert did.engine_s <= did.allocated_s


def test_only_what_fits_is_started_and_the_rest_goes_back(
    store: Store, go: Go, submitted: Submit, tally: Callable[[], dict[str, int]]
) -> None:
    submitted(sizes=(4,), seconds=1.0, batch={"at_least": 1})
    start = time.time()
    did = go(end=start + 3.4, margin_s=0.4)
    assert time.time() < start + 3.4
    assert did.problems == []
    counts = store.counts()
    assert 0 < counts[State.DONE] <= 3
    assert counts[State.READY] == 5 - counts[State.DONE]
    assert all(r.interrupted == {} for r in store.find())
    assert tally() == {"READY": 1}
    assert at_rest(store, tally)


def test_nothing_is_checked_out_that_cannot_fit(
    store: Store, go: Go, submitted: Submit, launchpad: LaunchPad
) -> None:
    submitted(sizes=(1,), seconds=50.0, batch={"at_least": 1})
    start = time.monotonic()
    assert go(end=time.time() + 20).ended == {}
    assert time.monotonic() - start < 3
    assert launchpad.launches.count_documents({}) == 0
    old = {"$unset": {"spec.htxas.shortest_s": True, "spec.htxas.longest_s": True}}
    launchpad.fireworks.update_many({}, old)
    assert go(end=time.time() + 20).ended == {}  # an older htxas did not say: it is looked at and given back
    assert launchpad.launches.count_documents({}) == 1
    assert store.counts()[State.READY] == 2


def test_what_a_firework_says_of_its_length_is_brought_up_to_date(
    store: Store, go: Go, submitted: Submit, launchpad: LaunchPad
) -> None:
    submitted(sizes=(1,), seconds=0.01, batch={"at_least": 1})
    submitted("long", sizes=(2,), seconds=5000.0, batch={"at_least": 1})
    wrong = {"spec.htxas.shortest_s": 1e6}
    launchpad.fireworks.update_many({"spec.htxas.campaign": "chains"}, {"$set": wrong})
    did = go(end=time.time() + 20)
    assert did.ended == {"done": 2}
    assert did.unfit is not None
    assert did.unfit.count == 3
    assert did.unfit.longest_s > 5000 / 3
    assert re.fullmatch(
        r"3 calculations need up to \d+\.\d h, reserve included; this allocation has 0.0 h: "
        "a longer partition is needed",
        str(did.unfit),
    )
    assert store.counts()[State.READY] == 3


def test_what_runs_over_the_end_is_stopped_and_expected_to_last_longer(
    store: Store, launchpad: LaunchPad, go: Go, submitted: Submit
) -> None:
    submitted(sizes=(1,), seconds=30.0, batch={"at_least": 1})
    launchpad.fireworks.update_many({}, {"$set": {"spec.htxas.shortest_s": 0.1}})
    store._db["calculations"].update_many({}, {"$set": {"estimate_s": 0.1}})
    start = time.time()
    stop = Stop(deadline=start + 2.0)
    from htxas.launch.estimates import Estimate, Estimator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Estimator, "estimate", lambda *args, **kwargs: Estimate(0.1, 1.0, 9))
        go(stop=stop)
    assert time.time() - start < 5
    record = ground(store)
    assert (record.state, record.interrupted) == (State.READY, {"walltime": 1})
    assert shown_s(record) >= 2.0
    assert record.history[-1]["cause"] == "walltime"
    assert Path(record.history[-1]["directory"]).is_dir()


def test_a_stop_finishes_what_is_in_hand(
    store: Store, go: Go, submitted: Submit, tally: Callable[[], dict[str, int]]
) -> None:
    submitted(sizes=(5,), seconds=0.4, batch={"at_least": 1})
    stop = Stop()

    def ask(report: AgentReport) -> None:
        stop.after_this = stop.after_this or report.running > 0

    go(stop=stop, on_report=ask)
    counts = store.counts()
    assert (counts[State.DONE], counts[State.READY]) == (1, 5)
    assert tally() == {"READY": 1}


def test_no_room_on_the_disk_stops_leasing_and_blames_nobody(
    store: Store, go: Go, submitted: Submit, tally: Callable[[], dict[str, int]]
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})

    class Full:
        def room(self) -> Any:
            from htxas.launch.disk.usage import Room

            return Room(False, "the run folders take 5.0 of 5.0 GB", 1.0)

    did = go(quota=Full(), full_patience_s=0.2)
    assert "no room on the disk: the run folders take 5.0 of 5.0 GB" in did.problems[0]
    assert did.ended == {}
    assert store.counts()[State.READY] == 3
    assert at_rest(store, tally)


def test_a_worker_killed_costs_only_what_it_had_in_hand(store: Store, go: Go, submitted: Submit) -> None:
    submitted(sizes=(7,), seconds=0.15, batch={"at_least": 1})
    killed: list[int] = []

    def kill(report: AgentReport) -> None:
        if not killed and report.running and store.counts()[State.DONE] >= 2:
            killed.extend(children())
            with suppress(ProcessLookupError):
                os.kill(killed[0], signal.SIGKILL)

    did = go(on_report=kill)
    assert did.respawned == 1
    assert store.counts()[State.DONE] == 8
    assert sum(r.attempts for r in store.find()) == 9
    (hit,) = [r for r in store.find() if r.attempts == 2]
    assert hit.history[0]["cause"] == "lost"
    assert hit.interrupted == {"lost": 1}


def children() -> list[int]:
    """Return the process ids of this process's workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = path.read_text().rsplit(")", 1)[1].split()
            if (
                int(words[1]) == os.getpid()
                and b"htxas.launch.work.worker" in (path.parent / "cmdline").read_bytes()
            ):
                found.append(int(path.parent.name))
    return found


def test_a_calculation_that_kills_its_workers_does_not_stop_the_others(
    store: Store,
    compute_all: Callable[..., RunSummary],
    submitted: Submit,
    tally: Callable[[], dict[str, int]],
) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "kill_worker"}, batch={"at_least": 1})
    summary = compute_all()
    assert summary.progress["counts"]["done"] == 2
    assert summary.progress["causes"] == {"lost": 1}
    assert (summary.respawned, summary.problems) == (3, [])
    lost = next(store.find(state=State.FAILED))
    assert lost.attempts == 3
    assert "worker" in (lost.message or "")
    assert tally() == {"COMPLETED": 1}
    assert store.retry("chains", cause=Cause.LOST)
    assert store.calculation(lost.key).lost == 0


def test_a_worker_killed_for_memory_is_out_of_memory(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [0]

    def kills() -> int:
        count[0] += 1
        return count[0]

    monkeypatch.setattr("htxas.launch.agent.crew.memory_kills", kills)
    submitted(sizes=(1,), fail={"C1F:0": "kill_worker", "CF:0": "kill_worker"}, batch={"at_least": 1})
    go(workers=4)
    site = sites(store)[0]
    assert (site.state, site.cause) == (State.FAILED, Cause.OUT_OF_MEMORY)
    assert [e["cause"] for e in site.history] == ["out_of_memory"] * 3
    assert site.history[-1]["corrections"] == ["more_memory", "still_more_memory"]


def test_workers_that_only_die_are_not_replaced_for_ever(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1,))
    monkeypatch.setattr("htxas.launch.agent.floor._DEATHS_IN_A_ROW", 1)
    monkeypatch.setenv("PYTHONHOME", "/")  # Python itself cannot start like that
    did = go()
    assert did.respawned == 2
    assert "workers keep ending with errors" in did.problems[0]
    assert store.counts()[State.READY] == 2


def test_workers_stay_on_their_cores(store: Store, go: Go, submitted: Submit) -> None:
    cores = tuple(sorted(os.sched_getaffinity(0)))[:2]
    if len(cores) < 2:
        pytest.skip("needs two cores")
    submitted(sizes=(4,), seconds=0.3, batch={"at_least": 1})
    seen: set[frozenset[int]] = set()

    def look(report: AgentReport) -> None:
        if report.running == 2:
            with suppress(ProcessLookupError):
                seen.update(frozenset(os.sched_getaffinity(pid)) for pid in children())

    go(workers=2, cores=cores, on_report=look)
    assert {frozenset([cores[0]]), frozenset([cores[1]])} <= seen


def test_the_heartbeat_tells_what_others_need(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.heart.BEAT_S", 0.1)
    submitted(sizes=(2,), seconds=0.5, batch={"at_least": 1})
    seen: list[dict[str, Any]] = []
    go(
        on_report=lambda report: seen.extend(w["info"] for w in store.workers()),
        cluster="big",
        pilot="p1",
        job_id="77",
        restart=2,
    )
    last = seen[-1]
    assert (last["cluster"], last["pilot"], last["job_id"], last["restart"]) == ("big", "p1", "77", 2)
    assert last["workers"] == 1
    assert any(info["in_hand"] for info in seen)
    assert {
        "host",
        "pid",
        "lock",
        "folder",
        "held",
        "end",
        "engine_s",
        "allocated_s",
        "started",
    } <= last.keys()
    assert store.workers() == []


def test_a_frozen_worker_is_killed_and_replaced(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.floor._OVERDUE_S", 0.2)
    submitted(sizes=(3,), seconds=0.6, batch={"at_least": 1, "walltime_s": 1.5})
    frozen: list[int] = []

    def freeze(report: AgentReport) -> None:
        if not frozen and report.running and store.counts()[State.DONE] >= 1:
            frozen.extend(children())
            os.kill(frozen[0], signal.SIGSTOP)

    did = go(on_report=freeze)
    assert did.respawned == 1
    assert store.counts()[State.DONE] == 4
    assert [r.history[0]["cause"] for r in store.find() if r.attempts > 1] == ["lost"]


def test_a_frozen_worker_does_not_hold_up_the_end(
    store: Store, go: Go, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.floor._ANSWER_S", 0.5)
    submitted(sizes=(2,), seconds=60.0, batch={"at_least": 1})
    stop = Stop()

    def freeze(report: AgentReport) -> None:
        if not stop.now and report.running and any(children()):
            os.kill(next(iter(children())), signal.SIGSTOP)
            stop.now = True

    start = time.monotonic()
    go(stop=stop, on_report=freeze)
    assert time.monotonic() - start < 30
    assert not holders(store)


def test_a_ground_state_that_is_tried_again_is_not_remembered_as_failed(
    store: Store, launchpad: LaunchPad, home: Path, submitted: Submit
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    owner = new_owner()
    store.heartbeat(owner, {})
    source = Source(store, launchpad, owner, worker_folder(owner), None, 1)
    first = source.checkout(math.inf)
    assert first is not None
    lent = source.lease(first, first.open, exact=False)
    task = next(t for t in lent.tasks if t.kind is Kind.GROUND)
    sites = [t for t in lent.tasks if t is not task]
    store.deliver([failed(task.lease, Cause.ENGINE_CRASH, "crashed", {})])
    source.maker.note(Ground(task.key, State.FAILED, None, "engine_crash", "crashed"))
    store.deliver([failed(s.lease, Cause.GROUND_FAILED, "crashed", {"ground": task.key}) for s in sites])
    source.complete([first])
    retry(store, launchpad, "chains", Cause.ENGINE_CRASH)
    again = source.checkout(math.inf)
    assert again is not None
    lent = source.lease(again, [s.key for s in sites], exact=False)  # without their ground state
    assert not lent.failed
    assert {t.key for t in lent.tasks} == {t.key for t in sites} | {task.key}


def test_what_waits_for_others_goes_back_to_the_queue_in_the_end(
    store: Store,
    go: Go,
    submitted: Submit,
    tally: Callable[[], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_module, "_WAIT_S", 0.3)
    submitted(sizes=(2,), batch={"at_least": 1})
    store.lease_many([ground(store).key], "another")
    start = time.monotonic()
    assert go().ended == {}
    assert time.monotonic() - start < 5
    assert holders(store) == {"another": 1}
    assert tally() == {"READY": 1}
