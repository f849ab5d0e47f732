from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from htxas.domain.calculation import State
from htxas.domain.identity import content_key
from htxas.errors import NotFound, StoreError, UserError
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


def contents(store):
    """Everything a submission writes, without times."""
    hide = {"created": 0, "updated": 0}
    names = ("campaigns", "structures", "parameters", "calculations", "molecules", "batches")
    return {n: list(store._db[n].find({}, hide).sort("_id", 1)) for n in names}


def test_submitting_twice_adds_nothing(store, world):
    assert world.submit(store) == set(world.calculations)
    before = contents(store)
    assert world.submit(store) == set()
    assert contents(store) == before
    assert store.counts("demo")[State.READY] == 6
    assert store.put_structures(world.structures.values()) == 0
    assert store.put_molecules(world.molecules) == 0


def test_numbers_of_new_documents_are_returned(store, world):
    assert store.put_campaign("demo", {"a": 1}) is True
    assert store.put_campaign("demo", {"a": 1.0}) is False  # the same number
    assert store.put_structures(world.structures.values()) == 2
    store.put_calculations("demo", world.planned)
    assert store.put_molecules(world.molecules) == 2
    assert store.put_batches(world.batches) == 2
    assert store.put_batches(world.batches) == 0


def test_a_campaign_does_not_change_under_its_results(store):
    store.put_campaign("demo", {"preset": "published"})
    with pytest.raises(UserError, match=r"other content.*another name"):
        store.put_campaign("demo", {"preset": "accurate"})
    assert store.campaign("demo")["preset"] == "published"


def test_campaigns_by_name(store):
    store.put_campaign("quickstart", {"x": {"a.b": 1}})
    store.put_campaign("second", {"x": 2})
    assert [c["name"] for c in store.campaigns()] == ["quickstart", "second"]
    assert store.campaign("quickstart")["x"] == {"a.b": 1}
    with pytest.raises(NotFound, match="did you mean quickstart"):
        store.campaign("quickstar")


def test_a_second_campaign_shares_calculations(store, world):
    world.submit(store)
    world.finish(store, world.site_key)
    other = world.make(campaign="other")
    assert other.submit(store, "other") == set()
    assert store.counts("other")[State.DONE] == 1
    assert store.counts()[State.READY] == 5
    assert store.calculation(world.site_key).campaigns == ("demo", "other")
    assert list(store.unsubmitted_batches("other")) == []


def test_done_calculations_need_no_batch(store, world):
    store.put_structures(world.structures.values())
    assert store.put_calculations("demo", world.planned) == set(world.calculations)
    world.finish(store, world.site_key)
    assert store.put_calculations("demo", world.planned) == set(world.calculations) - {world.site_key}


def test_a_calculation_of_an_unknown_structure_is_refused(store, world):
    with pytest.raises(StoreError, match="structure of a calculation is not in the store"):
        store.put_calculations("demo", world.planned)


def test_two_molecules_of_one_name_are_refused(store, world):
    world.submit(store)
    twin = replace(world.molecules[1], name="mol_0")
    with pytest.raises(UserError, match="two different molecules are called 'mol_0'"):
        store.put_molecules([twin])
    assert store.molecule("demo", "mol_0").structure_key == world.molecules[0].structure_key


def test_a_calculation_is_in_one_batch(store, world):
    first, second = world.batches
    store.put_structures(world.structures.values())
    store.put_calculations("demo", world.planned)
    store.put_batches([first])
    both = (*first.keys, *second.keys)
    wide = replace(first, id=content_key(sorted(both)), keys=both)
    inside = replace(first, id="inside", keys=first.keys[:1])
    assert store.put_batches([wide, inside]) == 1  # "inside" would carry nothing
    assert {store.calculation(k).batch for k in first.keys} == {first.id}
    assert {store.calculation(k).batch for k in second.keys} == {wide.id}
    with pytest.raises(NotFound, match="no such batch"):
        store.batch("inside")


def test_batches_wait_for_those_before_them(store, world):
    first, second = world.batches
    world = replace(world, batches=(replace(first, after=second.id), second))
    world.submit(store)
    assert [b.id for b in store.unsubmitted_batches("demo")] == [second.id, first.id]
    store.mark_submitted({second.id: 7})
    assert [b.id for b in store.unsubmitted_batches("demo")] == [first.id]
    assert store.batch(second.id).fw_id == 7
    assert store.batch(first.id).after == second.id


def test_states_of_known_keys(store, world):
    world.submit(store)
    world.finish(store, world.ground_key)
    states = store.states([world.ground_key, world.site_key, "0" * 32])
    assert states == {world.ground_key: State.DONE, world.site_key: State.READY}


def test_two_processes_submit_the_same_campaign(store, world, mongod_uri):
    many = world.make(40)

    def submit(_):
        with Store.open(mongod_uri, name=store.name) as mine:
            many.submit(mine)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(submit, range(3)))
    assert store.counts("demo")[State.READY] == 120
    assert len(list(store.unsubmitted_batches("demo"))) == 40


_KILLED = """
import os, runpy, sys
from htxas.store.connection import Connected
from htxas.store.store import Store

uri, name, after, conftest = sys.argv[1:]
left = int(after)
persist = Connected._persist

def dying(self, call, *args, **kwargs):
    global left
    value = persist(self, call, *args, **kwargs)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    return value

world = runpy.run_path(conftest)["make_world"](3)
store = Store.open(uri, name=name)
Connected._persist = dying
world.submit(store)
"""


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_a_submission_killed_anywhere_is_completed_by_the_next(store, world, mongod_uri, steps):
    command = [
        sys.executable,
        "-c",
        _KILLED,
        mongod_uri,
        store.name,
        str(steps),
        str(Path(__file__).parent / "conftest.py"),
    ]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    three = world.make(3)
    three.submit(store)
    after_repair = contents(store)
    store._client.drop_database(store.name)
    with Store.open(mongod_uri, name=store.name) as fresh:
        three.submit(fresh)
        assert after_repair == contents(fresh)
