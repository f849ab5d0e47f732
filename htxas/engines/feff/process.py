"""The process that runs FEFF in a directory: module by module, or by the user's own script.

``python -m htxas.engines.feff DIRECTORY`` finds the user's FEFF as :mod:`htxas.engines.external` says: a script, or
the folder of its modules. What ran, for how long, and how it ended is left in ``outcome.json``; what it computed is in
FEFF's own files.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.engines.base import Job
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.engines.feff.log import read_log
from htxas.engines.feff.write import AXES

__all__ = ["find_feff", "main", "run_directory"]

MODULES: tuple[str, ...] = (
    *("rdinp", "dmdw", "atomic", "pot", "ldos", "screen", "crpa", "opconsat", "xsph", "fms", "mkgtr", "path"),
    *("genfmt", "ff2x", "sfconv", "compton", "eels", "rhorrp"),
)
"""In the order of FEFF's own script; those a version does not have are left out."""

_NEEDED = ("rdinp", "pot", "xsph", "fms", "ff2x")
OUTPUT = "feff.out"
_OF_ONE_RUN = ("feff.inp", OUTPUT, "xmu.dat", "outcome.json", "calculation.json", ".feff.error")


def find_feff(environment: Mapping[str, str]) -> Program:
    """Return the user's FEFF.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none, or a folder lacks modules.
    """
    found = find_program(environment, code="FEFF", variable="HTXAS_FEFF", names=("feff",))
    if found.folder is None:
        return found
    return find_program(environment, code="FEFF", variable="HTXAS_FEFF", names=("feff",), needed=_NEEDED)


def _steps(program: Program) -> list[tuple[str, list[str]]]:
    """Return the name and the command of each step."""
    if program.folder is None:
        return [("feff", program.command())]
    return [(m, program.command(m)) for m in MODULES if (program.folder / m).is_file()]


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
    for name, command in _steps(program):
        start = time.monotonic()
        returncode = call(command, folder, output)
        modules[name] = round(modules.get(name, 0.0) + time.monotonic() - start, 3)
        if returncode or _complained(folder):
            return {"ended_in": name, "returncode": returncode}
        if name == "pot" and _is_unconverged(output):
            return {"ended_in": None, "returncode": 0, "stopped_after": "pot"}
    return None


def _complained(folder: Path) -> bool:
    error = folder / ".feff.error"
    return error.is_file() and error.stat().st_size > 0


def _is_unconverged(output: Path) -> bool:
    return read_log(output.read_text(errors="replace")).scf.value == "unconverged"


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])

    def run(_: Job) -> dict[str, Any]:
        program = find_feff(os.environ)
        told = {"program": _steps(program)[0][1]}
        return told | run_directory(directory, program)

    return run_and_tell(directory, _inputs(directory), run)


def _inputs(directory: Path) -> list[Path]:
    return [*directory.glob("feff.inp"), *directory.glob("[xyz]/feff.inp")]
