"""Whatever owners do, and in whatever order: each calculation is concluded once, with the arrays of that attempt."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import bson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htxas.domain.calculation import State
from htxas.errors import Cause
from htxas.store.outcomes import failed
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

OWNERS = "abc"
_steps = st.one_of(
    st.tuples(st.just("lease"), st.sampled_from(OWNERS), st.sets(st.integers(0, 5), min_size=1)),
    st.tuples(st.just("deliver"), st.sampled_from(OWNERS), st.integers(1, 4)),
    st.tuples(st.just("again"), st.sampled_from(OWNERS), st.integers(1, 4)),
    st.tuples(st.just("replay"), st.sampled_from(OWNERS), st.none()),
    st.tuples(st.just("return"), st.sampled_from(OWNERS), st.none()),
    st.tuples(st.just("bury"), st.sampled_from(OWNERS), st.sampled_from([Cause.NODE_FAILURE, Cause.LOST])),
)


@pytest.fixture(scope="module")
def shared(mongod_uri):
    """One database for all examples; each empties it."""
    with Store.open(mongod_uri, name=f"test_{uuid4().hex[:12]}", patience_s=20) as opened:
        yield opened
        opened.drop()


class _Owners:
    """Three owners who remember all they ever leased and delivered, fenced off or not."""

    def __init__(self, store, world):
        self.store, self.world = store, world
        self.keys = list(world.calculations)
        self.leases = {o: [] for o in OWNERS}
        self.sent = {o: [] for o in OWNERS}
        self.stored = {}

    def deliver(self, owner, outcomes):
        for outcome, answer in zip(outcomes, self.store.deliver(outcomes), strict=True):
            attempt = (outcome.lease.key, outcome.lease.attempt)
            if answer == "stored":
                assert attempt not in self.stored
                self.stored[attempt] = outcome
            elif answer == "again":
                assert self.stored[attempt].entry == outcome.entry
        self.sent[owner] += outcomes

    def do(self, step):
        what, owner, argument = step
        if what == "lease":
            leased = self.store.lease_many([self.keys[i] for i in sorted(argument)], owner)
            self.leases[owner] += [x.lease for x in leased]
        elif what == "deliver":  # the last first: a ghost wakes up with old leases in hand
            mine = [self.leases[owner].pop() for _ in range(min(argument, len(self.leases[owner])))]
            self.deliver(owner, [self.world.outcome(x, 280.0 + x.attempt) for x in mine])
        elif what == "again":
            mine = [self.leases[owner].pop() for _ in range(min(argument, len(self.leases[owner])))]
            again = {"numerics": {"a": 1}}
            self.deliver(owner, [failed(x, Cause.SCF_UNCONVERGED, "x", {}, again=again) for x in mine])
        elif what == "replay":
            self.deliver(owner, list(self.sent[owner]))
        elif what == "return":
            self.store.release(self.leases[owner])
        else:
            held = [lease.key for lease in self.store.held(owner)]
            self.store.release_owner(owner, cause=argument, message="gone", in_hand=held[:1])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_steps, max_size=25))
def test_any_interleaving_concludes_each_calculation_once(shared, world, steps):
    store = shared
    for name in ("calculations", "spectra", "dos"):
        store._db[name].delete_many({})
    world.submit(store)
    owners = _Owners(store, world)
    for step in steps:
        owners.do(step)
    # The end of the campaign: everybody gives back what they hold, and one more owner computes the rest.
    for owner in OWNERS:
        store.release_owner(owner)
    store.retry("demo")
    rest = [x.lease for x in store.lease_many(owners.keys, "last")]
    assert set(store.deliver([world.outcome(x, 280.0 + x.attempt) for x in rest])) <= {"stored"}
    for owner in OWNERS:
        owners.do(("replay", owner, None))
        ghosts = [world.outcome(x, 1.0) for x in owners.leases[owner]]
        assert set(store.deliver(ghosts)) <= {"refused"}
    for record in store.calculations(owners.keys).values():
        assert record.state is State.DONE
        assert [e["state"] for e in record.history].count("done") == 1
        final = record.history[-1]
        assert (final["attempt"], final["worker"]) == (record.attempts, record.worker)
        collection = "spectra" if record.kind == "site" else "dos"
        arrays = store._db[collection].find_one({"_id": record.key})
        assert arrays["attempt"] == record.attempts
        if record.kind == "site":
            assert store.site_result(record.key).excitation_energy_eV == 280.0 + record.attempts
    assert store.counts()[State.RUNNING] == 0


def test_owners_at_once_with_others_who_think_them_dead(store, world, mongod_uri):
    """Threads lease, deliver late, deliver again, and end each other's leases, all at the same time."""
    many = world.make(12)
    many.submit(store)
    keys = list(many.calculations)
    deadline = time.monotonic() + 60

    def work(owner):
        chance, stored, kept = random.Random(owner), [], []
        with Store.open(mongod_uri, name=store.name) as mine:
            while mine.counts()[State.DONE] < len(keys) and time.monotonic() < deadline:
                leased = mine.lease_many(chance.sample(keys, 8), owner)
                kept += [many.outcome(x.lease, 280.0 + x.lease.attempt) for x in leased]
                if chance.random() < 0.4:
                    mine.release_owner(chance.choice(OWNERS.replace(owner, "")))
                if chance.random() < 0.7:
                    late = chance.sample(kept, len(kept))
                    stored += [
                        o for o, answer in zip(late, mine.deliver(late), strict=True) if answer == "stored"
                    ]
                elif chance.random() < 0.5:
                    mine.release([o.lease for o in kept])
        return stored

    with ThreadPoolExecutor(len(OWNERS)) as pool:
        stored = [o for part in pool.map(work, OWNERS) for o in part]
    records = store.calculations(keys)
    assert {r.state for r in records.values()} == {State.DONE}
    assert sorted(o.lease.key for o in stored) == sorted(keys)  # each concluded once, and somebody was told
    for outcome in stored:
        record = records[outcome.lease.key]
        assert (record.attempts, record.worker) == (outcome.lease.attempt, outcome.lease.owner)
        collection, document = outcome.arrays
        assert store._db[collection].find_one({"_id": record.key}) == bson.decode(document.raw)
        assert record.history == (outcome.entry,)
