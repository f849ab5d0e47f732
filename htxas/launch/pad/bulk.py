"""Many Fireworks at once: FireWorks' own way takes five operations for each, and a lock that a kill leaves behind.

No lock is taken here. What decides who runs what is a Firework's own state, and one command changes that of a thousand.
A workflow keeps a copy of its Fireworks' states, from which ``lpad`` and FireWorks' refresh work; :func:`settle` makes
the copies true again. A copy is written only while nobody holds FireWorks' lock on its workflow, and only if the
workflow is as it was read: whoever was faster wins, and the next pass looks again. A kill at any moment is mended by
doing it again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from fireworks import LaunchPad
from fireworks.fw_config import pymongo as _driver  # FireWorks lets its driver's operations through

from htxas.launch.pad.launchpad import Document, database_errors

__all__ = [
    "OVER",
    "STOPPED",
    "defuse",
    "held_by",
    "make_ready",
    "prioritise",
    "reignite",
    "settle",
    "workflow_state",
]

OVER: Document = {"state": {"$in": ["COMPLETED", "FIZZLED"]}}
"""The condition that a Firework has ended."""

STOPPED: Document = {"spec.htxas.stopped": True}
"""The condition that a Firework is defused by htxas."""

_CHUNK = 1000
_PASSES = 5
_PAUSE_S = 0.02
_KEPT = ("DEFUSED", "ARCHIVED", "PAUSED")
_STOPPABLE = ("READY", "WAITING", "FIZZLED", "PAUSED")


def make_ready(launchpad: LaunchPad, fw_ids: Iterable[int], only: Document | None = None) -> int:
    """Let Fireworks run again: READY, or WAITING where a parent is not completed; return how many.

    Their launches are archived: whoever still runs one can no longer complete it. Defused, paused and archived
    Fireworks stay as they are, and so do those that do not meet the condition ``only`` at the very moment: what was
    read before may be in the hands of somebody else by now.
    """
    count = 0
    for chunk in _chunks(fw_ids):
        query = {"fw_id": {"$in": chunk}, "state": {"$nin": list(_KEPT)}}
        count += _again(launchpad, chunk, query if only is None else {"$and": [query, only]})
    return count


def held_by(launch_ids: Iterable[int]) -> Document:
    """Return the condition that none but these launches hold a Firework now."""
    return {"launches": {"$not": {"$elemMatch": {"$nin": sorted(launch_ids)}}}}


def reignite(launchpad: LaunchPad, query: Document) -> int:
    """Let defused Fireworks among ``query`` run again; return how many."""
    defused = {**query, "state": "DEFUSED"}
    count = 0
    for chunk in _chunks(_ids(launchpad, defused)):
        count += _again(launchpad, chunk, {"fw_id": {"$in": chunk}, "state": "DEFUSED"})
    return count


def defuse(launchpad: LaunchPad, query: Document) -> int:
    """Defuse the Fireworks among ``query`` that have not started; return how many.

    They are marked as :data:`STOPPED`: what a user defuses by hand is not.
    """
    stoppable = {**query, "state": {"$in": list(_STOPPABLE)}}
    count = 0
    for chunk in _chunks(_ids(launchpad, stoppable)):
        with database_errors():
            done = launchpad.fireworks.update_many(
                {"fw_id": {"$in": chunk}, "state": {"$in": list(_STOPPABLE)}},
                {"$set": {"state": "DEFUSED", **STOPPED, "updated_on": datetime.now(UTC)}},
            )
        count += done.modified_count
        settle(launchpad, chunk)
    return count


def prioritise(launchpad: LaunchPad, query: Document, priority: int) -> int:
    """Give the Fireworks among ``query`` a priority; return how many had another."""
    with database_errors():
        return int(
            launchpad.fireworks.update_many(
                {**query, "spec._priority": {"$ne": priority}}, {"$set": {"spec._priority": priority}}
            ).modified_count
        )


def settle(launchpad: LaunchPad, fw_ids: Iterable[int]) -> int:
    """Make workflows agree with these Fireworks; return how many did not.

    Children that wait for nothing any more become READY, and READY ones whose parent runs again WAITING: what an
    interrupted refresh of FireWorks leaves, too.
    """
    count = 0
    for chunk in _chunks(fw_ids):
        for attempt in range(_PASSES):
            found, again = _settle(launchpad, chunk)
            count += found
            if not again:
                break
            time.sleep(attempt * _PAUSE_S)  # FireWorks holds a lock for milliseconds
    return count


def _again(launchpad: LaunchPad, fw_ids: Sequence[int], query: Document) -> int:
    with database_errors():
        parents = _with_parents(launchpad, fw_ids)
        fields = {"_id": 0, "fw_id": 1, "launches": 1}
        before = {i for f in launchpad.fireworks.find(query, fields) for i in f["launches"]}
        archived = [{"$ifNull": [f"${field}", []]} for field in ("archived_launches", "launches")]
        count = 0
        for state, ids in (
            ("WAITING", sorted(parents)),
            ("READY", sorted(set(fw_ids) - parents)),
        ):
            if not ids:
                continue
            changed = {
                "state": state,
                "launches": [],
                "archived_launches": {"$setUnion": archived},
                "updated_on": datetime.now(UTC),
            }
            update = [{"$set": changed}, {"$unset": ["spec._recovery", "spec._exception_details", *STOPPED]}]
            these = {"$and": [query, {"fw_id": {"$in": ids}}]}
            count += launchpad.fireworks.update_many(these, update).modified_count
        if before:
            now = launchpad.fireworks.find({"fw_id": {"$in": list(fw_ids)}}, fields)
            over = sorted(before - {i for f in now for i in f["launches"]})
            # `lpad detect_lostruns` would take them for runs that may be lost.
            launchpad.launches.update_many(
                {"launch_id": {"$in": over}, "state": {"$in": ["RUNNING", "RESERVED"]}},
                {"$set": {"state": "FIZZLED"}},
            )
    settle(launchpad, fw_ids)
    return count


def _with_parents(launchpad: LaunchPad, fw_ids: Sequence[int]) -> set[int]:
    query = {"nodes": {"$in": list(fw_ids)}, "parent_links": {"$ne": {}}}
    found = launchpad.workflows.find(query, {"parent_links": 1})
    return {int(child) for w in found for child in w["parent_links"]} & set(fw_ids)


def _settle(launchpad: LaunchPad, fw_ids: Sequence[int]) -> tuple[int, bool]:
    """Return how many workflows were set right, and whether another look is needed."""
    fields = {
        "nodes": 1,
        "links": 1,
        "parent_links": 1,
        "fw_states": 1,
        "state": 1,
        "updated_on": 1,
        "locked": 1,
    }
    with database_errors():
        workflows = list(launchpad.workflows.find({"nodes": {"$in": list(fw_ids)}}, fields))
        nodes = [n for w in workflows for n in w["nodes"]]
        found = launchpad.fireworks.find({"fw_id": {"$in": nodes}}, {"_id": 0, "fw_id": 1, "state": 1})
        states = {int(f["fw_id"]): str(f["state"]) for f in found}
        whole = [
            w for w in workflows if all(n in states for n in w["nodes"])
        ]  # not half-way through submission
        moved = _pass_on(launchpad, whole, states)
        writes, again = [], moved
        for workflow in whole:
            now = {str(n): states[n] for n in workflow["nodes"]}
            if workflow.get("fw_states") == now and workflow["state"] == workflow_state(
                now, workflow["links"]
            ):
                continue
            if "locked" in workflow:
                again = True
                continue
            same = {
                "_id": workflow["_id"],
                "updated_on": workflow["updated_on"],
                "locked": {"$exists": False},
            }
            new = {"fw_states": now, "state": workflow_state(now, workflow["links"])}
            writes.append(_driver.UpdateOne(same, {"$set": {**new, "updated_on": datetime.now(UTC)}}))
        if not writes:
            return 0, again
        done = int(launchpad.workflows.bulk_write(writes, ordered=False).modified_count)
    return done, again or done < len(writes)


def _pass_on(launchpad: LaunchPad, workflows: Sequence[Mapping[str, Any]], states: dict[int, str]) -> bool:
    """Let children follow their parents; return whether any did. Changes ``states``, too."""
    free, held = [], []
    for workflow in workflows:
        for child, parents in workflow["parent_links"].items():
            over = all(states.get(int(p)) == "COMPLETED" for p in parents)
            if over and states[int(child)] == "WAITING":
                free.append(int(child))
            elif not over and states[int(child)] == "READY":
                held.append(int(child))
    for ids, old, new in ((free, "WAITING", "READY"), (held, "READY", "WAITING")):
        if ids:
            launchpad.fireworks.update_many(
                {"fw_id": {"$in": ids}, "state": old},
                {"$set": {"state": new, "updated_on": datetime.now(UTC)}},
            )
            states.update(dict.fromkeys(ids, new))
    return bool(free or held)


def workflow_state(states: Mapping[str, str], links: Mapping[str, Sequence[int]]) -> str:
    """Return a workflow's state as FireWorks derives it from those of its Fireworks."""
    every = set(states.values())
    leaves = {states[node] for node in states if not links.get(node)}
    if leaves == {"COMPLETED"}:
        return "COMPLETED"
    if every == {"ARCHIVED"}:
        return "ARCHIVED"
    for state in ("DEFUSED", "PAUSED", "FIZZLED"):
        if state in every:
            return state
    if every & {"COMPLETED", "RUNNING"}:
        return "RUNNING"
    return "RESERVED" if "RESERVED" in every else "READY"


def _ids(launchpad: LaunchPad, query: Document) -> list[int]:
    with database_errors():
        return [f["fw_id"] for f in launchpad.fireworks.find(query, {"_id": 0, "fw_id": 1})]


def _chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    iterator = iter(ids)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
