from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from htxas.launch.pilots.setback import NOT_NEEDED, NOT_SUBMITTED, Setback, setback
from htxas.store.records import PilotRecord, PilotState

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def record(name: str, submitted: float, **fields: Any) -> PilotRecord:
    """Return a pilot submitted so many seconds ago."""
    return PilotRecord(
        **{
            "id": name,
            "cluster": "here",
            "job_id": "1",
            "array_task": None,
            "state": PilotState.ENDED,
            "campaign": None,
            "partition": "main",
            "nodes": 1,
            "cores": 2,
            "walltime_s": 3600.0,
            "submitted": NOW - timedelta(seconds=submitted),
            **fields,
        }
    )


def dead(name: str, submitted: float, reason: str = "FAILED", **fields: Any) -> PilotRecord:
    """Return a pilot that ended two seconds after it was submitted."""
    return record(name, submitted, ended=NOW - timedelta(seconds=submitted - 2), reason=reason, **fields)


def worked(name: str, submitted: float, reason: str = "idle: no work", **fields: Any) -> PilotRecord:
    began = NOW - timedelta(seconds=submitted - 1)
    return dead(name, submitted, reason, owner="n1-7-a", started=began, **fields)


def found(*ended: PilotRecord, active: tuple[PilotRecord, ...] = (), held: tuple[str, ...] = ()) -> Setback:
    told = setback(ended, active, held, NOW)
    assert told is not None
    return told


def test_nothing_ended_or_all_worked() -> None:
    assert setback([], [], [], NOW) is None
    for reason in ("idle: no work", "deadline: USR1", "terminated: SIGTERM", "PREEMPTED", "TIMEOUT"):
        assert setback([worked("a", 100, reason)], [], [], NOW) is None


@pytest.mark.parametrize(
    ("waves", "pause_s"), [(1, 60), (2, 120), (3, 240), (4, 480), (6, 1920), (7, 3600), (50, 3600)]
)
def test_the_pause_doubles_with_each_failure(waves: int, pause_s: float) -> None:
    told = found(*(dead(f"{k}", 10 + 100 * k) for k in range(waves)))
    assert told.count == waves
    assert told.again == NOW - timedelta(seconds=8) + timedelta(seconds=pause_s)


def test_pilots_submitted_together_are_one_failure() -> None:
    told = found(*(dead(f"a-{k}", 10) for k in range(50)), *(dead(f"b{k}", 10 + k) for k in range(20)))
    assert (told.count, told.again) == (70, NOW - timedelta(seconds=8) + timedelta(seconds=60))


@pytest.mark.parametrize("reason", ["unfit: no database", "error: KeyError"])
def test_an_owner_alone_is_no_work(reason: str) -> None:
    assert found(worked("a", 100, reason)).reason == reason


def test_whoever_worked_since_counts() -> None:
    vain = [dead(f"{k}", 1000 + 100 * k) for k in range(5)]
    assert setback([worked("x", 500), *vain], [], [], NOW) is None
    assert setback([dead("x", 500, "idle: by its bundle"), *vain], [], [], NOW) is None
    assert found(worked("x", 5000), *vain).count == 5


def test_a_bad_node_among_good_ones_slows_nobody() -> None:
    others = tuple(
        record(f"a-{k}", 60, state=PilotState.RUNNING, owner="n", started=NOW - timedelta(seconds=50))
        for k in range(3)
    )
    assert setback([dead("a-9", 60)], others, [], NOW) is None
    assert found(dead("a-7", 60), dead("a-8", 60), dead("a-9", 60), active=others).trying == "a-0"


def test_one_that_runs_for_a_while_is_enough() -> None:
    vain = [dead(f"{k}", 1000 + 100 * k) for k in range(5)]
    young, old = (
        record("x", 95, state=PilotState.RUNNING, owner="n", started=NOW - timedelta(seconds=s))
        for s in (30, 90)
    )
    assert found(*vain, active=(young,)).trying == "x"
    assert setback(vain, [old], [], NOW) is None


def test_one_that_waits_is_the_try_unless_a_person_holds_it() -> None:
    waiting = record("x", 50, state=PilotState.QUEUED)
    assert found(dead("a", 100), active=(waiting,)).trying == "x"
    assert found(dead("a", 100), active=(waiting,), held=("x",)).trying is None


@pytest.mark.parametrize(
    "reason", ["CANCELLED by 1000", "CANCELLED: F", f"{NOT_NEEDED}no work", NOT_SUBMITTED, "terminated: TERM"]
)
def test_what_says_nothing_about_the_cluster(reason: str) -> None:
    assert setback([dead(f"{k}", 100, reason) for k in range(4)], [], [], NOW) is None


def test_yesterday_is_forgotten() -> None:
    assert setback([dead(f"{k}", 90_000) for k in range(4)], [], [], NOW) is None
