"""The engine object: what the rest of htxas sees of OLCAO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Job, ResolvedParameters
from htxas.engines.external import Program, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.olcao.corrections import LADDER, NUMERICS
from htxas.engines.olcao.parameters import PRESETS, RECIPE, parameters_from, resolve
from htxas.engines.olcao.process import find_olcao
from htxas.engines.olcao.read import site_result, unfinished
from htxas.engines.olcao.write import lay_out, skeleton
from htxas.errors import UnsupportedInput

__all__ = ["ENGINE", "OlcaoEngine"]


class OlcaoEngine(ExternalEngine):
    """All electrons in atomic orbitals, a 1s hole in a crystal's supercell, absorption along x, y and z.

    Absolute energies are differences of total energies; nothing is aligned. Spectra are normalised by themselves.
    """

    name = "olcao"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

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
        self.write_job(job, directory, recipe=RECIPE)
        c = job.calculation
        assert c.atom is not None
        cell, _ = lay_out(job.structure, c.atom, parameters_from(c.parameters))
        title = f"htxas {c.key[:12]} {job.structure.formula}"
        (directory / "olcao.skl").write_text(skeleton(title, cell))

    def find_code(self, environment: Mapping[str, str]) -> tuple[Program, Path]:
        """Look for the user's OLCAO."""
        return find_olcao(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read what OLCAO's programs left.

        Raises
        ------
        EngineFailure
            See :func:`htxas.engines.olcao.read.site_result`.
        """
        outcome = read_outcome(job, directory, lambda: unfinished(directory))
        return site_result(job, directory, outcome)


ENGINE = OlcaoEngine()
