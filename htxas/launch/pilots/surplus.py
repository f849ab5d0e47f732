"""Pilots that a cancelled campaign leaves without work: cancelled in their queues."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from htxas.cluster.profile import Profile
from htxas.cluster.queue import Queue
from htxas.errors import HtxasError
from htxas.launch.pilots.cancel import cancel_pilots
from htxas.launch.pilots.plan import adapt
from htxas.launch.pilots.ready import ready_for
from htxas.launch.pilots.supply import active_of, held_work, room_of
from htxas.store.records import ControlState, PilotRecord, PilotState
from htxas.store.store import Store

__all__ = ["Released", "release_pilots", "surplus"]


@dataclass(slots=True)
class Released:
    """What became of pilots.

    Attributes
    ----------
    gone
        Not in the queue any more, by cluster.
    left
        Pilot -> why it is still there.
    """

    gone: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def surplus(store: Store, profile: Profile) -> list[str]:
    """Return the waiting pilots of a cluster, newest first, that the work which is left does not need.

    Only pilots for all campaigns: one campaign's own are its user's decision. Pilots that run are never among them,
    they end by themselves when nothing is left.
    """
    pilots = store.pilots(profile.name, active=True)
    waiting = [p for p in pilots if p.state is not PilotState.RUNNING and p.campaign is None]
    if not waiting:
        return []
    rooms = [room_of(q, profile, sys.maxsize) for q in profile.partitions.values()]
    controls = store.controls()
    wanted = [name for name, c in controls.items() if c.state is not ControlState.CANCELLED]
    ready = ready_for(store, profile, wanted, [room.useful_s for room in rooms])
    held_s, now = held_work(store), datetime.now(UTC)
    present = [active_of(p, profile, held_s, now) for p in pilots if p.state is PilotState.RUNNING]
    needed = Counter(adapt(ready, rooms, present, most=sys.maxsize).submit)
    spare = []
    for pilot in sorted(waiting, key=lambda p: (p.submitted, p.id)):
        if needed[pilot.partition] > 0:
            needed[pilot.partition] -= 1
        else:
            spare.append(pilot.id)
    return spare[::-1]


def release_pilots(
    store: Store,
    clusters: Mapping[str, tuple[Profile, Queue]],
    own: Sequence[PilotRecord],
    *,
    patience_s: float = 20.0,
) -> Released:
    """Cancel a campaign's own pilots, and those waiting that are too many now; never raises for one cluster.

    Parameters
    ----------
    store
        The store.
    clusters
        Those that can be asked.
    own
        The campaign's pilots.
    patience_s
        How long to wait for each cluster's to go.
    """
    done = Released()
    for pilot in own:
        if pilot.cluster not in clusters:
            done.left[pilot.id] = f"no profile of {pilot.cluster} is known here: htxas queue cancel there"
    for name, (profile, queue) in clusters.items():
        ids = [p.id for p in own if p.cluster == name]
        for wanted, pending in ((ids, False), (surplus(store, profile), True)):
            if not wanted:
                continue
            try:
                told = cancel_pilots(store, profile, queue, wanted, pending=pending, patience_s=patience_s)
            except HtxasError as error:
                done.left |= dict.fromkeys(wanted, str(error))
                continue
            done.gone.setdefault(name, []).extend(told.gone)
            done.left |= told.left
            done.left |= dict.fromkeys(told.failed, "the scheduler did not take the request; do it again")
    return done
