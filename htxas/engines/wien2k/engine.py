"""The engine object: what the rest of htxas sees of WIEN2k."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A
from htxas.engines.base import Job, ResolvedParameters
from htxas.engines.external import Program, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.wien2k.corrections import LADDER, NUMERICS
from htxas.engines.wien2k.parameters import PRESETS, RECIPE, parameters_from, resolve
from htxas.engines.wien2k.process import find_wien2k
from htxas.engines.wien2k.read import site_result, unfinished
from htxas.engines.wien2k.restart import take_over
from htxas.engines.wien2k.structure import guess_spheres, overlap
from htxas.engines.wien2k.write import layout_of, texts
from htxas.errors import UnsupportedInput

__all__ = ["ENGINE", "Wien2kEngine"]

_MOST_ATOMS = 999  # three digits in case.struct
_CYCLES = 15.0


class Wien2kEngine(ExternalEngine):
    """All electrons in a full potential (APW+lo), a 1s hole in a crystal's supercell, absorption by XSPEC.

    Absolute energies are differences of total energies; nothing is aligned. XSPEC's intensities are of all orientations
    and in units of its own: spectra are normalised by themselves.
    """

    name = "wien2k"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs, logs, the spectrum and the densities of states beside it; no vectors, potentials and densities."""
        ends = "struct klist in0 in1 in1c in2 in2c inc inm inxs scf scf2 dayfile dos1ev txspec xspec".split()
        return ("*.json", "*/kgen.answers", "*/*.out", "*/*.error", *(f"*/*.{end}" for end in ends))

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.wien2k.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse molecules, too many atoms, spheres that overlap, lattices WIEN2k has no name for, open shells."""
        p = parameters_from(parameters.site)
        layout = layout_of(structure, 0, p)
        if len(layout.hole) > _MOST_ATOMS:
            raise UnsupportedInput(
                f"{structure.formula}: {len(layout.hole)} atoms in the supercell", hint="a smaller distance_A"
            )
        if math.prod(layout.hole_mesh) == 1:
            raise UnsupportedInput(
                f"one k point in the supercell of {structure.formula}: WIEN2k makes no densities of states of it",
                hint="a smaller spacing_invA, or divisions",
            )
        if sum(structure.atomic_numbers) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; the wien2k engine is not spin-polarised"
            )
        lacking = [e for e in structure.composition if e not in p.spheres_a0]
        if p.spheres_a0 and lacking:
            raise UnsupportedInput(
                f"spheres_a0 has no {lacking[0]}, which is in {structure.formula}",
                hint="all elements, or none",
            )
        if p.spheres_a0 and (close := overlap(layout.unit, p.spheres_a0)):
            raise UnsupportedInput(f"the spheres of {close} in {structure.formula} overlap")

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core, from the size of the matrices; not measured.

        A basis has ``V K^3 / 6 pi^2`` functions, K = RKMAX over the smallest radius. 5000 functions are taken for a
        minute a k point and cycle, growing with the third power; a hole leaves about half of the k points.
        """
        p = parameters_from(parameters)
        layout = layout_of(structure, 0, p)
        radius = min({**guess_spheres(layout.unit), **p.spheres_a0}.values())
        seconds = 0.0
        for cell, mesh in ((layout.unit, layout.unit_mesh), (layout.hole, layout.hole_mesh)):
            volume = abs(float(np.linalg.det(cell.cell_A))) / BOHR_A**3
            functions = volume * (p.rkmax / radius) ** 3 / (6 * math.pi**2)
            points = max(1.0, math.prod(mesh) / (2 if cell is layout.hole else 8))
            times = 2 if cell is layout.hole and p.electron == "background" else 1
            seconds += times * (_CYCLES * (5.0 + points * 60.0 * (functions / 5000) ** 3))
        return seconds

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json`` and, for each state, ``case.struct`` and what is not ``init_lapw``'s to make.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or another recipe.
        """
        self.write_job(job, directory, recipe=RECIPE)
        c = job.calculation
        assert c.atom is not None
        for name, text in texts(c.key, job.structure, c.atom, parameters_from(c.parameters)).items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text)
        take_over(job, directory)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's WIEN2k."""
        return find_wien2k(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read what WIEN2k's programs left.

        Raises
        ------
        EngineFailure
            See :func:`htxas.engines.wien2k.read.site_result`.
        """
        outcome = read_outcome(job, directory, lambda: unfinished(directory))
        return site_result(job, directory, outcome)


ENGINE = Wien2kEngine()
