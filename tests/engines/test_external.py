from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from htxas.engines.external import exhausted
from htxas.errors import Cause

# A process of an engine's: runs one step, then says that it got past it.
STEP = """
import sys
from pathlib import Path
from htxas.engines.external import call
status = call(sys.argv[1:], Path.cwd(), Path("out"))
Path("status").write_text(str(status))
"""


def start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", STEP, *command], cwd=folder)


def test_a_status_is_told(tmp_path: Path) -> None:
    assert start(tmp_path, "/bin/sh", "-c", "echo words; exit 3").wait() == 0
    assert (tmp_path / "status").read_text() == "3"
    assert (tmp_path / "out").read_text() == "words\n"


@pytest.mark.parametrize("command", ["kill -KILL $$", "exit 137"])
def test_a_step_ended_by_a_signal_ends_its_process_alike(tmp_path: Path, command: str) -> None:
    """137: what mpirun says of a process that the kernel killed."""
    assert start(tmp_path, "/bin/sh", "-c", command).wait() == -signal.SIGKILL
    assert not (tmp_path / "status").exists()


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "exit 143"])
def test_told_to_end_it_ends_so_whatever_the_step_makes_of_it(tmp_path: Path, end: str) -> None:
    process = start(tmp_path, "/bin/sh", "-c", f"trap '{end}' TERM; echo up; while :; do sleep 0.05; done")
    deadline = time.monotonic() + 20
    while not (tmp_path / "out").is_file() or not (tmp_path / "out").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    assert not (tmp_path / "status").exists()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Error allocating 23887872 bytes: Cannot allocate memory", Cause.OUT_OF_MEMORY),
        ("Operating system error: Cannot allocate memory", Cause.OUT_OF_MEMORY),
        ("ERROR: out of memory", Cause.OUT_OF_MEMORY),
        ("forrtl: severe (41): insufficient virtual memory", Cause.OUT_OF_MEMORY),
        ("write failed: No space left on device", Cause.DISK_FULL),
        ("Disk quota exceeded, out of memory buffers", Cause.DISK_FULL),
        ("Estimated max dynamical RAM per process > 20 MB", None),
    ],
)
def test_what_a_code_ran_out_of(text: str, cause: Cause | None) -> None:
    assert exhausted(text) is cause
