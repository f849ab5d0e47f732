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
from htxas.launch.work import engine_process
from htxas.launch.work.engine_process import EngineProcess
from htxas.launch.work.engine_run import EngineRun, engine_environment
from htxas.launch.work.stop import Returned, Stop

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


class Script(FakeEngine):
    """One process per directory, of which only the end counts."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code

    def server_command(self) -> None:
        return None

    def command(self, directory: Path) -> list[str]:
        return [sys.executable, "-c", self._code, str(directory)]


def test_whoever_was_frozen_takes_the_answer_that_lies_there(
    process: EngineProcess, prepare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process, "_POLL_S", 0.0)
    clock, frozen = time.monotonic, [0.0]
    monkeypatch.setattr(engine_process.time, "monotonic", lambda: clock() + frozen[0])
    job, directory = prepare("a", seconds=0.6)

    def freeze() -> None:
        frozen[0] = 3600.0

    timer = threading.Timer(0.3, freeze)
    timer.start()
    process.run(directory, 20)  # what is left of the 20 s after the hour is what it was before
    timer.join()
    assert ENGINE.read(job, directory) is not None


def test_a_silent_engine_obeys_the_clock(tmp_path: Path, prepare: Callable[..., Any]) -> None:
    _, directory = prepare("a")
    silent = Script("import os, time; os.close(0); os.close(1); time.sleep(60)")
    process = EngineProcess(silent, tmp_path / "engine.log", Stop())
    start = time.monotonic()
    with pytest.raises(EngineFailure) as caught:
        process.run(directory, 1.0)
    assert caught.value.cause is Cause.WALLTIME
    assert time.monotonic() - start < 8


def test_a_dead_engine_is_seen_though_its_children_live(tmp_path: Path, prepare: Callable[..., Any]) -> None:
    _, directory = prepare("a")
    orphans = "import os, subprocess; subprocess.Popen(['sleep', '60']); os.kill(os.getpid(), 9)"
    process = EngineProcess(Script(orphans), tmp_path / "engine.log", Stop())
    with pytest.raises(EngineFailure) as caught:
        process.run(directory, 30)
    assert caught.value.cause is Cause.ENGINE_CRASH


def test_a_launcher_may_end_what_it_has_started(
    tmp_path: Path, prepare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As srun and mpirun do it: their processes are not in our group, and outlive a launcher that is killed."""
    monkeypatch.setattr(engine_process, "_LAUNCHER_S", 3.0)
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        "import os, pathlib, signal, subprocess, sys\n"
        "rank = subprocess.Popen(sys.argv[2:], start_new_session=True)\n"
        "def end(*_):\n    rank.kill()\n    os._exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(rank.pid))\n"
        "rank.wait()\n"
    )
    note = tmp_path / "pid"
    _, directory = prepare("a", seconds=60.0)
    how = EngineRun((sys.executable, str(launcher), str(note)))
    process = EngineProcess(ENGINE, tmp_path / "engine.log", Stop(), how)
    start = time.monotonic()
    with pytest.raises(EngineFailure, match="stopped after"):
        process.run(directory, 2.0)
    assert time.monotonic() - start < 2.0 + 3.0  # it is not waited for longer than it takes
    deadline = time.monotonic() + 5.0
    while _lives(int(note.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
        "guard = [sys.executable, '-m', 'htxas.launch.work.guard', str(os.getpid()), '9']\n"
        "child = subprocess.Popen([*guard, 'sleep', '60'])\n"
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
