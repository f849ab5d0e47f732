"""The process that runs Elk in a directory, step by step, each in its own folder: Elk's file names are fixed.

``python -m htxas.engines.elk DIRECTORY`` finds the user's Elk as :mod:`htxas.engines.external` says (``HTXAS_ELK``).

A ground state: self-consistency, then in ``bands`` the charges of all levels in the spheres at the same k points. A
site: self-consistency with the hole, then in ``spectrum`` the momentum matrix elements of the 1s level in that
potential, and in ``ground`` the ground state if nobody has its energy any more.

What ran, for how long, and how it ended is left in ``outcome.json``; what was computed is in the code's own files, but
for the matrix elements: of all that Elk writes there, ``transitions.json`` has those of the 1s level.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Convergence, Kind
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.elk.levels import read_core_level_Ha, read_levels
from htxas.engines.elk.output import OutputError, Scf, read_scf, refusal
from htxas.engines.elk.parameters import ground_from, hole_from
from htxas.engines.elk.species import Role
from htxas.engines.elk.transitions import write_transitions
from htxas.engines.elk.write import bands_inputs, lay_out, scf_inputs, spectrum_inputs
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.errors import Cause, EngineFailure

__all__ = ["BANDS", "GROUND", "LOG", "SPECTRUM", "TRANSITIONS", "find_elk", "main"]

BANDS, SPECTRUM, GROUND = "bands", "spectrum", "ground"
LOG = "elk.out"
TRANSITIONS = "transitions.json"
_NEEDED = ("STATE.OUT", "EFERMI.OUT")  # of a potential, by other tasks
_SCRATCH = ("STATE.OUT", "EVEC*.OUT", "EVALFV.OUT", "EVALSV.OUT", "OCCSV.OUT", "PMAT.OUT", "RUNNING")


def find_elk(environment: Mapping[str, str]) -> Program:
    """Return the user's Elk.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none.
    """
    program = find_program(environment, code="Elk", variable="HTXAS_ELK", names=("elk-lapw", "elk"))
    if program.folder is not None:
        raise EngineFailure(
            Cause.BAD_INPUT, "HTXAS_ELK names a folder, not Elk in it", where=str(program.folder)
        )
    return program


class _Run:
    """One directory: its steps, their times and statuses."""

    def __init__(self, program: Program, told: dict[str, Any]) -> None:
        self._program = program
        self.told = told
        told |= {"steps_s": {}, "statuses": {}, "program": program.command()}

    def step(self, name: str, folder: Path) -> bool:
        """Run Elk in a folder; return whether it ended well, by its words: its status is 0 after errors, too."""
        start = time.monotonic()
        status = call(self._program.command(), folder, folder / LOG)
        self.told["steps_s"][name] = round(time.monotonic() - start, 3)
        self.told["statuses"][name] = status
        return status == 0 and refusal((folder / LOG).read_text(errors="replace")) is None


def _converged(folder: Path) -> Scf | None:
    try:
        scf = read_scf(folder)
    except OutputError:
        return None  # the reader says so
    return scf if scf.convergence is Convergence.CONVERGED else None


def _folder(directory: Path, name: str, inputs: Mapping[str, str], *, potential: bool) -> Path:
    folder = directory / name
    folder.mkdir()
    for file, text in inputs.items():
        (folder / file).write_text(text)
    if potential:
        for file in _NEEDED:
            shutil.copy2(directory / file, folder)
    return folder


def _ground(run: _Run, directory: Path, job: Job, title: str) -> None:
    if not run.step("scf", directory) or _converged(directory) is None:
        return
    ground = ground_from(job.calculation.parameters)
    layout = lay_out(job.structure, ground, None)
    points = read_levels(directory).points
    run.step(BANDS, _folder(directory, BANDS, bands_inputs(title, layout, ground, points), potential=True))


def _site(run: _Run, directory: Path, job: Job, title: str) -> bool:
    """Run a site's steps but its ground state; return whether there are transitions."""
    c = job.calculation
    ground, hole = ground_from(c.parameters["ground"]), hole_from(c.parameters["hole"])
    if not run.step("scf", directory) or _converged(directory) is None:
        return False
    try:
        level_Ha = read_core_level_Ha(directory)
    except OutputError:
        return False
    layout = lay_out(job.structure, ground, c.atom, role=Role.PROBE)
    inputs = spectrum_inputs(title, layout, ground, window_eV=hole.window_eV, level_Ha=level_Ha)
    folder = _folder(directory, SPECTRUM, inputs, potential=True)
    if not run.step(SPECTRUM, folder):
        return False
    try:
        write_transitions(directory / TRANSITIONS, folder, c.key, level_Ha)
    except OutputError as error:
        run.told["extraction"] = str(error)
        return False
    return True


def _ground_energy(run: _Run, directory: Path, job: Job, title: str) -> None:
    """See to the total energy of the ground state: stored, in its directory, or computed here once more."""
    if job.ground_energy_eV is not None:
        run.told["ground"] = {"energy_eV": job.ground_energy_eV, "from": "database"}
        return
    if job.ground_directory is not None and (scf := _converged(job.ground_directory)) is not None:
        energy_eV = scf.energy_Ha * HARTREE_EV
        run.told["ground"] = {"energy_eV": energy_eV, "from": str(job.ground_directory)}
        return
    ground = ground_from(job.calculation.parameters["ground"])
    inputs = scf_inputs(title, lay_out(job.structure, ground, None), ground, job.numerics)
    folder = _folder(directory, GROUND, inputs, potential=False)
    if run.step(GROUND, folder) and (scf := _converged(folder)) is not None:
        run.told["ground"] = {"energy_eV": scf.energy_Ha * HARTREE_EV, "from": GROUND}


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])
    # Elk's arrays are on the stack: with the usual 8 MB it ends by a segmentation fault.
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (most, most))

    def compute(job: Job) -> dict[str, Any]:
        told: dict[str, Any] = {}
        run = _Run(find_elk(os.environ), told)
        c = job.calculation
        title = f"{job.structure.formula} {c.kind.value} htxas {c.key[:12]}"
        if c.kind is Kind.GROUND:
            _ground(run, directory, job, title)
        elif _site(run, directory, job, title) and c.parameters["hole"]["electrons"]:
            _ground_energy(run, directory, job, title)
        _tidy(directory)
        return told

    return run_and_tell(directory, directory.glob("*.in"), compute)


def _tidy(directory: Path) -> None:
    """Remove potentials, wave functions and all other matrix elements: large, and nobody reads them again."""
    for folder in (directory, *(directory / name for name in (BANDS, SPECTRUM, GROUND))):
        for pattern in _SCRATCH:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
