from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from htxas.launch.pilots.plan import Active, Room, adapt, affordable, keep
from htxas.store.demand import ReadyWork

HOUR = 3600.0
MAIN = Room("main", useful_s=10 * HOUR, workers=4, node_h=10.0, free=20)
LONG = Room("long", useful_s=100 * HOUR, workers=4, node_h=100.0, free=3)


def work(hours: float, longest_h: float = 1.0, campaign: str = "c") -> ReadyWork:
    return ReadyWork(campaign, longest_h * HOUR, hours * HOUR, max(1, round(hours / longest_h)))


def pilot(hours: float = 10.0, partition: str = "main", campaign: str | None = None) -> Active:
    return Active(partition, campaign, hours * HOUR, hours)


def test_as_many_as_the_ready_work_needs() -> None:
    plan = adapt([work(100)], [MAIN], [], most=10)
    assert plan.submit == {"main": 3}  # 100 h / (4 workers x 10 h)
    assert plan.notes == []


def test_none_for_no_work() -> None:
    for plan in (adapt([], [MAIN], [], most=10), keep(5, [], [MAIN], [], most=10)):
        assert plan.submit == {}
        assert plan.notes == ["nothing is ready to run: no pilots are needed"]


def test_what_is_queued_and_what_runs_counts() -> None:
    assert adapt([work(100)], [MAIN], [pilot(), pilot()], most=10).submit == {"main": 1}
    assert adapt([work(100)], [MAIN], [pilot(), pilot(), pilot(5)], most=10).submit == {}
    assert adapt([work(100)], [MAIN], [pilot(), pilot(), pilot(-1)], most=10).submit == {"main": 1}


def test_what_a_pilot_has_in_hand_is_not_for_what_is_ready() -> None:
    holds = Active("main", None, 10 * HOUR, 10.0, held_s=30 * HOUR)  # of the 40 hours of its workers
    assert adapt([work(10)], [MAIN], [holds], most=10).submit == {}
    assert adapt([work(11)], [MAIN], [holds], most=10).submit == {"main": 1}


def test_a_running_pilot_with_too_little_time_left_for_the_long_ones_does_not_count_for_them() -> None:
    assert adapt([work(8, longest_h=8)], [MAIN], [pilot(7)], most=10).submit == {"main": 1}
    assert adapt([work(8, longest_h=7)], [MAIN], [pilot(7)], most=10).submit == {}


def test_long_work_goes_where_it_fits_and_short_work_fills_up() -> None:
    plan = adapt([work(1000), work(60, longest_h=30)], [MAIN, LONG], [], most=50)
    assert plan.submit == {"long": 1, "main": 17}  # 400 h of the long one's, 60 of them taken
    assert plan.needed == 18


def test_work_that_fits_nowhere_is_told_and_does_not_stop_the_rest() -> None:
    for plan in (
        adapt([work(100), work(300, longest_h=150)], [MAIN, LONG], [], most=10),
        keep(3, [work(100), work(300, longest_h=150)], [MAIN, LONG], [], most=10),
    ):
        assert plan.submit == {"main": 3}
        assert plan.notes == [
            "2 calculations fit into no partition: they need up to 150.0 h, reserve included, of 100.0 h useful; "
            "a longer partition is needed"
        ]


def test_caps() -> None:
    plan = adapt([work(10000)], [MAIN], [pilot()], most=10)
    assert plan.submit == {"main": 9}
    assert plan.needed == 249
    assert "max_jobs" in plan.notes[0]
    assert "most" in plan.notes[1]
    full = Room("main", 10 * HOUR, 4, 10.0, free=0)
    assert adapt([work(100)], [full], [], most=10).submit == {}


def test_a_kept_number() -> None:
    ready = [work(1), work(60, longest_h=30)]
    assert keep(2, ready, [MAIN, LONG], [], most=10).submit == {"long": 2}
    assert keep(2, ready, [MAIN, LONG], [pilot()], most=10).submit == {"long": 1}
    assert keep(2, ready, [MAIN, LONG], [pilot(), pilot()], most=10).submit == {}
    assert keep(9, ready, [MAIN, LONG], [], most=10).submit == {"long": 3}


def test_no_pilot_that_the_budget_cannot_pay_to_its_end() -> None:
    plan = adapt([work(1000)], [MAIN], [], most=100, node_h=25.0)
    assert plan.submit == {"main": 2}
    assert plan.notes[-1].endswith("25.0 node hours of the budget are left, a pilot may use 10.0")
    assert adapt([work(1000)], [MAIN], [], most=100, node_h=9.9).submit == {}
    assert keep(4, [work(1000)], [MAIN], [], most=100, node_h=30.0).submit == {"main": 3}


def test_one_campaigns_budget_does_not_stop_another_nor_pay_for_it() -> None:
    ready = [work(1000, campaign="rich"), work(1000, campaign="poor")]
    plan = adapt(ready, [MAIN], [], most=100, left_node_h={"poor": 20.0})
    assert plan.submit == {
        "main": 20
    }  # 2 of them of node hours of the poor: 80 of its 1,000 h... and 0 to spare


def test_affordable() -> None:
    assert affordable(["a"], {}, [], "a") == math.inf
    assert affordable(["a", "b"], {"a": 5.0}, [], None) == math.inf
    assert affordable(["a", "b"], {"a": 5.0, "b": 7.0}, [], None) == 12.0
    active = [pilot(2.0, campaign="a"), pilot(1.0, campaign="b"), pilot(0.5)]
    assert affordable(["a"], {"a": 5.0}, active, "a") == 2.5
    assert affordable(["a", "b"], {"a": 5.0, "b": 7.0}, active, None) == 8.5
    assert affordable(["a"], {"a": 1.0}, active, "a") == 0.0


hours = st.floats(0.01, 500.0)


@given(
    st.lists(st.tuples(hours, st.floats(0.01, 120.0)), max_size=6),
    st.lists(st.tuples(st.floats(-1, 100.0), st.sampled_from(["main", "long", "gone"])), max_size=12),
    st.integers(0, 30),
    st.floats(0, 1000.0),
)
def test_caps_hold_and_the_work_is_covered(
    ready: list[tuple[float, float]], active: list[tuple[float, str]], most: int, node_h: float
) -> None:
    works = [work(h, longest) for h, longest in ready]
    pilots = [pilot(h, p) for h, p in active]
    plan = adapt(works, [MAIN, LONG], pilots, most=most, node_h=node_h)
    assert plan.count + len(pilots) <= max(most, len(pilots))
    assert plan.submit.get("main", 0) <= MAIN.free
    assert plan.submit.get("long", 0) <= LONG.free
    assert sum({"main": 10.0, "long": 100.0}[n] * c for n, c in plan.submit.items()) <= node_h + 1e-6
    if plan.count < plan.needed:
        assert plan.notes
    free = adapt(works, [MAIN, LONG], [], most=10**9)
    fits = sum(w.seconds for w in works if w.longest_s <= LONG.useful_s)
    given_h = 40.0 * free.submit.get("main", 0) + 400.0 * free.submit.get("long", 0)
    if not free.notes:
        assert given_h * HOUR >= fits * (1 - 1e-6)
