from __future__ import annotations

import time

import pytest

from htxas.errors import Busy
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


def test_one_holder_and_growing_numbers(store: Store) -> None:
    with store.lock("dinner", "me", ttl_s=0.6) as first:
        first.check()
        with (
            pytest.raises(Busy, match="another dinner is under way, by me"),
            store.lock("dinner", ttl_s=0.6),
        ):
            pass
        with store.lock("breakfast", ttl_s=0.6):
            pass
    with store.lock("dinner", "you", ttl_s=0.6) as second:
        assert second.token == first.token + 1
        second.check()
        with pytest.raises(Busy, match="took over the dinner"):
            first.check()


def test_it_is_renewed_while_held(store: Store) -> None:
    with store.lock("dinner", ttl_s=0.3) as held:
        time.sleep(0.9)
        found = store._db["locks"].find_one({"_id": "dinner"})
        assert found is not None
        assert found["token"] == held.token
        held.check()


def test_that_of_a_killed_holder_is_taken_over_when_it_ends(store: Store) -> None:
    token = store._take("dinner", "killed", "nobody", 0.5)
    start = time.monotonic()
    with store.lock("dinner", ttl_s=30.0) as held:
        assert held.token == (token or 0) + 1
    assert 0.2 < time.monotonic() - start < 10.0


def test_a_living_holder_is_waited_for_if_asked(store: Store) -> None:
    with store.lock("dinner", "me", ttl_s=0.3):
        start = time.monotonic()
        with pytest.raises(Busy), store.lock("dinner", "you", ttl_s=0.3, wait_s=0.8):
            pass
        assert time.monotonic() - start >= 0.8


def test_it_is_released_by_an_error(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lock("dinner", ttl_s=30.0):
        raise RuntimeError
    with store.lock("dinner", ttl_s=30.0, wait_s=0.0) as held:
        assert held.token == 2
