"""The engine object: what the rest of htxas sees of Quantum ESPRESSO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A
from htxas.engines.base import Job, ResolvedParameters
from htxas.engines.external import Program, provenance_of, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.qe.corrections import LADDER, NUMERICS
from htxas.engines.qe.parameters import RECIPE, ground_from, hole_from
from htxas.engines.qe.presets import PRESETS, resolve
from htxas.engines.qe.process import find_espresso
from htxas.engines.qe.read import bad, ground_result, site_result
from htxas.engines.qe.recipes import RECIPES
from htxas.engines.qe.restart import take_over
from htxas.engines.qe.write import (
    EXCITED,
    GROUND,
    ground_bands,
    ground_inputs,
    lay_out,
    pseudo_inputs,
    site_inputs,
)
from htxas.errors import Cause, UnsupportedInput

__all__ = ["ENGINE", "EspressoEngine"]


class EspressoEngine(ExternalEngine):
    """Pseudopotential plane waves with a full core hole, as in the published campaign, by Quantum ESPRESSO.

    The hole is not spin-polarised: absolute energies are some eV (1 to 2 %) high, as published. Differences between
    carbon sites were 0.4 eV (rms) and up to 1.0 eV from those of all-electron codes with half a hole: first states that
    are pi* come out higher against Rydberg ones.
    """

    name = "qe"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs, logs and what is read of them; not densities, wave functions, and what ``ld1.x`` makes again."""
        names = ("*.json", "*.in", "*.out", "pw.xml", "lanczos-*.sav", "vacuum-*.dat")
        parts = (f"{folder}/pw.{kind}" for folder in (GROUND, EXCITED) for kind in ("in", "out", "xml"))
        return (*names, "pw.save/atomic_proj.xml", *parts)

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.qe.presets.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse odd electron counts, elements without a recipe, and cells that cannot be built."""
        assert parameters.ground is not None
        ground = ground_from(parameters.ground)
        recipes = RECIPES[ground.pseudopotentials]
        lacking = [e for e in structure.composition if e not in recipes and e not in ground.upf]
        if lacking:
            raise UnsupportedInput(
                f"the set {ground.pseudopotentials} has no pseudopotential of {lacking[0]} in {structure.formula}",
                hint="it has " + " ".join(recipes) + "; name files of your own for others: upf",
            )
        layout = lay_out(structure, ground)
        if round(layout.electrons) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; its ground state is not a closed shell",
                hint="check for a missing hydrogen",
            )

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core, by plane waves and bands.

        Fitted to 30 calculations of molecules of 4 to 12 atoms in boxes of 8 to 12 A with QE 6.7 (within a third); the
        recursion of a spectrum takes most of the time, and the more steps the larger the box.
        """
        is_ground = kind is Kind.GROUND
        ground = ground_from(parameters if is_ground else parameters["ground"])
        layout = lay_out(structure, ground)
        volume_a03 = abs(float(np.linalg.det(layout.cell.cell_A))) / BOHR_A**3
        waves = volume_a03 * ground.cutoff_Ry**1.5 / (6 * np.pi**2)
        points = 1 if ground.kpoints is None else float(np.prod(ground.kpoints.build(layout.cell.cell_A)))
        bands = layout.electrons / 2
        if is_ground:
            return float(2.0 + points * waves * 1e-5 * ground_bands(layout, ground))
        steps = (0.5 / float(parameters["hole"]["resolution_eV"])) ** 0.8
        return float(4.0 + points * (6.3 * (waves / 16900) ** 1.75 * steps + 5.2e-5 * waves * bands))

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json`` and the inputs of all programs but ``xspectra.x``, which needs the first's result.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or another recipe.
        """
        self.write_job(job, directory, recipe=RECIPE)
        c = job.calculation
        is_ground = c.kind is Kind.GROUND
        document = c.parameters if is_ground else c.parameters["ground"]
        ground = ground_from(document)
        title = f"{job.structure.formula} {c.kind.value} htxas {c.key[:12]}"
        if is_ground:
            layout = lay_out(job.structure, ground)
            texts = ground_inputs(title, layout, ground, job.numerics)
        else:
            hole = hole_from(c.parameters["hole"])
            layout = lay_out(job.structure, ground, c.atom, hole)
            texts = site_inputs(title, layout, ground, hole, job.numerics)
        texts |= pseudo_inputs(layout, ground, c.element)
        for name, text in texts.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text)
        if job.previous_directory is not None:
            take_over(job.previous_directory, directory, texts)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's Quantum ESPRESSO."""
        return find_espresso(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read ``pw.xml``, the projections, the potential of the vacuum and the recursions.

        Raises
        ------
        EngineFailure
            See :mod:`htxas.engines.qe.read`.
        """
        outcome = read_outcome(
            job, directory, lambda: bad(Cause.ENGINE_CRASH, "the process ended without a word", directory)
        )
        version = _version(directory)
        provenance = provenance_of(
            outcome,
            directory,
            version=version,
            libraries={"quantum-espresso": version},
            extra={
                k: outcome[k]
                for k in ("program", "steps_s", "atoms_eV", "pseudopotentials_md5", "ground")
                if k in outcome
            },
        )
        if job.calculation.kind is Kind.GROUND:
            return ground_result(job, directory, outcome, provenance)
        return site_result(job, directory, outcome, provenance)


def _version(directory: Path) -> str:
    import re

    path = directory / "pw.out"
    found = (
        re.search(r"Program PWSCF v\.?\s*(\S+) starts", path.read_text(errors="replace"))
        if path.is_file()
        else None
    )
    return "" if found is None else found[1]


ENGINE = EspressoEngine()
