"""``htxas queue submit | status | cancel``, ``htxas bundle`` and ``htxas collect`` as a user calls them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from htxas.cli import queue_pilots
from htxas.cli.main import cli
from htxas.cluster.jobs import Unknown
from htxas.cluster.queue import Queue
from htxas.domain.calculation import State
from htxas.errors import ClusterError, NotFound, UserError
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Call = Callable[..., str]


@pytest.fixture
def htxas(store: Store, home: Path, tmp_path: Path, mongod_uri: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a command on the test's own database, with two clusters without schedulers."""
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))
    uri_file = tmp_path / "uri"
    uri_file.touch(0o600)
    uri_file.write_text(mongod_uri)
    common = {
        "scheduler": "local",
        "home": str(home),
        "partitions": {"here": {"walltime": "0:10:00", "cores": 2}},
        "pilots": {
            "workers": 1,
            "memory_per_worker_GB": 0.1,
            "margin_s": 1,
            "signal_s": 1,
            "idle_s": 1,
            "most": 2,
        },
    }
    clusters = {
        "open": {**common, "database": {"uri_file": str(uri_file)}},
        "shut": {**common, "database": "none"},
    }
    path = tmp_path / "htxas.yaml"
    path.write_text(json.dumps({"clusters": clusters}))
    monkeypatch.setenv("HTXAS_CONFIG", str(path))

    def call(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result.output

    return call


def wait_for(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_pilots_from_submission_to_their_end(
    htxas: Call, store: Store, submitted: Callable[..., Any]
) -> None:
    assert "nothing is ready to run" in htxas("queue", "submit", "-C", "open", "--adapt")
    submitted(sizes=(1, 2), seconds=0.2)
    with pytest.raises(NotFound):
        htxas("queue", "submit", "--pilots", "1")  # which of the two clusters?
    dry = htxas("queue", "submit", "-C", "open", "--pilots", "2", "--dry-run")
    assert "2 pilots would go to here, with this script:" in dry
    assert "-m htxas.launch.pilots.pilot" in dry
    assert store.pilots() == []
    assert "1 pilot submitted to open: job 1" in htxas("queue", "submit", "-C", "open", "--pilots", "1")
    assert "1 pilot queued or running on open; none submitted" in htxas("queue", "submit", "-C", "open")
    assert "open:here" in htxas("queue", "status", "-C", "open")
    document = json.loads(htxas("queue", "status", "--json"))
    assert [p["cluster"] for p in document["pilots"]] == ["open"]
    assert document["unknown"] == {}
    wait_for(lambda: "no pilots" in htxas("queue", "status"))
    assert store.counts()[State.DONE] == 5
    (ended,) = json.loads(htxas("queue", "status", "--all", "--json"))["pilots"]
    assert (ended["state"], ended["reason"]) == ("ended", "idle: no work for 1 s")
    assert 0 < ended["utilisation"] <= 1
    assert "there was nothing to cancel on open" in htxas("queue", "cancel", "-C", "open")


def test_a_scheduler_without_an_answer_is_told(
    htxas: Call, store: Store, submitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1, 2), seconds=30.0)
    htxas("queue", "submit", "-C", "open", "--pilots", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "snapshot", lambda self, ids=None: Unknown("garbage"))
        said = htxas("queue", "submit", "-C", "open", "--pilots", "2", status=1)
        assert "nothing is submitted while the scheduler gives no usable answer: garbage" in said
        assert "open: the scheduler gives no usable answer: garbage" in htxas("queue", "status", status=1)
        with pytest.raises(ClusterError, match="nothing was cancelled"):
            htxas("queue", "cancel", "-C", "open")
    assert "1 pilot gone from the queue of open" in htxas("queue", "cancel", "-C", "open")
    assert store.counts()[State.READY] == 5


def test_watching_says_what_is_new_once(
    htxas: Call, store: Store, submitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[float] = []

    def pause(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            submitted("other", sizes=(3,), seconds=0.1)
            store.set_control("other", budget_node_h=0.001)  # less than a pilot may use
        if len(rounds) == 6:
            raise ClusterError("enough")

    monkeypatch.setattr(queue_pilots, "time", SimpleNamespace(sleep=pause, strftime=time.strftime))
    runner = CliRunner()
    said = runner.invoke(cli, ["queue", "submit", "-C", "open", "--adapt", "--watch", "--every", "5"]).output
    assert len(rounds) == 6
    assert said.count("nothing is ready to run") == 1
    assert said.count("node hours of the budget are left") == 1
    assert "none submitted" not in said
    assert store.pilots() == []


def test_a_bundle_by_hand(htxas: Call, store: Store, submitted: Callable[..., Any], tmp_path: Path) -> None:
    folder = str(tmp_path / "b")
    assert "no bundle was made" in htxas("bundle", "make", "--hours", "1", "-o", folder)
    submitted(sizes=(1, 2))
    made = json.loads(htxas("bundle", "make", "-C", "shut", "--hours", "1", "-o", folder, "--json"))
    assert (made["bundle"]["tasks"], made["bundle"]["cluster"]) == (5, "shut")
    assert "0 of 5 ended" in htxas("collect", folder)
    assert "5 done; 0 left" in htxas("bundle", "run", folder)
    (seen,) = json.loads(htxas("collect", folder, "--json"))
    assert (seen["stored"], seen["closed"]) == (5, True)
    assert "nothing new; 5 of 5 ended" in htxas("collect", folder)
    htxas("collect", status=2)
    with pytest.raises(NotFound):
        htxas("collect", str(tmp_path))


def test_a_bundle_given_back(
    htxas: Call, store: Store, submitted: Callable[..., Any], tmp_path: Path
) -> None:
    submitted(sizes=(1, 2))
    folder = str(tmp_path / "b")
    assert "5 calculations" in htxas("bundle", "make", "--hours", "1", "-j", "2", "-o", folder)
    assert "5 calculations given back" in htxas("collect", folder, "--close")
    assert store.counts()[State.READY] == 5
    gone = tmp_path / "c"
    htxas("bundle", "make", "--hours", "1", "-o", str(gone))
    shutil.rmtree(gone)
    with pytest.raises(UserError, match="carried elsewhere"):
        htxas("collect", str(gone))
    (worker,) = store.workers()
    assert "5 calculations given back" in htxas("collect", "--forget", worker["owner"])
    assert store.counts()[State.READY] == 5


def test_pilots_with_bundles(htxas: Call, store: Store, submitted: Callable[..., Any]) -> None:
    submitted(sizes=(1, 2), seconds=0.1)
    assert "shut has no open bundles" in htxas("collect", "-C", "shut")
    assert "1 pilot submitted" in htxas("queue", "submit", "-C", "shut", "--adapt")
    wait_for(lambda: "no pilots" in htxas("queue", "status", "-C", "shut"))
    assert "5 results brought in; 5 of 5 ended" in htxas("collect", "--cluster", "shut")
    assert store.counts()[State.DONE] == 5
