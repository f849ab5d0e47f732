from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.domain.calculation import Kind, State
from htxas.errors import Cause
from htxas.launch.batch_runner import BatchRunner, WorkerUnfit
from htxas.launch.retry import retry
from htxas.launch.stop import BatchReturned
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

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


def test_each_way_to_fail_has_its_cause_and_stops_nothing_else(
    store: Store,
    runner: BatchRunner,
    submitted: Callable[..., Any],
    all_batches: Callable[[], list[str]],
) -> None:
    n = len(WAYS) + 1
    fail = {f"C{n}F:{atom}": mode for atom, mode in enumerate(WAYS)}
    submitted(sizes=(n,), fail=fail, batch={"walltime_s": 3.0, "at_least": 1})
    (batch,) = all_batches()
    tally = runner.run(batch)
    assert tally == {"done": 2, "failed": 6, "quarantined": 3}
    records = {r.atom: r for r in store.find(kind=Kind.SITE)}
    assert {a: (records[a].state, records[a].cause) for a in range(len(WAYS))} == dict(
        enumerate(WAYS.values())
    )
    assert records[n - 1].state is State.DONE
    crash = records[list(WAYS).index("crash")]
    assert crash.evidence["signal"] == "SIGKILL"
    assert any("not physics" in line for line in crash.evidence["log"])
    assert all(r.directory is not None and Path(r.directory).is_dir() for r in records.values())


def test_a_failed_ground_state_fails_its_sites_by_name_and_retry_brings_all_back(
    store: Store,
    launchpad: LaunchPad,
    runner: BatchRunner,
    submitted: Callable[..., Any],
    all_batches: Callable[[], list[str]],
) -> None:
    submitted(sizes=(2,), fail={"C2F:ground": "oom"}, fail_attempts=1, batch={"at_least": 1})
    (batch,) = all_batches()
    assert runner.run(batch) == {"failed": 3}
    ground = next(store.find(kind=Kind.GROUND))
    assert ground.cause is Cause.OUT_OF_MEMORY
    for site in store.find(kind=Kind.SITE):
        assert site.cause is Cause.GROUND_FAILED
        assert ground.key[:12] in (site.message or "")
        assert site.evidence == {"ground": ground.key, "ground_cause": "out_of_memory"}
    done = retry(store, launchpad, "chains", Cause.OUT_OF_MEMORY)
    assert done.calculations == 3
    assert runner.run(batch) == {"done": 3}
    assert [r.attempts for r in store.find(kind=Kind.GROUND)] == [2]


def test_a_second_pass_computes_nothing(
    runner: BatchRunner, submitted: Callable[..., Any], all_batches: Callable[[], list[str]]
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    (batch,) = all_batches()
    assert runner.run(batch) == {"done": 3}
    assert runner.run(batch) == {"skipped": 3}


def test_molecules_are_added_up_when_complete(
    store: Store, runner: BatchRunner, submitted: Callable[..., Any], all_batches: Callable[[], list[str]]
) -> None:
    submitted(sizes=(1, 2), fail={"C2F:0": "nan"}, batch={"at_least": 1})
    for batch in all_batches():
        runner.run(batch)
    assert [s.name for s in store.molecular_spectra("chains")] == ["c1"]


def test_stop_returns_the_rest(
    store: Store, runner: BatchRunner, submitted: Callable[..., Any], all_batches: Callable[[], list[str]]
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    runner.stop.after_this = True
    (batch,) = all_batches()
    with pytest.raises(BatchReturned):
        runner.run(batch)
    assert store.counts()[State.READY] == 3


def test_an_engine_that_always_crashes_does_not_burn_the_campaign(
    store: Store, runner: BatchRunner, submitted: Callable[..., Any], all_batches: Callable[[], list[str]]
) -> None:
    submitted(sizes=(30,), fail={f"C30F:{i}": "crash" for i in range(30)}, batch={"at_least": 1})
    (batch,) = all_batches()
    with pytest.raises(WorkerUnfit, match="10 calculations in a row"):
        runner.run(batch)
    counts = store.counts()
    assert (counts[State.FAILED], counts[State.READY], counts[State.RUNNING]) == (10, 20, 0)


def test_a_full_disk_stops_the_worker(
    store: Store,
    runner: BatchRunner,
    submitted: Callable[..., Any],
    all_batches: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(2,), batch={"at_least": 1})
    monkeypatch.setattr("htxas.launch.batch_runner._LEAST_FREE_BYTES", 10**18)
    (batch,) = all_batches()
    with pytest.raises(WorkerUnfit, match="make room"):
        runner.run(batch)
    assert store.counts()[State.RUNNING] == 0


def test_a_site_waits_for_a_ground_state_in_other_hands(
    store: Store, runner: BatchRunner, submitted: Callable[..., Any], all_batches: Callable[[], list[str]]
) -> None:
    submitted(sizes=(1,), batch={"at_least": 1})
    ground = next(store.find(kind=Kind.GROUND))
    lease = store.lease(ground.key, "another", ttl_s=1.0)
    assert lease is not None
    start = time.monotonic()
    (batch,) = all_batches()
    tally = runner.run(batch)  # the other one never reports: its lease ends
    assert time.monotonic() - start > 0.5
    assert tally == {"skipped": 1, "done": 1}
    assert store.counts()[State.DONE] == 2


def test_a_result_is_refused_once_the_lease_is_lost(
    store: Store,
    runner: BatchRunner,
    submitted: Callable[..., Any],
    all_batches: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(1,), batch={"at_least": 1})
    real = store.finish

    def too_late(lease: Any, *args: Any, **kwargs: Any) -> bool:
        store.release_owner("tester")
        assert store.lease(lease.key, "another") is not None
        return real(lease, *args, **kwargs)

    monkeypatch.setattr(store, "finish", too_late)
    ground = next(store.find(kind=Kind.GROUND))
    runner.stop.after_this = False
    batch = store.batch(all_batches()[0])
    assert runner._one(store.calculation(ground.key), runner._campaign(batch.campaign)) == "lease lost"
    assert store.calculation(ground.key).worker == "another"


def test_an_error_of_ours_counts_against_the_calculation_and_an_orderly_return_does_not(
    store: Store,
    runner: BatchRunner,
    submitted: Callable[..., Any],
    all_batches: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(1,), batch={"at_least": 1})
    (batch,) = all_batches()
    ground = next(store.find(kind=Kind.GROUND))

    def end_with(error: Exception) -> None:
        def broken(*args: Any, **kwargs: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("htxas.launch.batch_runner.compute", broken)
            with pytest.raises(type(error)):
                runner.run(batch)

    end_with(BatchReturned())
    assert store.calculation(ground.key).lost == 0
    end_with(ZeroDivisionError())
    record = store.calculation(ground.key)
    assert (record.lost, record.state) == (1, State.READY)
    end_with(ZeroDivisionError())
    end_with(ZeroDivisionError())
    assert runner.run(batch) == {"failed": 2}  # the ground state is given up, its site cannot start
    assert store.calculation(ground.key).cause is Cause.LOST
    assert store.calculation(ground.key).evidence["last_worker"] == "tester"
