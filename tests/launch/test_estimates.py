"""Estimates from a database of finished calculations, and the command that judges them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from htxas.cli.main import cli
from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.errors import DatabaseUnavailable, NotFound
from htxas.launch.estimates import Estimator, compare, machine_class
from htxas.store.store import Store

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
