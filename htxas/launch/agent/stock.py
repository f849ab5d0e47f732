"""Batches leased ahead, unopened, for the time when the database is away.

While it answers, what comes out is in the queue's own order: a batch that is fetched goes in, the one of the highest
priority that has waited longest comes out. Priorities are those of the time when a batch was fetched.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from htxas.launch.agent.source import Held
from htxas.launch.work.task import Task
from htxas.store.records import Hungry

__all__ = ["Stock", "Stocked"]


@dataclass(frozen=True, slots=True, eq=False)
class Stocked:
    """A batch on stock.

    Attributes
    ----------
    held
        The batch.
    tasks
        What is leased of it.
    """

    held: Held
    tasks: tuple[Task, ...]

    @property
    def seconds(self) -> float:
        """Expected seconds, times the workers' places that each takes."""
        return sum(task.estimate_s * task.slots for task in self.tasks)

    @property
    def longest_s(self) -> float:
        """Seconds that must be left for the longest."""
        return max((task.estimate_s * task.safety for task in self.tasks), default=0.0)

    @property
    def independent(self) -> bool:
        """Whether all ground states it needs are there, or part of it."""
        inside = {task.key for task in self.tasks}
        return all(
            task.ground_key is None or task.ground_directory is not None or task.ground_key in inside
            for task in self.tasks
        )

    def suits(self, hungry: Hungry) -> bool:
        """Whether an agent that has nothing to do could compute all of it."""
        wanted = hungry.campaign is None or hungry.campaign in self.held.wanted_by
        return wanted and self.longest_s <= hungry.room_s


class Stock:
    """Unopened batches; from any thread. Whoever takes one out is the only one who has it."""

    def __init__(self) -> None:
        self._batches: dict[str, Stocked] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __len__(self) -> int:
        return sum(len(b.tasks) for b in self.batches())

    @property
    def seconds(self) -> float:
        """Expected worker seconds of it."""
        return sum(b.seconds for b in self.batches())

    def batches(self) -> list[Stocked]:
        """Return what there is, in the order in which it would be taken."""
        with self._lock:
            found = list(self._batches.values())
        return sorted(found, key=lambda b: -b.held.priority)

    def put(self, one: Stocked) -> None:
        """Put a batch in."""
        with self._lock:
            self._batches[one.held.batch] = one

    def take(self) -> Stocked | None:
        """Take out the batch whose turn it is."""
        while batches := self.batches():
            if (one := self.remove(batches[0].held.batch)) is not None:
                return one
        return None

    def remove(self, batch: str) -> Stocked | None:
        """Take out a certain batch; None if somebody else has, or it never was in."""
        with self._lock:
            return self._batches.pop(batch, None)
