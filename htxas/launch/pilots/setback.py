"""Pilots that died without having worked, and how much slower new ones are submitted then.

Where nodes cannot reach the database, or a line of the setup is wrong, every pilot ends within seconds. The work is
still ready then, so that each look would submit as many again, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from htxas.store.records import PilotRecord, PilotState

__all__ = ["KEPT_IN_MIND", "NOT_NEEDED", "NOT_STARTED", "NOT_SUBMITTED", "Setback", "setback"]

KEPT_IN_MIND = 100
NOT_NEEDED = "not needed: "
NOT_STARTED = "could not be started: "
NOT_SUBMITTED = "never reached the queue"

_ENOUGH = 3  # in a row: one alone may have met a bad node
_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 3600.0
_LATELY_S = 86_400.0
_WAVE_S = 30.0  # jobs submitted by one plan follow each other faster
_PROVEN_S = 60.0  # one at work for so long has reached all it needs
_IN_VAIN = ("unfit", "error")
_AT_WORK = ("idle", "deadline")
# What says nothing about the cluster: a person's wish, the scheduler's other plans, a job that there never was.
_NEITHER = ("cancelled", "terminated", "preempted", NOT_NEEDED, NOT_SUBMITTED)


@dataclass(frozen=True, slots=True)
class Setback:
    """Pilots that ended in vain, one after the other.

    Attributes
    ----------
    count
        How many, back to the last that worked or as far as records were looked at.
    reason
        How the last one ended.
    again
        Before this no other one should be tried.
    trying
        A pilot there is already that will show whether it is better now; None if there is none.
    """

    count: int
    reason: str
    again: datetime
    trying: str | None

    def __str__(self) -> str:
        return f"the last {self.count} pilots" if self.count > 1 else "the last pilot"


def setback(
    ended: Sequence[PilotRecord], active: Sequence[PilotRecord], held: Iterable[str], now: datetime
) -> Setback | None:
    """Return whether the newest pilots all ended in vain; None if not, or if one has worked since.

    Parameters
    ----------
    ended
        The last ones that ended.
    active
        Those there are.
    held
        Those of them that wait for a person: they show nothing.
    now
        UTC.
    """
    proven = [p for p in active if _is_proven(p, now)]
    worked = [*proven, *(p for p in ended if _has_worked(p))]
    since = max((p.started or p.submitted for p in worked), default=now - timedelta(seconds=_LATELY_S))
    since = max(since, now - timedelta(seconds=_LATELY_S))
    vain = sorted((p for p in ended if _was_in_vain(p) and _end(p) > since), key=_end, reverse=True)
    if not vain:
        return None
    newest = max(vain, key=lambda p: p.submitted)
    siblings = {p.id for p in [*active, *worked] if _submission(p) == _submission(newest)}
    if len(vain) < _ENOUGH and siblings:
        return None
    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(_waves(vain) - 1, 10))
    waiting = {p.id for p in active} - {p.id for p in proven} - set(held)
    return Setback(
        len(vain),
        vain[0].reason or "it left no word",
        _end(vain[0]) + timedelta(seconds=pause_s),
        min(waiting, default=None),
    )


def _has_worked(pilot: PilotRecord) -> bool:
    """Tell whether a pilot reached its work; one with a bundle has no owner, but leaves word or used engines."""
    reason = (pilot.reason or "").lower()
    if reason.startswith(_IN_VAIN):
        return False
    return pilot.owner is not None or pilot.engine_s > 0 or reason.startswith(_AT_WORK)


def _was_in_vain(pilot: PilotRecord) -> bool:
    reason = (pilot.reason or "").lower()
    return not _has_worked(pilot) and not reason.startswith(_NEITHER)


def _is_proven(pilot: PilotRecord, now: datetime) -> bool:
    if pilot.state is not PilotState.RUNNING or (pilot.owner is None and pilot.bundle is None):
        return False
    return (now - (pilot.started or pilot.submitted)).total_seconds() >= _PROVEN_S


def _end(pilot: PilotRecord) -> datetime:
    return pilot.ended or pilot.submitted


def _submission(pilot: PilotRecord) -> str:
    return pilot.id.partition("-")[0]


def _waves(pilots: Sequence[PilotRecord]) -> int:
    """Return in how many goes pilots were submitted: a hundred that die at once are one failure, not a hundred."""
    times = sorted(p.submitted for p in pilots)
    return 1 + sum((later - earlier).total_seconds() > _WAVE_S for earlier, later in pairwise(times))
