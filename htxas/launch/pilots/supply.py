"""What the pilots of a cluster can still do, and what new ones could."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from htxas.cluster.profile import Partition, Profile
from htxas.launch.pilots.plan import Active, Room
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

__all__ = ["active_of", "held_work", "room_of"]

_H = 3600.0


def held_work(store: Store) -> dict[str, float]:
    """Return pilot -> worker seconds of work in its hands that has not begun, by its last sign of life."""
    held: dict[str, float] = {}
    for worker in store.workers():
        pilot, waiting_s = worker["info"].get("pilot"), worker["info"].get("waiting_s")
        if pilot is not None and waiting_s is not None:
            held[pilot] = held.get(pilot, 0.0) + waiting_s
    return held


def active_of(pilot: PilotRecord, profile: Profile, held_s: Mapping[str, float], now: datetime) -> Active:
    """Return what is left of a pilot; one that is queued has its whole walltime."""
    left_s = pilot.walltime_s
    if pilot.state is PilotState.RUNNING and pilot.end_time is not None:
        left_s = (pilot.end_time - now).total_seconds()
    return Active(
        pilot.partition,
        pilot.campaign,
        left_s - profile.pilots.margin_s,
        max(0.0, left_s) * pilot.nodes / _H,
        held_s.get(pilot.id, 0.0),
    )


def room_of(partition: Partition, profile: Profile, free: int) -> Room:
    """Return what a new pilot in a partition could do that takes ``free`` more jobs."""
    return Room(
        name=partition.name,
        useful_s=partition.walltime_s - profile.pilots.margin_s,
        workers=profile.workers(partition) * partition.nodes,
        node_h=partition.walltime_s * partition.nodes / _H,
        free=free,
    )
