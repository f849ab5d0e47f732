"""One calculation: its directory, the engine, the reading, the gate."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htxas.domain.gate import GateLimits, Rejection, inspect
from htxas.domain.result import Result
from htxas.engines.base import Engine, Job
from htxas.errors import Cause, EngineFailure
from htxas.launch.work.engine_process import EngineProcess
from htxas.launch.work.evidence import FULL
from htxas.settings import runs_folder

__all__ = ["CampaignSettings", "attempt_directory", "compute", "gate_limits", "walltime_s"]

_LEAST_WALLTIME_S = 900.0
_WALLTIME_FACTOR = 20.0
# What a reader may trip over in a damaged file; anything else is a bug and stops the worker.
_READ_ERRORS = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, OSError)


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """What a worker needs of a campaign's document; no ground parameters: no ground states."""

    name: str
    engine: str
    site_parameters: Mapping[str, Any]
    ground_parameters: Mapping[str, Any] | None
    gate: Mapping[str, Any]
    sigma_eV: float
    step_eV: float
    walltime_s: float | None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> CampaignSettings:
        """Read a campaign as the store gives it."""
        return cls(
            name=document["name"],
            engine=document["engine"],
            site_parameters=document["parameters"]["site"],
            ground_parameters=document["parameters"]["ground"],
            gate=document["gate"],
            sigma_eV=document["spectrum"]["sigma_eV"],
            step_eV=document["spectrum"]["step_eV"],
            walltime_s=document["walltime_s"],
        )


def gate_limits(document: Mapping[str, Any]) -> GateLimits:
    """Return the limits of a campaign's gate from their document."""
    limits: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
    return GateLimits(**limits)


def walltime_s(settings: CampaignSettings, estimate_s: float) -> float:
    """Return the clock limit: the campaign's, or 20 times the estimate and at least 15 minutes."""
    if settings.walltime_s is not None:
        return settings.walltime_s
    return max(_LEAST_WALLTIME_S, _WALLTIME_FACTOR * estimate_s)


def _make_anew(directory: Path) -> None:
    # Parents first, for most attempts are the first.
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir()
    except FileExistsError:  # of another database: never to be taken for this attempt's
        shutil.rmtree(directory)
        directory.mkdir()


def attempt_directory(key: str, attempt: int, runs: Path | None = None) -> Path:
    """Return ``runs/<key[:2]>/<key>/<attempt>``, which need not exist."""
    return (runs or runs_folder()) / f"{key[:2]}/{key}/{attempt}"


def compute(
    process: EngineProcess,
    engine: Engine,
    job: Job,
    directory: Path,
    *,
    limits: GateLimits,
    timeout_s: float,
) -> tuple[Result, Rejection | None]:
    """Write, run and read one calculation; return the result and what the gate says of it.

    Raises
    ------
    EngineFailure
        With its one named cause.
    Returned
        If asked to stop at once.
    """
    try:
        _make_anew(directory)
        engine.write(job, directory)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise EngineFailure(
            Cause.DISK_FULL,
            "no space left on device; the input could not be written",
            evidence={"directory": str(directory)},
        ) from error
    process.run(directory, timeout_s)
    try:
        result = engine.read(job, directory)
        return result, inspect(result, limits, element=job.calculation.element, edge=job.calculation.edge)
    except _READ_ERRORS as error:
        raise EngineFailure(
            Cause.BAD_OUTPUT,
            f"the results cannot be read: {type(error).__name__}: {error}",
            evidence={"traceback": traceback.format_exc().splitlines()[-12:]},
        ) from error
