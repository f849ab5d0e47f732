"""The engine object: what the rest of htxas sees of OLCAO."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Correction, Job, ResolvedParameters, write_job
from htxas.engines.external import read_outcome
from htxas.engines.numerics import Numeric, refuse_numerics
from htxas.engines.olcao.corrections import LADDER, NUMERICS
from htxas.engines.olcao.parameters import PRESETS, RECIPE, parameters_from, resolve
from htxas.engines.olcao.process import find_olcao
from htxas.engines.olcao.read import site_result, unfinished
from htxas.engines.olcao.write import lay_out, skeleton
from htxas.errors import Cause, EngineFailure, UnsupportedInput

__all__ = ["ENGINE", "OlcaoEngine"]

_MODULE = "htxas.engines.olcao"


@dataclass(frozen=True, slots=True)
class OlcaoEngine:
    """All electrons in atomic orbitals, a 1s hole in a crystal's supercell, absorption along x, y and z.

    Absolute energies are differences of total energies; nothing is aligned. Spectra are normalised by themselves.
    """

    name: str = "olcao"

    @property
    def presets(self) -> Mapping[str, str]:
        """Preset name -> one line for the user."""
        return {name: text for name, (text, _) in PRESETS.items()}

    @property
    def ladder(self) -> Mapping[Cause, tuple[Correction, ...]]:
        """See :mod:`htxas.engines.olcao.corrections`."""
        return LADDER

    @property
    def numerics(self) -> Mapping[str, Numeric]:
        """See :mod:`htxas.engines.olcao.corrections`."""
        return NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs, records, the spectrum; no integrals and wave functions."""
        return (
            "*.json",
            "olcao.skl",
            "*.out",
            "*_1/inputs/olcao.dat",
            "*_1/inputs/structure.dat",
            "*_1/inputs/datSkl.map",
            "*_1/runtime",
            "*_1/*_main-*.out",
            "*_1/*_iter-*.dat",
            "*_1/*_enrg-*.dat",
            "*_1/*_pacs-*.plot",
        )

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.olcao.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse molecules and open shells."""
        lay_out(structure, 0, parameters_from(parameters.site))
        if sum(structure.atomic_numbers) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; the olcao engine is not spin-polarised"
            )

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core, by atoms and k points; a guess, nobody has measured."""
        cell, divisions = lay_out(structure, 0, parameters_from(parameters))
        a, b, c = divisions
        return float(60.0 + max(1.0, a * b * c / 2) * 300.0 * (len(cell) / 64) ** 3)

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json`` and ``olcao.skl``; the rest is ``makeinput``'s to make.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or another recipe.
        """
        refuse_numerics(self.name, NUMERICS, job.numerics)
        c = job.calculation
        if c.parameters["recipe"] != RECIPE:
            raise EngineFailure(
                Cause.BAD_INPUT,
                f"the calculation is of recipe {c.parameters['recipe']}, this htxas computes by recipe {RECIPE}",
                where=str(directory),
            )
        write_job(job, directory)
        assert c.atom is not None
        cell, _ = lay_out(job.structure, c.atom, parameters_from(c.parameters))
        title = f"htxas {c.key[:12]} {job.structure.formula}"
        (directory / "olcao.skl").write_text(skeleton(title, cell))

    def command(self, directory: Path) -> list[str]:
        """Return the argument list that runs ``directory`` once."""
        return [sys.executable, "-m", _MODULE, str(directory)]

    @property
    def starts_code(self) -> bool:
        """Our process runs OLCAO's scripts."""
        return True

    def missing(self, environment: Mapping[str, str]) -> str | None:
        """Look for the user's OLCAO."""
        try:
            find_olcao(environment)
        except EngineFailure as error:
            return str(error)
        return None

    def server_command(self) -> None:
        """OLCAO has no persistent process."""
        return

    def read(self, job: Job, directory: Path) -> Result:
        """Read what OLCAO's programs left.

        Raises
        ------
        EngineFailure
            See :func:`htxas.engines.olcao.read.site_result`.
        """
        outcome = read_outcome(job, directory, lambda: unfinished(directory))
        return site_result(job, directory, outcome)

    def versions(self) -> dict[str, str]:
        """OLCAO is the user's own, and its outputs do not say its version."""
        return {}


ENGINE = OlcaoEngine()
