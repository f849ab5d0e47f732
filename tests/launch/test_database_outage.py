from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.domain.calculation import State
from htxas.launch.fireworks_pad import open_launchpad
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.settings import read_secret
from htxas.store.server import PrivateServer
from htxas.store.store import Store

pytestmark = [pytest.mark.mongo, pytest.mark.slow]


@pytest.fixture
def server(require_mongod: None) -> Iterator[PrivateServer]:
    """A server of this test's own: it will be killed."""
    folder = Path(tempfile.mkdtemp(prefix="htxas-outage-"))
    made = PrivateServer(folder / "db")
    made.up()
    yield made
    made.down()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_run_outlasts_a_database_that_is_killed_and_restarted(
    server: PrivateServer, write: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HTXAS_DB_PATIENCE_S", "30")
    killed: list[float] = []

    def kill_and_restart() -> None:
        pid = server.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed.append(time.monotonic())
        time.sleep(2.0)
        server.up()

    with Store.open(read_secret(server.uri_file), name="outage") as store:
        launchpad = open_launchpad(store)
        with Plan(load_campaign(write(sizes=(4, 5, 6, 7), seconds=0.1))) as plan:
            total = submit(store, launchpad, plan).calculations
        outage = threading.Thread(target=kill_and_restart)

        def begin(report: Any) -> None:
            if not killed and not outage.is_alive() and report.progress["counts"]["done"] >= 2:
                outage.start()

        summary = run_workers(store, launchpad, jobs=2, on_report=begin)
        outage.join()
        assert killed
        assert summary.progress["counts"] == {
            **{s.value: 0 for s in State},
            "done": total,
        }
        assert summary.problems == []
        states = launchpad.fireworks.distinct("state")
        launchpad.connection.close()
    assert states == ["COMPLETED"]
