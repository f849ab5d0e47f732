"""Which batch of the stock is next, for whom one is good, and what the ledger does with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from htxas.errors import DatabaseUnavailable
from htxas.launch.agent.books import News
from htxas.launch.agent.delivery import Courier
from htxas.launch.agent.ledger import Ledger
from htxas.launch.agent.source import Held, Lent, Source
from htxas.launch.agent.stock import Stock, Stocked
from htxas.store.records import Hungry
from tests.launch.agent.tasks import task


def held(batch: str, priority: int = 0) -> Held:
    return Held(batch, "c", 1, 1, set(), wanted_by={"c", "d"}, priority=priority)


def test_by_priority_and_then_by_age() -> None:
    stock = Stock()
    for batch, priority in (("a", 0), ("b", 0), ("urgent", 5), ("c", 0)):
        stock.put(Stocked(held(batch, priority), (task(batch),)))
    assert (len(stock), stock.seconds) == (4, 40.0)
    assert stock.remove("b")
    assert stock.remove("b") is None
    found = [one.held.batch for one in iter(stock.take, None)]
    assert found == ["urgent", "a", "c"]
    assert not stock


def test_seconds_are_those_of_all_places() -> None:
    one = Stocked(held("a"), (task("a", safety=2.0), task("b", slots=4)))
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
    assert Stocked(held("a"), (task("a", safety=2.0),)).suits(hungry) is suits


def test_a_batch_that_waits_for_others_is_not_independent() -> None:
    assert Stocked(held("a"), (task("g"), task("s", ground="g"))).independent
    assert Stocked(held("a"), (task("s", ground="g", ground_directory="/there"),)).independent
    assert not Stocked(held("a"), (task("s", ground="g"),)).independent


class Queue:
    """A source that notes what is released; its database can be away."""

    def __init__(self) -> None:
        self.away = False
        self.released: list[str] = []
        self.hungry: list[Hungry] = []
        self.fellows = 1
        self.blocked: dict[str, Any] = {}

    def look_at_controls(self) -> bool:
        return True

    def may_run(self, campaigns: set[str]) -> bool:
        return not campaigns & self.blocked.keys()

    def release(self, leases: list[Any]) -> None:
        if self.away:
            raise DatabaseUnavailable("away")
        self.released += [lease.key for lease in leases]


class Desk:
    """A ledger with two batches of two tasks on stock."""

    def __init__(self) -> None:
        self.queue, self.news = Queue(), News()
        self.ledger = Ledger(cast(Courier, None), cast(Source, self.queue), self.news.add, None)
        for batch in "ab":
            tasks = [task(f"{batch}{n}", batch=batch, safety=2.0) for n in range(2)]
            one = held(batch)
            one.open.update(t.key for t in tasks)
            self.ledger.books.held[batch] = one
            self.ledger.admit(one, Lent(tasks), ahead_s=100.0)

    def told(self) -> list[str]:
        told, self.news.tasks = [t.key for t in self.news.tasks], []
        return told


def test_what_is_handed_out_is_still_ours() -> None:
    desk = Desk()
    books = desk.ledger.books
    assert desk.told() == []
    books.tasks["a0"] = replace(books.tasks["a0"], attempt=2)  # lost, leased again, and told since
    books.tasks["a1"] = replace(books.tasks["a1"], ground_directory="/there")
    assert desk.ledger.hand_out()
    assert [t.ground_directory for t in desk.news.tasks] == ["/there"]
    assert desk.told() == ["a1"]
    del books.tasks["b0"]
    assert desk.ledger.hand_out()
    assert desk.told() == ["b1"]
    assert not desk.ledger.hand_out()


def test_what_does_not_fit_is_not_put_on_stock() -> None:
    desk = Desk()
    desk.ledger.admit(held("c"), Lent([task("c0", safety=2.0)]), ahead_s=19.0)
    assert desk.told() == ["c0"]


def test_stock_that_leaves_while_the_database_is_away_has_left_when_it_is_back() -> None:
    desk = Desk()
    ledger, queue = desk.ledger, desk.queue
    ledger.books.take(task("a2", batch="a"))  # told since the batch came on stock
    queue.away = True
    ledger.trim(19.0)
    with pytest.raises(DatabaseUnavailable):
        ledger.return_stock()
    assert ledger.owes
    assert not ledger.hand_out()
    queue.away = False
    ledger.return_stock()
    assert queue.released == ["a0", "a1", "b0", "b1"]
    assert all(ledger.books.held[batch].returning for batch in "ab")
    assert (list(ledger.books.tasks), ledger.owes) == (["a2"], False)


def test_the_last_batch_goes_to_an_agent_that_has_nothing() -> None:
    desk = Desk()
    desk.queue.hungry = [Hungry(None, 1e9, 1)]
    desk.queue.fellows = 30  # many others give, too
    desk.ledger.control()
    desk.ledger.return_stock()
    assert desk.queue.released == ["b0", "b1"]


def test_a_paused_campaign_takes_its_stock_back_and_what_was_told() -> None:
    desk = Desk()
    desk.ledger.books.take(task("a2", batch="a"))
    desk.queue.blocked = {"c": None, "d": None}
    desk.ledger.control()
    desk.ledger.return_stock()
    assert desk.queue.released == ["a0", "a1", "b0", "b1"]
    assert desk.news.withdrawn == {"a2": False}
