"""Prometheus text: what is told, that it parses, and how it is handed over."""

from __future__ import annotations

import re
import stat
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from htxas.cli.metrics import metrics
from htxas.domain.calculation import State
from htxas.errors import Cause, DatabaseUnavailable, UserError
from htxas.launch.watching.metrics import registry, serve, text, write
from htxas.launch.watching.watch import Watcher
from htxas.store.outcomes import failed
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


@pytest.fixture
def watcher(store: Store, submitted: Callable[..., Any], mongod_uri: str) -> Iterator[Watcher]:
    submitted(sizes=(1, 2))
    keys = [r.key for r in store.find(state=State.READY, limit=2)]
    store.deliver([failed(x.lease, Cause.WALLTIME, "no", {}) for x in store.lease_many(keys, "tester")])
    info = {"host": "elsewhere", "workers": 4, "in_hand": ["a"], "cluster": "big", "pilot": "p"}
    store.heartbeat("o1", {**info, "engine_s": 90.0, "allocated_s": 100.0})
    store.stamp("reconcile")
    with Watcher(None, lambda: Store.open(mongod_uri, name=store.name)) as made:
        yield made


def samples(content: bytes) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(content.decode()):
        assert family.documentation
        assert family.type == "gauge"
        for s in family.samples:
            found[(s.name, *s.labels.values())] = s.value
    return found


def test_everything_is_told_in_prometheus_text(watcher: Watcher) -> None:
    found = samples(text(registry(watcher)))
    assert found["htxas_database_up",] == 1
    assert (
        found["htxas_calculations", "chains", "site", "ready"]
        + found["htxas_calculations", "chains", "ground", "ready"]
        == 3
    )
    assert found["htxas_failures", "chains", "walltime"] == 2
    assert found["htxas_utilisation", "big"] == pytest.approx(0.9)
    assert found["htxas_agents", "alive"] == 1
    assert (found["htxas_workers",], found["htxas_workers_busy",]) == (4, 1)
    assert found["htxas_reconcile_age_seconds",] < 60
    assert found["htxas_disk_free_bytes",] > 0
    assert found["htxas_journal_backlog_bytes",] == 0
    names = {k[0] for k in found}
    for name in ("sites_per_minute", "left_estimate_seconds", "runs_bytes", "runs_files", "engine_seconds"):
        assert f"htxas_{name}" in names


def test_a_database_that_is_away_is_a_metric(home: Path) -> None:
    def away() -> Store:
        raise DatabaseUnavailable("not there")

    found = samples(text(registry(Watcher(None, away))))
    assert found["htxas_database_up",] == 0
    assert "htxas_disk_free_bytes" in {k[0] for k in found}
    assert not any(k[0] == "htxas_calculations" for k in found)


def test_undelivered_journals_are_counted(watcher: Watcher, home: Path) -> None:
    folder = home / "runs" / "workers" / "past"
    folder.mkdir(parents=True)
    (folder / "journal-0.bin").write_bytes(bytes(100))
    (folder / "delivered.json").write_text('{"journal-0.bin": 40}')
    found = samples(text(registry(watcher)))
    assert found["htxas_journal_backlog_agents",] == 1
    assert found["htxas_journal_backlog_bytes",] == 60


def test_the_file_is_whole_and_readable_by_the_node_exporter(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "htxas.prom"
    path.write_text("before")
    write(registry(watcher), path)
    assert samples(path.read_bytes())["htxas_database_up",] == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in tmp_path.glob("*.prom")] == ["htxas.prom"]
    assert not list(tmp_path.glob(".htxas*"))
    with pytest.raises(UserError, match="cannot write"):
        write(registry(watcher), tmp_path / "no" / "htxas.prom")


def test_the_endpoint_answers_on_loopback(watcher: Watcher) -> None:
    stop, port = serve(registry(watcher), "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert samples(answer.read())["htxas_database_up",] == 1
        with pytest.raises(UserError, match="cannot listen"):
            serve(registry(watcher), "127.0.0.1", port)
    finally:
        stop()


@pytest.mark.parametrize(
    "words",
    [
        ["--listen", "9464"],
        ["--listen", "127.0.0.1:99999"],
        ["--listen", "127.0.0.1:9464", "--output", "a.prom"],
        ["--output", "a.txt"],
        ["--every", "5"],
    ],
)
def test_options_that_make_no_sense_are_refused(words: list[str]) -> None:
    result = CliRunner().invoke(metrics, words)
    assert isinstance(result.exception, UserError)


def test_the_command_prints_and_writes(
    watcher: Watcher, mongod_uri: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Store.open
    monkeypatch.setattr(Store, "open", lambda **_: opened(mongod_uri, name=store.name))
    printed = CliRunner().invoke(metrics, [], catch_exceptions=False).output
    assert samples(printed.encode())["htxas_database_up",] == 1
    path = tmp_path / "htxas.prom"
    CliRunner().invoke(metrics, ["--output", str(path)], catch_exceptions=False)
    assert "# HELP htxas_calculations" in path.read_text()


def test_the_shipped_alerts_speak_of_metrics_there_are(watcher: Watcher) -> None:
    from ruamel.yaml import YAML

    folder = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
    document = YAML(typ="safe").load(folder / "htxas-rules.yml")
    rules = [rule["expr"] for group in document["groups"] for rule in group["rules"]]
    source = (Path(__file__).resolve().parents[3] / "htxas/launch/watching/metrics.py").read_text()
    told = set(re.findall(r"htxas_[a-z_]+", source)) | {n[0] for n in samples(text(registry(watcher)))}
    assert rules
    assert set(re.findall(r"htxas_[a-z_]+", " ".join(rules))) <= told
    scrape = YAML(typ="safe").load(folder / "prometheus.yml")
    assert scrape["rule_files"] == ["htxas-rules.yml"]
