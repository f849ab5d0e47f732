"""Parameters of the fake engine: how long it pretends to work, how it fails, and what cures it.

A failure is written ``MODE`` or ``MODE:CURE``. The cure is a number of :data:`NUMERICS` (``unconverged:damping``: goes
away once a correction sets it), ``x2`` (so many times a worker's memory), or the attempt from which on it is
well (``truncated:2``). Without one it fails each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.elements import check_edge
from htxas.engines.base import Correction, Job, ResolvedParameters
from htxas.engines.numerics import Numeric
from htxas.errors import Cause, UserError

__all__ = [
    "LADDER",
    "NUMERICS",
    "PRESETS",
    "FailureMode",
    "expected_s",
    "failure_mode",
    "gives_curve",
    "resolve",
    "seconds",
]

PRESETS = {
    "instant": "fake numbers at once; not physics",
    "brief": "fake numbers after 0.2 s; not physics",
}

_SECONDS = {"instant": 0.0, "brief": 0.2}

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "level_shift_Ha": Numeric("pretended; the fake numbers come from the key alone", 0.0, 2.0),
        "damping": Numeric("pretended; the fake numbers come from the key alone", 0.0, 0.95),
        "hole": Numeric("pretended; the fake numbers come from the key alone", choices=("lowest", "follow")),
    }
)

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction("level_shift", "pretends to shift empty levels", {"level_shift_Ha": 0.3}),
            Correction("damping", "pretends to mix slowly as well", {"damping": 0.5}),
        ),
        Cause.HOLE_LEFT_SITE: (
            Correction("follow_hole", "pretends to follow the hole from the start", {"hole": "follow"}),
        ),
    }
)


class FailureMode(StrEnum):
    """How a fake calculation goes wrong."""

    UNCONVERGED = "unconverged"  # a full result that says it did not converge
    HOLE_LEFT = "hole_left"  # a full result whose hole is on another atom; a curve that is doubtful
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
    "seconds_quantiles": [],  # instead: drawn by key from evenly spaced quantiles, least to most
    "ballast_bytes": 0,  # size of a file nobody needs, for the disk
    "fail": {},  # "FORMULA:ATOM" or "FORMULA:ground" -> failure
    "fail_shares": {},  # failure -> share of the calculations, chosen by key
    "fail_fraction": 0.0,  # this share of the calculations, chosen by key, fails ...
    "fail_mode": FailureMode.UNCONVERGED.value,  # ... in this way
    "fail_attempts": 0,  # fail only in the first so many attempts; 0 is always
}
# These came later: left out where they say what was so before, for calculations to keep their identity.
_LATER: dict[str, Any] = {
    "spectrum": "sticks",  # or "curve": a continuous one
    "ground": True,  # whether there are ground states
}
_SPECTRA = ("sticks", "curve")


def resolve(preset: str, overrides: Mapping[str, Any], *, edge: str) -> ResolvedParameters:
    """Return all parameters.

    Raises
    ------
    UserError
        Unknown preset, key, edge or failure, or a value out of range.
    """
    if preset not in PRESETS:
        raise UserError(f"the fake engine has no preset {preset!r}", hint="one of " + " ".join(PRESETS))
    check_edge(edge)
    known = {**_DEFAULTS, **_LATER}
    for key in overrides:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            raise UserError(
                f"the fake engine has no parameter {key!r}",
                hint=f"did you mean {near[0]!r}?" if near else "one of " + " ".join(known),
            )
    values = {**known, "seconds": _SECONDS[preset], **overrides}
    if values["spectrum"] not in _SPECTRA or not isinstance(values["ground"], bool):
        raise UserError("fake engine: spectrum is sticks or curve, ground is true or false")
    if not 0 <= values["fail_fraction"] <= 1 or values["seconds"] < 0 or values["fail_attempts"] < 0:
        raise UserError("fake engine: seconds and fail_attempts are at least 0, fail_fraction is within 0..1")
    _check_quantiles(values["seconds_quantiles"])
    shares = values["fail_shares"]
    if any(s < 0 for s in shares.values()) or sum(shares.values()) + values["fail_fraction"] > 1:
        raise UserError("fake engine: fail_shares and fail_fraction are shares and add up to 1 at most")
    for failure in (values["fail_mode"], *shares, *values["fail"].values()):
        _split(failure)
    site = {"fake": True, **{k: v for k, v in values.items() if k not in _LATER or v != _LATER[k]}}
    ground = {k: v for k, v in site.items() if k not in _LATER}
    return ResolvedParameters(site=site, ground=ground if values["ground"] else None)


def _check_quantiles(quantiles: Sequence[float]) -> None:
    if len(quantiles) == 1 or list(quantiles) != sorted(quantiles) or any(q < 0 for q in quantiles):
        raise UserError("fake engine: seconds_quantiles are two or more ascending numbers of seconds")


def _split(failure: str) -> tuple[FailureMode, str]:
    mode, _, cure = failure.partition(":")
    if mode not in set(FailureMode):
        raise UserError(f"the fake engine cannot fail as {mode!r}", hint="one of " + " ".join(FailureMode))
    if cure and cure not in NUMERICS and not cure.removeprefix("x").isdecimal():
        raise UserError(
            f"the fake engine knows no cure {cure!r} of {mode!r}",
            hint="an attempt (2), a multiple of the memory (x2), or one of " + " ".join(NUMERICS),
        )
    return FailureMode(mode), cure


def gives_curve(calculation: Calculation) -> bool:
    """Return whether the spectrum of this site is continuous."""
    return bool(calculation.parameters.get("spectrum") == "curve")


def _share(calculation: Calculation, first: int) -> float:
    """Return a number within 0..1 from eight hex digits of the key."""
    return int(calculation.key[first : first + 8], 16) / 0x1_0000_0000


def seconds(calculation: Calculation) -> float:
    """Return how long this calculation pretends to work."""
    p = calculation.parameters
    quantiles = p["seconds_quantiles"]
    if not quantiles:
        return float(p["seconds"])
    place = _share(calculation, 8) * (len(quantiles) - 1)
    below = int(place)
    return float(quantiles[below] + (place - below) * (quantiles[below + 1] - quantiles[below]))


def expected_s(parameters: Mapping[str, Any]) -> float:
    """Return the mean of :func:`seconds` over all calculations."""
    q = parameters["seconds_quantiles"]
    return float(parameters["seconds"] if not q else (sum(q) - (q[0] + q[-1]) / 2) / (len(q) - 1))


def failure_mode(job: Job, attempt: int) -> FailureMode | None:
    """Return how this calculation is to fail in this attempt (counted from 1), or None."""
    calculation = job.calculation
    p = calculation.parameters
    if not (p["fail"] or p["fail_shares"] or p["fail_fraction"]):
        return None
    if p["fail_attempts"] and attempt > p["fail_attempts"]:
        return None
    failure = _failure(calculation, job.structure.formula)
    if failure is None:
        return None
    mode, cure = _split(failure)
    if cure.isdecimal():
        cured = attempt >= int(cure)
    elif cure in NUMERICS:
        cured = cure in job.numerics
    else:
        cured = bool(cure) and job.memory_factor >= int(cure[1:])
    return None if cured else mode


def _failure(calculation: Calculation, formula: str) -> str | None:
    p = calculation.parameters
    place = "ground" if calculation.kind is Kind.GROUND else str(calculation.atom)
    named: str | None = p["fail"].get(f"{formula}:{place}")
    if named is not None:
        return named
    drawn = _share(calculation, 0)
    for failure, share in ((p["fail_mode"], p["fail_fraction"]), *sorted(p["fail_shares"].items())):
        drawn -= share
        if drawn < 0:
            return str(failure)
    return None
