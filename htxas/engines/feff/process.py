"""The process that runs FEFF in a directory: module by module, or by the user's own script.

``python -m htxas.engines.feff DIRECTORY`` finds the user's FEFF and how it is to be started in the environment:

``HTXAS_ENGINE_COMMAND``
    ``{"launcher": [...], "program": [...]}`` of the cluster's profile: htxas hands it to engines that start their code
    themselves.
``HTXAS_FEFF``
    Without a program there: FEFF's own script, or the folder of its modules.

Without both, ``feff`` is looked for on the path. What ran, for how long, and how it ended is left in
``outcome.json``; what it computed is in FEFF's own files.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from htxas.engines.base import read_job
from htxas.engines.feff.log import read_log
from htxas.engines.feff.write import AXES
from htxas.errors import Cause, EngineFailure

__all__ = ["Program", "find_program", "main", "run_directory"]

MODULES: tuple[str, ...] = (
    *("rdinp", "dmdw", "atomic", "pot", "ldos", "screen", "crpa", "opconsat", "xsph", "fms", "mkgtr", "path"),
    *("genfmt", "ff2x", "sfconv", "compton", "eels", "rhorrp"),
)
"""In the order of FEFF's own script; those a version does not have are left out."""

_NEEDED = ("rdinp", "pot", "xsph", "fms", "ff2x")
OUTPUT = "feff.out"
_PR_SET_PDEATHSIG = 1
_OF_ONE_RUN = ("feff.inp", OUTPUT, "xmu.dat", "outcome.json", "calculation.json", ".feff.error")


@dataclass(frozen=True, slots=True)
class Program:
    """A FEFF.

    Attributes
    ----------
    launcher
        Words before every command.
    words
        The script that runs all modules, or empty.
    folder
        Instead: the folder of the modules.
    """

    launcher: tuple[str, ...]
    words: tuple[str, ...]
    folder: Path | None = None

    def steps(self) -> list[tuple[str, list[str]]]:
        """Return the name and the command of each step."""
        if self.folder is None:
            return [("feff", [*self.launcher, *self.words])]
        found = [(m, self.folder / m) for m in MODULES if (self.folder / m).is_file()]
        return [(name, [*self.launcher, str(path)]) for name, path in found]


def find_program(environment: Mapping[str, str]) -> Program:
    """Return the user's FEFF.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none, or a folder lacks modules.
    """
    told = json.loads(environment.get("HTXAS_ENGINE_COMMAND", "{}"))
    launcher = tuple(told.get("launcher", ()))
    words = tuple(told.get("program", ())) or tuple(shlex.split(environment.get("HTXAS_FEFF", "")))
    if not words:
        found = shutil.which("feff", path=environment.get("PATH"))
        if found is None:
            raise EngineFailure(
                Cause.BAD_INPUT,
                "there is no FEFF: it is the user's own",
                hint="name its script or the folder of its modules: HTXAS_FEFF, or program: in htxas.yaml",
            )
        words = (found,)
    folder = Path(words[0]).expanduser()
    if len(words) == 1 and folder.is_dir():
        folder = folder.resolve()
        lacking = [m for m in _NEEDED if not os.access(folder / m, os.X_OK)]
        if lacking:
            raise EngineFailure(
                Cause.BAD_INPUT,
                f"the folder of FEFF's modules has no program {lacking[0]}",
                where=str(folder),
            )
        return Program(launcher, (), folder)
    program = shutil.which(str(folder), path=environment.get("PATH"))
    if program is None:
        raise EngineFailure(Cause.BAD_INPUT, "FEFF cannot be started: no such program", where=str(folder))
    return Program(launcher, (str(Path(program).resolve()), *words[1:]))


def run_directory(directory: Path, program: Program) -> dict[str, Any]:
    """Run FEFF in a directory, or in those of its polarisations; return what is told of it.

    The first module that fails, or potentials that did not converge, end it: what comes after would be made of
    nothing. Judging the results is the reader's.
    """
    folders = [directory / axis for axis in AXES if (directory / axis).is_dir()] or [directory]
    modules: dict[str, float] = {}
    for folder in folders:
        if folder != folders[0]:
            _take_potentials(folders[0], folder)
        failed = _run(folder, program, modules)
        if failed is not None:
            return {"modules_s": modules, **failed}
    return {"modules_s": modules, "ended_in": None, "returncode": 0}


def _take_potentials(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        if path.name not in _OF_ONE_RUN and path.suffix != ".inp" and not (folder / path.name).exists():
            shutil.copy2(path, folder)


def _run(folder: Path, program: Program, modules: dict[str, float]) -> dict[str, Any] | None:
    """Run all steps in one folder; return where it ended if it ended before its end."""
    output = folder / OUTPUT
    for name, command in program.steps():
        start = time.monotonic()
        returncode = _call(command, folder, output)
        modules[name] = round(modules.get(name, 0.0) + time.monotonic() - start, 3)
        if returncode < 0:  # as its shell would tell: the one above us looks for this
            os.kill(os.getpid(), -returncode)
        if returncode or _complained(folder):
            return {"ended_in": name, "returncode": returncode}
        if name == "pot" and _is_unconverged(output):
            return {"ended_in": None, "returncode": 0, "stopped_after": "pot"}
    return None


def _call(command: list[str], folder: Path, output: Path) -> int:
    """Run a step; return its status.

    It ends when this process does, however that ends: nobody else would end it. SIGTERM is passed on, so that a
    launcher can end what it has started elsewhere.
    """
    libc = ctypes.CDLL(None)

    def die_with_us() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    with output.open("ab") as log:
        try:
            step = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_us
            )
        except OSError as error:
            raise EngineFailure(
                Cause.BAD_INPUT, f"FEFF cannot be started: {error.strerror}", where=command[0]
            ) from None
    before = signal.signal(signal.SIGTERM, lambda *_: step.terminate())
    try:
        return step.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def _complained(folder: Path) -> bool:
    error = folder / ".feff.error"
    return error.is_file() and error.stat().st_size > 0


def _is_unconverged(output: Path) -> bool:
    return read_log(output.read_text(errors="replace")).scf.value == "unconverged"


def main(words: list[str]) -> int:
    """Run one directory; 0 unless FEFF could not be started at all."""
    directory = Path(words[0])
    job = read_job(directory)
    started, clock = datetime.now(UTC), time.monotonic()
    inputs = {
        str(p.relative_to(directory)): sha256(p.read_bytes()).hexdigest() for p in sorted(_inputs(directory))
    }
    outcome: dict[str, Any]
    try:
        program = find_program(os.environ)
        outcome = {"status": "ran", "program": [w for _, c in program.steps()[:1] for w in c]}
        outcome |= run_directory(directory, program)
    except EngineFailure as error:
        outcome = {"status": "failed", "failure": error.to_dict()}
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome |= {
        "key": job.calculation.key,
        "host": platform.node(),
        "started": started.isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "wall_s": time.monotonic() - clock,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "inputs_sha256": inputs,
    }
    partial = directory / ".outcome.json"
    partial.write_text(json.dumps(outcome))
    partial.replace(directory / "outcome.json")
    return 0


def _inputs(directory: Path) -> list[Path]:
    return [*directory.glob("feff.inp"), *directory.glob("[xyz]/feff.inp")]
