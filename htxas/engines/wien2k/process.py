"""The process that runs WIEN2k in a directory: the crystal's ground state, then the supercell with the hole.

``python -m htxas.engines.wien2k DIRECTORY`` finds the user's WIEN2k as :mod:`htxas.engines.external` says
(``HTXAS_WIEN2K``: the folder WIENROOT, then options for ``run_lapw``, ``lapw1`` and ``lapw2``: ``-p``, with the user's
``.machines`` file named in ``HTXAS_WIEN2K_MACHINES``). Each state is a case in a folder of its own name, as WIEN2k
wants it: its own scripts initialise it, a few inputs are changed, it becomes self-consistent, and of the last one XSPEC
makes the spectrum. What ran and how it ended is left in ``outcome.json``, with checksums of the files that are read.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Convergence
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.cells import Cell
from htxas.engines.external import Program, call, find_program, run_and_tell
from htxas.engines.wien2k.corrections import ITERATIONS
from htxas.engines.wien2k.inputs import (
    InputError,
    electrons,
    mesh_of,
    with_bands_to,
    with_electrons,
    with_hole,
    with_mixing,
    xspec_input,
)
from htxas.engines.wien2k.parameters import FUNCTIONALS, Wien2kParameters, parameters_from
from htxas.engines.wien2k.restart import is_taken_over
from htxas.engines.wien2k.scf import OutputError, error_text, read_bands, scf_state
from htxas.engines.wien2k.structure import StructError, misfit, read_struct
from htxas.engines.wien2k.write import (
    GROUND,
    HOLE,
    bands_up_to,
    cases,
    divisions_of,
    layout_of,
    window_Ry,
)
from htxas.errors import Cause, EngineFailure

__all__ = ["find_wien2k", "main", "results"]

_RYDBERG_EV = HARTREE_EV / 2
_NEEDED = ("init_lapw", "run_lapw", "x_lapw")
_RESULTS = ("struct", "klist", "in1", "in1c", "in2", "in2c", "inc", "inm", "scf", "dayfile")
_SPECTRAL = ("scf2", "inxs", "txspec")
_MACHINES = "HTXAS_WIEN2K_MACHINES"
_LARGE = "vector* vsp* vns* qtl* energy* help* broyd* r2v* tmp* weight* recprlist".split()


def find_wien2k(environment: Mapping[str, str]) -> Program:
    """Return the user's WIEN2k.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none, a script lacks, or a launcher is to start them: WIEN2k does that itself.
    """
    program = find_program(
        environment, code="WIEN2k", variable="HTXAS_WIEN2K", names=("run_lapw",), needed=_NEEDED
    )
    if program.folder is None:
        raise EngineFailure(
            Cause.BAD_INPUT, "WIEN2k is a folder of scripts (WIENROOT), not one", where=program.words[0]
        )
    if program.launcher:
        raise EngineFailure(
            Cause.BAD_INPUT,
            f"WIEN2k's scripts are not started by {program.launcher[0]}: they start its processes themselves",
            hint=f"no launcher; -p after the folder, and your .machines file in {_MACHINES}",
        )
    if "-p" in program.words and not Path(environment.get(_MACHINES, "")).is_file():
        raise EngineFailure(
            Cause.BAD_INPUT, f"WIEN2k is to run in parallel, but {_MACHINES} names no .machines file"
        )
    return program


def results(directory: Path) -> list[Path]:
    """Return the files that are read of a run, those that are there."""
    names = [f"{case}/{case}.{end}" for case in cases(directory) for end in _RESULTS]
    names += [f"{HOLE}/{HOLE}.{end}" for end in _SPECTRAL]
    return [directory / n for n in names if (directory / n).is_file()]


class _Case:
    """One state in its folder."""

    def __init__(self, program: Program, folder: Path, job: Job, told: dict[str, Any]) -> None:
        self._program = program
        self._folder = folder
        self._parameters: Wien2kParameters = parameters_from(job.calculation.parameters)
        self._numerics = job.numerics
        self._told = told

    def step(self, script: str, words: list[str], output: str, *, answers: str | None = None) -> bool:
        """Run a script of WIEN2k's; return whether its programs left no word of an error."""
        assert self._program.folder is not None
        command = [str(self._program.folder / script), *words]
        source = None if answers is None else self._folder / answers
        start = time.monotonic()
        status = call(command, self._folder, self._folder / f"{output}.out", stdin=source)
        key = f"{self._folder.name}/{output}"
        self._told["steps_s"][key] = round(time.monotonic() - start, 3)
        self._told["statuses"][key] = status
        if not error_text(self._folder):
            return True
        self._told["ended_in"] = key
        return False

    def _x(self, *words: str, parallel: bool = False) -> bool:
        options = list(self._program.words) if parallel else []
        complex_words = ["-c"] if parallel and self._input("in1").suffix == ".in1c" else []
        return self.step("x_lapw", [*words, *complex_words, *options], words[0])

    def _input(self, end: str) -> Path:
        """Return an input, of whichever kind the symmetry asks for: without inversion its name ends in c."""
        without = self._folder / f"{self._folder.name}.{end}c"
        if without.is_file() and without.stat().st_size:
            return without
        return self._folder / f"{self._folder.name}.{end}"

    def initialise(self) -> bool:
        """Run ``init_lapw`` in batch mode, and ``kgen`` for the very mesh."""
        p = self._parameters
        name = self._folder.name
        a, b, c = divisions_of((self._folder / "kgen.answers").read_text())
        words = [
            *("-b", "-vxc", str(FUNCTIONALS[p.functional]), "-ecut", f"{p.core_below_Ry:.1f}"),
            *("-rkmax", f"{p.rkmax:.2f}", "-numk", str(a * b * c)),
        ]
        if not p.spheres_a0:
            words += ["-red", str(p.sphere_reduction_percent)]
        if not self.step("init_lapw", words, "init_lapw"):
            return False
        if not (self._folder / f"{name}.inc").is_file():
            self._told["ended_in"] = f"{name}/init_lapw"
            return False
        return self.step("x_lapw", ["kgen"], "kgen", answers="kgen.answers")

    def check(self, cell: Cell, *, split: bool) -> None:
        """Refuse to go on with another cell or mesh than was written: the cycles are the long part.

        Raises
        ------
        StructError, InputError
            What is different.
        """
        name = self._folder.name
        wrong = misfit(read_struct((self._folder / f"{name}.struct").read_text()), cell, split=split)
        if wrong is not None:
            raise StructError(f"init_lapw has changed the cell: {wrong}")
        wanted = divisions_of((self._folder / "kgen.answers").read_text())
        found = mesh_of((self._folder / f"{name}.klist").read_text())
        if found != wanted:
            raise InputError(f"the mesh of k points is {found}, not {wanted}")

    def prepare(self, *, hole: bool, background: bool) -> None:
        """Change the inputs: the hole, the electron it has set free or the charge in its place, the mixing."""
        if background or self._numerics:
            inm = self._folder / f"{self._folder.name}.inm"
            charge = -1.0 if background else 0.0
            inm.write_text(with_mixing(inm.read_text(), background=charge, numerics=self._numerics))
        in2 = self._input("in2")
        found = electrons(in2.read_text())
        self._told["valence_electrons"][self._folder.name] = found
        if hole:
            inc = self._folder / f"{self._folder.name}.inc"
            inc.write_text(with_hole(inc.read_text()))
            if not background:
                in2.write_text(with_electrons(in2.read_text(), found + 1))

    def take_over(self, *, hole: bool) -> None:
        """Note a state of an earlier attempt."""
        found = electrons(self._input("in2").read_text())
        self._told["valence_electrons"][self._folder.name] = found - 1 if hole else found
        self._told.setdefault("taken_over", []).append(self._folder.name)

    def converge(self) -> bool:
        """Run ``run_lapw``; return whether it converged."""
        p = self._parameters
        most = round(ITERATIONS * float(self._numerics.get("iterations_factor", 1.0)))
        words = [
            *("-ec", f"{p.energy_tolerance_Ry:.8f}", "-cc", f"{p.charge_tolerance:.8f}", "-i", str(most)),
            *self._program.words,
        ]
        if not self.step("run_lapw", words, "run_lapw"):
            return False
        return scf_state(self._folder) is Convergence.CONVERGED

    def spectrum(self) -> bool:
        """Take the excited electron out, find the levels up to the window, and let XSPEC make the spectrum."""
        name, p = self._folder.name, self._parameters
        in1, in2 = self._input("in1"), self._input("in2")
        in2.write_text(with_electrons(in2.read_text(), self._told["valence_electrons"][name]))
        scf2 = self._folder / f"{name}.scf2"
        bands = read_bands(scf2.read_text(errors="replace"))
        scf2.unlink()  # the next one is the spectrum's, or there is none
        window_eV = p.window_eV + bands.gap_Ry * _RYDBERG_EV  # the Fermi level will be at the gap's lower end
        struct = (self._folder / f"{name}.struct").read_text()
        reach = window_Ry(window_eV, bands.fermi_Ry)
        in1.write_text(with_bands_to(in1.read_text(), reach, bands_up_to(struct, reach)))
        title = struct.splitlines()[0].strip()
        (self._folder / f"{name}.inxs").write_text(xspec_input(title, window_eV, p.step_eV))
        return (
            self._x("lapw1", parallel=True)
            and self._x("lapw2", "-qtl", parallel=True)
            and self._x("xspec")
            and (self._folder / f"{name}.txspec").is_file()
        )


def _run(job: Job, directory: Path, program: Program, told: dict[str, Any]) -> None:
    assert job.calculation.atom is not None
    parameters = parameters_from(job.calculation.parameters)
    layout = layout_of(job.structure, job.calculation.atom, parameters)
    for name in cases(directory):
        folder = directory / name
        if "-p" in program.words:
            shutil.copyfile(os.environ[_MACHINES], folder / ".machines")
        case = _Case(program, folder, job, told)
        if is_taken_over(folder):
            case.take_over(hole=name != GROUND)
            continue
        try:
            if not case.initialise():
                return
            if name == GROUND:
                case.check(layout.unit, split=layout.split)
            else:
                case.check(layout.hole, split=True)
            background = name == HOLE and parameters.electron == "background"
            case.prepare(hole=name != GROUND, background=background)
            if not case.converge():
                return
            if name == HOLE and not case.spectrum():
                return
        except (OSError, InputError, OutputError, StructError) as error:
            raise EngineFailure(
                Cause.BAD_OUTPUT, f"what WIEN2k left in {name}: {error}", where=str(folder)
            ) from None
        finally:
            _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove eigenvectors and potentials: large, and nobody reads them again."""
    for end in _LARGE:
        for path in folder.glob(f"{folder.name}.{end}"):
            path.unlink(missing_ok=True)


def main(words: list[str]) -> int:
    """Run one directory; 0 unless its input is not ours."""
    directory = Path(words[0])

    def compute(job: Job) -> dict[str, Any]:
        program = find_wien2k(os.environ)
        assert program.folder is not None
        os.environ["WIENROOT"] = str(program.folder)
        os.environ["PATH"] = f"{program.folder}{os.pathsep}{os.environ.get('PATH', '')}"
        # All runs have cases of the same names: in a scratch folder they share they would read each other's vectors.
        os.environ["SCRATCH"] = "./"
        told: dict[str, Any] = {
            "program": [str(program.folder), *program.words],
            "steps_s": {},
            "valence_electrons": {},
            "statuses": {},
            "ended_in": None,
        }
        _run(job, directory, program, told)
        told["outputs_sha256"] = {
            str(p.relative_to(directory)): sha256(p.read_bytes()).hexdigest() for p in results(directory)
        }
        return told

    inputs = [*directory.glob("*/*.struct"), *directory.glob("*/kgen.answers")]
    return run_and_tell(directory, inputs, compute)
