"""Engines that ``srun`` starts: whoever is stopped, or dies, leaves none of its processes behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.fixtures import MiniSlurm

pytestmark = pytest.mark.slurm

_JOB = """
import sys
from pathlib import Path
from htxas.engines.fake.engine import FakeEngine
from htxas.errors import EngineFailure
from htxas.launch.work.engine_process import EngineProcess
from htxas.launch.work.engine_run import EngineRun
from htxas.launch.work.stop import Stop

class Endless(FakeEngine):
    def server_command(self):
        return None

    def command(self, directory):
        return ["sh", "-c", "while sleep 0.2; do echo >> $0; done", f"{folder}/alive"]

folder = Path(sys.argv[1])
how = EngineRun(("srun", "-n", "2", "--mem-per-cpu=100"))
try:
    EngineProcess(Endless(), folder / "engine.log", Stop(), how).run(folder, float(sys.argv[2]))
except EngineFailure as error:
    print(error.message)
"""


def _run_job(folder: Path, lines: str) -> list[str]:
    """Run a job of two processes, in which ``worker SECONDS`` is a worker; return what it printed."""
    (folder / "worker.py").write_text(_JOB)
    script, said = folder / "job.sh", folder / "said"
    head = f'#!/bin/bash\nworker() {{ exec {sys.executable} "{folder}/worker.py" "{folder}" "$1"; }}\n'
    script.write_text(head + lines + "\necho end\n")
    options = [
        "-p",
        "main",
        "-N",
        "1",
        "-n",
        "2",
        "--mem=1000",
        "-t",
        "5",
        "-D",
        str(folder),
        "-o",
        str(said),
    ]
    subprocess.run(["sbatch", *options, str(script)], check=True, capture_output=True)
    deadline = time.monotonic() + 90
    while not said.exists() or "end\n" not in said.read_text():
        assert time.monotonic() < deadline, said.read_text() if said.exists() else "never started"
        time.sleep(0.2)
    return said.read_text().splitlines()


_LEFT = """
for i in $(seq 60); do squeue -h -s -j "$SLURM_JOB_ID" -o %i | grep -qv -e batch -e extern || break; sleep 0.25; done
squeue -h -s -j "$SLURM_JOB_ID" -o %i | grep -vc -e batch -e extern
size=$(stat -c %s alive); sleep 1; [ "$(stat -c %s alive)" = "$size" ] && echo silent
timeout 10 srun -n 2 --mem-per-cpu=100 echo next
"""


def test_a_step_that_is_stopped_is_gone(slurm: MiniSlurm, tmp_path: Path) -> None:
    said = _run_job(tmp_path, "(worker 4)" + _LEFT)
    assert said[:5] == ["stopped after 4 s", "0", "silent", "next", "next"]


def test_a_step_does_not_outlive_a_worker_that_is_killed(slurm: MiniSlurm, tmp_path: Path) -> None:
    kill = "(worker 300) & until [ -s alive ]; do sleep 0.2; done; kill -9 $!; wait $! 2>/dev/null"
    said = _run_job(tmp_path, kill + _LEFT)
    assert said[:4] == ["0", "silent", "next", "next"]
