"""The process that runs CP2K in a directory: once for a ground state, three or four times for a site.

``python -m htxas.engines.cp2k DIRECTORY`` finds the user's CP2K as :mod:`htxas.engines.external` says, by the variable
``HTXAS_CP2K``. What ran, for how long, and how it ended is left in ``outcome.json``; the numbers are in CP2K's files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from htxas.engines.base import Job
from htxas.engines.cp2k.log import read_log
from htxas.engines.cp2k.write import steps_of
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.errors import Cause, EngineFailure

__all__ = ["find_cp2k", "main", "run_directory"]

_NAMES = ("cp2k", "cp2k.psmp", "cp2k.popt", "cp2k.ssmp", "cp2k.sopt")


def find_cp2k(environment: Mapping[str, str]) -> Program:
    """Return the user's CP2K.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none.
    """
    found = find_program(environment, code="CP2K", variable="HTXAS_CP2K", names=_NAMES)
    if found.folder is None:
        return found
    for name in _NAMES:
        if os.access(found.folder / name, os.X_OK):
            return replace(found, words=(str(found.folder / name), *found.words), folder=None)
    raise EngineFailure(
        Cause.BAD_INPUT, f"the folder of CP2K has none of {' '.join(_NAMES)}", where=str(found.folder)
    )


def run_directory(directory: Path, program: Program, job: Job) -> dict[str, Any]:
    """Run the steps of a directory; return what is told of it.

    The first step that fails or does not converge ends it: what comes after would be made of nothing. Judging the
    results is the reader's.
    """
    taken: dict[str, float] = {}
    told: dict[str, Any] = {"program": program.command(), "steps_s": taken, "ended_in": None, "returncode": 0}
    for step in steps_of(job.calculation):
        output = directory / f"{step.name}.out"
        start = time.monotonic()
        returncode = call([*program.command(), "-i", f"{step.name}.inp"], directory, output)
        taken[step.name] = round(time.monotonic() - start, 3)
        log = read_log(output.read_text(errors="replace"))
        if returncode or log.abort is not None:
            return told | {"ended_in": step.name, "returncode": returncode}
        if log.unconverged or log.out_of_time or not log.ended:
            return told | {"stopped_after": step.name}
    return told


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])

    def run(job: Job) -> dict[str, Any]:
        return run_directory(directory, find_cp2k(os.environ), job)

    inputs = [*directory.glob("*.inp"), directory / "BASIS", directory / "POTENTIAL"]
    return run_and_tell(directory, [p for p in inputs if p.is_file()], run)
