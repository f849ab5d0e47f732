"""Time and memory of planning, submitting, looking at and running a campaign.

    python tests/benchmarks/plan_submit.py MOLECULES [--engine pyscf] [--sites 1000]

MOLECULES is any file htxas reads. The database is the one the environment names; two databases are made in it, and
dropped at the end. Three measurements:

- plan and submit all molecules: target under 180 s and 1 GB;
- status of that campaign: target under 1 s;
- calculations per second of ``htxas run -j 2`` with an engine that does nothing, beside FireWorks' own rapidfire with
  two workers and one empty Firework per calculation, in the same mongod.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.launch.pad.launchpad import open_launchpad, prepare_launchpad
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.store.store import Store

_CAMPAIGN = """\
campaign: {name}
structures: {{file: {file}{select}}}
site: {{element: C, edge: K}}
engine: {{name: {engine}, preset: {preset}}}
"""
_MB = 1024.0 if sys.platform == "linux" else 1024.0**2  # ru_maxrss: kilobytes, on macOS bytes


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long it took and the peak memory of this process so far."""
    start = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MB
    print(f"{what:<44} {time.perf_counter() - start:8.2f} s   peak {peak:6.0f} MB", flush=True)


def campaign_file(
    folder: Path, name: str, molecules: Path, engine: str, preset: str, limit: int | None
) -> Path:
    select = "" if limit is None else f", select: {{limit: {limit}}}"
    path = folder / f"{name}.yaml"
    path.write_text(_CAMPAIGN.format(name=name, file=molecules, select=select, engine=engine, preset=preset))
    return path


def plan_and_submit(store: Store, path: Path) -> None:
    with timed("load the campaign file"):
        campaign = load_campaign(path)
    with timed("plan"):
        plan = Plan(campaign)
    with plan:
        s = plan.survey
        hours = (s.ground_s + s.sites_s) / 3600
        print(f"  {s.molecules:,} molecules, {s.sites:,} unique sites of {s.atoms:,}, {hours:,.0f} h")
        launchpad = open_launchpad(store)
        with timed("submit"):
            done = submit(store, launchpad, plan)
        print(f"  {done.calculations:,} calculations in {done.batches:,} batches")
        with timed("submit again"):
            again = submit(store, launchpad, plan)
        assert (again.calculations, again.batches, again.molecules) == (0, 0, 0)
        with timed("status"):
            progress = store.progress(campaign.name)
        assert progress["total"] == done.calculations


def managed_rate(store: Store, path: Path) -> float:
    """Return calculations per second of ``htxas run -j 2`` on an engine that does nothing."""
    with Plan(load_campaign(path)) as plan:
        launchpad = open_launchpad(store)
        total = submit(store, launchpad, plan).calculations
    start = time.perf_counter()
    summary = run_workers(store, launchpad, jobs=2, campaign=path.stem)
    seconds = time.perf_counter() - start
    assert summary.progress["counts"]["done"] == total
    print(f"htxas run -j 2: {total:,} calculations in {seconds:.1f} s, start-up included")
    return total / seconds


def plain_rate(store: Store, count: int, folder: Path) -> float:
    """Return Fireworks per second of two ``rlaunch rapidfire`` on empty Fireworks."""
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
    start = time.perf_counter()
    workers = []
    for number in range(2):
        where = folder / f"plain-{number}"
        where.mkdir()
        workers.append(
            subprocess.Popen(command, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    for worker in workers:
        worker.wait()
    seconds = time.perf_counter() - start
    completed = launchpad.fireworks.count_documents({"state": "COMPLETED"})
    launchpad.connection.drop_database(name)
    assert completed == count
    print(f"rapidfire, 2 workers: {count:,} empty Fireworks in {seconds:.1f} s, start-up included")
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("molecules", type=Path)
    parser.add_argument("--engine", default="pyscf")
    parser.add_argument("--preset", default="published")
    parser.add_argument("--run-molecules", type=int, default=200, help="molecules of the run")
    parser.add_argument("--plain", type=int, default=300, help="Fireworks of plain FireWorks")
    options = parser.parse_args()
    molecules = options.molecules.absolute()
    with (
        tempfile.TemporaryDirectory() as name,
        Store.open(name=f"htxas_bench_{secrets.token_hex(3)}") as store,
    ):
        folder = Path(name)
        os.environ["HTXAS_HOME"] = str(folder / "home")
        try:
            plan_and_submit(
                store, campaign_file(folder, "all", molecules, options.engine, options.preset, None)
            )
            store.drop()
        finally:
            store.drop()
        with Store.open(name=store.name) as fresh:
            try:
                path = campaign_file(folder, "few", molecules, "fake", "instant", options.run_molecules)
                managed = managed_rate(fresh, path)
                plain = plain_rate(fresh, options.plain, folder)
            finally:
                fresh.drop()
        print(
            f"calculations per second: htxas {managed:.1f}, plain FireWorks {plain:.1f}, ratio {managed / plain:.1f}"
        )


if __name__ == "__main__":
    main()
