"""The status page and what is behind it: counts, rates, jumps, utilisation, and a database that goes away."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from htxas.cli.status import status
from htxas.domain.calculation import Kind, State
from htxas.errors import Cause, DatabaseUnavailable, NotFound
from htxas.launch.watching import watch
from htxas.launch.watching.watch import Watcher, look
from htxas.report.watching import JUMP, page
from htxas.store.outcomes import failed
from htxas.store.records import ControlState, PilotRecord, PilotState
from htxas.store.store import Store
from htxas.store.watching import Ending

pytestmark = pytest.mark.mongo


def pilot(
    name: str, cluster: str = "big", state: PilotState = PilotState.RUNNING, **fields: Any
) -> PilotRecord:
    plain = PilotRecord(
        name, cluster, "1", None, state, None, "main", 2, 64, 3600.0, datetime(2026, 1, 1, tzinfo=UTC)
    )
    return replace(plain, **fields)


def beat(store: Store, owner: str, **info: Any) -> None:
    store.heartbeat(owner, {"host": "elsewhere", "workers": 4, "in_hand": ["a", "b", "c"], "held": 9, **info})


def fail(store: Store, n: int, cause: Cause = Cause.WALLTIME) -> None:
    keys = [r.key for r in store.find(state=State.READY, limit=n)]
    leases = store.lease_many(keys, "tester")
    store.deliver([failed(x.lease, cause, "no", {}) for x in leases])


def drawn(seen: dict[str, Any], width: int) -> str:
    text = io.StringIO()
    screen = Console(file=text, width=width, markup=False, emoji=False, highlight=False)
    screen.print(page(seen, width, now="12:00:00"))
    return text.getvalue()


def test_a_look_tells_campaigns_pilots_agents_and_utilisation(
    store: Store, submitted: Callable[..., Any]
) -> None:
    submitted(sizes=(1, 2, 3))
    store.put_pilots(
        [
            pilot("p1", allocated_s=100.0, engine_s=40.0),  # its heartbeat knows more
            pilot(
                "p2",
                state=PilotState.ENDED,
                allocated_s=1000.0,
                engine_s=900.0,
                ended=datetime.now(UTC),
                reason="idle: a longer partition is needed",
            ),
            pilot("p3", state=PilotState.QUEUED),
            pilot("s1", cluster="small", state=PilotState.LOST_TRACK),
        ]
    )
    beat(store, "o1", cluster="big", pilot="p1", allocated_s=400.0, engine_s=380.0)
    beat(store, "o2", allocated_s=100.0, engine_s=20.0)
    store.stamp("reconcile")
    store.set_control("chains", state=ControlState.PAUSED, budget_node_h=0.5)
    store.spend("o1", {"chains": 3600.0}, 1)
    fail(store, 2)

    seen = json.loads(json.dumps(look(store), default=str))
    (campaign,) = seen["campaigns"]
    assert campaign["counts"]["failed"] == 2
    assert (campaign["control"], campaign["over_budget"], campaign["left_s"]) == ("paused", True, None)
    assert campaign["failures"] == [
        {"cause": "walltime", "count": 2, "last_hour": 2, "share_last_hour": 1.0, "jump": False}
    ]
    rows = {r["cluster"]: r for r in seen["pilots"]}
    assert rows["big"]["states"] == {
        "submitting": 0, "queued": 1, "running": 1, "ended": 1, "lost_track": 0
    }  # fmt: skip
    assert (rows["big"]["nodes"], rows["big"]["cores"], rows["big"]["agents"]) == (2, 64, 1)
    assert rows["big"]["utilisation"] == pytest.approx((380 + 900) / 1400)
    assert rows[""]["utilisation"] == pytest.approx(0.2)
    assert seen["utilisation"]["share"] == pytest.approx(1300 / 1500)
    alive = {"alive": 2, "silent": 0, "dead": 0, "places": 8, "busy": 6, "held": 18}
    assert seen["agents"] == {**alive, "bundles": 0, "longest_silence_s": 0.0}
    assert seen["reconciled_s"] < 60
    for width in (60, 80, 100, 160):
        text = drawn(seen, width)
        assert max(map(len, text.splitlines())) <= width
        for words in ("a longer", "chains", "paused", "2 walltime", "big", "2 agents", "6 of 8 places"):
            assert words in text, (width, words)


def test_nobody_is_called_dead_without_proof(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "server_up_s", lambda self: 86400.0)
    long_ago = datetime.now(UTC) - timedelta(minutes=30)
    beat(store, "o1", cluster="big", job_id="1", pilot="p1")
    beat(store, "o2", cluster="big", job_id="2", pilot="p2", restart=0)
    beat(store, "o3", bundle="/scratch/b1")
    store._db["workers"].update_many({}, {"$set": {"seen": long_ago}})
    beat(store, "o4", cluster="big", job_id="2", pilot="p2", restart=1)
    seen = look(store)
    states = {w["owner"]: w["state"] for w in seen["workers"]}
    assert states == {"o1": "silent", "o2": "dead", "o3": "bundle", "o4": "alive"}
    assert "nobody asked the scheduler about job 1" in seen["workers"][0]["why"]
    assert "job 2 was started again" in seen["workers"][1]["why"]
    text = drawn(seen, 100)
    for words in ("1 silent for up to", "1 dead", "1 bundle out", "htxas reconcile asks"):
        assert words in text, words


def test_only_one_campaign_if_it_is_named(store: Store, submitted: Callable[..., Any]) -> None:
    submitted(sizes=(1,))
    submitted(name="others", sizes=(2, 3))
    store.put_pilots([pilot("p1", campaign="chains"), pilot("p2", campaign="others"), pilot("p3")])
    fail(store, 9)
    seen = look(store, "chains")
    assert [c["campaign"] for c in seen["campaigns"]] == ["chains"]
    assert seen["pilots"][0]["states"]["running"] == 2
    both = {c["campaign"]: c for c in look(store)["campaigns"]}
    assert both["chains"]["failures"] == seen["campaigns"][0]["failures"]


def _ending(count: int, *, state: State = State.DONE, cause: Cause | None = None, now: int = 0, span_s: float = 9e9,
            estimate_s: float = 0.0, kind: Kind = Kind.SITE) -> Ending:  # fmt: skip
    return Ending("c", state, cause, kind, count, now, estimate_s, 0.0, span_s)


def _progress(
    done: int, failed: int = 0, ready: int = 0, left_s: float = 0.0, **causes: int
) -> dict[str, Any]:
    counts = {"done": done, "failed": failed, "quarantined": 0, "ready": ready, "running": 0}
    return {"counts": counts, "causes": causes, "left_estimate_s": left_s}


def test_throughput_is_per_minute_of_the_time_there_was() -> None:
    hour = watch._throughput([_ending(120, now=50), _ending(60, kind=Kind.GROUND)])
    assert (hour["sites_per_min"], hour["sites_per_min_hour"]) == (10.0, 2.0)
    assert hour["calculations_per_min_hour"] == 3.0
    young = watch._throughput([_ending(120, now=120, span_s=60.0)])
    assert (young["sites_per_min"], young["sites_per_min_hour"]) == (120.0, 120.0)
    assert watch._throughput([])["sites_per_min"] == 0.0


def test_time_left_is_expected_seconds_at_the_pace_of_the_last_hour() -> None:
    # 7,200 expected seconds done in an hour: two at a time; 36,000 are left
    endings = [_ending(10, estimate_s=7200.0)]
    assert watch._left_s(_progress(10, ready=50, left_s=36_000.0), endings) == pytest.approx(18_000.0)
    assert watch._left_s(_progress(10, ready=50, left_s=36_000.0), []) is None
    assert watch._left_s(_progress(10), endings) == 0.0


def test_a_cause_jumps_when_it_is_twice_as_frequent_as_before() -> None:
    usual = _progress(8950, 1050, walltime=1050)
    (row,) = watch._failures(usual, [_ending(90), _ending(10, state=State.FAILED, cause=Cause.WALLTIME)])
    assert (row["last_hour"], row["jump"]) == (10, False)  # one in ten, as ever
    (row,) = watch._failures(usual, [_ending(60), _ending(40, state=State.FAILED, cause=Cause.WALLTIME)])
    assert row["jump"]
    (row,) = watch._failures(
        _progress(99, 4, walltime=4), [_ending(4, state=State.FAILED, cause=Cause.WALLTIME)]
    )
    assert not row["jump"]  # four say nothing


def test_the_page_marks_a_jump_and_an_outage(store: Store, submitted: Callable[..., Any]) -> None:
    submitted(sizes=(1, 2, 3))
    fail(store, 6)
    seen = look(store)
    assert JUMP in drawn(seen, 80)
    seen["database"] = {"up": False, "silent_s": 200.0, "error": "gone"}
    assert "has not answered for 3.3 min" in drawn(seen, 80)


def test_the_watcher_keeps_the_page_while_the_database_is_away(
    store: Store, submitted: Callable[..., Any], mongod_uri: str
) -> None:
    submitted(sizes=(1, 2))
    away = False

    def open_store() -> Store:
        if away:
            raise DatabaseUnavailable("the database does not answer")
        return Store.open(mongod_uri, name=store.name, patience_s=0.0)

    with Watcher(None, open_store) as watcher:
        before = watcher.look()
        assert before["database"]["up"]
        assert before["database"]["look_ms"] > 0
        away = True
        watcher.close()  # as an answer that does not come would
        lost = watcher.look()
        assert not lost["database"]["up"]
        assert lost["campaigns"] == before["campaigns"]
        assert not watcher.look()["database"]["up"]
        away = False
        assert watcher.look()["database"]["up"]
    with pytest.raises(DatabaseUnavailable), Watcher(None, lambda: _raise()) as watcher:
        watcher.look()
    with pytest.raises(NotFound), Watcher("nix", open_store) as watcher:
        watcher.look()


def _raise() -> Store:
    raise DatabaseUnavailable("never there")


def test_large_counts_are_taken_less_often(
    store: Store, submitted: Callable[..., Any], mongod_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1,))
    monkeypatch.setattr(watch, "_SLOW_FACTOR", 1e9)
    with Watcher(None, lambda: Store.open(mongod_uri, name=store.name)) as watcher:
        before = watcher.look()["campaigns"][0]["counts"]
        fail(store, 1)
        beat(store, "o1")
        seen = watcher.look()
        assert seen["campaigns"][0]["counts"] == before
        assert seen["agents"]["alive"] == 1
        monkeypatch.setattr(watch, "_SLOW_FACTOR", 0.0)
        assert watcher.look()["campaigns"][0]["counts"]["failed"] == 1


def test_the_command_prints_page_json_and_goes_on_watching(
    store: Store, submitted: Callable[..., Any], mongod_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1, 2))
    opened = Store.open
    monkeypatch.setattr(Store, "open", lambda **_: opened(mongod_uri, name=store.name))
    result = CliRunner().invoke(status, ["chains"], catch_exceptions=False)
    assert "chains" in result.output
    (campaign,) = json.loads(CliRunner().invoke(status, ["--json"], catch_exceptions=False).output)[
        "campaigns"
    ]
    # what scripts rely on
    assert {"campaign", "total", "counts", "kinds", "causes", "rate_per_s", "submission_finished"} <= set(
        campaign
    )

    naps = 0

    def nap(_: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 4:
            raise KeyboardInterrupt

    clock = SimpleNamespace(sleep=nap, monotonic=time.monotonic)
    monkeypatch.setattr("htxas.cli.status.time", clock)
    result = CliRunner().invoke(status, ["--watch", "--every", "0.5"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "chains" in result.output
