"""Which batch of the stock is next, and for whom one is good."""

from __future__ import annotations

import pytest

from htxas.domain.calculation import Kind
from htxas.launch.agent.source import Held
from htxas.launch.agent.stock import Stock, Stocked
from htxas.launch.work.task import Task
from htxas.store.records import Hungry


def task(key: str, needs: str | None = None, there: str | None = None, slots: int = 1) -> Task:
    return Task(
        key=key,
        attempt=1,
        owner="me",
        batch="b",
        campaign="c",
        kind=Kind.SITE if needs else Kind.GROUND,
        engine="fake",
        structure_key="s",
        parameters={},
        element=None,
        edge=None,
        atom=None,
        structure={},
        estimate_s=10.0,
        timeout_s=100.0,
        gate={},
        sigma_eV=0.3,
        step_eV=0.1,
        ground_key=needs,
        ground_directory=there,
        safety=2.0,
        slots=slots,
    )


def held(batch: str, priority: int = 0) -> Held:
    return Held(batch, "c", 1, 1, set(), wanted_by={"c", "d"}, priority=priority)


def test_by_priority_and_then_by_age() -> None:
    stock = Stock()
    for batch, priority in (("a", 0), ("b", 0), ("urgent", 5), ("c", 0)):
        stock.put(held(batch, priority), [task(batch)])
    assert (len(stock), stock.seconds) == (4, 40.0)
    assert stock.remove("b")
    assert not stock.remove("b")
    found = [one.held.batch for one in iter(stock.take, None)]
    assert found == ["urgent", "a", "c"]
    assert not stock


def test_seconds_are_those_of_all_places() -> None:
    one = Stocked(held("a"), (task("a"), task("b", slots=4)))
    assert (one.seconds, one.longest_s) == (50.0, 20.0)


@pytest.mark.parametrize(
    ("hungry", "suits"),
    [
        (Hungry(None, 20.0, 1), True),
        (Hungry("d", 20.0, 1), True),
        (Hungry("another", 1e9, 1), False),
        (Hungry(None, 19.0, 1), False),
    ],
)
def test_who_could_compute_a_batch(hungry: Hungry, suits: bool) -> None:
    assert Stocked(held("a"), (task("a"),)).suits(hungry) is suits


def test_a_batch_that_waits_for_others_is_not_independent() -> None:
    assert Stocked(held("a"), (task("g"), task("s", "g"))).independent
    assert Stocked(held("a"), (task("s", "g", "/there"),)).independent
    assert not Stocked(held("a"), (task("s", "g"),)).independent
