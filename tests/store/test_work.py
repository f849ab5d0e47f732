from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from htxas.domain.calculation import Convergence, State
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.spectrum import Sticks
from htxas.errors import Cause, InternalError, NotFound
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


@pytest.fixture
def key(store, world):
    world.submit(store)
    return world.site_key


def test_a_lease_is_exclusive(store, key):
    lease = store.lease(key, "a")
    assert (lease.attempt, lease.owner) == (1, "a")
    assert store.lease(key, "b") is None
    assert store.lease(key, "a") is None
    assert store.calculation(key).state is State.RUNNING
    with pytest.raises(NotFound):
        store.lease("0" * 32, "a")


def test_concurrent_workers_never_get_the_same_calculation(store, world, mongod_uri):
    many = world.make(15)
    many.submit(store)
    keys = list(many.calculations)

    def work(owner):
        with Store.open(mongod_uri, name=store.name) as mine:
            return [k for k in keys if mine.lease(k, owner) is not None]

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(work, "abcd"))
    assert sorted(k for part in taken for k in part) == sorted(keys)
    assert store.counts("demo")[State.RUNNING] == 45


def test_an_expired_lease_passes_to_the_next_and_fences_the_first_off(store, world, key):
    first = store.lease(key, "a", ttl_s=0.02)
    time.sleep(0.1)
    second = store.lease(key, "b")
    assert second.attempt == 2
    calculation, structure = world.calculations[key], world.structure_of(key)
    late = world.site_result(290.0)
    assert store.finish(first, calculation, structure, late) is False
    assert store.fail(first, Cause.ENGINE_CRASH, "x", {}) is False
    assert store.quarantine(first, late, inspect(replace(late, window_eV=1.0), GateLimits())) is False
    assert store.release(first) is False
    assert store._db["spectra"].count_documents({}) == 0
    assert store.finish(second, calculation, structure, world.site_result(285.0)) is True
    assert store.finish(first, calculation, structure, late) is False
    assert store.site_result(key).excitation_energy_eV == 285.0


def test_the_same_owner_is_fenced_off_by_attempt(store, world, key):
    first = store.lease(key, "a", ttl_s=0.02)
    time.sleep(0.1)
    second = store.lease(key, "a")
    assert store.fail(first, Cause.LOST, "x", {}) is False
    assert store.release(second) is True


def test_renewal_keeps_a_lease(store, world, key):
    store.lease(key, "a", ttl_s=0.2)
    assert store.renew("a", ttl_s=30) == 1
    time.sleep(0.3)
    assert store.lease(key, "b") is None
    assert store.renew("b") == 0


def test_released_calculations_are_ready_again(store, world, key):
    assert store.release(store.lease(key, "a")) is True
    for k in world.calculations:
        assert store.lease(k, "a") is not None
    assert store.release_owner("a") == 6
    assert store.counts("demo")[State.READY] == 6
    assert store.calculation(key).attempts == 2


def test_finish_stores_result_provenance_and_scalars(store, world, key):
    assert world.finish(store, key)
    record = store.calculation(key)
    assert record.state is State.DONE
    assert record.scalars == pytest.approx(
        {"excitation_energy_eV": 285.0, "ionization_eV": 290.0, "strength_sum": 0.02, "hole_overlap": 0.99}
    )
    assert (record.wall_s, record.host, record.directory) == (2.5, "node1", "/runs/1")
    assert record.provenance["libraries"] == {"numpy": "2.0", "a.b": "1"}
    assert store.lease(key, "b") is None
    assert world.finish(store, world.ground_key)
    assert store.calculation(world.ground_key).scalars == {
        "total_energy_eV": -2084.123456789012,
        "homo_eV": -7.0,
        "lumo_eV": 1.0,
        "gap_eV": 8.0,
        "dipole_D": 5.0,
    }


def test_reporting_twice_is_one_result(store, world, key):
    lease = store.lease(key, "a")
    arguments = (lease, world.calculations[key], world.structure_of(key), world.site_result())
    assert store.finish(*arguments) is True
    assert store.finish(*arguments) is True  # the answer to the first was lost
    assert store.fail(lease, Cause.LOST, "x", {}) is False
    assert store._db["spectra"].count_documents({}) == 1


def test_a_result_of_something_else_is_a_bug(store, world, key):
    lease = store.lease(key, "a")
    right, structure = world.calculations[key], world.structure_of(key)
    wrong = world.calculations[world.molecules[1].sites[0].key]
    with pytest.raises(InternalError, match="another calculation"):
        store.finish(lease, wrong, structure, world.site_result())
    with pytest.raises(InternalError, match="another calculation"):
        store.finish(lease, right, structure, world.ground_result())
    ground = store.lease(world.ground_key, "a")
    with pytest.raises(InternalError, match="PDOS of 7 atoms"):
        store.finish(ground, world.calculations[world.ground_key], structure, world.ground_result(7))
    assert store.counts("demo")[State.RUNNING] == 2


def test_failure_keeps_cause_and_evidence(store, key):
    lease = store.lease(key, "a")
    evidence = {"last": np.float64(0.1), "log": ["a", "b"]}
    assert store.fail(lease, Cause.SCF_UNCONVERGED, "100 cycles", evidence, {"directory": "/r", "host": "h"})
    record = store.calculation(key)
    assert (record.state, record.cause, record.message) == (State.FAILED, Cause.SCF_UNCONVERGED, "100 cycles")
    assert record.evidence == {"last": 0.1, "log": ["a", "b"]}
    assert (record.directory, record.host) == ("/r", "h")
    assert store.lease(key, "b") is None
    with pytest.raises(NotFound, match="failed: scf_unconverged"):
        store.site_result(key)


def test_quarantine_keeps_the_result_as_evidence_only(store, world, key):
    result = replace(world.site_result(), hole_overlap=0.3)
    rejection = inspect(result, GateLimits())
    assert store.quarantine(store.lease(key, "a"), result, rejection) is True
    record = store.calculation(key)
    assert (record.state, record.cause) == (State.QUARANTINED, Cause.HOLE_LEFT_SITE)
    assert record.evidence == {"hole_overlap": 0.3}
    with pytest.raises(NotFound, match="quarantined: hole_left_site"):
        store.site_result(key)
    assert store.site_result(key, include_quarantined=True).hole_overlap == 0.3
    assert len(store.spectrum(key, include_quarantined=True).intensity) > 0


@pytest.mark.parametrize(
    "sticks", [Sticks(np.zeros(0), np.zeros((0, 3))), Sticks(np.array([np.nan]), np.ones((1, 3)))]
)
def test_even_a_result_without_a_spectrum_can_be_quarantined(store, world, key, sticks):
    result = replace(world.site_result(), sticks=sticks)
    assert store.quarantine(store.lease(key, "a"), result, inspect(result, GateLimits())) is True
    assert len(store.site_result(key, include_quarantined=True).sticks.energies_eV) == len(sticks.energies_eV)
    with pytest.raises(NotFound, match="cannot be broadened"):
        store.spectrum(key, include_quarantined=True)


def test_retry_by_cause_returns_the_batches_until_they_are_queued(store, world, key):
    other = world.molecules[1].sites[0].key
    store.fail(store.lease(key, "a"), Cause.SCF_UNCONVERGED, "x", {})
    store.fail(store.lease(other, "a"), Cause.ENGINE_CRASH, "x", {})
    assert store.retry("nobody's") == []
    assert store.retry("demo", cause=Cause.WALLTIME) == []
    assert store.retry("demo", cause=Cause.SCF_UNCONVERGED) == [world.batches[0].id]
    record = store.calculation(key)
    assert (record.state, record.cause, record.message, record.evidence) == (State.READY, None, None, {})
    assert store.calculation(other).state is State.FAILED
    assert store.retry("demo", cause=Cause.SCF_UNCONVERGED) == [world.batches[0].id]  # still not queued
    store.rerun_done([world.batches[0].id])
    assert store.retry(None, keys=[other]) == [world.batches[1].id]
    assert store.lease(other, "b").attempt == 2


def test_a_retried_quarantine_is_not_served_from_its_old_arrays(store, world, key):
    result = replace(world.site_result(), convergence=Convergence.UNCONVERGED)
    store.quarantine(store.lease(key, "a"), result, inspect(result, GateLimits()))
    store.retry("demo")
    lease = store.lease(key, "a")
    with pytest.raises(NotFound, match="running"):
        store.site_result(key, include_quarantined=True)
    store.finish(lease, world.calculations[key], world.structure_of(key), world.site_result(286.0))
    assert store.site_result(key).excitation_energy_eV == 286.0


def test_a_result_and_its_state_are_one(store, world, key, monkeypatch):
    """A worker that dies between the two writes leaves nothing of either."""
    lease = store.lease(key, "a", ttl_s=0.02)

    class Died(BaseException):
        pass

    from pymongo.collection import Collection

    def die(*args, **kwargs):
        raise Died

    monkeypatch.setattr(Collection, "replace_one", die)
    with pytest.raises(Died):
        store.finish(lease, world.calculations[key], world.structure_of(key), world.site_result())
    monkeypatch.undo()
    assert store.calculation(key).state is State.RUNNING
    assert store._db["spectra"].count_documents({}) == 0
    time.sleep(0.1)
    assert world.finish(store, key, owner="b")


def test_a_calculation_whose_workers_vanish_is_given_up_after_three(store, world, key):
    assert store.release(store.lease(key, "a"))  # an orderly return does not count
    for attempt in (2, 3, 4):
        assert not store.give_up(key, "x", {})
        assert store.lease(key, "a").attempt == attempt
        assert store.release_owner("a") == 1
    assert store.calculation(key).lost == 3
    assert store.lease(key, "b") is None
    assert store.give_up(key, "gone", {"log": ["last words"]})
    assert not store.give_up(key, "gone", {})
    record = store.calculation(key)
    assert (record.state, record.cause, record.message) == (State.FAILED, Cause.LOST, "gone")
    assert record.evidence == {"log": ["last words"]}
    store.retry("demo", cause=Cause.LOST)
    assert store.lease(key, "b").attempt == 5


def test_an_outcome_resets_the_count_of_vanished_workers(store, world, key):
    store.lease(key, "a")
    store.release_owner("a")
    lease = store.lease(key, "a")
    assert store.calculation(key).lost == 2
    store.fail(lease, Cause.WALLTIME, "x", {})
    assert store.calculation(key).lost == 0


def test_expired_leases_count_as_lost(store, world, key):
    for _ in range(3):
        assert store.lease(key, "a", ttl_s=0.01) is not None
        time.sleep(0.05)
    assert store.lease(key, "b") is None
    assert store.give_up(key, "gone", {})


def test_heartbeats(store):
    store.heartbeat("w1", {"host": "a", "jobs": 2})
    store.heartbeat("w1", {"host": "a", "jobs": 3})
    store.heartbeat("w2", {})
    first, second = store.workers()
    assert (first["owner"], first["info"], second["owner"]) == ("w1", {"host": "a", "jobs": 3}, "w2")
    assert 0 <= first["age_s"] < 10
    store.forget_worker("w1")
    assert [w["owner"] for w in store.workers()] == ["w2"]
