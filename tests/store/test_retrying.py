from __future__ import annotations

import pytest

from htxas.domain.calculation import State
from htxas.errors import Cause
from htxas.store.outcomes import failed

pytestmark = pytest.mark.mongo


@pytest.fixture
def key(store, world):
    world.submit(store)
    return world.site_key


@pytest.fixture
def wanting(store, world, key):
    """Molecule 0: the ground state failed, and its sites for want of it. Molecule 1: a site failed by itself."""
    ground, sites = world.ground_key, [s.key for s in world.molecules[0].sites]
    world.fail(store, ground, Cause.SCF_UNCONVERGED)
    for site in sites:
        world.fail(store, site, Cause.GROUND_FAILED, "x", {"ground": ground})
    other = world.molecules[1].sites[0].key
    world.fail(store, other, Cause.SCF_UNCONVERGED)
    return ground, sites, other


def test_by_cause_it_returns_the_batches_until_they_are_queued(store, world, key):
    other = world.molecules[1].sites[0].key
    world.fail(store, key, Cause.SCF_UNCONVERGED)
    world.fail(store, other, Cause.ENGINE_CRASH)
    assert store.retry("nobody's") == []
    assert store.retry("demo", cause=Cause.WALLTIME) == []
    assert store.retry("demo", cause=Cause.SCF_UNCONVERGED) == [world.batches[0].id]
    record = store.calculation(key)
    assert (record.state, record.cause, record.message, record.evidence) == (State.READY, None, None, {})
    assert len(record.history) == 1
    assert store.calculation(other).state is State.FAILED
    assert store.retry("demo", cause=Cause.SCF_UNCONVERGED) == [world.batches[0].id]  # still not queued
    store.rerun_done([world.batches[0].id])
    assert store.retry(None, keys=[other]) == [world.batches[1].id]
    assert world.lease(store, other).attempt == 2


def test_the_ladder_begins_anew(store, world, key):
    lease = world.lease(store, key)
    step = {"corrections": ["smear"], "numerics": {"smearing_eV": 0.1}}
    store.deliver([failed(lease, Cause.SCF_UNCONVERGED, "x", {}, again=step)])
    world.fail(store, key, Cause.SCF_UNCONVERGED)
    assert store.calculation(key).ladder == step
    store.retry("demo")
    assert store.calculation(key).ladder is None


def test_numerics_of_the_user_are_a_correction_like_any_other(store, world, key):
    world.fail(store, key, Cause.SCF_UNCONVERGED)
    store.retry("demo", numerics={"smearing_eV": 0.2, "$x.y": [1]})
    assert store.calculation(key).ladder == {
        "corrections": ["set $x.y=[1]", "set smearing_eV=0.2"],
        "numerics": {"smearing_eV": 0.2, "$x.y": [1]},
    }


def test_sites_go_along_with_their_ground_state(store, world, wanting):
    ground, sites, other = wanting
    batches = store.retry("demo", keys=[ground], numerics={"a": 1})
    assert batches == [world.batches[0].id]
    assert {store.calculation(k).state for k in (ground, *sites)} == {State.READY}
    assert store.calculation(other).state is State.FAILED
    assert store.calculation(ground).ladder["numerics"] == {"a": 1}
    assert store.calculation(sites[0]).ladder is None  # they never ran


def test_by_the_cause_of_the_ground_state_its_sites_come_along(store, wanting):
    store.retry("demo", cause=Cause.SCF_UNCONVERGED)
    assert store.counts("demo")[State.READY] == 6


def test_a_ground_state_goes_along_with_its_sites(store, wanting):
    ground, sites, other = wanting
    store.retry("demo", cause=Cause.GROUND_FAILED)
    assert {store.calculation(k).state for k in (ground, *sites)} == {State.READY}
    assert store.calculation(other).state is State.FAILED


def test_what_is_done_is_never_retried(store, world, key):
    world.finish(store, world.ground_key)
    world.fail(store, key, Cause.GROUND_FAILED, "x", {"ground": world.ground_key})
    assert store.retry("demo", keys=[world.ground_key, key]) == [world.batches[0].id]
    assert store.calculation(world.ground_key).state is State.DONE
    assert store.calculation(key).state is State.READY


def test_sites_of_another_ground_state_stay(store, world, wanting):
    """Two campaigns with other parameters share the structure, not the ground state."""
    ground, sites, _ = wanting
    another = {"$set": {"evidence.ground": "0" * 32}}
    store._db["calculations"].update_one({"_id": sites[0]}, another)
    store.retry("demo", keys=[ground])
    assert [store.calculation(k).state for k in sites] == [State.FAILED, State.READY]
