"""The process that runs Quantum ESPRESSO in a directory, program by program.

``python -m htxas.engines.qe DIRECTORY`` finds the user's Quantum ESPRESSO as :mod:`htxas.engines.external` says: the
folder of its programs and options for them (``-nk 2``). What ran, for how long, and how it ended is left in
``outcome.json``; what was computed is in the code's own files.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from hashlib import md5
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Convergence, Kind
from htxas.engines.base import Job
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.engines.qe.parameters import ground_from, hole_from
from htxas.engines.qe.recipes import core_orbital, read_ld1
from htxas.engines.qe.scf import OutputError, read_bands
from htxas.engines.qe.write import AXES, ground_inputs, lay_out, recipe_of, xspectra_input
from htxas.errors import Cause, EngineFailure

__all__ = ["find_espresso", "main"]

_NEEDED = ("pw.x", "ld1.x", "projwfc.x", "pp.x", "xspectra.x")
_SCRATCH = (
    "pw.wfc*",
    "pw.save/wfc*",
    "pw.mix*",
    "pw.hub*",
    "potential",
    "pdos*",
    "*.wfc",
    "*.test",
    "vx.pot",
)
GROUND = "ground"  # where a site's ground state is computed if nobody has it any more


def find_espresso(environment: Mapping[str, str]) -> Program:
    """Return the user's Quantum ESPRESSO.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none, or a program of it lacks.
    """
    return find_program(
        environment, code="Quantum ESPRESSO", variable="HTXAS_QE", names=("pw.x",), needed=_NEEDED
    )


class _Run:
    """One directory: its steps, their times and statuses."""

    def __init__(self, program: Program, told: dict[str, Any]) -> None:
        self._program = program
        self.told = told
        told |= {"steps_s": {}, "statuses": {}, "program": program.command("pw.x")}

    def step(self, folder: Path, name: str, source: str, output: str, *, alone: bool = False) -> bool:
        """Run a program on an input file; return whether it ended with 0."""
        start = time.monotonic()
        status = call(
            self._program.command(name, alone=alone), folder, folder / output, stdin=folder / source
        )
        key = output.removesuffix(".out")
        self.told["steps_s"][key] = round(time.monotonic() - start, 3)
        self.told["statuses"][key] = status
        return status == 0

    def pseudopotentials(self, folder: Path) -> None:
        """Make the pseudopotentials that inputs in this folder describe.

        Raises
        ------
        EngineFailure
            ENGINE_CRASH: ``ld1.x`` made none.
        """
        energies = self.told.setdefault("atoms_eV", {})
        for path in sorted(folder.glob("*.ld1.in")):
            name = path.name.removesuffix(".ld1.in")
            self.step(folder, "ld1.x", path.name, f"{name}.ld1.out", alone=True)
            try:
                found = read_ld1((folder / f"{name}.ld1.out").read_text(errors="replace"))
            except ValueError as error:
                raise EngineFailure(
                    Cause.ENGINE_CRASH, f"{name}: {error}", where=str(folder / f"{name}.ld1.out")
                ) from None
            made = (folder / f"{name}.UPF").read_bytes()
            self.told.setdefault("pseudopotentials_md5", {})[f"{name}.UPF"] = md5(
                made, usedforsecurity=False
            ).hexdigest()  # as pw.x tells it
            energies[name] = {"all_electron": found.all_electron_eV, "pseudo": found.pseudo_eV}


def _ground(run: _Run, folder: Path, *, molecule: bool) -> None:
    run.pseudopotentials(folder)
    if not run.step(folder, "pw.x", "pw.in", "pw.out"):
        return
    if run.step(folder, "projwfc.x", "projwfc.in", "projwfc.out") and molecule:
        run.step(folder, "pp.x", "pp1.in", "pp1.out")
        for axis in AXES:
            run.step(folder, "pp.x", f"pp2{axis}.in", f"pp2{axis}.out")


def _site(run: _Run, folder: Path, job: Job) -> None:
    ground, hole = (
        ground_from(job.calculation.parameters["ground"]),
        hole_from(job.calculation.parameters["hole"]),
    )
    assert job.calculation.element is not None
    run.pseudopotentials(folder)
    (folder / "core.dat").write_text(core_orbital((folder / f"{job.calculation.element}.UPF").read_text()))
    if not run.step(folder, "pw.x", "pw.in", "pw.out"):
        return
    try:
        bands = read_bands(folder)
        _, first_eV = bands.frontier_eV()
    except OutputError:
        return  # the reader says so
    if bands.convergence is not Convergence.CONVERGED or bands.gamma_only:
        return
    layout = lay_out(job.structure, ground, job.calculation.atom, hole_electrons=hole.electrons)
    radius = max(rc for _, _, _, rc in recipe_of(ground, job.calculation.element).channels)
    for axis in AXES:
        text = xspectra_input(
            axis, layout, ground, hole, first_eV=first_eV, radius_a0=radius, numerics=job.numerics
        )
        (folder / f"xspectra-{axis}.in").write_text(text)
        if not run.step(folder, "xspectra.x", f"xspectra-{axis}.in", f"xspectra-{axis}.out"):
            return


def _ground_energy(run: _Run, directory: Path, job: Job) -> None:
    """See to the total energy of the ground state: stored, in its directory, or computed here once more."""
    if job.ground_energy_eV is not None:
        run.told["ground"] = {"energy_eV": job.ground_energy_eV, "from": "database"}
        return
    if job.ground_directory is not None:
        try:
            bands = read_bands(job.ground_directory)
        except OutputError:
            pass
        else:
            if bands.convergence is Convergence.CONVERGED:
                run.told["ground"] = {"energy_eV": bands.energy_eV, "from": str(job.ground_directory)}
                return
    ground = ground_from(job.calculation.parameters["ground"])
    folder = directory / GROUND
    folder.mkdir(exist_ok=True)
    layout = lay_out(job.structure, ground, None)
    text = ground_inputs("ground", layout, ground, job.numerics)["pw.in"]
    (folder / "pw.in").write_text(text)
    for path in directory.glob("*.UPF"):
        shutil.copy2(path, folder)
    if run.step(folder, "pw.x", "pw.in", "pw.out"):
        bands = read_bands(folder)
        if bands.convergence is Convergence.CONVERGED:
            run.told["ground"] = {"energy_eV": bands.energy_eV, "from": GROUND}


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])

    def compute(job: Job) -> dict[str, Any]:
        told: dict[str, Any] = {"folder": str(directory)}
        run = _Run(find_espresso(os.environ), told)
        if job.calculation.kind is Kind.GROUND:
            molecule = ground_from(job.calculation.parameters).box is not None
            _ground(run, directory, molecule=molecule)
        else:
            _site(run, directory, job)
            if (directory / "lanczos-z.sav").is_file():
                _ground_energy(run, directory, job)
        _tidy(directory)
        return told

    return run_and_tell(directory, directory.glob("*.in"), compute)


def _tidy(directory: Path) -> None:
    """Remove wave functions and potentials: large, and nobody reads them again."""
    for folder in (directory, directory / GROUND):
        for pattern in _SCRATCH:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
