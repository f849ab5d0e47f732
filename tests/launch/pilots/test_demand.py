from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from htxas.domain.calculation import State
from htxas.store.demand import ReadyWork
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
