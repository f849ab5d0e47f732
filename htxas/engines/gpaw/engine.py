"""The engine object: what the rest of htxas sees of GPAW."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Job, ResolvedParameters
from htxas.engines.external import Program, provenance_of, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.gpaw.corrections import LADDER, NUMERICS
from htxas.engines.gpaw.parameters import PRESETS, RECIPE, ground_from, resolve
from htxas.engines.gpaw.process import find_gpaw
from htxas.engines.gpaw.read import bad, ground_result, site_result
from htxas.engines.gpaw.recipes import RECIPES
from htxas.engines.gpaw.write import lay_grid, valence_of, write_step
from htxas.errors import Cause, UnsupportedInput

__all__ = ["ENGINE", "GpawEngine"]


class GpawEngine(ExternalEngine):
    """All-electron energies and spectra of molecules by PAW on real-space grids, with GPAW.

    Between walls instead of periodic images, so that levels count from vacuum and an ion is an ion. A spin-polarised
    core ion and half a hole, as with PySCF: absolute energies are those of the functional.
    """

    name = "gpaw"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """What was told, the script that was run, its results and logs."""
        return ("*.json", "steps.py", "*.txt", "*.out", "ground/ground.json", "ground/ground.txt")

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.gpaw.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse crystals, elements without a recipe, and odd electron counts."""
        assert parameters.ground is not None
        if structure.is_periodic:
            raise UnsupportedInput(
                f"{structure.formula} is periodic; gpaw is used for molecules here",
                hint="use qe for crystals",
            )
        ground = ground_from(parameters.ground)
        recipes = RECIPES[ground.data_sets]
        lacking = [e for e in structure.composition if e not in recipes]
        if lacking:
            raise UnsupportedInput(
                f"{ground.data_sets} has no {lacking[0]}, which is in {structure.formula}",
                hint="it has " + " ".join(recipes),
            )
        if valence_of(structure, ground) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; its ground state is not a closed shell",
                hint="check for a missing hydrogen",
            )

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core, by points of the grid and levels.

        Fitted to CO, CH4, C2H2 and ethanol, 45,000 to 110,000 points, GPAW 26.7 (within a third).
        """
        is_ground = kind is Kind.GROUND
        ground = ground_from(parameters if is_ground else parameters["ground"])
        points = math.prod(lay_grid(structure, ground).points)
        occupied = valence_of(structure, ground) / 2
        if is_ground:
            return float(3.0 + 1e-5 * points * (occupied + ground.empty_bands + 10))
        return float(5.0 + 4.5e-5 * points * (occupied + 4))

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json``, ``input.json`` and the script of the steps.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or another recipe.
        """
        self.write_job(job, directory, recipe=RECIPE)
        write_step(job, directory)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's Python with GPAW; whether GPAW is in it is seen when it runs."""
        return find_gpaw(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read what the steps told.

        Raises
        ------
        EngineFailure
            See :mod:`htxas.engines.gpaw.read`.
        """
        outcome = read_outcome(
            job, directory, lambda: bad(Cause.ENGINE_CRASH, "the process ended without a word", directory)
        )
        is_ground = job.calculation.kind is Kind.GROUND
        versions = _versions(directory / ("ground.json" if is_ground else "transition.json"))
        provenance = provenance_of(outcome, directory, version=versions.get("gpaw", ""), libraries=versions)
        if is_ground:
            return ground_result(job, directory, provenance)
        return site_result(job, directory, outcome, provenance)


def _versions(path: Path) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_text())["versions"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}  # no result either: the reader says why


ENGINE = GpawEngine()
