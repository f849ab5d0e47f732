"""The process that runs the steps of a calculation in the user's GPAW.

``python -m htxas.engines.gpaw DIRECTORY`` finds a Python with GPAW as :mod:`htxas.engines.external` says: the words of
the cluster's profile or of ``HTXAS_GPAW``, or the Python htxas runs in if GPAW is there. Each step is a process of its
own (:mod:`htxas.engines.gpaw.inside`) and leaves ``STEP.json``; how they went is left in ``outcome.json``.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Calculation, Kind
from htxas.engines.base import Job
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.engines.gpaw.write import INPUT, STEPS, write_step

__all__ = ["GROUND", "find_gpaw", "main"]

_VARIABLE = "HTXAS_GPAW"
GROUND = "ground"  # where a site's ground state is computed if nobody has it any more


def find_gpaw(environment: Mapping[str, str]) -> Program:
    """Return the user's Python with GPAW.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none.
    """
    here = {_VARIABLE: shlex.quote(sys.executable)} if find_spec("gpaw") is not None else {}
    return find_program({**here, **environment}, code="Python with GPAW", variable=_VARIABLE, names=())


class _Run:
    """One directory: its steps, their times and statuses."""

    def __init__(self, program: Program, told: dict[str, Any]) -> None:
        self._program = program
        self.told = told
        told |= {"steps_s": {}, "statuses": {}, "program": program.command()}

    def step(self, folder: Path, name: str) -> bool:
        """Run a step; return whether its state converged."""
        start = time.monotonic()
        status = call([*self._program.command(), STEPS, name], folder, folder / f"{name}.out")
        self.told["steps_s"][name] = round(time.monotonic() - start, 3)
        self.told["statuses"][name] = status
        return status == 0 and _energy_eV(folder, name) is not None


def _energy_eV(folder: Path, step: str, key: str | None = None) -> float | None:
    """Return the total energy of a converged step (of that calculation); None if there is none."""
    try:
        found = json.loads((folder / f"{step}.json").read_text())
        if found["converged"] is not True or key not in (None, found["key"]):
            return None
        return float(found["energy_eV"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ground_energy(run: _Run, directory: Path, job: Job) -> None:
    """See to the total energy of the ground state: stored, in its directory, or computed here once more."""
    if job.ground_energy_eV is not None:
        run.told["ground"] = {"energy_eV": job.ground_energy_eV, "from": "database"}
        return
    if job.ground_directory is not None:
        c = job.calculation
        state = Calculation(Kind.GROUND, c.structure_key, c.engine, c.parameters["ground"])
        energy = _energy_eV(job.ground_directory, "ground", state.key)
        if energy is not None:
            run.told["ground"] = {"energy_eV": energy, "from": str(job.ground_directory)}
            return
    folder = directory / GROUND
    folder.mkdir(exist_ok=True)
    write_step(job, folder, empty_bands=1)
    if run.step(folder, "ground"):
        run.told["ground"] = {"energy_eV": _energy_eV(folder, "ground"), "from": GROUND}


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])

    def compute(job: Job) -> dict[str, Any]:
        told: dict[str, Any] = {}
        run = _Run(find_gpaw(os.environ), told)
        if job.calculation.kind is Kind.GROUND:
            run.step(directory, "ground")
        elif run.step(directory, "transition") and run.step(directory, "ion"):
            _ground_energy(run, directory, job)
        return told

    return run_and_tell(directory, [directory / INPUT, directory / STEPS], compute)
