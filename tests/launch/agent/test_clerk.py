"""What the agent's clerk keeps in mind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from htxas.errors import DatabaseUnavailable
from htxas.launch.agent.books import Books
from htxas.launch.agent.clerk import Clerk
from htxas.launch.agent.source import Held


def test_what_could_not_be_delivered_stays_to_be_delivered() -> None:
    """Also where nothing else ever comes: the last outcomes of a run, during an outage."""
    clerk = Clerk(cast(Any, None), cast(Any, None), lambda: None)
    calls = []

    def deliver() -> None:
        calls.append(1)
        clerk.concluded()  # one more meanwhile
        if len(calls) == 1:
            raise DatabaseUnavailable("away")

    clerk.ledger = cast(Any, SimpleNamespace(deliver=deliver, owes=False))
    clerk.concluded()
    with pytest.raises(DatabaseUnavailable):
        clerk._deliver()
    assert clerk._concluded == 2
    clerk._deliver()
    assert clerk._concluded == 1


def test_what_is_asked_during_a_delivery_waits_for_the_next() -> None:
    """A worker that died while the database was away: only journals read since tell what it was at."""
    clerk = Clerk(cast(Any, None), cast(Any, None), lambda: None)
    seen: list[str] = []

    def deliver() -> None:
        seen.append("delivered")
        if len(seen) == 1:
            clerk.gone(1, ["key"], {}, False)
            clerk._finishing = True

    ledger = SimpleNamespace(
        deliver=deliver,
        owes=True,
        control=lambda: None,
        return_stock=lambda: None,
        settle=lambda **_: None,
        bury=lambda *_: seen.append("buried"),
    )
    clerk.ledger = cast(Any, ledger)
    assert clerk._round() is False
    assert clerk._round() is False
    assert seen == ["delivered", "delivered", "buried"]


def test_a_ground_state_that_two_batches_wait_for_is_not_forgotten_with_the_first() -> None:
    books = Books()
    books.held = {name: Held(name, "c", None, None, {f"{name}-site"}) for name in "ab"}
    books.elsewhere = {"ground": "a", "other": "a"}
    site = SimpleNamespace(key="b-site", batch="b", attempt=1, ground_key="ground", ground_directory=None)
    books.take(cast(Any, site))
    books.forget(books.held["a"])
    assert books.elsewhere == {"ground": "b"}
