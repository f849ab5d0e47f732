"""The engine object: what the rest of htxas sees of GPAW."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Correction, Job, ResolvedParameters, write_job
from htxas.engines.external import provenance_of, read_outcome
from htxas.engines.gpaw.corrections import LADDER, NUMERICS
from htxas.engines.gpaw.parameters import PRESETS, RECIPE, ground_from, resolve
from htxas.engines.gpaw.process import find_gpaw
from htxas.engines.gpaw.read import bad, ground_result, site_result
from htxas.engines.gpaw.recipes import RECIPES
from htxas.engines.gpaw.write import lay_grid, valence_of, write_step
from htxas.engines.numerics import Numeric, refuse_numerics
from htxas.errors import Cause, EngineFailure, UnsupportedInput

__all__ = ["ENGINE", "GpawEngine"]

_MODULE = "htxas.engines.gpaw"


@dataclass(frozen=True, slots=True)
class GpawEngine:
    """All-electron energies and spectra of molecules by PAW on real-space grids, with GPAW.

    Between walls instead of periodic images, so that levels count from vacuum and an ion is an ion. A spin-polarised
    core ion and half a hole, as with PySCF: absolute energies are those of the functional.
    """

    name: str = "gpaw"

    @property
    def presets(self) -> Mapping[str, str]:
        """Preset name -> one line for the user."""
        return {name: text for name, (text, _, _) in PRESETS.items()}

    @property
    def ladder(self) -> Mapping[Cause, tuple[Correction, ...]]:
        """See :mod:`htxas.engines.gpaw.corrections`."""
        return LADDER

    @property
    def numerics(self) -> Mapping[str, Numeric]:
        """See :mod:`htxas.engines.gpaw.corrections`."""
        return NUMERICS

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
        refuse_numerics(self.name, NUMERICS, job.numerics)
        c = job.calculation
        recipe = (c.parameters if c.kind is Kind.GROUND else c.parameters["ground"])["recipe"]
        if recipe != RECIPE:
            raise EngineFailure(
                Cause.BAD_INPUT,
                f"the calculation is of recipe {recipe}, this htxas computes by recipe {RECIPE}",
                where=str(directory),
            )
        write_job(job, directory)
        write_step(job, directory)

    def command(self, directory: Path) -> list[str]:
        """Return the argument list that runs ``directory`` once."""
        return [sys.executable, "-m", _MODULE, str(directory)]

    @property
    def starts_code(self) -> bool:
        """Our process runs GPAW step by step."""
        return True

    def missing(self, environment: Mapping[str, str]) -> str | None:
        """Look for the user's Python with GPAW; whether GPAW is in it is seen when it runs."""
        try:
            find_gpaw(environment)
        except EngineFailure as error:
            return str(error)
        return None

    def server_command(self) -> None:
        """GPAW has no persistent process."""
        return

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
        provenance = provenance_of(
            outcome,
            directory,
            version=versions.get("gpaw", ""),
            libraries=versions,
            extra={k: outcome[k] for k in ("program", "steps_s", "ground") if k in outcome},
        )
        if is_ground:
            return ground_result(job, directory, provenance)
        return site_result(job, directory, outcome, provenance)

    def versions(self) -> dict[str, str]:
        """GPAW is the user's own: its version is known once it has run."""
        return {}


def _versions(path: Path) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_text())["versions"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}  # no result either: the reader says why


ENGINE = GpawEngine()
