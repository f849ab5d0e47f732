"""Pilots in a real Slurm: arrays, signals, requeues, and what a job knows about itself there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.cluster.load import load_config
from htxas.cluster.queue import Queue, open_queue
from htxas.domain.calculation import State
from htxas.launch.bundles.site import bundle_maker, collect_all
from htxas.launch.pad.launchpad import launchpad_of
from htxas.launch.pilots.cancel import cancel_pilots
from htxas.launch.pilots.exit import PilotExit, read_exit
from htxas.launch.pilots.look import describe, refresh
from htxas.launch.pilots.submit import submit_pilots
from htxas.launch.submit import submit
from htxas.store.records import PilotState
from htxas.store.store import Store
from tests.slurm.fixtures import MiniSlurm

pytestmark = [pytest.mark.slurm, pytest.mark.mongo]


@pytest.fixture
def queue(slurm: MiniSlurm, tmp_path: Path, mongod_uri: str, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HTXAS_DB_URI", mongod_uri)
    uri_file = tmp_path / "uri"
    uri_file.touch(0o600)
    uri_file.write_text(mongod_uri)
    partition = {"walltime": "0:10:00", "cores": 4, "max_array": 100}
    common = {
        "scheduler": "slurm",
        "home": str(tmp_path / "home"),
        "setup": ["export OMP_NUM_THREADS=1"],
        "partitions": {"main": partition, "pair": {**partition, "queue": "main", "nodes": 2}},
        "pilots": {"workers": 1, "memory_per_worker_GB": 0.5, "margin_s": 20, "signal_s": 20, "idle_s": 1},
    }
    clusters = {
        "mini": {**common, "database": {"uri_file": str(uri_file)}},
        "island": {**common, "database": "none"},
    }
    path = tmp_path / "htxas.yaml"
    path.write_text(json.dumps({"clusters": clusters}))
    return open_queue(load_config(path).cluster("mini"))


@pytest.fixture
def pad(store: Store) -> Iterator[Any]:
    with launchpad_of(store) as opened:
        yield opened


@pytest.fixture
def work(store: Store, pad: Any, queue: Queue, tmp_path: Path) -> Callable[[int, float], None]:
    """Submit a campaign of carbon chains, two calculations or more in each."""

    def make(chains: int, seconds: float) -> None:
        records = []
        for n in range(1, chains + 1):
            atoms = [f"C {1.3 * i:.3f} {0.2 * i * i:.3f} 0.0" for i in range(n)]
            records.append("\n".join([str(n + 1), f"c{n}", *atoms, f"F {-1.09 - 0.1 * n:.3f} 0.1 0.3", ""]))
        (tmp_path / "chains.xyz").write_text("".join(records))
        document = {
            "campaign": "chains",
            "structures": {"file": "chains.xyz"},
            "site": {"element": "C", "edge": "K"},
            "engine": {"name": "fake", "preset": "instant", "parameters": {"seconds": seconds}},
        }
        path = tmp_path / "chains.yaml"
        path.write_text(json.dumps(document))
        with Plan(load_campaign(path)) as plan:
            submit(store, pad, plan)

    return make


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def over(store: Store, queue: Queue) -> bool:
    return not refresh(store, queue.profile, queue).pilots


def exits(tmp_path: Path) -> list[PilotExit]:
    found = [read_exit(path.read_text()) for path in sorted((tmp_path / "home").glob("pilots/*/*.exit.json"))]
    return [e for e in found if e is not None]


def test_an_array_of_pilots(
    store: Store, queue: Queue, work: Callable[[int, float], None], tmp_path: Path
) -> None:
    work(6, 0.3)
    done = submit_pilots(store, queue.profile, queue, pilots=3)
    assert len(done.submitted) == 3
    assert len({job.partition("_")[0] for job in done.submitted.values()}) == 1
    wait_for(lambda: len([r for r in describe(store, store.pilots()) if r["alive"]]) == 3)
    seen = refresh(store, queue.profile, queue)
    assert {p.state for p in seen.pilots} == {PilotState.RUNNING}
    wait_for(lambda: over(store, queue))
    assert store.counts()[State.DONE] == 27
    told = exits(tmp_path)
    assert {e.job_id for e in told} == set(done.submitted.values())
    assert sum(e.counts.get("done", 0) for e in told) == 27
    for pilot in store.pilots():
        assert pilot.state is PilotState.ENDED
        assert pilot.reason is not None
        assert pilot.reason.startswith("idle")
        assert pilot.end_time is not None
        assert pilot.started is not None
        assert 590 < (pilot.end_time - pilot.started).total_seconds() < 610
    assert "mongodb" not in "".join(p.read_text() for p in (tmp_path / "home").glob("pilots/*/script.sh"))


def test_cancelled_in_the_queue(store: Store, queue: Queue, work: Callable[[int, float], None]) -> None:
    work(2, 60.0)
    submit_pilots(store, queue.profile, queue, pilots=2)
    wait_for(lambda: store.counts()[State.RUNNING] > 0)
    done = cancel_pilots(store, queue.profile, queue)
    assert len(done.gone) == 2
    assert not done.left
    wait_for(lambda: store.counts()[State.READY] == 5, 10)
    assert not any(r.interrupted for r in store.find())
    assert all((p.reason or "").startswith("CANCELLED") for p in store.pilots())


def test_requeued(store: Store, queue: Queue, work: Callable[[int, float], None], tmp_path: Path) -> None:
    work(2, 2.0)
    done = submit_pilots(store, queue.profile, queue, pilots=1)
    (job,) = done.submitted.values()
    wait_for(lambda: store.counts()[State.RUNNING] > 0)
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_for(lambda: over(store, queue) and store.counts()[State.DONE] == 5, 90)
    told = exits(tmp_path)
    assert [e.restart for e in told] == [0, 1]
    assert [e.why.value for e in told] == ["terminated", "idle"]
    (pilot,) = store.pilots()
    assert pilot.restart == 1
    assert pilot.allocated_s == pytest.approx(sum(e.allocated_s for e in told))
    assert {r.state for r in store.find()} == {State.DONE}


def test_one_pilot_on_two_nodes(
    store: Store, queue: Queue, work: Callable[[int, float], None], tmp_path: Path
) -> None:
    work(6, 0.3)
    profile = replace(queue.profile, partitions={"pair": queue.profile.partition("pair")})
    pair = open_queue(profile)
    done = submit_pilots(store, profile, pair, pilots=1)
    (job,) = done.submitted.values()
    wait_for(lambda: over(store, pair))
    assert store.counts()[State.DONE] == 27
    told = exits(tmp_path)
    assert len(told) == 2
    assert {e.job_id for e in told} == {job}
    assert sum(e.counts.get("done", 0) for e in told) == 27
    (pilot,) = store.pilots()
    assert (pilot.nodes, pilot.cores) == (2, 2)
    assert pilot.allocated_s == pytest.approx(sum(e.allocated_s for e in told))


def test_an_island_without_the_database(
    store: Store, pad: Any, queue: Queue, work: Callable[[int, float], None], tmp_path: Path
) -> None:
    island = open_queue(load_config(tmp_path / "htxas.yaml").cluster("island"))
    work(4, 0.2)
    prepare = bundle_maker(store, pad, island.profile, island)
    done = submit_pilots(store, island.profile, island, pilots=1, prepare=prepare)
    assert len(done.submitted) == 1
    wait_for(lambda: over(store, island))
    (collected,) = collect_all(store, pad, island.profile, island)
    assert (collected.stored, collected.closed) == (14, True)
    assert store.counts()[State.DONE] == 14
    assert store.workers() == []
