from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from htxas.domain.calculation import State
from htxas.errors import Cause, InternalError
from htxas.store.records import Lease
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


@pytest.fixture
def key(store, world):
    world.submit(store)
    return world.site_key


def interrupt(store, world, key, cause, **evidence):
    lease = world.lease(store, key, "a")
    return store.release([lease], cause=cause, message="gone", evidence=evidence, in_hand=[key])


def test_a_lease_is_exclusive(store, world, key):
    (leased,) = store.lease_many([key], "a")
    assert leased.lease == Lease(key, 1, "a")
    assert (leased.record.state, leased.record.attempts, leased.record.worker) == (State.RUNNING, 1, "a")
    assert store.lease_many([key], "b") == []
    assert store.lease_many([key], "a") == []
    assert store.lease_many(["0" * 32], "a") == []


def test_many_are_leased_at_once_in_the_order_given(store, world, key):
    keys = sorted(world.calculations, reverse=True)
    world.lease(store, keys[2], "b")
    leased = store.lease_many([*keys, keys[0]], "a")
    assert [x.lease.key for x in leased] == [k for k in keys if k != keys[2]]
    assert store.held("b") == [Lease(keys[2], 1, "b")]
    assert {x.key for x in store.held("a")} == {x.lease.key for x in leased}
    assert store.lease_many([], "a") == []


def test_concurrent_workers_never_get_the_same_calculation(store, world, mongod_uri):
    many = world.make(15)
    many.submit(store)
    keys = list(many.calculations)

    def work(owner):
        with Store.open(mongod_uri, name=store.name) as mine:
            parts = (keys[i : i + 5] for i in range(0, len(keys), 5))
            return [x.lease.key for part in parts for x in mine.lease_many(part, owner)]

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(work, "abcd"))
    assert sorted(k for part in taken for k in part) == sorted(keys)
    assert store.counts("demo")[State.RUNNING] == 45


@pytest.mark.parametrize("method", ["update_many", "find"])
def test_a_lost_answer_loses_no_lease(store, world, key, monkeypatch, method):
    real, lost = getattr(Collection, method), []

    def answer_lost(self, *args, **kwargs):
        answer = real(self, *args, **kwargs)
        if not lost:
            lost.append(method)
            raise AutoReconnect("connection closed")
        return answer

    monkeypatch.setattr(Collection, method, answer_lost)
    leased = store.lease_many(list(world.calculations), "a")
    assert lost
    assert [x.lease.attempt for x in leased] == [1] * 6


def test_leases_do_not_end_by_themselves(store, world, key):
    store.lease_many([key], "a", ttl_s=0.01)
    time.sleep(0.05)
    assert store.lease_many([key], "b") == []


def test_renewal_tells_what_is_still_held(store, world, key):
    a, b = (x.lease for x in store.lease_many([key, world.ground_key], "a", ttl_s=1))
    assert store.renew("a", ttl_s=1000) == {a.key, b.key}
    until = store._db["calculations"].find_one({"_id": key})["lease_until"]
    assert timedelta(seconds=900) < until - datetime.now(UTC) < timedelta(seconds=1100)
    store.release([a])
    assert store.renew("a") == {b.key}
    assert store.renew("b") == set()


def test_an_orderly_return_leaves_no_trace(store, world, key):
    lease = world.lease(store, key, "a")
    assert store.release([lease]) == {key: "ready"}
    assert store.release([lease]) == {key: "ready"}  # the answer to the first was lost
    record = store.calculation(key)
    assert (record.state, record.attempts, record.history, record.interrupted) == (State.READY, 1, (), {})
    assert world.lease(store, key, "a").attempt == 2
    assert store.release([lease]) == {key: "refused"}


def test_only_what_was_in_hand_is_charged(store, world, key):
    held = [x.lease for x in store.lease_many(world.calculations, "a")]
    before = datetime.now(UTC) - timedelta(minutes=1)
    evidence = {"host": "n1", "directory": "/r", "elapsed_s": 3.0, "node": "$n1.x"}
    answers = store.release(held, cause=Cause.NODE_FAILURE, message="$down", evidence=evidence, in_hand=[key])
    assert set(answers.values()) == {"ready"}
    charged = [r for r in store.find() if r.interrupted]
    assert [(r.key, r.interrupted, r.state, r.cause) for r in charged] == [
        (key, {"node_failure": 1}, State.READY, None)
    ]
    (entry,) = charged[0].history
    assert before < entry.pop("ended") < datetime.now(UTC) + timedelta(minutes=1)
    assert entry == {
        "attempt": 1,
        "state": "ready",
        "cause": "node_failure",
        "message": "$down",
        "corrections": [],
        "worker": "a",
        "host": "n1",
        "wall_s": 3.0,
        "directory": "/r",
    }
    assert store.release(held, cause=Cause.NODE_FAILURE, in_hand=[key])[key] == "ready"  # once only
    assert store.calculation(key).interrupted == {"node_failure": 1}


@pytest.mark.parametrize(("cause", "most"), [(Cause.LOST, 3), (Cause.WALLTIME, 3), (Cause.NODE_FAILURE, 10)])
def test_what_ends_its_worker_each_time_is_given_up(store, world, key, cause, most):
    interrupt(store, world, key, Cause.DISK_FULL)  # another cause: counted apart
    for _ in range(most - 1):
        assert interrupt(store, world, key, cause) == {key: "ready"}
    assert interrupt(store, world, key, cause, log=["last words"], a={"$b": 1}) == {key: "failed"}
    record = store.calculation(key)
    assert (record.state, record.cause, record.message) == (State.FAILED, cause, "gone")
    assert record.evidence == {"log": ["last words"], "a": {"$b": 1}}
    assert record.interrupted == {"disk_full": 1, cause.value: most}
    assert [e["state"] for e in record.history] == ["ready"] * most + ["failed"]
    assert store.lease_many([key], "b") == []
    assert store.retry("demo", cause=cause) == [world.batches[0].id]
    record = store.calculation(key)
    assert (record.interrupted, record.lost, len(record.history)) == ({}, 0, most + 1)
    assert interrupt(store, world, key, cause) == {key: "ready"}


def test_the_clock_teaches_how_long_it_takes(store, world, key):
    for elapsed_s in (2.0, 30):
        interrupt(store, world, key, Cause.WALLTIME, elapsed_s=elapsed_s)
    interrupt(store, world, key, Cause.LOST, elapsed_s=99.0)
    record = store.calculation(key)
    assert record.estimate_s == 10  # what it was submitted with
    assert [e.get("shown_s") for e in record.history] == [4.0, 60.0, None]


@pytest.mark.parametrize(
    ("elapsed_h", "shown_h"),
    [
        (5.0, 10.0),
        (12.0, 0.8 * 24.0),  # not 24, which no allocation of 24 hours has left when anything begins
        (19.0, 0.8 * 24.0),
        (19.5, 39.0),  # it has had nearly all: a longer allocation is needed
    ],
)
def test_the_clock_asks_for_no_more_than_an_allocation_has(store, world, key, elapsed_h, shown_h):
    end = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    store.heartbeat("a", {"started": "2026-01-01T00:00:00Z", "end": end})
    interrupt(store, world, key, Cause.WALLTIME, elapsed_s=3600 * elapsed_h)
    (entry,) = store.calculation(key).history
    assert entry["shown_s"] == pytest.approx(3600 * shown_h)


@pytest.mark.parametrize(
    "info", [{}, {"end": None, "started": "x"}, {"end": 9e9, "started": "x"}, {"end": 9e9}]
)
def test_of_an_agent_that_did_not_tell_its_end_nothing_is_assumed(store, world, key, info):
    store.heartbeat("a", info)
    interrupt(store, world, key, Cause.WALLTIME, elapsed_s=7.0)
    assert store.calculation(key).history[-1]["shown_s"] == 14.0


def test_an_outcome_is_not_an_interruption(store, world, key):
    with pytest.raises(InternalError, match="engine_crash is an outcome"):
        interrupt(store, world, key, Cause.ENGINE_CRASH)


def test_a_dead_owner_gives_everything_back(store, world, key):
    store.lease_many(world.calculations, "a")
    other = world.lease
    assert store.release_owner("b") == 0
    assert store.release_owner("a", cause=Cause.LOST, message="x", in_hand=[key]) == 6
    assert store.release_owner("a", cause=Cause.LOST, message="x", in_hand=[key]) == 0
    assert store.counts("demo")[State.READY] == 6
    assert store.calculation(key).lost == 1
    assert other(store, key, "b").attempt == 2


def test_a_reported_calculation_is_not_released(store, world, key):
    lease = world.lease(store, key, "a")
    assert store.deliver([world.outcome(lease)]) == ["stored"]
    assert store.release([lease]) == {key: "refused"}
    assert store.release([lease], cause=Cause.LOST, in_hand=[key]) == {key: "refused"}
    assert store.release([Lease("0" * 32, 1, "a")]) == {"0" * 32: "refused"}
    assert store.calculation(key).state is State.DONE


def test_the_history_is_bounded(store, world, key):
    for _ in range(3):
        for _ in range(9):
            interrupt(store, world, key, Cause.NODE_FAILURE)
        store._db["calculations"].update_one({"_id": key}, {"$set": {"interrupted": {}}})
    assert [e["attempt"] for e in store.calculation(key).history] == list(range(8, 28))


def test_heartbeats(store):
    store.heartbeat("w1", {"host": "a", "jobs": 2})
    store.heartbeat("w1", {"host": "a", "jobs": 3})
    store.heartbeat("w2", {})
    first, second = store.workers()
    assert (first["owner"], first["info"], second["owner"]) == ("w1", {"host": "a", "jobs": 3}, "w2")
    assert 0 <= first["age_s"] < 10
    assert store.is_known("w1")
    (first,) = (w["seen"] for w in store.workers() if w["owner"] == "w1")
    time.sleep(0.01)
    store.heartbeat("w1", {"host": "a", "jobs": 4})
    store.forget_worker("w1", seen=first)
    assert store.is_known("w1")
    store.forget_worker("w1")
    assert not store.is_known("w1")
    assert [w["owner"] for w in store.workers()] == ["w2"]
