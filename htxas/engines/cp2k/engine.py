"""The engine object: what the rest of htxas sees of CP2K."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence, Kind
from htxas.domain.result import Provenance, Result
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A
from htxas.engines.base import Job, ResolvedParameters, read_job, write_job
from htxas.engines.cp2k.basis import OTHERS, count, shells
from htxas.engines.cp2k.corrections import LADDER, NUMERICS
from htxas.engines.cp2k.log import read_log
from htxas.engines.cp2k.parameters import PRESETS, ground_of, hole_of, other_content, resolve
from htxas.engines.cp2k.process import find_cp2k
from htxas.engines.cp2k.read import Finished, ground_result, read_steps, site_result, unfinished
from htxas.engines.cp2k.write import START, files, project, steps_of
from htxas.engines.external import Program, log_tail, provenance_of, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.numerics import refuse_numerics
from htxas.errors import Cause, EngineFailure, UnsupportedInput

__all__ = ["ENGINE", "Cp2kEngine"]

# Exponent times squared distance to the wall. CH4's Rydberg levels are 5 meV from their limit at 1.7 (0.03 a0^-2, 4 A),
# and up to 140 meV at 1.1 (3.25 A).
_LEAST_ROOM = 1.5


class Cp2kEngine(ExternalEngine):
    """All-electron core-hole spectra of closed-shell molecules in vacuum: GAPW and the transition potential.

    The physics is that of the pyscf engine, by other means: a grid of plane waves beside the Gaussians, and a hole of
    one spin. In the same basis PySCF finds the ionisation energies of the preset ``standard`` within 4 meV (CH4, HCN,
    CO, HF) and its levels within 20 meV.

    It is not relativistic: energies of C lie 0.1 eV low by that, of N 0.2, of O 0.4, of F 0.6. What CP2K 2023.1 offers
    instead, second-order Douglas-Kroll-Hess and ZORA, moves the 1s ionisation energy of CH4 in GAPW by 0.22 eV where
    exact two-component theory (X2C, PySCF) says 0.11.
    """

    name = "cp2k"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs, outputs, spectra and projected densities of states; orbitals are not kept."""
        return ("*.json", "*.inp", "BASIS", "POTENTIAL", "*.out", "*.spectrum", "*.pdos")

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.cp2k.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse crystals, odd electron counts, elements without basis functions, and boxes too small.

        Everything else is computed as a neutral singlet: xyz files carry neither charge nor spin.
        """
        if structure.is_periodic:
            raise UnsupportedInput(
                f"{structure.formula} is periodic; the cp2k engine treats molecules in vacuum",
                hint="remove the cell to compute the molecule, or use a periodic engine",
            )
        if sum(structure.atomic_numbers) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; the cp2k engine needs a closed shell",
                hint="check for a missing hydrogen",
            )
        ground = ground_of(parameters.site)
        for element in structure.composition:
            if element not in OTHERS or shells(ground.valence_basis, element) is None:
                raise UnsupportedInput(
                    f"basis {ground.valence_basis} has no functions for {element} in {structure.formula}"
                )
        side_A = float(ground.box.build(structure).cell_A[0, 0])
        extent_A = float(np.ptp(structure.positions_A, axis=0).max())
        room_a0 = (side_A - extent_A) / 2 / BOHR_A
        smallest = hole_of(parameters.site).diffuse_smallest
        if smallest * room_a0**2 < _LEAST_ROOM:
            raise UnsupportedInput(
                f"functions down to diffuse_smallest {smallest:g} do not fit beside {structure.formula} "
                f"in a box of {side_A:.1f} A",
                hint="a larger box, or a larger diffuse_smallest",
            )

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core: grid points times iterations.

        Fitted to 20 calculations of molecules of 2 to 12 atoms with CP2K 2023.1 (within a fifth).
        """
        p = ground_of(parameters)
        side_A = float(p.box.build(structure).cell_A[0, 0])
        functions = sum(count(shells(p.valence_basis, e) or ()) for e in structure.symbols)
        points = side_A**3 * p.cutoff_Ry**1.5 / 1e6
        cycle = 0.18 * points * (1 + (functions / 400) ** 2) * (2.0 if p.functional == "r2SCAN" else 1.0)
        cycles = 12
        if kind is Kind.SITE:
            holes = 3 if hole_of(parameters).scale == "neutral" else 2
            cycles += holes * 2 * 13  # of both spins
        return float(1.0 + cycle * cycles)

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json``, an input for each step, and the basis and potential files.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, and if the basis sets here are not those of the
            identity.
        """
        refuse_numerics(self.name, NUMERICS, job.numerics)
        c = job.calculation
        other = other_content(c.parameters, c.element)
        if other is not None:
            raise EngineFailure(Cause.BAD_INPUT, f"the calculation is one of {other}", where=str(directory))
        write_job(job, directory)
        start = c.kind is Kind.SITE and _take_orbitals(job, directory)
        try:
            texts = files(c, job.structure, job.numerics, start=start)
        except UnsupportedInput as error:
            raise EngineFailure(Cause.BAD_INPUT, str(error), where=str(directory)) from None
        for name, text in texts.items():
            (directory / name).write_text(text)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's CP2K."""
        return find_cp2k(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read CP2K's outputs, spectra and projected densities of states.

        Raises
        ------
        EngineFailure
            See :mod:`htxas.engines.cp2k.read`; also ENGINE_CRASH if a step ended with a status of its own.
        """
        outcome = read_outcome(job, directory, lambda: unfinished(job, directory))
        done = read_steps(job, directory)
        if outcome["ended_in"] is not None:
            text = (directory / f"{outcome['ended_in']}.out").read_text(errors="replace")
            raise EngineFailure(
                Cause.ENGINE_CRASH,
                f"CP2K ended in {outcome['ended_in']} with status {outcome['returncode']}",
                evidence={"log_tail": log_tail(text)},
                where=str(directory),
            )
        provenance = _provenance(outcome, done, directory)
        if job.calculation.kind is Kind.GROUND:
            return ground_result(job, directory, done, provenance)
        return site_result(job, directory, done, provenance)


def _take_orbitals(job: Job, directory: Path) -> bool:
    """Copy the converged orbitals of an attempt that was cut short later; return whether there were any."""
    previous = job.previous_directory
    if previous is None:
        return False
    base = steps_of(job.calculation)[0]
    try:
        if read_job(previous).calculation.key != job.calculation.key:
            return False
        log = read_log((previous / f"{base.name}.out").read_text(errors="replace"))
        name = project(base, job.calculation)
        orbitals = previous / f"{name}-RESTART.wfn"
        if log.project != name or not log.ended or log.convergence(1) is not Convergence.CONVERGED:
            return False
        if not orbitals.stat().st_size:
            return False
        shutil.copy2(orbitals, directory / START)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _provenance(outcome: Mapping[str, Any], done: Mapping[str, Finished], directory: Path) -> Provenance:
    logs = {name: finished.log for name, finished in done.items()}
    version = next(iter(logs.values())).version
    extra = {
        "program": outcome["program"],
        "steps_s": outcome["steps_s"],
        "cycles": {name: list(log.cycles) for name, log in logs.items()},
    }
    return provenance_of(outcome, directory, version=version, libraries={"cp2k": version}, extra=extra)


ENGINE = Cp2kEngine()
