"""FireWorks stores the module path of a task: Fireworks written by an older htxas must still run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fireworks import Firework, FWorker, LaunchPad
from fireworks.core.rocket import Rocket

from htxas.domain.calculation import State
from htxas.launch.pad.workflows import workflows_of
from htxas.launch.tasks import RunBatchTask
from htxas.store.records import Batch
from htxas.store.store import Store

SAVED = {
    "fw_id": 17,
    "name": "qm9: 12 calculations",
    "spec": {
        "_tasks": [{"_fw_name": "{{htxas.launch.tasks.RunBatchTask}}"}],
        "htxas": {"campaign": "qm9", "batch": "5f0c6ad9f1b6a7d31f2b0c55aa1e9d04"},
    },
}


def test_a_saved_firework_is_still_understood() -> None:
    firework = Firework.from_dict(SAVED)
    assert isinstance(firework.tasks[0], RunBatchTask)
    assert firework.spec["htxas"]["batch"] == SAVED["spec"]["htxas"]["batch"]  # type: ignore[index]


def test_new_fireworks_are_written_as_the_saved_one() -> None:
    batch = Batch(
        "5f0c6ad9f1b6a7d31f2b0c55aa1e9d04", "qm9", tuple("abcdefghijkl"), 1.0, shortest_s=0.1, longest_s=0.9
    )
    (workflow,) = workflows_of([batch], 3)
    written = workflow.fws[0].to_dict()
    about = written["spec"]["htxas"]
    assert (about.pop("shortest_s"), about.pop("longest_s"), written["spec"].pop("_priority")) == (
        0.1,
        0.9,
        3,
    )
    assert written["spec"] == SAVED["spec"]
    assert written["name"] == SAVED["name"]


@pytest.mark.mongo
def test_fireworks_own_launcher_runs_a_batch(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(1,))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Store, "open", staticmethod(lambda: _Borrowed(store)))
    assert Rocket(launchpad, FWorker(), None).run()
    assert store.counts()[State.DONE] == 2
    assert store.workers() == []
    assert launchpad.fireworks.distinct("state") == ["COMPLETED"]


class _Borrowed:
    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> Store:
        return self.store

    def __exit__(self, *_: object) -> None:
        """The test closes it."""
