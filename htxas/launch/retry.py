"""Failed calculations back into the queue, if need be with other numerics; never with other physics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import Kind, State
from htxas.engines.base import Engine
from htxas.engines.numerics import check_numerics
from htxas.engines.registry import get_engine
from htxas.errors import Cause, UserError
from htxas.launch.pad.bulk import OVER, make_ready
from htxas.launch.pad.launchpad import fireworks_of
from htxas.store.records import CalculationRecord, ControlState
from htxas.store.store import Store

__all__ = ["FACTORS", "Retried", "Settings", "parse_settings", "preview_retry", "retry", "settable"]

FACTORS: Mapping[str, str] = {
    "memory_factor": "times the memory of one worker: 2 takes two workers' places",
    "walltime_factor": "times the clock limit",
}
"""What may be set for any engine."""

_FACTOR_RANGE = (0.1, 64.0)
_OVER = ("COMPLETED", "FIZZLED")
_IN_HAND = ("RUNNING", "RESERVED")
_WRONG = (State.FAILED, State.QUARANTINED)
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """What retried attempts do differently.

    Attributes
    ----------
    numerics
        Of the engine.
    factors
        Some of :data:`FACTORS`.
    """

    numerics: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retried:
    """What was made ready again, or would be.

    Attributes
    ----------
    calculations
        How many.
    fireworks
        Fireworks that carry them and were over.
    causes
        How many by the cause they had failed with.
    cancelled
        Whether the campaign is cancelled, so that they wait all the same.
    """

    calculations: int
    fireworks: int
    causes: Mapping[str, int]
    cancelled: bool = False


def parse_settings(engine: Engine | str, pairs: Iterable[str]) -> Settings:
    """Return ``key=value`` pairs as settings.

    Raises
    ------
    UserError
        For a pair that is none, a value out of range, and everything the engine does not declare: above all what
        would change the answer.
    """
    engine = get_engine(engine) if isinstance(engine, str) else engine
    numerics: dict[str, Any] = {}
    factors: dict[str, float] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        name = name.strip()
        if not sign or not name or not text.strip():
            raise UserError(f"{pair!r} is not key=value", where="--set", hint=_known(engine))
        value = _value(text.strip())
        if name in FACTORS:
            factors[name] = _factor(name, value)
        elif name in engine.numerics:
            numerics[name] = value
        else:
            near = get_close_matches(name, [*engine.numerics, *FACTORS], n=1)
            raise UserError(
                f"{name!r} is not something a retry with {engine.name} may change; it never changes the physics",
                where="--set",
                hint=f"did you mean {near[0]!r}?" if near else _known(engine),
            )
    check_numerics(engine.name, engine.numerics, numerics)
    return Settings(numerics, factors)


def settable(engine: str) -> list[str]:
    """Return the names that :func:`parse_settings` takes for an engine."""
    return [*get_engine(engine).numerics, *FACTORS]


def _known(engine: Engine) -> str:
    return "one of " + " ".join(settable(engine.name))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _factor(name: str, value: Any) -> float:
    least, most = _FACTOR_RANGE
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{name} = {value!r}: a number within {least:g}..{most:g}", where="--set")
    return float(value)


def retry(
    store: Store,
    launchpad: LaunchPad,
    campaign: str | None,
    cause: Cause | None = None,
    *,
    keys: Iterable[str] | None = None,
    settings: Settings | None = None,
) -> Retried:
    """Make FAILED and QUARANTINED calculations READY, their ladders and budgets of attempts as at the start.

    Sites that failed with their ground state come along with it: they have no cause of their own. Killed half-way, it
    is completed by the next call, by reconciliation, or by the next run.

    Parameters
    ----------
    store, launchpad
        Where.
    campaign
        Only its calculations, or None for all.
    cause, keys
        Only these.
    settings
        What they do differently.
    """
    settings = settings or Settings()
    before = _wrong(store, campaign)
    batches = store.retry(
        campaign,
        cause=cause,
        keys=None if keys is None else list(keys),
        numerics=settings.numerics,
        factors=settings.factors,
    )
    causes = before - _wrong(store, campaign)
    fireworks = 0
    for i in range(0, len(batches), _CHUNK):
        part = batches[i : i + _CHUNK]
        found = fireworks_of(launchpad, part)
        fireworks += make_ready(launchpad, [i for i, f in found.items() if f["state"] in _OVER], OVER)
        # Who has one in hand looks for the mark when it has ended.
        in_hand = {f["batch"] for f in found.values() if f["state"] in _IN_HAND}
        store.rerun_done([batch for batch in part if batch not in in_hand])
    return Retried(causes.total(), fireworks, dict(causes), _cancelled(store, campaign))


def preview_retry(
    store: Store,
    launchpad: LaunchPad,
    campaign: str | None,
    cause: Cause | None = None,
    *,
    keys: Iterable[str] | None = None,
) -> Retried:
    """Return what :func:`retry` would do; nothing is written."""
    chosen = None if keys is None else set(keys)
    wrong = {r.key: r for state in _WRONG for r in store.find(campaign=campaign, state=state)}
    selected = {
        r.key: r
        for r in wrong.values()
        if (cause is None or r.cause is cause) and (chosen is None or r.key in chosen)
    }
    grounds = {r.key for r in selected.values() if r.kind is Kind.GROUND}
    needed = {ground for r in selected.values() if (ground := _ground(r)) is not None}
    for record in wrong.values():
        if _ground(record) in grounds or record.key in needed:
            selected[record.key] = record
    causes = Counter(str(r.cause.value if r.cause else r.state.value) for r in selected.values())
    batches = {r.batch for r in selected.values() if r.batch is not None}
    over = sum(f["state"] in _OVER for f in fireworks_of(launchpad, batches).values())
    return Retried(len(selected), over, dict(causes), _cancelled(store, campaign))


def _ground(record: CalculationRecord) -> str | None:
    """Return the ground state for want of which a site failed."""
    return record.evidence.get("ground") if record.cause is Cause.GROUND_FAILED else None


def _wrong(store: Store, campaign: str | None) -> Counter[str]:
    return Counter(store.progress(campaign)["causes"])


def _cancelled(store: Store, campaign: str | None) -> bool:
    control = store.controls().get(campaign or "")
    return control is not None and control.state is ControlState.CANCELLED
