"""Failed calculations back into the queue."""

from __future__ import annotations

from dataclasses import dataclass

from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.errors import Cause
from htxas.launch.fireworks_pad import fireworks_of, rerun
from htxas.store.store import Store

__all__ = ["Retried", "retry"]

_OVER = ("COMPLETED", "FIZZLED")
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Retried:
    """How many calculations are READY again, and how many Fireworks carry them."""

    calculations: int
    fireworks: int


def retry(store: Store, launchpad: LaunchPad, campaign: str | None, cause: Cause | None = None) -> Retried:
    """Make FAILED and QUARANTINED calculations READY and their Fireworks run again.

    Sites that failed with their ground state come along with any cause: they have none of their own. Killed
    half-way, it is completed by the next call (or the next run).
    """
    before = store.counts(campaign)
    batches = set(store.retry(campaign, cause=cause))
    if cause is not None:
        batches |= set(store.retry(campaign, cause=Cause.GROUND_FAILED))
    after = store.counts(campaign)
    fireworks, ordered = 0, sorted(batches)
    for i in range(0, len(ordered), _CHUNK):
        part = ordered[i : i + _CHUNK]
        over = [fw_id for fw_id, f in fireworks_of(launchpad, part).items() if f["state"] in _OVER]
        fireworks += rerun(launchpad, over)
        store.rerun_done(part)
    wrong = (State.FAILED, State.QUARANTINED)
    return Retried(sum(before[s] - after[s] for s in wrong), fireworks)
