"""From the database to tasks: Fireworks are checked out, their calculations leased in bulk and made self-contained."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import Kind, State
from htxas.engines.registry import get_engine
from htxas.errors import NotFound
from htxas.launch.agent.maker import Ground, TaskMaker
from htxas.launch.agent.policy import SAFETY, Unfit
from htxas.launch.pad.bulk import OVER, held_by, make_ready
from htxas.launch.pad.checkout import complete, take
from htxas.launch.pad.launchpad import Document, campaign_query, database_errors
from htxas.launch.work.engine_run import Engines, absent
from htxas.launch.work.task import Task
from htxas.store.records import CalculationRecord, ControlState, Hungry, Lease, Leased
from htxas.store.store import Store

__all__ = ["LEASE_S", "Held", "Lent", "Source", "blocked_campaigns"]

LEASE_S = 600.0
"""How far ``lease_until`` is ahead of the last sign of life."""

_SHELVED_S = 60.0
_STOPPED_S = 600.0  # of what is stopped nothing changes soon
_RECONSIDER_S = 60.0
_MOST_RECONSIDERED = 500
_ABOUT = "spec.htxas"
_CONTROLS_S = 10.0
_FELLOWS_S = 25.0
_PLENTY = 2  # Fireworks in the queue for each agent
_OVER = (State.DONE, State.FAILED, State.QUARANTINED)
_log = logging.getLogger(__name__)


def blocked_campaigns(store: Store) -> dict[str, ControlState]:
    """Return the campaigns nothing may be started for: paused, cancelled, or over their budget (as paused)."""
    controls = store.controls()
    capped = [name for name, c in controls.items() if c.budget_node_h is not None]
    spent = store.spent() if capped else {}
    blocked: dict[str, ControlState] = {
        name: c.state for name, c in controls.items() if c.state is not ControlState.ACTIVE
    }
    for name in capped:
        budget = controls[name].budget_node_h
        if budget is not None and spent.get(name, 0.0) >= budget:
            blocked.setdefault(name, ControlState.PAUSED)
    return blocked


@dataclass(slots=True)
class Held:
    """A batch in hand.

    Attributes
    ----------
    batch, campaign
        Its id, and the campaign that submitted it.
    fw_id, launch_id
        Its Firework and our launch of it; None for a batch somebody else checked out for us.
    open
        Keys of its calculations that are not concluded in the database.
    computed
        Site -> structure of the sites concluded here.
    tally
        How many ended in which way.
    returning
        Whether it goes back to the queue as soon as nothing of it runs.
    wanted_by
        Campaigns that want any of it.
    wanted
        Key -> campaigns, of what was leased of it.
    stopped
        Whether something of it is only for campaigns that are paused, cancelled or used up.
    priority
        Of its Firework.
    """

    batch: str
    campaign: str
    fw_id: int | None
    launch_id: int | None
    open: set[str]
    computed: dict[str, str] = field(default_factory=dict)
    tally: Counter[str] = field(default_factory=Counter)
    returning: bool = False
    wanted_by: set[str] = field(default_factory=set)
    wanted: dict[str, frozenset[str]] = field(default_factory=dict)
    stopped: bool = False
    priority: int = 0

    def conclude(self, task: Task, state: State) -> None:
        """Note how a task of ours ended."""
        self.open.discard(task.key)
        self.tally[state.value] += 1
        if task.kind is Kind.SITE and state is State.DONE:
            self.computed[task.key] = task.structure_key

    def found(self, record: CalculationRecord) -> None:
        """Note a calculation that was concluded by somebody else, or before."""
        if record.key in self.open:
            self.open.discard(record.key)
            self.tally["skipped"] += 1


@dataclass(frozen=True, slots=True)
class Lent:
    """What came of an attempt to lease calculations.

    Attributes
    ----------
    tasks
        Ours now.
    failed
        Tasks that cannot start: their ground state has no result, and why.
    elsewhere
        Keys that others compute: ours, and ground states ours wait for.
    over
        Calculations that are concluded already.
    """

    tasks: Sequence[Task] = ()
    failed: Sequence[tuple[Task, Ground]] = ()
    elsewhere: Collection[str] = ()
    over: Sequence[CalculationRecord] = ()


class Source:
    """Takes Fireworks and calculations for one agent. Not thread-safe.

    Parameters
    ----------
    store, launchpad
        Where from.
    owner, folder
        The agent's name and folder.
    campaign
        Only this one, or None for all.
    places
        Workers' places of the agent.
    engines
        How it starts engines.

    Attributes
    ----------
    unfit
        What :meth:`reconsider` found too long for any allocation like this one.
    hungry, fellows
        Other agents that have nothing to do, and how many others there are.
    """

    def __init__(
        self,
        store: Store,
        launchpad: LaunchPad | None,
        owner: str,
        folder: Path,
        campaign: str | None,
        places: int,
        engines: Engines | None = None,
    ) -> None:
        self.store = store
        self.owner = owner
        self.blocked: dict[str, ControlState] = {}
        self.places = places
        self._engines = engines or Engines()
        self._absent: dict[str, str | None] = {}  # why an engine cannot be started here
        self.maker = TaskMaker(store, places, engines)
        self._pad = launchpad
        self._folder = folder
        self._campaign = campaign
        self._shelved: dict[int, float] = {}
        self._controlled = self._reconsidered = -math.inf
        self.unfit: Unfit | None = None
        self.hungry: Sequence[Hungry] = ()
        self.fellows = 0

    # ---- Fireworks

    def look_at_controls(self) -> bool:
        """Ask, every ten seconds, what may be worked on, and who else is there; return whether it has been asked."""
        if time.monotonic() - self._controlled < _CONTROLS_S:
            return False
        self.blocked = {**self._without_engine(), **blocked_campaigns(self.store)}
        self.fellows, self.hungry = self.store.fellows(self.owner, _FELLOWS_S)
        self._controlled = time.monotonic()
        return True

    def _without_engine(self) -> dict[str, ControlState]:
        """Return the campaigns whose engine cannot be started here: others may have it."""
        without = {}
        for campaign, name in self.store.campaign_engines().items():
            if name not in self._absent:
                why = self._why_not(name)
                self._absent[name] = why
                if why is not None:
                    _log.warning("campaigns of %s are left alone: %s", name, why)
            if self._absent[name] is not None:
                without[campaign] = ControlState.PAUSED
        return without

    def _why_not(self, engine: str) -> str | None:
        """Return why an engine cannot be started here, or None."""
        try:
            return absent(get_engine(engine), self._engines.of(engine))
        except NotFound:  # of a newer htxas on the same database: no reason to leave the rest undone
            return "this version of htxas, as it was started, does not have it"

    def may_run(self, campaigns: Iterable[str]) -> bool:
        """Whether one of these campaigns is neither stopped nor used up."""
        return any(c not in self.blocked for c in campaigns)

    def _allowed(self) -> list[Document]:
        """Return the conditions on Fireworks that do not depend on time."""
        every: list[Document] = [campaign_query(self._campaign)]
        if self.blocked:
            names = sorted(self.blocked)
            free = {"$elemMatch": {"$nin": names}}
            every.append(
                {"$or": [{"spec.htxas.campaign": {"$nin": names}}, {"spec.htxas.shared_with": free}]}
            )
        return every

    def _query(self, room_s: float, *, whole: bool = False) -> Document:
        """Return the conditions on Fireworks of which something, or all there is, fits the seconds left."""
        every = self._allowed()
        now = time.monotonic()
        self._shelved = {fw_id: until for fw_id, until in self._shelved.items() if until > now}
        if self._shelved:
            every.append({"fw_id": {"$nin": sorted(self._shelved)}})
        if room_s < math.inf:
            # Of Fireworks by an older htxas nothing is known: they are looked at.
            limit = {"$not": {"$gt": room_s / SAFETY}}
            every.append({f"{_ABOUT}.{'longest_s' if whole else 'shortest_s'}": limit})
        return {"$and": every}

    def reconsider(self, room_s: float, whole_s: float) -> bool:
        """Bring up to date how long the batches are that were not looked at for their length, or given back for it.

        What a Firework says was thought when it was submitted. Once a minute; afterwards :attr:`unfit` is what would
        not fit ``whole_s`` either. True if something has turned out to fit ``room_s``.
        """
        now = time.monotonic()
        if self._pad is None or room_s == math.inf or now - self._reconsidered < _RECONSIDER_S:
            return False
        limit_s = room_s / SAFETY
        doubted = {
            "$or": [{f"{_ABOUT}.shortest_s": {"$gt": limit_s}}, {"fw_id": {"$in": sorted(self._shelved)}}]
        }
        query = {"$and": [*self._allowed(), doubted], "state": {"$in": ["READY", "WAITING"]}}
        fields = {
            "_id": 0,
            "fw_id": 1,
            **{f"{_ABOUT}.{name}": 1 for name in ("batch", "campaign", "shortest_s")},
        }
        with database_errors():
            found = list(self._pad.fireworks.find(query, fields, limit=_MOST_RECONSIDERED))
        about = {f["fw_id"]: f["spec"]["htxas"] for f in found}
        batches = [a["batch"] for a in about.values()]
        learned = self.maker.lengths(sorted({a["campaign"] for a in about.values()}))
        waiting = self.store.waiting(batches, whole_s, lengths=learned, safety=SAFETY) if batches else {}
        fits = False
        for fw_id, told in about.items():
            now_s = waiting.get(told["batch"])
            if now_s is None:
                continue
            fits |= now_s.shortest_s <= room_s and told.get("shortest_s", 0.0) > limit_s
            if not math.isclose(now_s.shortest_s / SAFETY, told.get("shortest_s", 0.0), rel_tol=0.02):
                lengths = {"shortest_s": now_s.shortest_s / SAFETY, "longest_s": now_s.longest_s / SAFETY}
                with database_errors():
                    change = {f"{_ABOUT}.{name}": value for name, value in lengths.items()}
                    self._pad.fireworks.update_one({"fw_id": fw_id}, {"$set": change})
        count = sum(w.too_long for w in waiting.values())
        longest_s = max((w.longest_s for w in waiting.values()), default=0.0)
        self.unfit = Unfit(count, longest_s, whole_s) if count else None
        self._reconsidered = now
        return fits

    def plenty(self, room_s: float) -> bool:
        """Whether so much fits ``room_s`` that one agent may take more than it needs now: none goes without for it."""
        if self._pad is None:
            return False
        enough = _PLENTY * (1 + self.fellows)
        query = {"$and": [self._query(room_s, whole=True), {"state": "READY"}]}
        with database_errors():
            return int(self._pad.fireworks.count_documents(query, limit=enough)) >= enough

    @property
    def can_take(self) -> bool:
        """Whether there is a queue to take from."""
        return self._pad is not None

    def checkout(self, room_s: float, *, whole: bool = False) -> Held | None:
        """Check a Firework out whose batch has something that fits, or fits as a whole; None if there is none.

        Raises
        ------
        DatabaseUnavailable
            Perhaps in the middle: then :meth:`sweep` before the next.
        """
        if self._pad is None:
            return None
        taken = take(self._pad, self._query(room_s, whole=whole), self.owner, self._folder)
        if not taken:
            return None
        held = self.hold(taken[0].batch, taken[0].fw_id, taken[0].launch_id)
        held.priority = taken[0].priority
        return held

    def hold(self, batch_id: str, fw_id: int | None = None, launch_id: int | None = None) -> Held:
        """Return a batch as one in hand."""
        batch = self.store.batch(batch_id)
        return Held(batch_id, batch.campaign, fw_id, launch_id, set(batch.keys), wanted_by={batch.campaign})

    def complete(self, held: Sequence[Held]) -> None:
        """Say that all calculations of these batches are concluded.

        Those of which a retry has made some READY meanwhile go back into the queue.
        """
        ours = [
            (h.fw_id, h.launch_id, h.tally) for h in held if h.fw_id is not None and h.launch_id is not None
        ]
        if self._pad is None or not ours:
            return
        complete(self._pad, ours)
        # Asked afterwards: a retry marks the batch first, and then looks whether its Firework is over.
        again = self.store.rerun_asked([h.batch for h in held])
        if again:
            ids = [h.fw_id for h in held if h.batch in again and h.fw_id is not None]
            _log.info("%d Fireworks go back: calculations of theirs are to be tried again", len(ids))
            make_ready(self._pad, ids, OVER)
            self.store.rerun_done(again)

    def give_back(self, held: Sequence[Held], *, for_good: bool = False) -> None:
        """Put batches back into the queue; this agent does not take them again for minutes, or ever."""
        ids = [h.fw_id for h in held if h.fw_id is not None]
        launches = [h.launch_id for h in held if h.launch_id is not None]
        if self._pad is None or not ids:
            return
        now = time.monotonic()
        for one in held:
            if one.fw_id is not None:
                shelved_s = _STOPPED_S if one.stopped else _SHELVED_S
                self._shelved[one.fw_id] = math.inf if for_good else now + shelved_s
        make_ready(self._pad, ids, held_by(launches))

    def sweep(self, known: Collection[int], leased: Mapping[str, int]) -> None:
        """Put back what was taken in our name while the answer was lost: Fireworks, and leases (key -> attempt)."""
        stray = [lease for lease in self.store.held(self.owner) if leased.get(lease.key) != lease.attempt]
        self.release(stray)
        if self._pad is None:
            return
        with database_errors():
            mine = {"fworker.name": self.owner, "state": "RUNNING", "fw_id": {"$nin": list(known)}}
            launches = [x["launch_id"] for x in self._pad.launches.find(mine, {"launch_id": 1})]
            # Those of them that are the last word on their Firework: what was given back may be another's now.
            query = {"launches": {"$in": launches}, "state": {"$in": ["RUNNING", "RESERVED", "FIZZLED"]}}
            ids = [f["fw_id"] for f in self._pad.fireworks.find(query, {"fw_id": 1})] if launches else []
        if ids:
            _log.warning("%d Fireworks checked out while the database went away go back", len(ids))
            make_ready(self._pad, ids, held_by(launches))

    def more_to_come(self, room_s: float) -> bool:
        """Whether a Firework that fits waits for one that somebody may still complete."""
        if self._pad is None:
            return False
        with database_errors():
            query = self._query(room_s)
            found = self._pad.fireworks.distinct("state", {**query, "state": {"$in": ["WAITING", "READY"]}})
            if "READY" in found:
                return True
            active = {**query, "state": {"$in": ["RUNNING", "RESERVED"]}}
            return "WAITING" in found and self._pad.fireworks.find_one(active, {"_id": 1}) is not None

    # ---- calculations

    def lease(self, held: Held, keys: Collection[str], *, exact: bool) -> Lent:
        """Lease calculations of a batch that are READY, and ground states they need.

        Parameters
        ----------
        held
            The batch.
        keys
            Of the batch.
        exact
            Whether the estimates should be the best there are: where time is short.
        """
        order = sorted(keys)
        leased = self._lease(order, self.blocked)
        have = {one.lease.key for one in leased}
        others = self.store.calculations([k for k in order if k not in have])
        over = [r for r in others.values() if r.state in _OVER]
        stopped = {k for k, r in others.items() if r.state is State.READY and not self.may_run(r.campaigns)}
        if stopped:  # the rest of the batch may be computed; then it goes back
            held.stopped = held.returning = True
        elsewhere = {k for k, r in others.items() if r.state not in _OVER} - stopped
        self.maker.remember(others.values())
        needed = self.maker.grounds_of(held.campaign, [one.record for one in leased])
        unknown = self.maker.unknown(needed.values(), {*have, *others})
        if unknown:  # ground states of other batches
            own = self._lease(sorted(unknown))
            leased += own
            have |= {one.lease.key for one in own}
            rest = self.store.calculations([k for k in unknown if k not in have])
            self.maker.remember(rest.values())
            elsewhere |= {k for k, r in rest.items() if r.state not in _OVER}
        for one in leased:
            held.wanted[one.lease.key] = frozenset(one.record.campaigns)
            held.wanted_by |= set(one.record.campaigns)
        self.maker.forget(have)
        tasks, failed = self.maker.make(held, leased, needed, exact=exact)
        return Lent(tasks, failed, elsewhere, over)

    def _lease(self, keys: Sequence[str], blocked: Collection[str] = ()) -> list[Leased]:
        leased = self.store.lease_many(keys, self.owner, LEASE_S, blocked=blocked)
        if leased and not self.store.is_known(self.owner):
            # Somebody has just settled our affairs, and our next heartbeat is seconds away: were we killed before
            # it, nobody would know whose these are, and whether he will come back for them.
            self.store.release([one.lease for one in leased])
            return []
        return leased

    def look(self, keys: Collection[str]) -> dict[str, CalculationRecord]:
        """Return how calculations stand that others compute."""
        records = self.store.calculations(keys)
        self.maker.remember(records.values())
        return records

    def release(self, leases: Sequence[Lease], **why: Any) -> None:
        """End leases without an outcome."""
        if leases:
            self.store.release(leases, **why)
