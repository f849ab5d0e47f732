"""The process that runs CASTEP in a directory: the ground state if a site's is not there, then the site.

``python -m htxas.engines.castep DIRECTORY`` finds the user's CASTEP as :mod:`htxas.engines.external` says
(``HTXAS_CASTEP``, or ``castep.serial`` and ``castep.mpi`` on the path). What ran, for how long, and how it ended is
left in ``outcome.json``; what it computed is in CASTEP's own files.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Calculation, Kind
from htxas.engines.base import Job
from htxas.engines.castep.judge import is_done, log_of
from htxas.engines.castep.log import read_log
from htxas.engines.castep.parameters import state_document
from htxas.engines.castep.write import GROUND, SITE
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.errors import Cause, EngineFailure

__all__ = ["find_castep", "main", "run_directory", "state_key"]


def find_castep(environment: Mapping[str, str]) -> Program:
    """Return the user's CASTEP.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none.
    """
    told = json.loads(environment.get("HTXAS_ENGINE_COMMAND", "{}"))
    names = _under(bool(told.get("launcher")))
    program = find_program(environment, code="CASTEP", variable="HTXAS_CASTEP", names=names)
    _command(program, "")
    return program


def _under(launcher: bool) -> tuple[str, ...]:
    """Return CASTEP's names in the order to try: a launcher would start the serial one once on each processor."""
    return ("castep.mpi",) if launcher else ("castep.serial", "castep.mpi", "castep")


def _command(program: Program, seed: str) -> list[str]:
    if program.folder is None:
        return [*program.command(), seed]
    names = _under(bool(program.launcher))
    for name in names:
        if os.access(program.folder / name, os.X_OK):
            return [*program.command(name), seed]
    raise EngineFailure(Cause.BAD_INPUT, f"the folder of CASTEP has no {names[0]}", where=str(program.folder))


def state_key(job: Job) -> str:
    """Return the key of the ground state's density and energy that a job is, or refers to.

    Not the key of a ground state's calculation: that has the window of its PDOS too, which no site knows.
    """
    c = job.calculation
    document = c.parameters if c.kind is Kind.GROUND else c.parameters["ground"]
    return Calculation(Kind.GROUND, c.structure_key, c.engine, state_document(document)).key


def run_directory(job: Job, directory: Path, program: Program) -> dict[str, Any]:
    """Run what a directory holds; return what is told of it. Judging the results is the reader's."""
    steps: dict[str, float] = {}
    told: dict[str, Any] = {"steps_s": steps, "program": _command(program, "")[:-1]}
    if job.calculation.kind is Kind.GROUND:
        told["returncode"] = _run(directory, program, GROUND, steps)
        return told
    told["ground"] = "read from its folder" if _take_ground(job, directory) else "computed again"
    if told["ground"] == "computed again":
        told["returncode"] = _run(directory, program, GROUND, steps)
        if not is_done(log_of(directory, GROUND), state_key(job)):
            return told
    told["returncode"] = _run(directory, program, SITE, steps)
    return told


def _take_ground(job: Job, directory: Path) -> bool:
    """Copy the log of the ground state here, so that this folder says what its energies rest on."""
    if job.ground_directory is None:
        return False
    source = job.ground_directory / f"{GROUND}.castep"
    try:
        log = read_log(source.read_text(errors="replace"))
        if not is_done(log, state_key(job)):
            return False
        shutil.copyfile(source, directory / source.name)
    except OSError:
        return False
    return True


def _run(directory: Path, program: Program, seed: str, steps: dict[str, float]) -> int:
    start = time.monotonic()
    returncode = call(_command(program, seed), directory, directory / f"{seed}.out")
    steps[seed] = round(time.monotonic() - start, 3)
    return returncode


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])
    inputs = [*directory.glob("*.cell"), *directory.glob("*.param")]
    return run_and_tell(directory, inputs, lambda job: run_directory(job, directory, find_castep(os.environ)))
