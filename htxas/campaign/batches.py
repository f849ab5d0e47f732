"""Calculations put together into batches: one batch is one Firework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from htxas.domain.identity import content_key
from htxas.store.records import Batch

__all__ = ["MOST_KEYS", "Task", "Work", "pack", "useful_target_s"]

MOST_KEYS = 400
"""Calculations in a batch, however cheap: a returned batch is looked through again from its start."""


_ROUNDING = 1 + 1e-9  # a sum in another order must not make a batch more


@dataclass(frozen=True, slots=True)
class Task:
    """A calculation key and its expected seconds."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """What is left to compute of one molecule.

    Attributes
    ----------
    ground
        The ground state, or None where there is none, or it is done or already in another batch.
    sites
        Sites that still need a batch.
    """

    ground: Task | None
    sites: tuple[Task, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All, in the order they run."""
        return self.sites if self.ground is None else (self.ground, *self.sites)

    @property
    def seconds(self) -> float:
        """Expected seconds of all."""
        return sum(t.seconds for t in self.tasks)


def useful_target_s(target_s: float, total_s: float, at_least: int) -> float:
    """Return the batch length, in seconds, that leaves ``at_least`` batches: small campaigns run in parallel, too."""
    return min(target_s, total_s / at_least)


def pack(
    works: Iterable[Work], *, campaign: str, target_s: float, split_above_s: float, most_keys: int = MOST_KEYS
) -> Iterator[Batch]:
    """Yield batches; every task is in exactly one.

    Whole molecules go together until ``target_s`` is reached. A molecule above ``split_above_s`` is split: a batch with
    its ground state, then batches of sites that come ``after`` it.
    """
    open_: list[Task] = []
    for work in works:
        if not work.tasks:
            continue
        if work.seconds > split_above_s and len(work.tasks) > 1:
            yield from _split(work, campaign, target_s, most_keys)
            continue
        if open_ and (
            _seconds(open_) + work.seconds > target_s * _ROUNDING or len(open_) + len(work.tasks) > most_keys
        ):
            yield _batch(open_, campaign)
            open_ = []
        open_ += work.tasks
    if open_:
        yield _batch(open_, campaign)


def _split(work: Work, campaign: str, target_s: float, most_keys: int) -> Iterator[Batch]:
    after = None
    if work.ground is not None:
        first = _batch([work.ground], campaign)
        after = first.id
        yield first
    part: list[Task] = []
    for task in work.sites:
        if part and (_seconds(part) + task.seconds > target_s or len(part) >= most_keys):
            yield _batch(part, campaign, after)
            part = []
        part.append(task)
    if part:
        yield _batch(part, campaign, after)


def _seconds(tasks: list[Task]) -> float:
    return sum(t.seconds for t in tasks)


def _batch(tasks: list[Task], campaign: str, after: str | None = None) -> Batch:
    keys = tuple(t.key for t in tasks)
    seconds = [t.seconds for t in tasks]
    return Batch(
        content_key(sorted(keys)),
        campaign,
        keys,
        sum(seconds),
        after,
        shortest_s=min(seconds),
        longest_s=max(seconds),
    )
