"""From a workstation: the queue, the pilots and their bundles through a real sshd in front of a real Slurm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.fixtures import MiniSlurm, absent
from tests.slurm.sshd import Sshd, running, why_not

pytestmark = [pytest.mark.slurm, pytest.mark.mongo, pytest.mark.ssh]

CAMPAIGN = {
    "structures": {"file": "chains.xyz"},
    "site": {"element": "C", "edge": "K"},
    "engine": {"name": "fake", "preset": "instant", "parameters": {"seconds": 0.5}},
}


class Workstation:
    """A user's machine: ``ssh login`` works there, Slurm's own commands do not; the private database is on it."""

    def __init__(self, folder: Path, far: Path, sshd: Sshd) -> None:
        self.folder, self.far, self.sshd = folder, far, sshd
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "HTXAS_"))}
        self.environment = {
            **kept,
            "PATH": f"{sshd.client}:{os.environ['PATH']}",
            "HTXAS_HOME": str(folder / "home"),
            "HTXAS_CONFIG": str(folder / "htxas.yaml"),
            "SLURM_CONF": str(folder / "there-is-no-slurm-here"),
        }

    def htxas(self, *arguments: str, status: int = 0) -> Any:
        """Give a command; return its JSON, or what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "htxas.cli.main", *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr

    def submit(self, name: str, chains: int) -> None:
        """Submit a campaign: for n from 1, a chain of n carbons and its ground state."""
        records = []
        for n in range(1, chains + 1):
            atoms = [f"C {1.3 * i:.3f} {0.2 * i * i:.3f} 0.0" for i in range(n)]
            records.append("\n".join([str(n + 1), f"c{n}", *atoms, f"F {-1.09 - 0.1 * n:.3f} 0.1 0.3", ""]))
        (self.folder / "chains.xyz").write_text("".join(records))
        (self.folder / "c.yaml").write_text(json.dumps({"campaign": name, **CAMPAIGN}))
        self.htxas("campaign", "submit", "c.yaml")

    def done(self) -> int:
        """Return how many calculations are done."""
        (campaign,) = self.htxas("status", "--json")["campaigns"]
        return int(campaign["counts"].get("done", 0))

    def pilots(self, cluster: str, *, answers: bool = True) -> list[dict[str, Any]]:
        """Return the pilots that are queued or run; of a cluster that does not answer, those last known."""
        seen = self.htxas("queue", "status", "--cluster", cluster, "--json", status=0 if answers else 1)
        assert (seen["unknown"] == {}) is answers
        return list(seen["pilots"])


@pytest.fixture
def workstation(slurm: MiniSlurm, require_mongod: None, tmp_path: Path) -> Iterator[Workstation]:
    if reason := why_not():
        absent("ssh", reason)
    far = tmp_path / "far"
    for server in running(_made(tmp_path / "sshd"), {"PATH": os.environ["PATH"], "SLURM_CONF": slurm.conf}):
        folder = Path(tempfile.mkdtemp(prefix="ws-", dir="/tmp"))  # short, for the database's socket
        here = Workstation(folder, far, server)
        common = {
            "scheduler": "slurm",
            "host": "login",
            "home": str(far),
            "python": sys.executable,
            "setup": ["export OMP_NUM_THREADS=1", f"export PYTHONPATH={os.environ.get('PYTHONPATH', '')}"],
            "partitions": {"main": {"walltime": "0:10:00", "cores": 4}},
            "pilots": {
                "workers": 1,
                "memory_per_worker_GB": 0.5,
                "margin_s": 20,
                "signal_s": 20,
                "idle_s": 1,
            },
        }
        uri = {"uri_file": str(folder / "home/db/uri")}
        clusters = {"far": {**common, "database": uri}, "island": {**common, "database": "none"}}
        (folder / "htxas.yaml").write_text(json.dumps({"clusters": clusters}))
        here.htxas("db", "up")
        yield here
        here.htxas("db", "down")
        shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


def test_pilots_by_ssh_and_a_login_node_that_goes_away(workstation: Workstation) -> None:
    here = workstation
    found = here.htxas("queue", "check", "--cluster", "far", "--json", status=1)
    wrong = [c for c in found["findings"] if c["verdict"] == "problem"]
    assert [c["what"] for c in wrong] == ["database"]  # the private one is on loopback, as here are all nodes
    here.submit("by_ssh", 4)
    assert len(here.htxas("queue", "submit", "--cluster", "far", "--pilots", "2", "--json")["submitted"]) == 2
    here.sshd.stop()
    said = here.htxas("queue", "submit", "--cluster", "far", "--pilots", "3", status=1)
    assert "nothing is submitted while the scheduler gives no usable answer" in said
    assert "login" in said
    assert len(here.pilots("far", answers=False)) == 2  # out of sight is not gone
    until(lambda: here.done() == 14)
    here.sshd.start()
    here.htxas("reconcile")
    until(lambda: not here.pilots("far"))
    assert list(far_scripts(here))
    assert not any("mongodb://" in script for script in far_scripts(here))


def far_scripts(here: Workstation) -> Iterator[str]:
    return (path.read_text() for path in here.far.glob("pilots/*/script.sh"))


def test_bundles_by_ssh(workstation: Workstation) -> None:
    here = workstation
    here.submit("bundled", 4)
    done = here.htxas("queue", "submit", "--cluster", "island", "--pilots", "1", "--json")
    assert len(done["submitted"]) == 1
    assert list(here.far.glob("bundles/*/tasks*"))
    here.sshd.stop()
    assert "login" in here.htxas("collect", "--cluster", "island", status=1)
    here.sshd.start()

    def collected() -> bool:
        here.htxas("collect", "--cluster", "island")
        return here.done() == 14

    until(collected)
    until(lambda: not here.pilots("island"))
    assert not list(here.far.glob("db"))


def test_a_pilot_cancelled_by_ssh(workstation: Workstation) -> None:
    here = workstation
    here.submit("cancelled", 2)
    here.htxas("queue", "submit", "--cluster", "far", "--pilots", "1")
    here.htxas("queue", "cancel", "--cluster", "far")
    until(lambda: not here.pilots("far"))
