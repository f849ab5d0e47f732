"""Calculations per second and database operations per calculation, beside plain FireWorks in the same mongod.

    python tests/benchmarks/throughput.py [--calculations 4000] [--workers 2] [--plain 300]

htxas computes a campaign with an engine that does nothing, through local workers: every calculation gets its directory,
input and output files, a journal entry, the gate, its spectrum in the database, and its molecule added up. FireWorks
runs as many of its own workers (``rlaunch rapidfire``) on Fireworks with one empty task each. Operations are the
server's own count (``serverStatus: opcounters``: every document inserted or updated counts). The database is the one
the environment names, else a private one for the time of the benchmark.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.launch.pad.launchpad import open_launchpad, prepare_launchpad
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.settings import read_secret
from htxas.store.server import PrivateServer
from htxas.store.store import Store

_OPERATIONS = ("insert", "query", "update", "delete", "getmore", "command")
_SITES = 9


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of the comparison."""

    name: str
    calculations: int
    seconds: float
    operations: int

    @property
    def rate(self) -> float:
        return self.calculations / self.seconds

    @property
    def each(self) -> float:
        return self.operations / self.calculations

    def __str__(self) -> str:
        return (
            f"{self.name:<34}{self.calculations:>8,} in {self.seconds:6.1f} s {self.rate:9.1f} /s "
            f"{self.each:8.2f} operations each"
        )


def operations(store: Store) -> int:
    """Return how many operations the server has done; the questions of its own monitoring are few."""
    counters = store._client.admin.command("serverStatus")["opcounters"]
    return sum(int(counters[name]) for name in _OPERATIONS)


def chain(n: int) -> str:
    """Return an xyz record of a carbon chain without symmetry: one site per carbon."""
    atoms = [f"C {1.3 * i:.3f} {0.2 * i * i:.3f} 0.0" for i in range(_SITES)]
    return "\n".join([str(_SITES + 1), f"m{n}", *atoms, f"F {-1.09 - 0.0005 * n:.4f} 0.1 0.3", ""])


def campaign(folder: Path, name: str, calculations: int) -> Path:
    molecules = -(-calculations // (_SITES + 1))
    (folder / f"{name}.xyz").write_text("".join(map(chain, range(molecules))))
    document = {
        "campaign": name,
        "structures": {"file": f"{name}.xyz"},
        "site": {"element": "C", "edge": "K"},
        "engine": {"name": "fake", "preset": "instant"},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(document))
    return path


def managed(store: Store, folder: Path, calculations: int, workers: int) -> Measured:
    """Measure htxas, from the call to the last result in the database, start-up included."""
    launchpad = open_launchpad(store)
    with Plan(load_campaign(campaign(folder, "noop", calculations))) as plan:
        total = submit(store, launchpad, plan).calculations
    before, start = operations(store), time.perf_counter()
    summary = run_workers(store, launchpad, jobs=workers, campaign="noop")
    seconds = time.perf_counter() - start
    used = operations(store) - before
    launchpad.connection.close()
    assert summary.progress["counts"]["done"] == total, summary
    return Measured(f"htxas, {workers} workers", total, seconds, used)


def plain(store: Store, folder: Path, count: int, workers: int) -> Measured:
    """Measure FireWorks with one empty Firework per calculation."""
    from fireworks import Firework, LaunchPad, PyTask

    name = f"{store.name}_plain"
    document = {"host": store.uri_for_launchpad(), "name": name, "uri_mode": True, "strm_lvl": "ERROR"}
    launchpad = LaunchPad.from_dict(document)
    prepare_launchpad(launchpad)
    launchpad.bulk_add_wfs([Firework(PyTask(func="builtins.len", args=[""])) for _ in range(count)])
    path = folder / "launchpad.json"
    path.touch(0o600)
    path.write_text(json.dumps(document))
    command = [sys.executable, "-m", "fireworks.scripts.rlaunch_run", "-l", str(path), "-s", "rapidfire"]
    before, start = operations(store), time.perf_counter()
    running = []
    for number in range(workers):
        where = folder / f"plain-{number}"
        where.mkdir()
        running.append(
            subprocess.Popen(command, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    for worker in running:
        worker.wait()
    seconds, used = time.perf_counter() - start, operations(store) - before
    assert launchpad.fireworks.count_documents({"state": "COMPLETED"}) == count
    launchpad.connection.drop_database(name)
    launchpad.connection.close()
    return Measured(f"FireWorks rapidfire, {workers} workers", count, seconds, used)


@contextmanager
def database(folder: Path) -> Iterator[Store]:
    """Open the database the environment names, or a private one."""
    with ExitStack() as stack:
        uri = None
        if not any(os.environ.get(name) for name in ("HTXAS_DB_URI", "HTXAS_DB_URI_FILE")):
            server = PrivateServer(folder / "db")
            server.up()
            stack.callback(server.down)
            uri = read_secret(server.uri_file)
        store = stack.enter_context(Store.open(uri, name=f"htxas_bench_{secrets.token_hex(3)}"))
        stack.callback(store.drop)
        yield store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calculations", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plain", type=int, default=300, help="Fireworks of plain FireWorks; 0: not at all")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="htxas-bench-") as name, database(Path(name)) as store:
        folder = Path(name)
        os.environ["HTXAS_HOME"] = str(folder / "home")
        ours = managed(store, folder, options.calculations, options.workers)
        print(ours, flush=True)
        if options.plain:
            theirs = plain(store, folder, options.plain, options.workers)
            print(theirs)
            print(
                f"{'ratio':<34}{ours.rate / theirs.rate:>33.1f} x   1/{theirs.each / ours.each:.1f} of the operations"
            )


if __name__ == "__main__":
    main()
