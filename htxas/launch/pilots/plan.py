"""How many pilots, and where: from the work that is ready and the pilots there are. No database, no queue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from htxas.launch.agent.policy import LONGER
from htxas.store.demand import ReadyWork

__all__ = ["Active", "Plan", "Room", "adapt", "affordable", "keep"]

_H = 3600.0


@dataclass(frozen=True, slots=True)
class Room:
    """A partition.

    Attributes
    ----------
    name
        As the scheduler knows it.
    useful_s
        Walltime less the margin at its end.
    workers
        Workers of one pilot.
    node_h
        Node hours that one pilot may use up.
    free
        Jobs that may still be put into it.
    """

    name: str
    useful_s: float
    workers: int
    node_h: float
    free: int


@dataclass(frozen=True, slots=True)
class Active:
    """A pilot that is queued or runs.

    Attributes
    ----------
    partition
        Where.
    campaign
        The one it works for, or None.
    useful_s
        What is left of its time, less the margin; all of it while it is queued.
    node_h
        Node hours that it may still use up.
    held_s
        Worker seconds of the work in its hands that has not begun.
    """

    partition: str
    campaign: str | None
    useful_s: float
    node_h: float
    held_s: float = 0.0


@dataclass(slots=True)
class Plan:
    """What to submit.

    Attributes
    ----------
    submit
        Partition -> pilots.
    needed
        Pilots that the work asks for beyond those there are, before any cap.
    notes
        What was cut and why, what fits nowhere: one line each.
    """

    submit: dict[str, int] = field(default_factory=dict)
    needed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """All pilots to submit."""
        return sum(self.submit.values())


def affordable(
    campaigns: Sequence[str], left_node_h: Mapping[str, float], active: Sequence[Active], campaign: str | None
) -> float:
    """Return the node hours that new pilots may use up; infinite if a campaign with work has no cap.

    Parameters
    ----------
    campaigns
        Those with ready work.
    left_node_h
        What is left of each budget, for campaigns that have one.
    active
        Their remaining time is spoken for: a campaign's own pilots draw on its budget, common ones on any.
    campaign
        Whose pilots these are, or None for common ones.
    """
    if any(name not in left_node_h for name in campaigns):
        return math.inf
    spoken_for = sum(a.node_h for a in active if campaign is None or a.campaign in (None, campaign))
    return max(0.0, sum(left_node_h[name] for name in set(campaigns)) - spoken_for)


def keep(
    wanted: int,
    ready: Sequence[ReadyWork],
    rooms: Sequence[Room],
    active: Sequence[Active],
    *,
    most: int,
    node_h: float = math.inf,
) -> Plan:
    """Plan for ``wanted`` pilots queued or running, where the longest ready calculation fits."""
    plan = Plan()
    fitting = _fitting(ready, rooms, plan)
    if not fitting:
        if not ready:
            plan.notes.append("nothing is ready to run: no pilots are needed")
        return plan
    home = _home(max(r.longest_s for r in fitting), rooms)
    assert home is not None
    plan.needed = max(0, wanted - len(active))
    _cap(plan, {home.name: plan.needed}, rooms, len(active), most, node_h)
    return plan


def adapt(
    ready: Sequence[ReadyWork],
    rooms: Sequence[Room],
    active: Sequence[Active],
    *,
    most: int,
    node_h: float = math.inf,
    left_node_h: Mapping[str, float] | None = None,
) -> Plan:
    """Plan as many pilots as the ready work needs beyond those there are.

    Long calculations go first: each class takes the time of pilots, present and planned, in whose partitions it fits,
    and for the rest new pilots in the first partition, in the order given, where it fits.
    """
    plan = Plan()
    fitting = _fitting(ready, rooms, plan)
    if not ready:
        plan.notes.append("nothing is ready to run: no pilots are needed")
    by_name = {room.name: room for room in rooms}
    # One entry per pilot: how long the calculations may be, and the worker seconds it has to give.
    supply = [
        [max(0.0, a.useful_s), max(0.0, a.useful_s * by_name[a.partition].workers - a.held_s)]
        for a in active
        if a.partition in by_name
    ]
    wanted: dict[str, int] = {}
    for work in sorted(fitting, key=lambda r: -r.longest_s):
        room = _home(work.longest_s, rooms)
        assert room is not None
        need_s = _within_budget(work, room, left_node_h or {})
        for pilot in supply:
            if pilot[0] >= work.longest_s and need_s > 0:
                taken = min(pilot[1], need_s)
                pilot[1] -= taken
                need_s -= taken
        each_s = room.workers * room.useful_s
        more = math.ceil(round(need_s / each_s, 9))
        if more > 0:
            wanted[room.name] = wanted.get(room.name, 0) + more
            supply.append([room.useful_s, more * each_s - need_s])
    plan.needed = sum(wanted.values())
    _cap(plan, wanted, rooms, len(active), most, node_h)
    return plan


def _home(longest_s: float, rooms: Sequence[Room]) -> Room | None:
    return next((room for room in rooms if room.useful_s >= longest_s), None)


def _fitting(ready: Sequence[ReadyWork], rooms: Sequence[Room], plan: Plan) -> list[ReadyWork]:
    fitting = [work for work in ready if _home(work.longest_s, rooms) is not None]
    unfit = [work for work in ready if _home(work.longest_s, rooms) is None]
    if unfit:
        longest, room_s = max(w.longest_s for w in unfit), max((r.useful_s for r in rooms), default=0.0)
        plan.notes.append(
            f"{sum(w.count for w in unfit):,} calculations fit into no partition: they need up to "
            f"{longest / _H:.1f} h, reserve included, of {room_s / _H:.1f} h useful; {LONGER}"
        )
    return fitting


def _within_budget(work: ReadyWork, room: Room, left_node_h: Mapping[str, float]) -> float:
    """Return the seconds of ``work`` that its campaign's budget can still pay."""
    if work.campaign not in left_node_h or not room.node_h:
        return work.seconds
    pilots = left_node_h[work.campaign] / room.node_h
    return min(work.seconds, pilots * room.workers * room.useful_s)


def _cap(
    plan: Plan, wanted: Mapping[str, int], rooms: Sequence[Room], active: int, most: int, node_h: float
) -> None:
    """Fill ``plan.submit`` with as much of ``wanted`` as the caps allow; say which of them cut."""
    places = max(0, most - active)
    for room in rooms:
        count = wanted.get(room.name, 0)
        if not count:
            continue
        if count > room.free:
            plan.notes.append(
                f"{room.name}: {room.free} of {count} pilots: the partition takes no more jobs (max_jobs)"
            )
            count = max(0, room.free)
        if count > places:
            plan.notes.append(
                f"{room.name}: {places} of {count} pilots: the cluster's pilots are limited to {most} (most)"
            )
            count = places
        if room.node_h and count * room.node_h > node_h:
            paid = math.floor(node_h / room.node_h + 1e-9)
            plan.notes.append(
                f"{room.name}: {paid} of {count} pilots: {node_h:.1f} node hours of the budget are left, "
                f"a pilot may use {room.node_h:.1f}"
            )
            count = paid
        if count:
            plan.submit[room.name] = count
            places -= count
            node_h -= count * room.node_h
