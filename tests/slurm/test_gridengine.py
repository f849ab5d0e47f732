"""The second scheduler: pilots on a real Grid Engine, through its profile and nothing else."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.gridengine import GridEngine
from tests.slurm.workload import Workload, chains

pytestmark = [pytest.mark.sge, pytest.mark.mongo, pytest.mark.slow]


class Bench:
    """A home inside Grid Engine's network: database, campaign, commands."""

    def __init__(self, engine: GridEngine, home: Path, workload: Workload) -> None:
        self.engine, self.home, self.workload = engine, home, workload

    def htxas(self, *arguments: str, check: bool = True) -> str:
        environment = {"HTXAS_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        program = str(Path(sys.executable).with_name("htxas"))
        return self.engine.run(program, *arguments, environment=environment, check=check)

    def counts(self) -> dict[str, int]:
        status: dict[str, Any] = json.loads(self.htxas("status", self.workload.name, "--json"))
        return status["campaigns"][0]["counts"]


@pytest.fixture
def bench(grid_engine: GridEngine, require_mongod: None) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="htxas-ge-", dir="/tmp") as name:
        home = Path(name)
        profile = {
            "scheduler": "sge",
            "home": str(home),
            "python": sys.executable,
            "parallel_environment": "smp",
            "database": {"uri_file": str(home / "db/uri")},
            "partitions": {"all": {"queue": "all.q", "walltime": "00:10:00", "cores": 4, "max_jobs": 2}},
            "pilots": {
                "most": 2, "workers": 2, "memory_per_worker_GB": 0.5, "margin_s": 5, "signal_s": 10, "idle_s": 2,
            },
        }  # fmt: skip
        (home / "htxas.yaml").write_text(json.dumps({"clusters": {"grid": profile}}))
        workload = chains(40, (0.3, 0.6))
        workload.write(home)
        made = Bench(grid_engine, home, workload)
        made.htxas("db", "up")
        try:
            yield made
        finally:
            made.engine.run("qdel", "-u", "*", check=False)
            made.htxas("db", "down", check=False)


def test_a_campaign_through_grid_engine_and_a_pilot_deleted_behind_its_back(bench: Bench) -> None:
    bench.htxas("campaign", "submit", str(bench.workload.file(bench.home)))
    assert "#$ -pe smp 2" in bench.htxas("queue", "preview", "--cluster", "grid")
    checked = bench.htxas("queue", "check", "--cluster", "grid", check=False)
    assert "the scheduler would take its script" in checked
    assert checked.count("problem") == 1, checked  # the database's address, which is good on one host only
    bench.htxas("queue", "submit", "--cluster", "grid", "--pilots", "2")
    end = time.monotonic() + 120
    while not bench.counts()["done"]:
        assert time.monotonic() < end, bench.engine.run("qstat")
        time.sleep(0.5)
    victim = bench.engine.run("qstat").splitlines()[2].split()[0]
    bench.engine.run("qdel", victim)
    while (counts := bench.counts())["ready"] + counts["running"]:
        assert time.monotonic() < end, (counts, bench.engine.run("qstat"))
        bench.htxas("reconcile", check=False)
        bench.htxas("queue", "submit", "--cluster", "grid", "--adapt")
        time.sleep(1)
    w = bench.workload
    assert counts["done"] == w.sites + w.grounds - sum(e.state != "done" for e in w.endings.values())
    while bench.engine.run("qstat"):
        assert time.monotonic() < end, bench.engine.run("qstat")
        time.sleep(0.5)
    bench.htxas("reconcile")
    pilots = json.loads(bench.htxas("queue", "status", "--all", "--json"))["pilots"]
    assert len(pilots) >= 2
    assert all(p["state"] == "ended" for p in pilots), pilots
