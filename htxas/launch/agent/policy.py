"""Which task next: decided here alone, without a clock, a queue or a database; the agent and simulations both ask.

The order: what shares the ground state in the worker's engine process; else the structure nobody works on whose chain
of ground state and longest site takes longest; else a share of somebody else's structure. Within each, long first,
and only what fits the time left. A ground state blocks its sites until it is there.

A task of several places (more memory than one worker has) waits until enough workers are idle at once. Meanwhile they
get only what ends before that moment is expected, so it waits no longer than for the tasks that ran when it came.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["LONGER", "SAFETY", "Item", "Pool", "Unfit"]

SAFETY = 1.25
"""A task fits if this times its estimate does; unless more is known about how good the estimate is."""

_LOOK = 32  # candidates looked through for one of a fresh structure when the longest does not fit
_Entry = tuple[float, int, str]  # seconds, minus the order of arrival, key: sorts short first, late first


LONGER = "a longer partition is needed"
"""How a pilot, and whoever reports about it, says that what is left does not fit."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """Calculations that would not fit even a whole allocation of this kind.

    Attributes
    ----------
    count
        How many.
    longest_s
        Seconds that must be left for the longest, safety included.
    room_s
        Useful seconds of the allocation.
    """

    count: int
    longest_s: float
    room_s: float

    def __str__(self) -> str:
        needs = f"{self.count:,} calculations need up to {self.longest_s / 3600:.1f} h, reserve included"
        return f"{needs}; this allocation has {self.room_s / 3600:.1f} h: {LONGER}"


@dataclass(frozen=True, slots=True)
class Item:
    """A task as far as its turn depends on it.

    Attributes
    ----------
    key
        Unique in a pool.
    group
        Tasks of a group share a ground state: the structure, as its engine sees it.
    estimate_s
        Expected seconds.
    needs
        Key of the ground state it waits for, or None.
    slots
        Workers' places it takes; never more than there are.
    safety
        It fits if so many times its estimate does.
    """

    key: str
    group: str
    estimate_s: float
    needs: str | None = None
    slots: int = 1
    safety: float = SAFETY

    @property
    def room_s(self) -> float:
        """Seconds that must be left for it to start."""
        return self.estimate_s * self.safety


@dataclass(slots=True)
class _Group:
    ready: list[_Entry] = field(default_factory=list)
    blocked: int = 0
    touched: bool = False


@dataclass(slots=True)
class _Place:
    """A worker: what it runs, when that should end, what it ran last, whom it lends its place to."""

    running: dict[str, Item] = field(default_factory=dict)
    end: float = 0.0
    group: str | None = None
    lent_to: int | None = None


class Pool:
    """The tasks in hand, and who runs what.

    Parameters
    ----------
    workers
        Their number; they are called 0, 1, ...
    """

    def __init__(self, workers: int) -> None:
        self._places = [_Place() for _ in range(workers)]
        self._items: dict[str, Item] = {}  # waiting: ready or blocked
        self._order: dict[str, int] = {}
        self._count = 0
        self._groups: dict[str, _Group] = {}
        self._blocked: dict[str, dict[str, Item]] = {}  # by what they need
        self._tails: dict[str, float] = {}  # longest that waits for this key
        self._fresh: list[_Entry] = []  # ready, of groups nobody has touched, by the length of their chain
        self._shared: list[_Entry] = []  # ready, of the others, by the room they need
        self._all: list[_Entry] = []  # ready, by the room they need
        self._wide: dict[str, Item] = {}  # ready, of several places, oldest first
        self._waiting_s = 0.0
        self._running: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[Item]:
        """Iterate over all that wait."""
        return iter(self._items.values())

    @property
    def ready(self) -> int:
        """How many could start, time and places permitting."""
        return len(self._all) + len(self._wide)

    @property
    def waiting_s(self) -> float:
        """Expected worker seconds of all that waits, what needs a ground state first included."""
        return max(0.0, self._waiting_s)

    @property
    def running(self) -> dict[str, int]:
        """Key -> worker of all that was taken and has not ended."""
        return dict(self._running)

    @property
    def resting(self) -> bool:
        """Whether nothing runs."""
        return not self._running

    @property
    def idle(self) -> int:
        """How many workers are."""
        return sum(1 for worker in range(len(self._places)) if self.is_idle(worker))

    def is_idle(self, worker: int) -> bool:
        """Whether a worker runs nothing and its place is not lent."""
        place = self._places[worker]
        return not place.running and place.lent_to is None

    def add(self, item: Item) -> None:
        """Put a task in; it must not be there, nor be running."""
        if item.key in self._items:
            raise ValueError(f"{item.key} is in the pool already")
        self._items[item.key] = item
        self._order[item.key] = -self._count
        self._count += 1
        self._waiting_s += self._work_s(item)
        if item.needs is None:
            self._make_ready(item)
            return
        self._groups.setdefault(item.group, _Group()).blocked += 1
        self._blocked.setdefault(item.needs, {})[item.key] = item
        self._lengthen(item.needs, item.room_s)

    def met(self, key: str) -> list[Item]:
        """Say that a ground state is there: what needs it is ready, and returned."""
        self._tails.pop(key, None)
        items = list(self._blocked.pop(key, {}).values())
        for item in items:
            self._groups[item.group].blocked -= 1
            self._make_ready(item)
        return items

    def remove(self, key: str) -> bool:
        """Take out a task that waits; False if it does not."""
        item = self._items.get(key)
        if item is None:
            return False
        self._take_out(item)
        return True

    def too_long(self, room_s: float) -> list[Item]:
        """Return what waits and does not fit ``room_s`` any more."""
        return [item for item in self._items.values() if item.room_s > room_s]

    def take(
        self, worker: int, now: float, *, room_s: float = math.inf, chunk_s: float = 0.0, most: int = 1
    ) -> list[Item]:
        """Give an idle worker its next task; cheap ones come several at once.

        Parameters
        ----------
        worker
            Who asks.
        now
            Seconds on any clock, the same in all calls.
        room_s
            Seconds left, margins taken off.
        chunk_s, most
            Further tasks are added up to so many seconds and so many tasks in all. A ground state may be followed
            by its own sites: they run one after the other.

        Returns
        -------
        list of Item
            In the order to run them; empty if nothing fits or is to start now.
        """
        if not self.is_idle(worker):
            return []
        wide, limit_s = self._wide_or_limit(now, room_s)
        if wide is not None:
            return self._start(worker, now, [wide])
        taken: list[Item] = []
        seconds = 0.0
        inside: set[str] = set()
        while len(taken) < max(1, most):
            left_s = limit_s - seconds if not taken else min(limit_s, chunk_s) - seconds
            item = self._follower(taken, inside, left_s) or self._choose(worker, left_s)
            if item is None:
                break
            self._take_out(item)
            taken.append(item)
            inside.add(item.key)
            seconds += item.room_s
            self._touch(worker, item.group)
        return self._start(worker, now, taken)

    def ended(self, worker: int, key: str) -> Item | None:
        """Say that a task taken by ``worker`` is over, however; return it."""
        place = self._places[worker]
        item = place.running.pop(key, None)
        self._running.pop(key, None)
        if not place.running:
            for other in self._places:
                if other.lent_to == worker:
                    other.lent_to = None
        return item

    def dropped(self, worker: int) -> list[Item]:
        """Say that a worker has gone; return what it had taken, in order. Its engine's ground state is gone, too."""
        place = self._places[worker]
        items = list(place.running.values())
        for item in items:
            self.ended(worker, item.key)
        place.group = None
        return items

    # ---- inside

    def _work_s(self, item: Item) -> float:
        return item.estimate_s * min(item.slots, len(self._places))

    def _entry(self, item: Item, seconds: float) -> _Entry:
        return seconds, self._order[item.key], item.key

    def _chain_s(self, item: Item) -> float:
        return item.room_s + self._tails.get(item.key, 0.0)

    def _make_ready(self, item: Item) -> None:
        group = self._groups.setdefault(item.group, _Group())
        if min(item.slots, len(self._places)) > 1:
            self._wide[item.key] = item
            return
        entry = self._entry(item, item.room_s)
        insort(self._all, entry)
        insort(group.ready, entry)
        if group.touched:
            insort(self._shared, entry)
        else:
            insort(self._fresh, self._entry(item, self._chain_s(item)))

    def _lengthen(self, key: str, seconds: float) -> None:
        """Note that a task of ``seconds`` waits for ``key``."""
        if seconds <= self._tails.get(key, 0.0):
            return
        item = self._items.get(key)
        fresh = item is not None and self._discard(self._fresh, self._entry(item, self._chain_s(item)))
        self._tails[key] = seconds
        if fresh and item is not None:
            insort(self._fresh, self._entry(item, self._chain_s(item)))

    @staticmethod
    def _discard(entries: list[_Entry], entry: _Entry) -> bool:
        i = bisect_left(entries, entry)
        if i < len(entries) and entries[i] == entry:
            del entries[i]
            return True
        return False

    def _take_out(self, item: Item) -> None:
        del self._items[item.key]
        self._waiting_s -= self._work_s(item)
        group = self._groups.setdefault(item.group, _Group())
        blocked = self._blocked.get(item.needs or "", {})
        if blocked.pop(item.key, None) is not None:
            group.blocked -= 1
            if not blocked:
                del self._blocked[item.needs or ""]
        else:
            if self._wide.pop(item.key, None) is None:
                entry = self._entry(item, item.room_s)
                self._discard(self._all, entry)
                self._discard(group.ready, entry)
                if not self._discard(self._shared, entry):
                    self._discard(self._fresh, self._entry(item, self._chain_s(item)))
        del self._order[item.key]
        if not group.ready and not group.blocked and not group.touched:
            del self._groups[item.group]

    def _touch(self, worker: int, name: str) -> None:
        """Note that a worker turns to a group; the one it leaves is forgotten if nothing of it is left."""
        place = self._places[worker]
        before, place.group = place.group, name
        if before is not None and before != name:
            left = self._groups.get(before)
            over = left is not None and not left.ready and not left.blocked
            if over and all(p.group != before for p in self._places):
                del self._groups[before]
        group = self._groups.setdefault(name, _Group())
        if group.touched:
            return
        group.touched = True
        for entry in group.ready:
            self._discard(
                self._fresh, self._entry(self._items[entry[2]], self._chain_s(self._items[entry[2]]))
            )
            insort(self._shared, entry)

    def _follower(self, taken: list[Item], inside: set[str], left_s: float) -> Item | None:
        """Return a site whose ground state is in this very chunk."""
        if not taken:
            return None
        last = taken[-1]
        waiting = self._blocked.get(last.key if last.needs not in inside else last.needs or "", {})
        fitting = (i for i in waiting.values() if i.slots == 1 and i.room_s <= left_s)
        return next(fitting, None)

    def _choose(self, worker: int, left_s: float) -> Item | None:
        own = self._groups.get(self._places[worker].group or "")
        if own is not None and (entry := _last_within(own.ready, left_s)) is not None:
            return self._items[entry[2]]
        for entries in (self._fresh, self._shared):
            if entries:
                item = self._items[entries[-1][2]]
                if item.room_s <= left_s:
                    return item
                break
        end = bisect_right(self._all, (left_s, 1, ""))
        if end == 0:
            return None
        nearest = (self._items[key] for _, _, key in reversed(self._all[max(0, end - _LOOK) : end]))
        fresh = (item for item in nearest if not self._groups[item.group].touched)
        return next(fresh, self._items[self._all[end - 1][2]])

    def _wide_or_limit(self, now: float, room_s: float) -> tuple[Item | None, float]:
        """Return a task of several places that can start now, or else how long another task may take."""
        if not self._wide:
            return None, room_s
        idle = sum(1 for w in range(len(self._places)) if self.is_idle(w))
        ends = sorted(p.end for p in self._places if p.running)
        for item in self._wide.values():
            lacking = min(item.slots, len(self._places)) - idle
            # Places come free in the order of the expected ends; one task may hold several.
            wait_s = 0.0 if lacking <= 0 else max(0.0, ends[min(lacking, len(ends)) - 1] - now)
            if wait_s + item.room_s > room_s:
                continue
            return (item, 0.0) if lacking <= 0 else (None, min(room_s, wait_s))
        return None, room_s

    def _start(self, worker: int, now: float, items: Iterable[Item]) -> list[Item]:
        items = list(items)
        if not items:
            return []
        place = self._places[worker]
        place.running = {item.key: item for item in items}
        self._running |= dict.fromkeys(place.running, worker)
        place.end = now + sum(item.estimate_s for item in items)
        wide = items[0] if items[0].key in self._items else None
        if wide is not None:
            self._take_out(wide)
            self._touch(worker, wide.group)
            lend = min(wide.slots, len(self._places)) - 1
            for w, other in enumerate(self._places):
                if lend and w != worker and self.is_idle(w):
                    other.lent_to, lend = worker, lend - 1
        return items


def _last_within(entries: list[_Entry], seconds: float) -> _Entry | None:
    i = bisect_right(entries, (seconds, 1, ""))
    return entries[i - 1] if i else None
