"""Estimates from a database of finished calculations, and the command that judges them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from htxas.cli.main import cli
from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.structure import Structure
from htxas.errors import Cause, DatabaseUnavailable, NotFound
from htxas.launch.agent.maker import TaskMaker, item_of, shown_s
from htxas.launch.agent.policy import SAFETY
from htxas.launch.agent.source import Held
from htxas.launch.estimates import Estimator, compare, lengths, machine_class
from htxas.launch.pilots.ready import ready_for
from htxas.launch.work.engine_run import Engines
from htxas.store.store import Store
from tests.cluster.profiles import profile as make_profile

pytestmark = pytest.mark.mongo


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("node017", "node"),
        ("node3.cluster.org", "node"),
        ("gpu-a-12", "gpu-a"),
        ("laptop", "laptop"),
        (None, ""),
    ],
)
def test_nodes_of_a_cluster_are_one_machine(host: str | None, kind: str) -> None:
    assert machine_class(host) == kind


@pytest.fixture
def finished(
    store: Store, submitted: Callable[..., Any], compute_all: Callable[[], Any]
) -> tuple[Calculation, Structure]:
    """Forty-eight sites that took 3 s each on node1 and 30 s on other machines; one of them."""
    submitted(sizes=(7, 8, 9, 11, 13), seconds=0.001)
    compute_all()
    calculations = store._db["calculations"]
    keys = [d["_id"] for d in calculations.find({"kind": "site"}, {"_id": 1}, sort=[("_id", 1)])]
    assert len(keys) == 48
    calculations.update_many({"kind": "site"}, {"$set": {"wall_s": 30.0, "host": "laptop"}})
    calculations.update_many({"_id": {"$in": keys[::3]}}, {"$set": {"wall_s": 3.0, "host": "node1"}})
    one = store.identity(keys[0])
    return one, store.structure(one.structure_key).structure


def test_times_of_the_same_kind_of_machine_decide(
    store: Store, finished: tuple[Calculation, Structure]
) -> None:
    for host, expected_s, samples in (("node22", 3.0, 16), ("laptop", 30.0, 32), ("elsewhere", 30.0, 48)):
        found = Estimator(store, host=host).estimate(*finished)
        assert found.seconds == pytest.approx(expected_s)
        assert found.samples == samples
        assert found.safety >= 1.0
    raised = Estimator(store, host="laptop").estimate(*finished, at_least_s=200.0)
    assert raised.seconds == 200.0
    prior = Estimator(None).estimate(*finished)
    assert (prior.samples, prior.seconds < 0.1) == (0, True)


def test_what_an_attempt_has_shown_needs_no_safety(
    finished: tuple[Calculation, Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.estimates.safety_of", lambda found: 2.0)
    estimator = Estimator(None)
    expected_s = estimator.estimate(*finished).seconds
    for times, room in ((0.5, 2.0), (1.5, 2.0), (3.0, 3.0)):
        found = estimator.estimate(*finished, at_least_s=times * expected_s)
        assert found.seconds == pytest.approx(max(1.0, times) * expected_s)
        assert found.seconds * found.safety == pytest.approx(room * expected_s)
    assert found.safety == 1.0


def test_the_database_agrees_on_what_was_cut_short(
    store: Store,
    finished: tuple[Calculation, Structure],
    submitted: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("htxas.launch.estimates.safety_of", lambda found: 2.0)
    submitted("more", sizes=(4, 6), seconds=0.001)
    waiting = [r for r in store.find(campaign="more", state=State.READY) if r.kind is Kind.SITE]
    assert len(waiting) == 10
    estimator, engines = Estimator(store), Engines()
    calculations = store._db["calculations"]
    for record in waiting:
        calculations.update_one({"_id": record.key}, {"$set": {"batch": record.key}})
    expected_s = estimator.fit("fake", Kind.SITE, finished[0].parameters).seconds(waiting[0].estimate_s)
    assert expected_s == pytest.approx(30.0, rel=0.2)
    for n, elapsed_s in enumerate((10.0, 20.0, 20.0, 50.0, 2000.0)):
        (leased,) = store.lease_many([waiting[n].key], "a")
        store.release(
            [leased.lease],
            cause=Cause.WALLTIME,
            evidence={"elapsed_s": elapsed_s},
            in_hand=[leased.lease.key],
        )
    calculations.update_one({"_id": waiting[2].key}, {"$set": {"interrupted": {}}})  # as a user's retry does
    learned = lengths(store, ["more"], estimator, engines)
    told = store.waiting([r.key for r in waiting], 1e9, lengths=learned, safety=SAFETY)
    work_s = 0.0
    for record in store.calculations([r.key for r in waiting]).values():
        one = store.identity(record.key)
        structure = store.structure(one.structure_key).structure
        found = estimator.estimate(one, structure, at_least_s=shown_s(record))
        assert told[record.key].shortest_s == pytest.approx(found.seconds * found.safety)
        work_s += found.seconds
    assert told[waiting[4].key].longest_s == 4000.0  # not 8000
    calculations.update_many({"kind": "ground"}, {"$set": {"state": State.DONE.value}})
    (work,) = store.ready_work(["more"], lengths=learned, safety=SAFETY)
    assert work.seconds == pytest.approx(work_s)
    assert work.longest_s == 4000.0


def test_an_attempt_cut_in_the_middle_of_an_allocation_fits_a_fresh_one(
    store: Store, submitted: Callable[..., Any]
) -> None:
    submitted(sizes=(1,), seconds=3600.0, batch={"at_least": 1})
    end = round(time.time()) + 12 * 3600
    store.heartbeat("a", {"started": datetime.fromtimestamp(end - 24 * 3600, UTC).isoformat(), "end": end})
    (key,) = (r.key for r in store.find() if r.kind is Kind.GROUND)
    (leased,) = store.lease_many([key], "a")
    store.release([leased.lease], cause=Cause.WALLTIME, evidence={"elapsed_s": 43200.0}, in_hand=[key])
    maker = TaskMaker(store, 1)
    batch = store.calculation(key).batch
    held = Held(batch, "chains", None, None, {key})
    for exact in (True, False):
        (again,) = store.lease_many([key], "b")
        ((task,), _) = maker.make(held, [again], {}, exact=exact)
        store.release([again.lease])
        if exact:
            assert item_of(task).room_s == pytest.approx(0.8 * 24 * 3600)
        assert task.estimate_s == pytest.approx(0.8 * 24 * 3600)
        assert task.timeout_s == pytest.approx(20 * 0.8 * 24 * 3600)
    learned = maker.lengths(["chains"])
    assert store.waiting([batch], 23.9 * 3600, lengths=learned, safety=SAFETY)[batch].too_long == 0


def test_a_planner_that_asks_again_learns_only_now_and_then(
    store: Store,
    finished: tuple[Calculation, Structure],
    submitted: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted("more", sizes=(4,), seconds=0.001)
    asked: list[Any] = []
    real = Store.timings
    monkeypatch.setattr(Store, "timings", lambda self, **kw: asked.append(kw) or real(self, **kw))
    profile = make_profile(tmp_path)
    for _ in range(2):  # of five ground states nothing has been learned: it may be at any moment
        first = ready_for(store, profile, ["more"], [1e6])
    assert len(asked) == 4
    monkeypatch.setattr("htxas.campaign.cost.ENOUGH_MEDIAN", 3)
    asked.clear()
    for _ in range(3):
        assert [w.count for w in ready_for(store, profile, ["more"], [1e6])] == [w.count for w in first]
    assert len(asked) == 2  # ground states and sites
    other = make_profile(tmp_path, pilots={"workers": 16, "cores_per_worker": 2})
    assert ready_for(store, other, ["more"], [1e6])
    assert len(asked) == 4


def test_what_was_learned_outlives_an_outage(
    store: Store, finished: tuple[Calculation, Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    estimator = Estimator(store, host="laptop", refresh_s=60.0, clock=lambda: now[0])
    assert estimator.estimate(*finished).seconds == pytest.approx(30.0)
    asked: list[int] = []

    def away(**_: Any) -> None:
        asked.append(1)
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(Store, "timings", lambda self, **kw: away(**kw))
    assert estimator.estimate(*finished).seconds == pytest.approx(30.0)
    assert not asked
    now[0] = 61.0
    for _ in range(3):
        assert estimator.estimate(*finished).seconds == pytest.approx(30.0)
    assert len(asked) == 1  # and not again before the next refresh is due


def test_the_command_tells_and_draws(
    store: Store,
    finished: tuple[Calculation, Structure],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotFound):
        compare(store, "nothing")
    sites = [c for c in compare(store) if c.kind is Kind.SITE]
    assert [(c.machine, len(c.timings)) for c in sites] == [("laptop", 32), ("node", 16)]
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["estimates", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    path = tmp_path / "estimates.png"
    said = call("chains", "--plot", str(path))
    assert "fake site on node" in said
    assert str(path) in said
    assert path.read_bytes().startswith(b"\x89PNG")
    told = json.loads(call("--json", "--plot", str(tmp_path / "e.svg")))
    assert told[-1]["machine"] == "node"
    assert told[-1]["actual_over_learned"]["median"] == pytest.approx(1.0)


def test_an_empty_database_says_so(store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))
    assert "priors" in CliRunner().invoke(cli, ["estimates"]).output
    result = CliRunner().invoke(cli, ["estimates", "--plot", "x.png"])
    assert "nothing to draw" in str(result.exception)
