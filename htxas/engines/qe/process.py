"""The process that runs Quantum ESPRESSO in a directory, program by program.

``python -m htxas.engines.qe DIRECTORY`` finds the user's Quantum ESPRESSO as :mod:`htxas.engines.external` says: the
folder of its programs and options for them (``-nk 2``). What ran, for how long, and how it ended is left in
``outcome.json``; what was computed is in the code's own files.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from hashlib import md5
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Convergence, Kind
from htxas.engines.base import Job, read_job
from htxas.engines.external import OUTCOME, Program, call, find_program, run_and_tell
from htxas.engines.qe.parameters import UserUpf, ground_from, hole_from, of_site
from htxas.engines.qe.recipes import read_ld1
from htxas.engines.qe.scf import OutputError, read_bands
from htxas.engines.qe.upf import core_orbital, fetch, join_waves
from htxas.engines.qe.write import AXES, EXCITED, GROUND, ground_inputs, lay_out, recipe_of, xspectra_input
from htxas.errors import Cause, EngineFailure

__all__ = ["find_espresso", "main"]

_NEEDED = ("pw.x", "ld1.x", "projwfc.x", "pp.x", "xspectra.x")
_SAME_ATOM_EV = 1e-4
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

    def __init__(self, program: Program, directory: Path, told: dict[str, Any]) -> None:
        self._program = program
        self._directory = directory
        self.told = told
        told |= {"steps_s": {}, "statuses": {}, "program": program.command("pw.x")}

    def step(self, folder: Path, name: str, source: str, output: str, *, alone: bool = False) -> bool:
        """Run a program on an input file, unless it has run before; return whether it ended with 0."""
        key = output.removesuffix(".out")
        if folder != self._directory:
            key = f"{folder.name}/{key}"
        if (folder / output).exists():  # of an attempt that was cut short, see htxas.engines.qe.restart
            self.told.setdefault("taken_over", []).append(key)
            return True
        start = time.monotonic()
        status = call(
            self._program.command(name, alone=alone), folder, folder / output, stdin=folder / source
        )
        self.told["steps_s"][key] = round(time.monotonic() - start, 3)
        self.told["statuses"][key] = status
        return status == 0

    def pseudopotentials(self, job: Job) -> None:
        """Make the pseudopotentials that inputs describe, and take the user's own.

        Raises
        ------
        EngineFailure
            ENGINE_CRASH: ``ld1.x`` made none. BAD_INPUT: a file of the user's is not there.
        """
        folder, parameters = self._directory, job.calculation.parameters
        is_site = job.calculation.kind is Kind.SITE
        ground = ground_from(parameters["ground"] if is_site else parameters)
        wanted: dict[str, UserUpf] = {
            f"{e}.UPF": own for e, own in ground.upf.items() if e in job.structure.composition
        }
        with_hole = hole_from(parameters["hole"]).hole_upf if is_site else None
        if with_hole is not None:
            wanted[f"{job.calculation.element}-hole.UPF"] = with_hole
        for name, own in wanted.items():
            (folder / name).write_bytes(fetch(own.file, own.sha256, os.environ))
        energies = self.told.setdefault("atoms_eV", {})
        for path in sorted(folder.glob("*.ld1.in")):
            name = path.name.removesuffix(".ld1.in")
            is_new = not (folder / f"{name}.ld1.out").exists()
            self.step(folder, "ld1.x", path.name, f"{name}.ld1.out", alone=True)
            made = folder / f"{name}.UPF"
            try:
                found = read_ld1((folder / f"{name}.ld1.out").read_text(errors="replace"))
                text = made.read_text()
                if is_new and "<PP_GIPAW_ORBITAL." in text:
                    element = name.partition("-")[0]
                    made.write_text(join_waves(text, recipe_of(ground, element).radius_a0))
            except (OSError, ValueError) as error:
                raise EngineFailure(
                    Cause.ENGINE_CRASH, f"{name}: {error}", where=str(folder / f"{name}.ld1.out")
                ) from None
            energies[name] = {"all_electron": found.all_electron_eV, "pseudo": found.pseudo_eV}
        self.told["pseudopotentials_md5"] = {  # as pw.x tells it
            p.name: md5(p.read_bytes(), usedforsecurity=False).hexdigest()
            for p in sorted(folder.glob("*.UPF"))
        }

    def with_pseudopotentials(self, folder: Path) -> Path:
        """Return a folder inside the directory, with the pseudopotentials in it."""
        folder.mkdir(exist_ok=True)
        for path in self._directory.glob("*.UPF"):
            shutil.copy2(path, folder)
        return folder


def _ground(run: _Run, folder: Path, *, molecule: bool) -> None:
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
    (folder / "core.dat").write_text(core_orbital((folder / f"{job.calculation.element}.UPF").read_text()))
    if not run.step(folder, "pw.x", "pw.in", "pw.out"):
        return
    try:
        layout = lay_out(job.structure, ground, job.calculation.atom, hole)
        bands = read_bands(folder)
        _, first_eV = bands.frontier_eV(layout.pairs)
    except OutputError:
        return  # the reader says so
    if bands.convergence is not Convergence.CONVERGED or bands.gamma_only:
        return
    for axis in AXES:
        text = xspectra_input(axis, layout, ground, hole, first_eV=first_eV, numerics=job.numerics)
        source, output = folder / f"xspectra-{axis}.in", folder / f"xspectra-{axis}.out"
        if output.exists() and (not source.exists() or source.read_text() != text):
            output.unlink()  # taken over, of another input
        source.write_text(text)
        if not run.step(folder, "xspectra.x", source.name, output.name):
            return
    if hole.electrons and not hole.is_scale:
        run.step(run.with_pseudopotentials(folder / EXCITED), "pw.x", "pw.in", "pw.out")


def _ground_energy(run: _Run, directory: Path, job: Job) -> None:
    """See to the total energy of the ground state: stored, in its directory, or computed here once more."""
    if job.ground_energy_eV is not None:
        run.told["ground"] = {"energy_eV": job.ground_energy_eV, "from": "database"}
        return
    if job.ground_directory is not None:
        energy_eV = _energy_there(job.ground_directory, job, run.told["atoms_eV"])
        if energy_eV is not None:
            run.told["ground"] = {"energy_eV": energy_eV, "from": str(job.ground_directory)}
            return
    ground = ground_from(job.calculation.parameters["ground"])
    folder = run.with_pseudopotentials(directory / GROUND)
    layout = lay_out(job.structure, ground)
    text = ground_inputs("ground", layout, ground, job.numerics)["pw.in"]
    (folder / "pw.in").write_text(text)
    if run.step(folder, "pw.x", "pw.in", "pw.out"):
        bands = read_bands(folder)
        if bands.convergence is Convergence.CONVERGED:
            run.told["ground"] = {"energy_eV": bands.energy_eV / layout.cell.copies, "from": GROUND}


def _energy_there(folder: Path, job: Job, atoms_eV: Mapping[str, Any]) -> float | None:
    """Return the total energy (eV per structure) of a ground state's directory if it is this site's, made alike."""
    try:
        there = read_job(folder).calculation
        outcome = json.loads((folder / OUTCOME).read_text())
        bands = read_bands(folder)
    except (OutputError, OSError, ValueError, KeyError):
        return None
    ours = job.calculation
    if (there.kind, there.structure_key) != (Kind.GROUND, ours.structure_key):
        return None
    if (
        of_site(there.parameters) != ours.parameters["ground"]
        or bands.convergence is not Convergence.CONVERGED
    ):
        return None
    atoms = outcome.get("atoms_eV", {})
    for name in atoms.keys() & atoms_eV.keys():  # another ld1.x makes others
        if any(abs(atoms[name][k] - e) > _SAME_ATOM_EV for k, e in atoms_eV[name].items()):
            return None
    ground = ground_from(there.parameters)
    return bands.energy_eV / lay_out(job.structure, ground).cell.copies


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])

    def compute(job: Job) -> dict[str, Any]:
        told: dict[str, Any] = {"folder": str(directory)}
        run = _Run(find_espresso(os.environ), directory, told)
        run.pseudopotentials(job)
        if job.calculation.kind is Kind.GROUND:
            molecule = ground_from(job.calculation.parameters).box is not None
            _ground(run, directory, molecule=molecule)
        else:
            _site(run, directory, job)
            if (directory / "lanczos-z.sav").is_file():
                _ground_energy(run, directory, job)
        _tidy(directory)
        return told

    return run_and_tell(directory, directory.rglob("*.in"), compute)


def _tidy(directory: Path) -> None:
    """Remove wave functions and potentials: large, and nobody reads them again."""
    for folder in (directory, directory / GROUND, directory / EXCITED):
        for pattern in _SCRATCH:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
