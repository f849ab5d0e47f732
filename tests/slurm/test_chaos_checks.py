"""The chaos test's own checks see what they are there to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.registry import get_engine
from tests.slurm import invariants
from tests.slurm.chaos import long_plan, short_plan
from tests.slurm.chaos_report import Struck, recovery_s, table
from tests.slurm.faults import FAULTS
from tests.slurm.invariants import Findings
from tests.slurm.ledger import SPOIL, Run, read_ledger
from tests.slurm.workload import chains

KEY, T0 = "ab" * 20, 1_000_000.0


def document(**changes: Any) -> dict[str, Any]:
    done = {
        "_id": KEY, "kind": "site", "state": "done", "cause": None, "attempts": 2, "history": [],
        "finished": datetime.fromtimestamp(T0 + 10, UTC), "directory": f"/runs/ab/{KEY}/2",
    }  # fmt: skip
    return done | changes


def execution(attempt: int, started: float, ended: float | None, *, spoilt: bool = False) -> Run:
    at = T0 + started
    return Run(KEY, attempt, "n1", at, None if ended is None else T0 + ended, 0 if ended else None, spoilt)


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([execution(1, 0, None), execution(2, 4, 9)], None),
        ([execution(2, 4, 9), execution(2, 5, 9)], "more than once"),
        ([execution(2, 4, 9), execution(3, 12, 14)], "after they were done"),
        ([execution(1, 4, 9)], "without one whole execution"),
        ([execution(2, 4, None)], "without one whole execution"),
        ([execution(2, 4, 9, spoilt=True)], "without one whole execution"),
        ([execution(2, 4, 12)], "without one whole execution"),
    ],
)
def test_exactly_once(runs: list[Run], problem: str | None) -> None:
    findings = Findings()
    invariants._exactly_once(findings, [document()], {KEY: runs})
    assert (problem is None) == (findings.problems == [])
    assert problem is None or problem in findings.problems[0]


class _Arrays(dict[str, Any]):
    def find(self, *_: Any) -> list[dict[str, Any]]:
        return [{"_id": k, "attempt": v} for k, v in self.items()]


@pytest.mark.parametrize("stored", [{}, {KEY: 1}])
def test_arrays_of_another_attempt_are_seen(stored: dict[str, int]) -> None:
    findings = Findings()
    invariants._arrays(findings, {"spectra": _Arrays(stored), "dos": _Arrays()}, [document()])
    assert "arrays or folders of another attempt" in findings.problems[0]


def test_work_in_vain_is_told_from_corrections() -> None:
    entry = {"attempt": 1, "cause": "scf_unconverged"}
    fault = Struck("kill_node", "n1", T0 + 1, T0 + 5, 0, 1)
    for history, expected in (([entry], (1, 0, 0)), ([], (0, 1, 1))):
        findings, fault.lost = Findings(), 0
        runs = {KEY: [execution(1, 0, 3), execution(2, 4, 9)]}
        invariants._recomputed(findings, [document(history=history)], runs, [fault])
        f = findings.figures
        assert (f["corrected_attempts"], f["recomputed_whole"], fault.lost) == expected


def test_plans_are_the_seeds_and_the_long_one_has_every_fault() -> None:
    assert short_plan(3) == short_plan(3) != short_plan(4)
    assert {p.name for p in long_plan(5)} == set(FAULTS)


def test_recovery_is_the_first_end_after_the_fault() -> None:
    fault = Struck("lie", "empty", 10.0, 20.0, 0, 5)
    assert recovery_s(fault, [9.0, 15.0, 22.5, 30.0]) == 2.5
    assert recovery_s(fault, [9.0]) is None
    account = {
        "seed": 1, "passed": False, "problems": ["one"], "sites": 3, "calculations": 4, "engine": "fake",
        "wall_s": 30.0, "figures": {"states": {"done": 4}},
        "faults": [{"name": "lie", "detail": "empty", "began": 10.0, "ended": 20.0, "recovery_s": 2.5, "lost": 0}],
    }  # fmt: skip
    assert "| lie | empty | 10 | 10.0 | 2.5 | 0 |" in table(account)
    assert "- one" in table(account)


def test_the_ledger_sees_starts_ends_and_kills_and_spoils_on_request(tmp_path: Path) -> None:
    structure, _ = Structure.from_atoms(["C", "O"], [[0, 0, 0], [0, 0, 1.13]])
    engine = get_engine("fake")
    resolved = engine.resolve("instant", {"fail": {"CO:0": "crash"}}, element="C", edge="K")
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    (ledger / SPOIL).touch()
    ground = Calculation(Kind.GROUND, structure.key, "fake", resolved.ground)
    site = Calculation(Kind.SITE, structure.key, "fake", resolved.site, "C", "K", 0)
    folders = []
    for calculation in (ground, site):
        folder = tmp_path / "runs" / calculation.key / "1"
        folder.mkdir(parents=True)
        engine.write(Job(calculation, structure, None), folder)
        folders.append(folder)
    command = engine.server_command()
    assert command is not None
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ledger.py")), str(ledger), *command],
        input="".join(f"{f}\n" for f in folders), capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == -9
    assert json.loads(done.stdout.splitlines()[0])["returncode"] == 0
    runs = {run.key: run for run in read_ledger(ledger)}
    assert runs[ground.key].spoilt
    assert runs[ground.key].returncode == 0
    assert runs[site.key].ended is None
    assert time.time() - runs[site.key].started < 60
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads((folders[0] / "outcome.json").read_text())


def test_the_workload_names_its_failures() -> None:
    workload = chains(300, (0.5, 1.0))
    assert (workload.sites, workload.grounds) == (300, 24)
    assert workload.ending("CF", "0").state == "done"
    assert workload.ending("C3F", "2").cause == "ground_failed"
    causes = {e.cause for e in workload.endings.values()} - {None}
    assert causes >= {
        "scf_unconverged",
        "hole_left_site",
        "walltime",
        "out_of_memory",
        "engine_crash",
        "lost",
    }
