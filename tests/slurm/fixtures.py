"""A real Slurm for tests: ``from tests.slurm.fixtures import slurm, slurm_cluster`` in a conftest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

from tests.slurm.gridengine import GridEngine, why_not

__all__ = ["MiniSlurm", "absent", "drained", "grid_engine", "minislurm", "slurm", "slurm_cluster"]

NODES, CPUS = 3, 4


def _load() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "deploy/slurm/minislurm.py"
    spec = util.spec_from_file_location("minislurm", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


minislurm = sys.modules.get("minislurm") or _load()
MiniSlurm = minislurm.MiniSlurm


def absent(marker: str, why: str) -> None:
    """Skip loudly; fail if ``HTXAS_REQUIRE_<MARKER>=1``."""
    variable = f"HTXAS_REQUIRE_{marker.upper()}"
    if os.environ.get(variable) == "1":
        pytest.fail(f"{variable}=1, but {why}")
    pytest.skip(f"needs a real {marker}: {why}")


def jobs() -> list[str]:
    """Return the ids of all jobs queued or running; the controller must answer."""
    done = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def drained(seconds: float = 30) -> None:
    """Wait until the queue is empty."""
    end = time.monotonic() + seconds
    while left := jobs():
        assert time.monotonic() < end, f"still queued: {left}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[MiniSlurm]:
    """Three nodes of four CPUs, partitions ``main``, ``spot`` and ``short``; for the whole session."""
    if missing := minislurm.missing_programs():
        absent("slurm", f"{' '.join(missing)} not installed")
    folder = Path(
        tempfile.mkdtemp(prefix="htxas-slurm-", dir="/tmp")
    )  # munge: no world-writable parent but /tmp
    cluster = MiniSlurm(folder)
    try:
        cluster.start(nodes=NODES, cpus=CPUS, memory_MB=16_000)
    except minislurm.MiniSlurmError as error:
        shutil.rmtree(folder)
        absent("slurm", str(error))
    yield cluster
    cluster.stop()
    shutil.rmtree(folder)


@pytest.fixture
def slurm(slurm_cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniSlurm]:
    """The cluster, with ``SLURM_CONF`` set; afterwards its queue is empty and all nodes are up again."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.conf))
    yield slurm_cluster
    slurm_cluster.restore()
    subprocess.run(["scancel", *jobs()] if jobs() else ["true"], check=True)
    drained()


@pytest.fixture(scope="session")
def grid_engine() -> Iterator[GridEngine]:
    """A Grid Engine of one host with four slots, in a network of its own."""
    if reason := why_not():
        absent("sge", reason)
    engine = GridEngine(Path(tempfile.mkdtemp(prefix="htxas-sge-", dir="/tmp")))
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()
