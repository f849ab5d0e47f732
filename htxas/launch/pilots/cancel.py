"""Pilots taken out of the queue, and looked after until the scheduler says that they are gone."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from htxas.cluster.jobs import Cancelled, Snapshot
from htxas.cluster.profile import Profile
from htxas.cluster.queue import Queue
from htxas.errors import ClusterError, NotFound
from htxas.launch.pilots.look import ending_of, refresh
from htxas.launch.pilots.submit import LOCK_TTL_S, pilots_lock
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

__all__ = ["Cancelling", "cancel_pilots"]

_CANCEL_LOOK_S = 1.0


@dataclass(slots=True)
class Cancelling:
    """What a call of :func:`cancel_pilots` did: ids of pilots.

    Attributes
    ----------
    gone
        Not in the queue any more; confirmed by the scheduler.
    left
        Still there when patience ended, with the scheduler's word for them.
    failed
        The scheduler refused, or did not answer.
    """

    gone: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def cancel_pilots(
    store: Store,
    profile: Profile,
    queue: Queue,
    pilots: Collection[str] | None = None,
    *,
    pending: bool = False,
    patience_s: float = 40.0,
) -> Cancelling:
    """End pilots in the queue and look until the scheduler says that they are gone.

    Parameters
    ----------
    store, profile, queue
        Which database, which cluster.
    pilots
        Their ids; None is all of the cluster.
    pending
        Only those that have not started.
    patience_s
        How long to look: running pilots give back what they hold before they go.

    Raises
    ------
    NotFound
        If a pilot is not one of this cluster's.
    ClusterError
        If the scheduler gives no usable answer to start with.
    """
    done = Cancelling()
    with store.lock(pilots_lock(profile.name), ttl_s=LOCK_TTL_S, wait_s=patience_s):
        seen = refresh(store, profile, queue)
        if seen.unknown is not None:
            raise ClusterError(seen.unknown, where=profile.name, hint="nothing was cancelled; do it again")
        known = {p.id: p for p in seen.pilots}
        for wanted in pilots or ():
            if wanted not in known and store.pilot(wanted).cluster != profile.name:
                raise NotFound(f"{profile.name} has no pilot {wanted}", hint="htxas queue status")
        chosen = [p for p in seen.pilots if pilots is None or p.id in pilots]
        if pending:
            chosen = [p for p in chosen if p.state is not PilotState.RUNNING]
        done.gone += [p for p in pilots or () if p not in known]
        done.gone += [p.id for p in chosen if p.id in seen.replaced]  # the number of its job is another's now
        chosen = [p for p in chosen if p.id not in seen.replaced]
        jobs = {p.job_id: p for p in chosen if p.job_id is not None}
        for p in chosen:
            if p.job_id is None:  # on its way into the queue, or never to get there
                done.left[p.id] = "not in the queue yet; cancel it again in two minutes"
        answers = queue.cancel(jobs)
        for job_id, pilot in jobs.items():
            if answers.get(job_id, Cancelled.FAILED) is Cancelled.FAILED:
                done.failed.append(pilot.id)
        asked = {job_id: p for job_id, p in jobs.items() if p.id not in done.failed}
        _watch_them_go(store, queue, asked, done, patience_s)
    return done


def _watch_them_go(
    store: Store, queue: Queue, asked: dict[str, PilotRecord], done: Cancelling, patience_s: float
) -> None:
    end = time.monotonic() + patience_s
    while asked:
        answer = queue.snapshot(list(asked))
        if isinstance(answer, Snapshot):
            for job_id, pilot in list(asked.items()):
                job = answer.jobs.get(job_id)
                if job is not None and not job.state.ended:
                    done.left[pilot.id] = job.raw
                    continue
                del asked[job_id]
                done.left.pop(pilot.id, None)
                done.gone.append(pilot.id)
                reason = "CANCELLED" if job is None else _by_us(ending_of(job))
                store.update_pilot(pilot.id, state=PilotState.ENDED, ended=datetime.now(UTC), reason=reason)
        else:
            done.left |= {p.id: f"unknown: {answer.reason}" for p in asked.values()}
        if time.monotonic() > end:
            return
        if asked:
            time.sleep(_CANCEL_LOOK_S)


def _by_us(ending: str) -> str:
    """Return a scheduler's word for an end with ours before it: not all of them have one for it."""
    return ending if ending.upper().startswith("CANCELLED") else f"CANCELLED: {ending}"
