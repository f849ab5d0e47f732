"""What the user wants of a campaign: computed, waiting, stopped; before others or after; for how many node hours.

The wish is one document, written first, and agents look at it every few seconds. What follows here only makes the
LaunchPad and the queue agree with it; a kill half-way is mended by doing it again, or by the next reconciliation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.errors import UserError
from htxas.launch.pad.bulk import defuse, prioritise, reignite
from htxas.launch.pad.launchpad import Document, campaign_query, database_errors
from htxas.store.records import Control, ControlState, PilotRecord
from htxas.store.store import Store

__all__ = [
    "Changed",
    "cancel",
    "enforce",
    "pause",
    "resume",
    "set_budget",
    "set_priority",
    "wait_until_stopped",
]

_LOOK_S = 0.5


@dataclass(slots=True)
class Changed:
    """What a command changed.

    Attributes
    ----------
    campaign
        Its name.
    control
        How it is treated now.
    before
        How it was treated.
    fireworks
        Fireworks that changed.
    in_hand
        Calculations that agents hold now.
    ready
        Calculations that wait.
    spent_node_h
        Node hours used so far.
    pilots
        Pilots of this campaign alone that are queued or running.
    """

    campaign: str
    control: Control
    before: Control
    fireworks: int = 0
    in_hand: int = 0
    ready: int = 0
    spent_node_h: float = 0.0
    pilots: list[PilotRecord] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        document = asdict(self)
        document["pilots"] = [p.id for p in self.pilots]
        return document


def pause(store: Store, name: str) -> Changed:
    """Let nothing new of a campaign start; what runs may end, what agents hold besides goes back.

    Raises
    ------
    NotFound
        If there is no such campaign.
    UserError
        If it is cancelled.
    """
    before = _control(store, name)
    if before.state is ControlState.CANCELLED:
        raise UserError(
            "is cancelled, there is nothing to pause", where=name, hint=f"htxas campaign resume {name}"
        )
    return _changed(store, name, before, store.set_control(name, state=ControlState.PAUSED))


def resume(store: Store, launchpad: LaunchPad, name: str) -> Changed:
    """Let a paused or cancelled campaign go on.

    Raises
    ------
    NotFound
        If there is no such campaign.
    """
    before = _control(store, name)
    changed = _changed(store, name, before, store.set_control(name, state=ControlState.ACTIVE))
    changed.fireworks = reignite(launchpad, campaign_query(name))
    return changed


def cancel(store: Store, launchpad: LaunchPad, name: str) -> Changed:
    """Stop a campaign: nothing new starts, engines are stopped, its Fireworks are defused.

    Results stay, and :func:`resume` takes it up again. What another active campaign wants as well goes on. Pilots of
    this campaign alone are returned, for the caller to cancel in their queues.

    Raises
    ------
    NotFound
        If there is no such campaign.
    """
    before = _control(store, name)
    control = store.set_control(name, state=ControlState.CANCELLED)
    fireworks = 0
    for other, theirs in store.controls().items():
        if (
            theirs.state is ControlState.CANCELLED
        ):  # one cancelled before may have gone on for this one's sake
            fireworks += defuse(launchpad, _nobody_elses(store, other))
    changed = _changed(store, name, before, control)
    changed.fireworks = fireworks
    changed.pilots = [p for p in store.pilots(active=True) if p.campaign == name]
    return changed


def set_priority(store: Store, launchpad: LaunchPad, name: str, priority: int) -> Changed:
    """Let a campaign go before those of lower priority; 0 for most.

    Raises
    ------
    NotFound
        If there is no such campaign.
    """
    before = _control(store, name)
    changed = _changed(store, name, before, store.set_control(name, priority=priority))
    changed.fireworks = prioritise(launchpad, _own(name), priority)
    return changed


def set_budget(store: Store, name: str, node_h: float) -> Changed:
    """Cap what a campaign may use, in node hours; infinity takes the cap away. Agents and pilots enforce it.

    Raises
    ------
    NotFound
        If there is no such campaign.
    UserError
        If it is negative.
    """
    if not node_h >= 0:
        raise UserError(f"{node_h} is not a number of node hours", where=name)
    before = _control(store, name)
    return _changed(store, name, before, store.set_control(name, budget_node_h=node_h))


def wait_until_stopped(
    store: Store,
    launchpad: LaunchPad,
    name: str,
    patience_s: float,
    on_look: Callable[[int], None] | None = None,
) -> int:
    """Wait for agents to give back what they hold of a cancelled campaign; return how much is left.

    What goes back meanwhile is defused, too.
    """
    end = time.monotonic() + patience_s
    while True:
        left = _in_hand(store, name)
        if on_look is not None:
            on_look(left)
        if left == 0 or time.monotonic() >= end:
            defuse(launchpad, _nobody_elses(store, name))
            return left
        time.sleep(_LOOK_S)


def enforce(store: Store, launchpad: LaunchPad, *, dry_run: bool = False) -> int:
    """Make the LaunchPad agree with what is wanted of each campaign; return how many Fireworks did not.

    A command that was killed, an agent that gave a batch back after it, or a submission since then leaves some.
    """
    count = 0
    for name, control in store.controls().items():
        if control.state is ControlState.CANCELLED:
            query = _nobody_elses(store, name)
            count += _stoppable(launchpad, query) if dry_run else defuse(launchpad, query)
        elif not dry_run and control.priority != 0:
            count += prioritise(launchpad, _own(name), control.priority)
    return count


def _stoppable(launchpad: LaunchPad, query: Document) -> int:
    waiting = {**query, "state": {"$in": ["READY", "WAITING", "PAUSED", "FIZZLED"]}}
    with database_errors():
        return int(launchpad.fireworks.count_documents(waiting))


def _control(store: Store, name: str) -> Control:
    store.campaign(name)  # tells near names of one that does not exist
    return store.controls().get(name, Control())


def _own(name: str) -> Document:
    return {"spec.htxas.campaign": name}


def _nobody_elses(store: Store, name: str) -> Document:
    """Return the query for a campaign's Fireworks that carry nothing which another campaign still wants."""
    controls = store.controls()
    wanted = [n for n, c in controls.items() if n != name and c.state is not ControlState.CANCELLED]
    return {**_own(name), "spec.htxas.shared_with": {"$nin": wanted}}


def _in_hand(store: Store, name: str) -> int:
    """Count the calculations in agents' hands that nobody but cancelled campaigns wants."""
    controls = store.controls()
    wanted = {n for n, c in controls.items() if n != name and c.state is not ControlState.CANCELLED}
    return sum(1 for r in store.find(campaign=name, state=State.RUNNING) if not wanted & set(r.campaigns))


def _changed(store: Store, name: str, before: Control, now: Control) -> Changed:
    counts = store.counts(name)
    return Changed(
        campaign=name,
        control=now,
        before=before,
        in_hand=counts[State.RUNNING],
        ready=counts[State.READY],
        spent_node_h=store.spent().get(name, 0.0),
    )
