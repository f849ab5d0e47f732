"""The process that runs VASP in a directory: the core hole, and the ground state if nobody has its energy any more.

``python -m htxas.engines.vasp DIRECTORY`` finds the user's VASP as :mod:`htxas.engines.external` says (``HTXAS_VASP``,
or ``vasp_std`` on the path) and the POTCARs as :mod:`htxas.engines.vasp.potcar` says. What ran, for how long, and how
it ended is left in ``outcome.json``; what it computed is in VASP's own files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.engines.base import Job, read_job
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.engines.vasp.parameters import Ground, ground_from, of_site
from htxas.engines.vasp.potcar import fetch
from htxas.engines.vasp.read import GROUND, OUTPUT, energy_of, ground_key
from htxas.engines.vasp.write import Layout, ground_texts, lay_out

__all__ = ["find_vasp", "main"]

_PROGRAM = "vasp_std"
_LEFT = ("POTCAR", "vaspout.h5", "WAVECAR", "CHG", "CHGCAR", "TMPCAR", "REPORT", "XDATCAR", "PCDAT")
"""Removed after a run: large, or with POTCARs in them (``vaspout.h5`` has its input)."""


def find_vasp(environment: Mapping[str, str]) -> Program:
    """Return the user's VASP.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none.
    """
    return find_program(
        environment, code="VASP", variable="HTXAS_VASP", names=(_PROGRAM,), needed=(_PROGRAM,)
    )


def _run(program: Program, folder: Path, layout: Layout, ground: Ground, told: dict[str, Any]) -> None:
    """Run VASP once, its POTCAR there for as long as it takes."""
    name = folder.name if folder.name == GROUND else "vasp"
    contents = [
        fetch(potcar.name, potcar.sha256, os.environ)
        for potcar in (ground.potcars[element] for element, _ in layout.species)
    ]
    try:
        (folder / "POTCAR").write_bytes(b"".join(contents))
        start = time.monotonic()
        told["statuses"][name] = call(program.command(_PROGRAM), folder, folder / OUTPUT)
        told["steps_s"][name] = round(time.monotonic() - start, 3)
    finally:
        for file in _LEFT:
            (folder / file).unlink(missing_ok=True)


def _ground_energy(program: Program, directory: Path, job: Job, told: dict[str, Any]) -> None:
    """See to the total energy of the ground state (eV per structure): stored, in its directory, or computed here."""
    if job.ground_energy_eV is not None:
        told["ground"] = {"energy_eV": job.ground_energy_eV, "from": "database"}
        return
    ground = ground_from(job.calculation.parameters["ground"])
    layout = lay_out(job.structure, ground)
    energy_eV = None if job.ground_directory is None else _energy_there(job.ground_directory, job)
    source = str(job.ground_directory)
    if energy_eV is None:
        folder, source = directory / GROUND, GROUND
        folder.mkdir()
        texts = ground_texts(ground_key(job), job.structure, ground, job.numerics, with_pdos=False)
        for name, text in texts.items():
            (folder / name).write_text(text)
        _run(program, folder, layout, ground, told)
        energy_eV = energy_of(folder, ground_key(job))
    if energy_eV is not None:
        told["ground"] = {"energy_eV": energy_eV / layout.cell.copies, "from": source}


def _energy_there(folder: Path, job: Job) -> float | None:
    """Return the total energy (eV, of the cell) of a ground state's directory if it is this site's; else None."""
    try:
        there = read_job(folder).calculation
    except (OSError, ValueError, KeyError):
        return None
    ours = job.calculation
    if (there.kind, there.structure_key, there.engine) != (Kind.GROUND, ours.structure_key, ours.engine):
        return None
    if of_site(there.parameters) != ours.parameters["ground"]:
        return None
    return energy_of(folder, there.key)


def run_directory(job: Job, directory: Path) -> dict[str, Any]:
    """Run what a directory holds; return what is told of it. Judging the results is the reader's."""
    program = find_vasp(os.environ)
    told: dict[str, Any] = {"steps_s": {}, "statuses": {}, "program": program.command(_PROGRAM)}
    c = job.calculation
    if c.kind is Kind.GROUND:
        ground = ground_from(c.parameters)
        _run(program, directory, lay_out(job.structure, ground), ground, told)
        return told
    ground = ground_from(c.parameters["ground"])
    layout = lay_out(job.structure, ground, c.atom)  # its species alone count here
    _run(program, directory, layout, ground, told)
    if energy_of(directory, c.key) is not None:
        _ground_energy(program, directory, job, told)
    return told


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])
    inputs = [directory / name for name in ("INCAR", "POSCAR", "KPOINTS")]
    return run_and_tell(directory, inputs, lambda job: run_directory(job, directory))
