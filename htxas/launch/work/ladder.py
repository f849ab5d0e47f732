"""What to try after a failure: a bounded ladder for each cause, climbed one documented rung at a time.

An engine knows the ways to the same converged answer (:attr:`htxas.engines.base.Engine.ladder`); what any engine may
need - more time, more memory, once more after a crash - is in :data:`SHARED`. The rungs of a cause are the engine's,
then the shared ones. When they are used up, the failure is final: FAILED, or QUARANTINED if the gate refused a result.

Causes without a rung, and why
------------------------------
``bad_input``
    The engine refuses the input for a reason: it would do so again.
``gate_rejected``
    A converged result that contradicts physics. To shake it until it passes would be choosing results.
``ground_failed``
    The ground state has a ladder of its own; the site never started.
``node_failure``, ``lost``
    Nothing the calculation did. The store gives it back and counts: it may be what kills its worker.

``disk_full`` blames no calculation: it goes back as it is, and no rung is used. Whoever runs it stops taking work until
there is room again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from htxas.engines.base import Correction, Engine
from htxas.errors import Cause

__all__ = ["SHARED", "Standing", "Step", "next_step", "rungs"]

_AGAIN = "once more as it was: a bad node or a passing fault; a second time is the calculation's own"

SHARED: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.WALLTIME: (Correction("more_time", "three times the clock limit", walltime_factor=3.0),),
        Cause.OUT_OF_MEMORY: (
            Correction(
                "more_memory", "the memory of two workers, which stand aside for it", memory_factor=2.0
            ),
            Correction("still_more_memory", "the memory of four workers", memory_factor=2.0),
        ),
        Cause.ENGINE_CRASH: (Correction("again_after_crash", _AGAIN),),
        Cause.BAD_OUTPUT: (Correction("again_after_bad_output", _AGAIN),),
    }
)
"""Rungs of every engine, after its own."""


class Standing(Protocol):
    """Where a calculation stands on its ladder: a :class:`Step`, or a task that carries the same."""

    @property
    def corrections(self) -> tuple[str, ...]:
        """Names of all corrections made so far, in order."""
        ...

    @property
    def numerics(self) -> Mapping[str, Any]:
        """Theirs, merged."""
        ...

    @property
    def rungs(self) -> Mapping[str, int]:
        """Corrections made so far, by cause."""
        ...

    @property
    def memory_factor(self) -> float:
        """Product of theirs."""
        ...

    @property
    def walltime_factor(self) -> float:
        """Product of theirs."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """Where a calculation stands on its ladder; stored as ``ladder`` in its document, handed to the next attempt.

    Attributes
    ----------
    corrections
        Names of all made so far, in order.
    numerics
        Theirs, merged: a later one replaces the values of an earlier one. A value of None takes a number back.
    rungs
        Corrections made so far, by cause.
    memory_factor, walltime_factor
        Products of theirs.
    """

    corrections: tuple[str, ...] = ()
    numerics: Mapping[str, Any] = field(default_factory=dict)
    rungs: Mapping[str, int] = field(default_factory=dict)
    memory_factor: float = 1.0
    walltime_factor: float = 1.0

    def slots(self, places: int, each: int = 1) -> int:
        """Return how many of a node's ``places`` the attempt takes; more than there are becomes all of them.

        Parameters
        ----------
        places
            Of the node.
        each
            What a calculation of its engine takes ordinarily.
        """
        return max(1, min(places, math.ceil(self.memory_factor * each)))

    def timeout_s(self, limit_s: float) -> float:
        """Return the clock limit of the attempt from that of a first one."""
        return limit_s * self.walltime_factor

    def to_dict(self) -> dict[str, Any]:
        """Return the step as a document."""
        return {
            "corrections": list(self.corrections),
            "numerics": dict(self.numerics),
            "rungs": dict(self.rungs),
            "memory_factor": self.memory_factor,
            "walltime_factor": self.walltime_factor,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any] | None) -> Step:
        """Return the step of a document; of None, or of one that only sets ``numerics``, the foot of the ladder."""
        if not document:
            return cls()
        return cls(
            corrections=tuple(document.get("corrections", ())),
            numerics=dict(document.get("numerics", {})),
            rungs=dict(document.get("rungs", {})),
            memory_factor=float(document.get("memory_factor", 1.0)),
            walltime_factor=float(document.get("walltime_factor", 1.0)),
        )


def rungs(engine: Engine, cause: Cause) -> tuple[Correction, ...]:
    """Return what is tried after ``cause``, in order: the engine's own, then the shared ones."""
    return (*engine.ladder.get(cause, ()), *SHARED.get(cause, ()))


def next_step(
    engine: Engine, standing: Standing, cause: Cause, *, places: int | None = None, slots: int = 1
) -> Step | None:
    """Return what the next attempt after ``cause`` does differently, or None if the ladder ends here.

    Parameters
    ----------
    engine
        Whose calculation it is.
    standing
        Where the attempt that failed stood: a :class:`Step` or a :class:`~htxas.launch.work.task.Task`.
    cause
        Why it failed. ``disk_full`` gives the same step once more.
    places, slots
        Of the node, and those that the attempt had: a rung that only asks for more memory ends the ladder where there
        is no more to be had, for the same would happen again. None if it may run elsewhere.
    """
    done = standing.rungs.get(cause.value, 0)
    if cause is Cause.DISK_FULL:
        correction, counted = Correction("", ""), {}
    else:
        available = rungs(engine, cause)
        if done >= len(available):
            return None
        correction, counted = available[done], {cause.value: done + 1}
        only_memory = (
            correction.memory_factor > 1 and correction.walltime_factor == 1 and not correction.numerics
        )
        if only_memory and places is not None and slots >= places:
            return None
    merged = {**standing.numerics, **correction.numerics}
    return Step(
        corrections=(*standing.corrections, correction.name) if correction.name else standing.corrections,
        numerics={k: v for k, v in merged.items() if v is not None},
        rungs={**standing.rungs, **counted},
        memory_factor=standing.memory_factor * correction.memory_factor,
        walltime_factor=standing.walltime_factor * correction.walltime_factor,
    )
