"""What an agent has in hand, as its clerk keeps it: batches, leased tasks, and what is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from htxas.launch.agent.source import Held
from htxas.launch.work.task import Task
from htxas.store.records import Lease

__all__ = ["Books", "News"]


@dataclass(slots=True)
class News:
    """What the agent is told; each field since it last asked.

    Attributes
    ----------
    tasks
        New ones, and those of a dead worker that it had not started.
    grounds
        Ground states that are there now -> directory.
    withdrawn
        Keys of tasks to be given back -> whether an engine is to be stopped, too.
    forgotten
        The same of tasks that are not ours any more. Comes before ``tasks``: one of them may have come again.
    """

    tasks: list[Task] = field(default_factory=list)
    grounds: dict[str, str] = field(default_factory=dict)
    withdrawn: dict[str, bool] = field(default_factory=dict)
    forgotten: dict[str, bool] = field(default_factory=dict)

    def add(
        self,
        tasks: Iterable[Task] = (),
        grounds: Mapping[str, str] | None = None,
        withdrawn: Mapping[str, bool] | None = None,
        forgotten: Mapping[str, bool] | None = None,
    ) -> None:
        """Add more."""
        if forgotten:
            self.tasks = [task for task in self.tasks if task.key not in forgotten]
        self.tasks += tasks
        self.grounds |= grounds or {}
        self.withdrawn |= withdrawn or {}
        self.forgotten |= forgotten or {}


@dataclass(slots=True)
class Books:
    """What is in hand.

    Attributes
    ----------
    held
        Batches.
    tasks
        Leased and not concluded in the database, by key.
    again
        Keys to be leased, for the first time or once more -> batch.
    elsewhere
        Keys that somebody else holds and we wait for -> batch.
    """

    held: dict[str, Held] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    _needs: dict[str, set[str]] = field(default_factory=dict)

    def take(self, task: Task) -> None:
        """Enter a leased task."""
        self.tasks[task.key] = task
        if task.ground_key is not None and task.ground_directory is None:
            self._needs.setdefault(task.ground_key, set()).add(task.key)

    def ended(self, lease: Lease) -> Task | None:
        """Strike out the task of a lease; None if it is not, or no longer, in hand under that attempt."""
        task = self.tasks.get(lease.key)
        if task is None or task.attempt != lease.attempt:
            return None
        del self.tasks[lease.key]
        if task.ground_key is not None and (waiting := self._needs.get(task.ground_key)) is not None:
            waiting.discard(task.key)
        return task

    def waiting_for(self, ground: str) -> list[Task]:
        """Return the tasks that needed a ground state, and forget that they did."""
        return [self.tasks[key] for key in self._needs.pop(ground, ()) if key in self.tasks]

    def attempts(self) -> dict[str, int]:
        """Return key -> attempt of all leases; from any thread."""
        return {key: task.attempt for key, task in list(self.tasks.items())}

    def keys_of(self, held: Held) -> list[str]:
        """Return the keys of a batch's tasks."""
        return [key for key, task in self.tasks.items() if task.batch == held.batch]

    def batches(self) -> set[str]:
        """Return the batches something of which is leased or about to be."""
        return {task.batch for task in self.tasks.values()} | set(self.again.values())

    def forget(self, held: Held) -> None:
        """Strike out a batch that is completed or given back."""
        del self.held[held.batch]
        for key in [k for k, batch in self.elsewhere.items() if batch == held.batch]:
            del self.elsewhere[key]
            if (other := self.heir(key, held.batch)) is not None:
                self.elsewhere[key] = other

    def heir(self, ground: str, batch: str) -> str | None:
        """Return another batch than ``batch`` that waits for a ground state, too, and is here to stay."""
        waiting = (self.tasks[k].batch for k in self._needs.get(ground, ()) if k in self.tasks)
        staying = (b for b in waiting if b != batch and b in self.held and not self.held[b].returning)
        return next(staying, None)
