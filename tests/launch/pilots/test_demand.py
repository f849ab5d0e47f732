from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from htxas.campaign.cost import Fit, Timing, fit
from htxas.domain.calculation import Kind, State
from htxas.store.demand import Length, ReadyWork
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


def test_ready_work_in_classes_each_calculation_once(store: Store, submitted: Callable[..., Any]) -> None:
    submitted("short", sizes=(1, 2, 3), seconds=10.0)
    submitted("long", sizes=(1, 2), seconds=1000.0)
    submitted("shared", sizes=(1, 2, 3, 4), seconds=10.0)
    found = store.ready_work(["shared", "short", "long"], [500.0])
    by_name = {(w.campaign, w.longest_s > 500.0): w for w in found}
    assert {k: w.count for k, w in by_name.items()} == {("shared", False): 14, ("long", True): 5}
    assert by_name["long", True].seconds == pytest.approx(5000.0, rel=0.1)
    # Without the campaign that came first in the list, the shared ones count for the other.
    assert [(w.campaign, w.count) for w in store.ready_work(["short"])] == [("short", 9)]
    assert store.ready_work([]) == []
    keys = [r.key for r in store.find(campaign="short", state=State.READY)]
    store.lease_many(keys, "somebody")
    assert store.ready_work(["short"]) == []
    assert all(isinstance(w, ReadyWork) for w in found)


def _learned() -> Fit:
    random = np.random.default_rng(0)
    atoms = random.integers(5, 40, 200)
    prior = atoms**2.0
    took = 3.0 * prior * (atoms / 15) ** -0.8 * (prior / 200) ** 0.2
    return fit(Timing(float(p), int(n), float(t)) for p, n, t in zip(prior, atoms, took, strict=True))


def test_the_database_reckons_as_agents_do(store: Store, submitted: Callable[..., Any]) -> None:
    submitted(sizes=(2, 5, 9), seconds=100.0)
    learned, records = _learned(), list(store.find())
    assert learned.slope_prior or learned.slope_atoms
    shown = records[0]
    store._db["calculations"].update_one({"_id": shown.key}, {"$set": {"interrupted": {"walltime": 1}}})
    engine, key = "fake", next(r.parameters_key for r in records if r.kind is Kind.SITE)
    length = Length(engine, Kind.SITE, key, learned.to_dict(), 1.5, 2)
    expected_s, room_s = 0.0, 0.0
    for r in records:
        ours = r.kind is Kind.SITE
        seconds = r.estimate_s
        if ours and r.key != shown.key:
            seconds = learned.seconds(r.estimate_s, len(store.structure(r.structure_key).structure))
        expected_s += seconds * (2 if ours else 1)
        room_s = max(room_s, seconds * (1.5 if ours else 1.25))
    (work,) = store.ready_work(["chains"], lengths=[length], safety=1.25)
    assert work.seconds == pytest.approx(expected_s)
    assert work.longest_s == pytest.approx(room_s)
    batches = store._db["calculations"].distinct("batch")
    found = store.waiting(batches, 0.99 * room_s, lengths=[length], safety=1.25)
    assert found.keys() == set(batches)
    assert max(w.longest_s for w in found.values()) == pytest.approx(room_s)
    assert 0 < sum(w.too_long for w in found.values()) < len(records)
