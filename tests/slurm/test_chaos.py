"""Everything fails at once for a minute and a half; every site is done exactly once, or ended with its true cause."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.chaos import run, short_plan
from tests.slurm.fixtures import absent, minislurm
from tests.slurm.workload import chains

pytestmark = [pytest.mark.slurm, pytest.mark.mongo, pytest.mark.slow]


@pytest.fixture
def folder(require_mongod: None) -> Iterator[Path]:
    """An empty folder with a short path, kept if the test fails."""
    if missing := minislurm.missing_programs():
        absent("slurm", f"{' '.join(missing)} not installed")
    made = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    yield made
    if not (made / "failed").exists():
        shutil.rmtree(made, ignore_errors=True)


def test_nothing_lost_nothing_twice_and_true_causes(folder: Path) -> None:
    seed = int(os.environ.get("HTXAS_CHAOS_SEED", "1"))
    verdict = run(folder, chains(300, (0.5, 1.0, 1.5, 3.0)), short_plan(seed), seed, limit_s=220)
    if verdict.findings.problems:
        (folder / "failed").touch()
    account = (folder / "report/chaos.md").read_text()
    assert not verdict.findings.problems, f"everything is kept in {folder}\n{account}"
    print(account)
