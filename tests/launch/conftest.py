"""Campaigns of fake calculations on a real mongod."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.launch.pad.launchpad import open_launchpad, prepare_launchpad
from htxas.launch.run import RunSummary, run_workers
from htxas.launch.submit import Submitted, submit
from htxas.store.store import Store
from tests.engines.conftest import pytest_runtest_setup as pytest_runtest_setup

H = 1.09


def chain(n: int) -> str:
    """Return an xyz record of a carbon chain without symmetry, named after its length."""
    atoms = [f"C {1.3 * i:.3f} {0.2 * i * i:.3f} 0.0" for i in range(n)]
    return "\n".join([str(n + 1), f"c{n}", *atoms, f"F {-H - 0.1 * n:.3f} 0.1 0.3", ""])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mongod_uri: str) -> Path:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HTXAS_DB_URI", mongod_uri)
    return tmp_path / "home"


@pytest.fixture
def launchpad(store: Store, home: Path) -> Iterator[LaunchPad]:
    pad = open_launchpad(store)
    prepare_launchpad(pad)
    yield pad
    pad.connection.close()


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a campaign of carbon chains; return its file."""

    def make(
        name: str = "chains",
        sizes: tuple[int, ...] = (1, 2, 3),
        batch: Mapping[str, Any] | None = None,
        extra: str = "",
        **parameters: Any,
    ) -> Path:
        (tmp_path / f"{name}.xyz").write_text("".join(map(chain, sizes)) + extra)
        document = {
            "campaign": name,
            "structures": {"file": f"{name}.xyz", "on_error": "skip" if extra else "stop"},
            "site": {"element": "C", "edge": "K"},
            "engine": {"name": "fake", "preset": "instant", "parameters": parameters},
            "batch": dict(batch or {}),
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(document, indent=1))  # JSON is YAML
        return path

    return make


@pytest.fixture
def submitted(store: Store, launchpad: LaunchPad, write: Write) -> Callable[..., Submitted]:
    """Write and submit a campaign."""

    def make(*args: Any, **kwargs: Any) -> Submitted:
        with Plan(load_campaign(write(*args, **kwargs))) as plan:
            return submit(store, launchpad, plan)

    return make


@pytest.fixture
def compute_all(store: Store, launchpad: LaunchPad) -> Callable[..., RunSummary]:
    """Run what is ready to its end."""
    return partial(run_workers, store, launchpad, jobs=1)


def batch_ids(launchpad: LaunchPad) -> list[str]:
    found = launchpad.fireworks.find({}, {"spec.htxas.batch": 1}, sort=[("fw_id", 1)])
    return [f["spec"]["htxas"]["batch"] for f in found]


@pytest.fixture
def all_batches(launchpad: LaunchPad) -> Callable[[], list[str]]:
    """Return the batches of all Fireworks in order."""
    return lambda: batch_ids(launchpad)


@pytest.fixture
def tally(launchpad: LaunchPad) -> Callable[[], dict[str, int]]:
    """Return the number of Fireworks in each state."""

    def count() -> dict[str, int]:
        rows = launchpad.fireworks.aggregate([{"$group": {"_id": "$state", "n": {"$sum": 1}}}])
        return {r["_id"]: r["n"] for r in rows}

    return count
