from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from htxas.errors import InternalError, NotFound
from htxas.store.records import Control, ControlState, PilotRecord, PilotState

pytestmark = pytest.mark.mongo

PILOT = PilotRecord(
    id="p1",
    cluster="here",
    job_id=None,
    array_task=None,
    state=PilotState.SUBMITTING,
    campaign=None,
    partition="main",
    nodes=1,
    cores=64,
    walltime_s=3600.0,
    submitted=datetime(2026, 1, 1, tzinfo=UTC),
)


def test_campaigns_are_active_until_somebody_says_otherwise(store, world):
    world.submit(store)
    world.submit(store, "other")
    assert store.controls() == {"demo": Control(), "other": Control()}
    assert store.controls()["demo"].state == "active"
    assert store.set_control("demo", state="paused") == Control(ControlState.PAUSED)
    store.set_control("demo", priority=5)
    store.set_control("demo", budget_node_h=100)
    assert store.controls()["demo"] == Control(ControlState.PAUSED, 5, 100.0)
    assert store.set_control("demo", state=ControlState.ACTIVE, budget_node_h=math.inf) == Control(priority=5)
    assert store.controls()["other"] == Control()
    assert store.put_campaign("demo", {"a": 1}) is False  # the campaign itself is what it was


def test_what_cannot_be_controlled(store, world):
    world.submit(store)
    with pytest.raises(NotFound, match="no campaign is called 'nobody'"):
        store.set_control("nobody", state="paused")
    with pytest.raises(ValueError, match="asleep"):
        store.set_control("demo", state="asleep")
    assert "nobody" not in store.controls()


def test_spending_counts_each_report_once(store):
    assert store.spent() == {}
    store.spend("a", {"demo": 1800.0, "v1.2": 3600}, 1)
    store.spend("a", {"demo": 1800.0, "v1.2": 3600}, 1)  # the answer to the first was lost
    store.spend("b", {"demo": 7200.0}, 1)
    store.spend("a", {"demo": 900.0}, 2)
    store.spend("a", {"demo": 1800.0}, 1)  # very late
    store.spend("a", {}, 3)
    assert store.spent() == pytest.approx({"demo": 2.75, "v1.2": 1.0})


def test_pilots(store):
    other = replace(PILOT, id="p0", cluster="there", state=PilotState.RUNNING, job_id="7", array_task=3)
    over = replace(PILOT, id="p2", state=PilotState.ENDED)
    store.put_pilots([PILOT, over, other])
    store.put_pilots([replace(PILOT, cores=1)])  # known: stays as it is
    assert store.pilot("p1") == PILOT
    assert [p.id for p in store.pilots()] == ["p0", "p1", "p2"]
    assert store.pilots("here") == [PILOT, over]
    assert store.pilots("here", active=True) == [PILOT]
    assert store.pilots(active=False) == [over]
    started = datetime(2026, 1, 2, tzinfo=UTC)
    store.update_pilot("p1", state=PilotState.LOST_TRACK, job_id="12", started=started, allocated_s=5)
    assert store.pilot("p1") == replace(
        PILOT, state=PilotState.LOST_TRACK, job_id="12", started=started, allocated_s=5
    )
    assert store.pilots("here", active=True) == []


def test_what_is_no_pilot(store):
    with pytest.raises(NotFound, match="no such pilot"):
        store.pilot("p9")
    with pytest.raises(NotFound, match="no such pilot"):
        store.update_pilot("p9", job_id="1")
    with pytest.raises(InternalError, match="a pilot has no colour"):
        store.update_pilot("p1", colour="red")


def test_the_server_tells_since_when_it_is_up(store):
    told = store._client.admin.command("serverStatus")["uptime"]
    assert abs(store.server_up_s() - told) < 5
