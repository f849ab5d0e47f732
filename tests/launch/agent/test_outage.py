"""The database goes away in the middle of a run, for longer than anybody's patience."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.domain.calculation import State
from htxas.launch.agent.agent import Agent, AgentConfig, AgentReport, AgentSummary
from htxas.launch.agent.delivery import journals
from htxas.launch.agent.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.agent.source import Source
from htxas.launch.pad.launchpad import open_launchpad, prepare_launchpad
from htxas.launch.recovery.recover import recover
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.launch.work.journal import read_journal
from htxas.launch.work.stop import Stop
from htxas.settings import read_secret
from htxas.store.outcomes import Outcome
from htxas.store.records import ControlState
from htxas.store.server import PrivateServer
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


class Site:
    """A campaign on a server of its own that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.server = PrivateServer(folder)
        self.server.up()
        uri = read_secret(self.server.uri_file)
        self.store = Store.open(uri, name="outage", patience_s=0.3)
        self.launchpad: LaunchPad = open_launchpad(self.store)
        prepare_launchpad(self.launchpad)

    def kill(self) -> None:
        """End the server as a power cut would."""
        pid = self.server.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self.server.status().state == "up":
            time.sleep(0.02)

    def close(self) -> None:
        self.launchpad.connection.close()
        self.store.close()
        self.server.down()

    def attempts(self) -> set[int]:
        return {r.attempts for r in self.store.find()}

    def agent(
        self,
        on_report: Callable[[AgentReport, Path], None],
        stop: Stop | None = None,
        **config: Any,
    ) -> tuple[AgentSummary, Path]:
        owner = new_owner()
        folder = worker_folder(owner)
        with hold_alive(owner) as facts:
            source = Source(self.store, self.launchpad, owner, folder, None, 2)
            agent = Agent(AgentConfig(owner, folder, workers=2, **config), source)
            return agent.run(stop or Stop(), lambda said: on_report(said, folder), facts), folder


@pytest.fixture
def site(
    home: Path,
    mongod_folder: Path,
    write: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Site]:
    sizes, batch = getattr(request, "param", ((5, 6, 7, 8), {}))
    monkeypatch.setenv("HTXAS_DB_PATIENCE_S", "1")
    monkeypatch.delenv("HTXAS_DB_URI")
    monkeypatch.setattr("htxas.launch.agent.agent._REPORT_S", 0.05)
    monkeypatch.setattr("htxas.launch.agent.agent._TICK_S", 0.05)
    made = Site(mongod_folder / f"o{os.getpid()}{abs(hash(request.node.name)) % 1000}")
    with Plan(load_campaign(write(sizes=sizes, seconds=0.15, batch=batch))) as plan:
        submit(made.store, made.launchpad, plan)
    yield made
    made.close()


small_batches = pytest.mark.parametrize(
    "site", [(range(1, 8), {"target_s": 0.1, "at_least": 1})], indirect=True
)
"""Seven Fireworks, one for each molecule; 35 calculations."""


def concluded(folder: Path) -> int:
    """Return how many outcomes the journals of a folder have."""
    return sum(isinstance(r, Outcome) for path in journals(folder) for r, _ in read_journal(path))


def test_workers_go_on_and_everything_is_delivered_afterwards(site: Site) -> None:
    away = [0.0, 0]
    notes: set[str] = set()

    def cut(said: AgentReport, folder: Path) -> None:
        notes.update(said.notes)
        if not away[0] and concluded(folder) >= 4:
            away[:] = [time.monotonic(), concluded(folder)]
            site.kill()
        elif away[0] and time.monotonic() - away[0] > 5 and site.server.status().state != "up":
            away[1] = concluded(folder) - away[1]
            site.server.up()

    did, _ = site.agent(cut)
    assert did.delivered
    assert did.problems == []
    assert away[1] >= 4  # computed while nobody could be told
    assert any("has been away" in note for note in notes)
    counts = site.store.counts()
    assert counts[State.DONE] == 30
    assert site.attempts() == {1}
    run_workers(site.store, site.launchpad, jobs=1)
    assert {f["state"] for f in site.launchpad.fireworks.find({})} == {"COMPLETED"}
    assert site.store.workers() == []


@pytest.mark.parametrize("how", ["end", "stop"])
def test_an_agent_that_ends_during_the_outage_leaves_its_journal(
    how: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.agent._GRACE_S", 1.0)
    stop = Stop()

    def cut(said: AgentReport, folder: Path) -> None:
        if concluded(folder) >= 4 and site.server.status().state == "up":
            site.kill()
            if how == "stop":
                stop.after_this = True

    end = time.time() + 9 if how == "end" else None
    did, folder = site.agent(cut, stop, end=end, margin_s=4.0 if how == "end" else 0.0)
    assert not did.delivered
    left = concluded(folder)
    assert left >= 4
    site.server.up()
    assert recover(site.store, site.launchpad) == 1
    assert site.store.counts()[State.DONE] == left
    assert site.store.counts()[State.RUNNING] == 0
    run_workers(site.store, site.launchpad, jobs=2)
    assert site.store.counts()[State.DONE] == 30
    assert site.attempts() <= {1, 2}
    done_once = [r for r in site.store.find() if len(r.history) == 1]
    assert len(done_once) == 30  # nothing was computed twice: what was returned had not begun


def test_a_database_killed_again_and_again(site: Site) -> None:
    kills = [0, time.monotonic()]

    def cut(said: AgentReport, folder: Path) -> None:
        if kills[0] < 3 and time.monotonic() - kills[1] > 1.0:
            kills[:] = [kills[0] + 1, time.monotonic()]
            site.kill()
            site.server.up()

    did, _ = site.agent(cut)
    assert kills[0] == 3
    assert did.problems == []
    assert site.store.counts()[State.DONE] == 30
    run_workers(site.store, site.launchpad, jobs=1)
    assert {f["state"] for f in site.launchpad.fireworks.find({})} == {"COMPLETED"}
    assert sum(len(r.history) for r in site.store.find()) == 30


def taken(site: Site) -> int:
    return site.launchpad.fireworks.count_documents({"state": "RUNNING"})


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is fetched for the next seconds, stock is taken at once, and controls are looked at all the time."""
    monkeypatch.setattr("htxas.launch.agent.agent._AHEAD_S", 0.1)
    monkeypatch.setattr("htxas.launch.agent.clerk._RESTOCK_S", (0.0, 0.1))
    monkeypatch.setattr("htxas.launch.agent.source._CONTROLS_S", 0.1)
    monkeypatch.setattr("htxas.launch.agent.heart.BEAT_S", 0.1)


@small_batches
def test_stock_lasts_through_an_outage(site: Site, hasty: None) -> None:
    ready, rest = {"state": "READY"}, 35 - 8  # all but the one Firework that is left in the queue
    seen: dict[str, float] = {}

    def cut(said: AgentReport, folder: Path) -> None:
        if "left" not in seen:
            left = site.launchpad.fireworks.count_documents(ready)
            if left == 1:  # less than two for each agent: not plenty
                seen.update(left=left, taken=taken(site), at=time.monotonic())
                site.kill()
        elif "computed" not in seen and (concluded(folder) >= rest or time.monotonic() - seen["at"] > 20):
            seen["computed"] = concluded(folder)
            site.server.up()

    did, _ = site.agent(cut, ahead_s=60.0)
    assert did.delivered
    assert seen["left"] == 1
    assert seen["taken"] >= 3  # without stock two: one for each worker
    assert seen["computed"] >= rest
    assert site.store.counts()[State.DONE] == 35
    assert site.attempts() == {1}


@small_batches
def test_stock_goes_to_an_agent_that_has_nothing(
    site: Site, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htxas.launch.agent.source._PLENTY", 1)  # it takes all there is
    summaries: list[AgentSummary] = []
    first = threading.Thread(
        target=lambda: summaries.append(site.agent(lambda *_: None, ahead_s=60.0, linger_s=3.0)[0])
    )
    first.start()
    deadline = time.monotonic() + 20
    while site.launchpad.fireworks.count_documents({"state": "READY"}):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    held = taken(site)
    did, _ = site.agent(lambda *_: None, linger_s=3.0)
    first.join()
    assert held >= 3
    assert did.ended["done"] > 0
    assert summaries[0].ended["done"] + did.ended["done"] == 35
    assert all(len(r.history) == 1 for r in site.store.find())  # none was begun twice
    assert 2 in site.attempts()  # but leased


@small_batches
def test_stock_goes_back_when_the_campaign_is_paused_or_the_agent_ends(site: Site, hasty: None) -> None:
    stop = Stop()
    paused: list[float] = []

    def pause(said: AgentReport, folder: Path) -> None:
        if not paused and concluded(folder) >= 2:
            site.store.set_control("chains", state=ControlState.PAUSED)
            paused.append(time.monotonic())
        elif paused and not taken(site):
            stop.after_this = True

    did, _ = site.agent(pause, stop, ahead_s=60.0, linger_s=10.0)
    assert did.delivered
    counts = site.store.counts()
    assert counts[State.RUNNING] == 0
    assert counts[State.DONE] + counts[State.READY] == 35
    assert counts[State.READY] > 0
    assert taken(site) == 0
