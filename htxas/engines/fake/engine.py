"""The fake engine behind the real protocol."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence, Kind
from htxas.domain.dos import LocalDos, Pdos
from htxas.domain.result import CurveResult, GroundResult, Provenance, Result, SiteResult
from htxas.domain.spectrum import Curve, Sticks
from htxas.domain.structure import Structure
from htxas.engines.base import JOB_FILE, Correction, Engine, Job, ResolvedParameters, write_job
from htxas.engines.fake.numbers import WINDOW_EV
from htxas.engines.fake.parameters import LADDER, NUMERICS, PRESETS, expected_s, gives_curve, resolve
from htxas.engines.numerics import Numeric, refuse_numerics
from htxas.errors import Cause, EngineFailure, UnsupportedInput

__all__ = ["ENGINE", "FakeEngine"]

_VERSION = "fake-2"
_OVERHEAD_S = 0.002
_LOG_LINES = 12


class FakeEngine:
    """Numbers from a hash; see :mod:`htxas.engines.fake`. Results carry the engine name ``fake``."""

    name = "fake"
    presets: Mapping[str, str] = PRESETS
    ladder: Mapping[Cause, tuple[Correction, ...]] = LADDER
    numerics: Mapping[str, Numeric] = NUMERICS
    keep: tuple[str, ...] = ("*.json", "*.log")

    def resolve(
        self,
        preset: str,
        overrides: Mapping[str, Any],
        *,
        element: str,
        edge: str,
    ) -> ResolvedParameters:
        """Return full parameters."""
        return resolve(preset, overrides, edge=edge)

    def check(
        self,
        structure: Structure,
        parameters: ResolvedParameters,
    ) -> None:
        """Refuse crystals, so that refusals can be tested.

        Raises
        ------
        UnsupportedInput
            For a periodic structure.
        """
        if structure.is_periodic:
            raise UnsupportedInput(
                f"the fake engine takes molecules, {structure.formula} is periodic",
                hint="leave it out with structures: select",
            )

    def estimate_s(
        self,
        structure: Structure,
        kind: Kind,
        parameters: Mapping[str, Any],
    ) -> float:
        """Return the pretended seconds and a little for the files."""
        return expected_s(parameters) + _OVERHEAD_S

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json``; there is nothing else.

        Raises
        ------
        EngineFailure
            BAD_INPUT for unknown numerics.
        """
        refuse_numerics(self.name, self.numerics, job.numerics)
        write_job(job, directory)

    def command(self, directory: Path) -> list[str]:
        """Return the command for one directory."""
        return [sys.executable, "-m", "htxas.engines.fake.run", str(directory)]

    @property
    def starts_code(self) -> bool:
        """The command is the engine."""
        return False

    def missing(self, environment: Mapping[str, str]) -> None:
        """Return None: it comes with htxas."""
        return

    def server_command(self) -> list[str] | None:
        """Return the command of the persistent process."""
        return [sys.executable, "-m", "htxas.engines.fake.run", "--serve"]

    def versions(self) -> dict[str, str]:
        """Return the versions that decide the numbers."""
        return {"fake": _VERSION, "numpy": np.__version__}

    def read(self, job: Job, directory: Path) -> Result:
        """Read ``outcome.json``.

        Raises
        ------
        EngineFailure
            DISK_FULL, OUT_OF_MEMORY, ENGINE_CRASH from the log; BAD_OUTPUT for an unreadable file.
        """
        from htxas.engines.fake.run import LOG_FILE, OUTCOME_FILE

        try:
            text = (directory / OUTCOME_FILE).read_bytes()
        except FileNotFoundError:
            raise _no_outcome(_tail(directory / LOG_FILE)) from None
        try:
            outcome = json.loads(text)
            if outcome["key"] != job.calculation.key:
                raise ValueError(f"the file is of calculation {outcome['key']}")
            provenance = _provenance(outcome, directory)
            if job.calculation.kind is Kind.GROUND:
                return _ground(outcome, provenance)
            return (_curve if gives_curve(job.calculation) else _site)(outcome, provenance)
        except (ValueError, KeyError, TypeError) as error:
            raise EngineFailure(
                Cause.BAD_OUTPUT,
                f"{OUTCOME_FILE} is unreadable: {type(error).__name__}: {error}",
                evidence={"log": _tail(directory / LOG_FILE), "size_bytes": len(text)},
                where=str(directory),
            ) from error


def _tail(log: Path) -> list[str]:
    return log.read_text().splitlines()[-_LOG_LINES:] if log.exists() else []


def _no_outcome(tail: list[str]) -> EngineFailure:
    last = tail[-1] if tail else "empty log"
    cause = Cause.ENGINE_CRASH
    if "No space left on device" in last:
        cause = Cause.DISK_FULL
    elif last.startswith("MemoryError"):
        cause = Cause.OUT_OF_MEMORY
    return EngineFailure(cause, f"the fake engine left no outcome: {last}", evidence={"log": tail})


def _provenance(outcome: dict[str, Any], directory: Path) -> Provenance:
    return Provenance(
        engine_version=_VERSION,
        libraries={"numpy": np.__version__},
        host=outcome["host"],
        started=outcome["started"],
        ended=outcome["ended"],
        wall_s=outcome["wall_s"],
        cpu_s=outcome["wall_s"],
        inputs_sha256={JOB_FILE: hashlib.sha256((directory / JOB_FILE).read_bytes()).hexdigest()},
        directory=str(directory),
        extra={"fake": True, **outcome["extra"]},
    )


def _convergence(outcome: dict[str, Any]) -> Convergence:
    return Convergence.CONVERGED if outcome["converged"] else Convergence.UNCONVERGED


def _ground(outcome: dict[str, Any], provenance: Provenance) -> GroundResult:
    n = outcome["numbers"]
    energies, occupations = np.array(n["energies_eV"]), np.array(n["occupations"])
    occupied = int((occupations > 0).sum())
    return GroundResult(
        convergence=_convergence(outcome),
        total_energy_eV=n["total_energy_eV"],
        homo_eV=float(energies[occupied - 1]),
        lumo_eV=float(energies[occupied]),
        dipole_D=np.array(n["dipole_D"]),
        pdos=Pdos(energies, occupations, np.array(n["weights"])),
        provenance=provenance,
    )


def _site(outcome: dict[str, Any], provenance: Provenance) -> SiteResult:
    n = outcome["numbers"]
    sticks = Sticks(np.array(n["energies_eV"]), np.array(n["strengths"]))
    return SiteResult(
        convergence=_convergence(outcome),
        sticks=sticks,
        excitation_energy_eV=float(sticks.energies_eV[0]),
        ionization_eV=n["ionization_eV"],
        scale="fake: from a hash",
        energies_eV=n["total_energies_eV"],
        hole_overlap=n["hole_overlap"],
        window_eV=WINDOW_EV,
        provenance=provenance,
    )


def _curve(outcome: dict[str, Any], provenance: Provenance) -> CurveResult:
    n = outcome["numbers"]
    absorption, dos = np.array(n["absorption"]), n["dos"]
    return CurveResult(
        convergence=_convergence(outcome),
        curve=Curve(np.array(n["energies_eV"]), np.repeat(absorption[:, None], 3, axis=1)),
        background=np.array(n["background"]),
        edge_eV=n["edge_eV"],
        fermi_eV=n["fermi_eV"],
        lifetime_eV=n["lifetime_eV"],
        normalisation="1 is a made-up atom",
        scale="fake: from a hash",
        doubts=tuple(n.get("doubts", ())),
        dos=LocalDos(
            np.array(dos["energies_eV"]), np.array(dos["density"]), ("X*", "X"), np.array(dos["charges"]), 0.5
        ),
        provenance=provenance,
    )


ENGINE: Engine = FakeEngine()
