from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.launch.agent.policy import SAFETY, Item, Pool


def molecule(name: str, sites: int, seconds: float = 10.0) -> list[Item]:
    ground = Item(f"{name}:g", name, seconds / 2)
    return [ground, *(Item(f"{name}:{i}", name, seconds, needs=ground.key) for i in range(sites))]


def fill(pool: Pool, *items: Item) -> None:
    for item in items:
        pool.add(item)


def run(
    pool: Pool, workers: int, *, until: float = math.inf, seed: int = 0, off: float = 1.0
) -> list[tuple[float, str]]:
    """Run a pool to its end on a clock of our own; return start and key of each task."""
    shake = random.Random(seed)
    now, log = 0.0, []
    busy: list[tuple[float, int, list[Item]]] = []
    while True:
        for w in range(workers):
            if items := pool.take(w, now, room_s=until - now):
                took = sum(i.estimate_s for i in items) * shake.uniform(1 / off, off)
                log += [(now, i.key) for i in items]
                busy.append((now + took, w, items))
        if not busy:
            return log
        busy.sort(key=lambda b: b[0])
        now, w, items = busy.pop(0)
        for item in items:
            pool.ended(w, item.key)
            pool.met(item.key)


def test_ground_before_its_sites_and_a_worker_stays_with_its_structure() -> None:
    pool = Pool(1)
    fill(pool, *molecule("a", 3), *molecule("b", 3))
    keys = [key for _, key in run(pool, 1)]
    assert [k.split(":")[0] for k in keys] == ["a"] * 4 + ["b"] * 4
    assert keys[0] == "a:g"
    assert keys[4] == "b:g"


def test_the_longest_chain_first_then_help_where_most_is_left() -> None:
    pool = Pool(2)
    fill(pool, *molecule("short", 2, 1.0), *molecule("long", 6, 100.0), *molecule("middle", 2, 10.0))
    log = run(pool, 2)
    assert [k for _, k in log[:2]] == ["long:g", "middle:g"]
    assert len({start for start, key in log if key.startswith("long")}) < 7  # two at a time in the end


def test_only_what_fits_and_the_longest_of_that() -> None:
    pool = Pool(1)
    fill(pool, *(Item(str(s), str(s), s) for s in (100.0, 50.0, 10.0)))
    assert [i.key for i in pool.take(0, 0.0, room_s=50.0 * SAFETY)] == ["50.0"]
    pool.ended(0, "50.0")
    assert pool.take(0, 0.0, room_s=5.0) == []
    assert {i.key for i in pool.too_long(50.0)} == {"100.0"}


def test_cheap_tasks_come_together_with_their_ground_state_first() -> None:
    pool = Pool(1)
    fill(pool, *molecule("a", 3, 0.01), *molecule("b", 3, 0.01))
    keys = [i.key for i in pool.take(0, 0.0, chunk_s=1.0, most=6)]
    assert keys[0] == "a:g"
    assert {k[0] for k in keys[:4]} == {"a"}
    assert keys[4:6] == ["b:g", "b:0"]
    assert len(pool) == 2


def test_dear_tasks_come_one_by_one() -> None:
    pool = Pool(1)
    fill(pool, *(Item(str(i), "a", 100.0) for i in range(3)))
    assert len(pool.take(0, 0.0, chunk_s=1.0, most=32)) == 1


def test_a_wide_task_gathers_places_and_is_not_starved() -> None:
    pool = Pool(3)
    fill(pool, *(Item(f"n{i}", f"n{i}", 10.0) for i in range(30)))
    assert pool.take(0, 0.0)
    assert pool.take(1, 1.0)
    pool.add(Item("wide", "w", 5.0, slots=3))
    pool.add(Item("brief", "b", 2.0))
    assert [i.key for i in pool.take(2, 2.0)] == ["brief"]  # over before the others are
    pool.ended(2, "brief")
    assert pool.take(2, 4.0) == []  # anything else would make it wait longer
    pool.ended(0, "n0")
    assert pool.take(0, 10.0) == []
    pool.ended(1, "n1")
    assert [i.key for i in pool.take(0, 11.0)] == ["wide"]
    assert pool.take(1, 11.0) == []
    assert pool.take(2, 11.0) == []
    pool.ended(0, "wide")
    assert pool.take(2, 16.0)


def test_a_task_wider_than_the_node_takes_all_of_it() -> None:
    pool = Pool(2)
    pool.add(Item("wide", "w", 5.0, slots=8))
    assert [i.key for i in pool.take(1, 0.0)] == ["wide"]


def test_what_a_dead_worker_had_can_come_again() -> None:
    pool = Pool(2)
    fill(pool, *molecule("a", 2, 0.01))
    had = pool.take(0, 0.0, chunk_s=1.0, most=3)
    assert pool.dropped(0) == had
    assert pool.is_idle(0)
    fill(pool, *had)
    assert len(run(pool, 2)) == 3


def test_a_key_is_in_it_once() -> None:
    pool = Pool(1)
    pool.add(Item("a", "a", 1.0))
    with pytest.raises(ValueError, match="already"):
        pool.add(Item("a", "a", 1.0))


WORK = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0.0, 1e4), st.integers(1, 3), st.booleans()),
    min_size=1,
    max_size=12,
)


def works(spec: list[tuple[int, float, int, bool]]) -> list[Item]:
    items = []
    for n, (sites, seconds, slots, waiting) in enumerate(spec):
        name = str(n)
        if waiting:
            items.append(Item(f"{name}:g", name, seconds / 3))
        items += [
            Item(f"{name}:{i}", name, seconds * (1 + i), f"{name}:g" if waiting else None, slots)
            for i in range(sites)
        ]
    return items


@given(WORK, st.integers(1, 5), st.integers(0, 9))
def test_everything_runs_once_in_the_end(
    spec: list[tuple[int, float, int, bool]], workers: int, seed: int
) -> None:
    items = works(spec)
    pool = Pool(workers)
    fill(pool, *items)
    log = run(pool, workers, seed=seed, off=3.0)
    assert sorted(k for _, k in log) == sorted(i.key for i in items)
    started = {key: n for n, (_, key) in enumerate(log)}
    assert all(started[i.needs] < started[i.key] for i in items if i.needs is not None)
    assert len(pool) == 0
    assert pool.ready == 0
    assert pool.waiting_s == pytest.approx(0.0, abs=1e-6)


@given(WORK, st.integers(1, 5), st.floats(1.0, 1e4), st.integers(0, 9))
def test_nothing_starts_that_does_not_fit(
    spec: list[tuple[int, float, int, bool]], workers: int, until: float, seed: int
) -> None:
    items = {i.key: i for i in works(spec)}
    pool = Pool(workers)
    fill(pool, *items.values())
    log = run(pool, workers, until=until, seed=seed)
    assert all(start + items[key].estimate_s <= until + 1e-6 for start, key in log)
    assert len({key for _, key in log}) == len(log)
    assert len(log) + len(pool) == len(items)


@given(WORK, st.integers(1, 5), st.floats(1.0, 1e5))
def test_idle_only_if_nothing_fits(
    spec: list[tuple[int, float, int, bool]], workers: int, room_s: float
) -> None:
    pool = Pool(workers)
    fill(pool, *(i for i in works(spec) if i.slots == 1))
    for w in range(workers):
        if not pool.take(w, 0.0, room_s=room_s):
            assert not [i for i in pool if i.needs is None and i.estimate_s * SAFETY <= room_s]


def test_a_decision_is_cheap() -> None:
    pool = Pool(64)
    shake = random.Random(1)
    for n in range(10_000):
        fill(pool, *molecule(str(n), 5, shake.uniform(10, 1000)))
    start = time.perf_counter()
    assert len(run(pool, 64)) == 60_000
    assert time.perf_counter() - start < 20.0
