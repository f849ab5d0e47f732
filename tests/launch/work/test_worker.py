"""A worker process by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from htxas.launch.agent.crew import Crew

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


def ignored(pid: int) -> set[int]:
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigIgn:"))
    mask = int(line.split()[1], 16)
    return {n for n in range(1, 65) if mask >> (n - 1) & 1}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_warnings_to_all_processes_of_a_job_end_no_worker(tmp_path: Path) -> None:
    """LSF sends them to every one, two minutes before the end, while the pilot brings work to its end."""
    crew = Crew("me", tmp_path, 1)
    try:
        crew.start(0)
        while not crew.wait(10.0):  # until it is ready
            pass
        pid = crew.pid(0)
        assert pid is not None
        assert ignored(pid) >= set(WARNINGS)
        assert signal.SIGTERM not in ignored(pid)
        for number in WARNINGS:
            os.kill(pid, number)
        time.sleep(0.3)
        assert crew.wait(0.1) == []
        assert crew.mans(0)
    finally:
        crew.close()


def test_what_is_ignored_stays_so_in_engines() -> None:
    """Engines are started as any process here: python puts back SIGPIPE and SIGXFSZ only."""
    code = (
        "import signal, subprocess, sys\n"
        "from htxas.launch.work import worker\n"
        "worker.die_with = lambda parent: sys.exit(subprocess.run(['sh', '-c', 'kill -USR2 $$; exit 7']).returncode)\n"
        "worker.main()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7
