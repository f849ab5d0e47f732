"""A disk that fills up in the middle of a run: a real one, small, in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.launch.agent.agent import Agent, AgentConfig, AgentReport, AgentSummary
from htxas.launch.agent.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.agent.source import Source
from htxas.launch.disk.usage import DiskQuota
from htxas.launch.work.stop import Stop
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

_SIZE = 4 << 20


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """Mount a few megabytes where the runs go."""
    runs = home / "runs"
    runs.mkdir(parents=True)
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small disk")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={_SIZE}", "htxas-small", str(runs)],
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        pytest.skip(f"this machine lets nobody mount a disk: {made.stderr.strip()}")
    yield runs
    subprocess.run(["umount", "-l", str(runs)], check=True)


class _Anything(DiskQuota):
    """A disk of a few megabytes is all but full for a real one."""

    def room(self) -> Any:
        from htxas.launch.disk.usage import Room

        free = shutil.disk_usage(os.environ["HTXAS_HOME"] + "/runs").free
        return Room(free > _SIZE // 8, f"{free} bytes free", 1.0)


def run(
    store: Store,
    launchpad: LaunchPad,
    on_report: Callable[[AgentReport], None],
    patience_s: float,
) -> AgentSummary:
    owner = new_owner()
    folder = worker_folder(owner)
    with hold_alive(owner) as facts:
        config = AgentConfig(owner, folder, workers=2, quota=_Anything(), full_patience_s=patience_s)
        source = Source(store, launchpad, owner, folder, None, 2)
        return Agent(config, source).run(Stop(), on_report, facts)


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        try:
            for size in (1 << 16, 1 << 12, 1):
                while True:
                    try:
                        stream.write(bytes(size))
                    except OSError:
                        break
        finally:
            pass
    return ballast


@pytest.mark.parametrize("returns", [True, False])
def test_a_full_disk_loses_and_blames_nothing(
    returns: bool,
    small_disk: Path,
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("htxas.launch.agent.agent._REPORT_S", 0.05)
    monkeypatch.setattr("htxas.launch.agent.room._LOOK_S", 0.1)
    submitted(sizes=(12, 13), seconds=0.1, batch={"at_least": 1})
    filled: list[float] = []
    notes: set[str] = set()

    def meddle(said: AgentReport) -> None:
        notes.update(said.notes)
        if not filled and store.counts()[State.DONE] >= 3:
            fill(small_disk)
            filled.append(time.monotonic())
        if returns and filled and time.monotonic() - filled[0] > 2:
            (small_disk / "ballast").unlink(missing_ok=True)

    did = run(store, launchpad, meddle, 60.0 if returns else 2.0)
    assert any("waiting for room on the disk" in note for note in notes)
    counts = store.counts()
    assert counts[State.FAILED] == counts[State.QUARANTINED] == counts[State.RUNNING] == 0
    assert {cause for r in store.find() for cause in r.interrupted} <= {"disk_full"}
    if returns:
        assert did.problems == []
        assert counts[State.DONE] == 27
        return
    assert "no room on the disk" in did.problems[0]
    assert counts[State.READY] > 0
    (small_disk / "ballast").unlink()
    run(store, launchpad, lambda said: None, 60.0)
    assert store.counts()[State.DONE] == 27
    assert sum(sum(e["cause"] is None for e in r.history) for r in store.find()) == 27
