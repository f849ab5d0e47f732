"""Time and memory of planning, submitting and looking at a campaign.

    python tests/benchmarks/plan_submit.py MOLECULES [--engine pyscf] [--preset published]

MOLECULES is any file htxas reads. The database is the one the environment names; one is made in it, and dropped at the
end. Targets: plan and submit all molecules in under 180 s and 1 GB; status of that campaign in under 1 s. How fast it
is computed is measured by ``throughput.py``.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.launch.pad.launchpad import open_launchpad
from htxas.launch.submit import submit
from htxas.store.store import Store

_CAMPAIGN = """\
campaign: {name}
structures: {{file: {file}}}
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


def campaign_file(folder: Path, name: str, molecules: Path, engine: str, preset: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(_CAMPAIGN.format(name=name, file=molecules, engine=engine, preset=preset))
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("molecules", type=Path)
    parser.add_argument("--engine", default="pyscf")
    parser.add_argument("--preset", default="published")
    options = parser.parse_args()
    molecules = options.molecules.absolute()
    with (
        tempfile.TemporaryDirectory() as name,
        Store.open(name=f"htxas_bench_{secrets.token_hex(3)}") as store,
    ):
        folder = Path(name)
        os.environ["HTXAS_HOME"] = str(folder / "home")
        try:
            plan_and_submit(store, campaign_file(folder, "all", molecules, options.engine, options.preset))
        finally:
            store.drop()


if __name__ == "__main__":
    main()
