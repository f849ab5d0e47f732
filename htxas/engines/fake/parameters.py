"""Parameters of the fake engine: how long it pretends to work and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.elements import check_edge
from htxas.engines.base import ResolvedParameters
from htxas.errors import UserError

__all__ = ["PRESETS", "FailureMode", "failure_mode", "resolve"]

PRESETS = {
    "instant": "fake numbers at once; not physics",
    "brief": "fake numbers after 0.2 s; not physics",
}

_SECONDS = {"instant": 0.0, "brief": 0.2}


class FailureMode(StrEnum):
    """How a fake calculation goes wrong."""

    UNCONVERGED = "unconverged"  # a full result that says it did not converge
    HOLE_LEFT = "hole_left"  # a full result whose hole is on another atom
    NAN = "nan"  # a full result with a NaN in it
    CRASH = "crash"  # the process kills itself with SIGKILL
    KILL_WORKER = "kill_worker"  # kills the worker that runs it, as a bug of ours would
    HANG = "hang"  # the process never answers
    BAD_OUTPUT = "bad_output"  # ends well, but its file lacks what it should hold
    TRUNCATED = "truncated"  # ends well, but its file stops half way
    DISK_FULL = "disk_full"  # cannot write: no space left on device
    OOM = "oom"  # MemoryError


_DEFAULTS: dict[str, Any] = {
    "seconds": 0.0,  # pretended work per calculation
    "fail": {},  # "FORMULA:ATOM" or "FORMULA:ground" -> failure mode
    "fail_fraction": 0.0,  # this share of the calculations, chosen by key, fails ...
    "fail_mode": FailureMode.UNCONVERGED.value,  # ... in this way
    "fail_attempts": 0,  # fail only in the first so many attempts; 0 is always
}


def resolve(preset: str, overrides: Mapping[str, Any], *, edge: str) -> ResolvedParameters:
    """Return all parameters.

    Raises
    ------
    UserError
        Unknown preset, key, edge or failure mode, or a value out of range.
    """
    if preset not in PRESETS:
        raise UserError(f"the fake engine has no preset {preset!r}", hint="one of " + " ".join(PRESETS))
    check_edge(edge)
    for key in overrides:
        if key not in _DEFAULTS:
            near = get_close_matches(key, _DEFAULTS, n=1)
            raise UserError(
                f"the fake engine has no parameter {key!r}",
                hint=f"did you mean {near[0]!r}?" if near else "one of " + " ".join(_DEFAULTS),
            )
    values = {**_DEFAULTS, "seconds": _SECONDS[preset], **overrides}
    if not 0 <= values["fail_fraction"] <= 1 or values["seconds"] < 0 or values["fail_attempts"] < 0:
        raise UserError("fake engine: seconds and fail_attempts are at least 0, fail_fraction is within 0..1")
    modes = [values["fail_mode"], *values["fail"].values()]
    for mode in modes:
        if mode not in set(FailureMode):
            hint = "one of " + " ".join(FailureMode)
            raise UserError(f"the fake engine cannot fail as {mode!r}", hint=hint)
    common = {"fake": True, **values}
    return ResolvedParameters(site=common, ground=common)


def failure_mode(calculation: Calculation, formula: str, attempt: int) -> FailureMode | None:
    """Return how this calculation is to fail in this attempt (counted from 1), or None."""
    p = calculation.parameters
    if p["fail_attempts"] and attempt > p["fail_attempts"]:
        return None
    place = "ground" if calculation.kind is Kind.GROUND else str(calculation.atom)
    named = p["fail"].get(f"{formula}:{place}")
    if named is not None:
        return FailureMode(named)
    share = int(calculation.key[:8], 16) / 0x1_0000_0000
    return FailureMode(p["fail_mode"]) if share < p["fail_fraction"] else None
