from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.fake.engine import ENGINE, FakeEngine
from htxas.errors import Cause, EngineFailure
from htxas.launch.engine_process import EngineProcess, EngineRun, engine_environment
from htxas.launch.stop import Returned, Stop

METHANE, _ = Structure.from_atoms(
    ["C", "H", "H", "H", "H"],
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]],
)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[EngineProcess]:
    made = EngineProcess(ENGINE, tmp_path / "engine.log", Stop())
    yield made
    made.close()


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., tuple[Job, Path]]:
    """Write the input of methane's ground state."""

    def make(name: str = "1", **parameters: Any) -> tuple[Job, Path]:
        resolved = ENGINE.resolve("instant", parameters, element="C", edge="K")
        job = Job(Calculation(Kind.GROUND, METHANE.key, "fake", resolved.ground), METHANE)
        directory = tmp_path / name
        directory.mkdir()
        ENGINE.write(job, directory)
        return job, directory

    return make


def test_one_process_serves_many_directories(process: EngineProcess, prepare: Callable[..., Any]) -> None:
    pids = set()
    for name in "abc":
        job, directory = prepare(name)
        process.run(directory, 20)
        assert ENGINE.read(job, directory).convergence.value == "converged"
        assert process._process is not None
        pids.add(process._process.pid)
    assert len(pids) == 1


def test_a_dead_process_is_named_and_replaced(process: EngineProcess, prepare: Callable[..., Any]) -> None:
    _, crashing = prepare("a", fail={"CH4:ground": "crash"})
    with pytest.raises(EngineFailure) as caught:
        process.run(crashing, 20)
    assert caught.value.cause is Cause.ENGINE_CRASH
    assert caught.value.evidence["signal"] == "SIGKILL"
    assert "fake engine" in " ".join(caught.value.evidence["log"])
    job, good = prepare("b")
    process.run(good, 20)
    assert ENGINE.read(job, good) is not None


def test_the_clock(process: EngineProcess, prepare: Callable[..., Any]) -> None:
    _, directory = prepare("a", fail={"CH4:ground": "hang"})
    start = time.monotonic()
    with pytest.raises(EngineFailure) as caught:
        process.run(directory, 0.7)
    assert caught.value.cause is Cause.WALLTIME
    assert time.monotonic() - start < 5


def test_stop_at_once(tmp_path: Path, prepare: Callable[..., Any]) -> None:
    stop = Stop()
    process = EngineProcess(ENGINE, tmp_path / "engine.log", stop)
    _, directory = prepare("a", seconds=60.0)

    def ask() -> None:
        stop.now = True

    timer = threading.Timer(0.5, ask)
    timer.start()
    with pytest.raises(Returned):
        process.run(directory, 100)
    timer.join()
    assert process._process is None


def test_an_engine_without_a_server_runs_one_process_per_directory(
    tmp_path: Path, prepare: Callable[..., Any]
) -> None:
    class OneByOne(FakeEngine):
        def server_command(self) -> None:
            return None

    engine = OneByOne()
    process = EngineProcess(engine, tmp_path / "engine.log", Stop())
    job, directory = prepare("a")
    process.run(directory, 20)
    assert engine.read(job, directory) is not None
    _, crashing = prepare("b", fail={"CH4:ground": "crash"})
    with pytest.raises(EngineFailure, match="SIGKILL"):
        process.run(crashing, 20)
    job, full = prepare("c", fail={"CH4:ground": "disk_full"})
    process.run(full, 20)
    with pytest.raises(EngineFailure) as caught:
        engine.read(job, full)
    assert caught.value.cause is Cause.DISK_FULL
    process.close()


def test_engines_never_see_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_DB_URI", "mongodb://user:secret@host")
    monkeypatch.setenv("HTXAS_DB_URI_FILE", "/secret")
    environment = engine_environment(EngineRun(environment={"HTXAS_DB_URI": "secret", "SCRATCH": "/fast"}))
    assert not any("secret" in v for v in environment.values())
    assert (environment["OMP_NUM_THREADS"], environment["SCRATCH"]) == ("1", "/fast")


def test_an_engine_is_launched_as_this_machine_wants_it(tmp_path: Path, prepare: Callable[..., Any]) -> None:
    job, directory = prepare("a")
    script = tmp_path / "launcher.sh"
    script.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS $@" >> "$NOTE"\nexec "$@"\n')
    script.chmod(0o700)
    note = tmp_path / "note"
    how = EngineRun((str(script),), (sys.executable, "-B"), 3, {"NOTE": str(note)})
    assert EngineRun.from_dict(json.loads(json.dumps(how.to_dict()))) == how
    process = EngineProcess(ENGINE, tmp_path / "engine.log", Stop(), how)
    process.run(directory, 20)
    process.close()
    assert ENGINE.read(job, directory) is not None
    assert note.read_text().split() == ["3", sys.executable, "-B", "-m", "htxas.engines.fake.run", "--serve"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_program_under_guard_dies_with_its_parent() -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'htxas.launch.guard', str(os.getpid()), '9', 'sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        deadline = time.monotonic() + 10
        while "sleep" not in Path(f"/proc/{child}/comm").read_text() and time.monotonic() < deadline:
            time.sleep(0.02)  # until it has become the program
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
