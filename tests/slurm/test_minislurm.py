"""The project's own small Slurm does what the chaos test relies on."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm.fixtures import MiniSlurm, drained, minislurm

pytestmark = pytest.mark.slurm


def sbatch(folder: Path, *options: str, run: str) -> str:
    done = subprocess.run(
        ["sbatch", "--parsable", f"--chdir={folder}", "--output=out", "--open-mode=append", *options, f"--wrap={run}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def state(job: str) -> str:
    done = subprocess.run(
        ["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=True
    ).stdout
    return done.split("JobState=")[1].split()[0]


def test_a_job_runs_and_knows_its_node(slurm: MiniSlurm, tmp_path: Path) -> None:
    job = sbatch(tmp_path, "--nodelist=n2", run='echo "$SLURMD_NODENAME"; hostname')
    drained()
    named, host = (tmp_path / "out").read_text().split()
    assert state(job) == "COMPLETED"
    assert named == "n2"
    assert host == ("n2" if slurm.namespaces else host)


def test_a_dead_node_takes_its_processes_along_and_is_told_apart_from_a_dead_daemon(
    slurm: MiniSlurm, tmp_path: Path
) -> None:
    sbatch(tmp_path, "--nodelist=n3", run="setsid sleep 60 & sleep 60")
    slurm.wait(lambda: len(slurm.job_processes()["n3"]) >= 3, 10, "processes")
    slurm.kill_slurmd("n3")
    time.sleep(0.3)
    assert len(slurm.job_processes()["n3"]) >= 3
    slurm.start_node("n3")
    with pytest.raises(minislurm.MiniSlurmError, match="n3 runs already"):
        slurm.start_node("n3")
    slurm.kill_node("n3")
    assert slurm.job_processes()["n3"] == []
    with pytest.raises(minislurm.MiniSlurmError, match="no node 'n9'"):
        slurm.kill_node("n9")


def test_the_controller_comes_back_with_its_queue(slurm: MiniSlurm, tmp_path: Path) -> None:
    job = sbatch(tmp_path, "--hold", run="true")
    slurm.stop_controller()
    assert slurm.states() == {}
    slurm.start_controller()
    slurm.wait(lambda: len(slurm.up()) == 3, 20, "controller")
    assert state(job) == "PENDING"
