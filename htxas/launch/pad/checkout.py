"""Fireworks taken and completed in bulk, as FireWorks would: lpad tells the truth of them.

FireWorks' own checkout and completion take some 35 operations per Firework, hold a lock that a kill leaves behind, and
mark a workflow FIZZLED when the database goes away in the middle. Here a launch is written first, then one conditional
update makes the Firework RUNNING or COMPLETED, then the workflows are settled (:mod:`htxas.launch.pad.bulk`). A kill at
any moment leaves either a launch without a Firework, which harms nobody, or a RUNNING Firework that names its holder.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fireworks import FWAction, FWorker, LaunchPad
from fireworks.core.firework import Launch
from fireworks.fw_config import pymongo as _driver  # FireWorks lets its driver's operations through

from htxas.launch.pad.bulk import settle
from htxas.launch.pad.launchpad import Document, database_errors

__all__ = ["Taken", "complete", "take"]

_CHOICE = 8
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Taken:
    """A Firework of ours: its id, the id of our launch, its batch, its priority."""

    fw_id: int
    launch_id: int
    batch: str
    priority: int


def take(launchpad: LaunchPad, query: Document, owner: str, folder: Path, most: int = 1) -> list[Taken]:
    """Check out up to ``most`` READY Fireworks of ``query``, those of the highest priority and the oldest first.

    Among equals any may be chosen, so that agents that ask at once do not fight for the same one.
    """
    with database_errors():
        for _ in range(_ROUNDS):
            found = _candidates(launchpad, query, most)
            if not found:
                return []
            if taken := _claim(launchpad, found, owner, folder):
                settle(launchpad, [t.fw_id for t in taken])
                return taken
    return []


def _candidates(launchpad: LaunchPad, query: Document, most: int) -> list[Mapping[str, Any]]:
    fields = {"_id": 0, "fw_id": 1, "spec._priority": 1, "spec.htxas.batch": 1}
    order = [("spec._priority", -1), ("fw_id", 1)]
    ready = {"$and": [query, {"state": "READY"}]}
    found = list(launchpad.fireworks.find(ready, fields, sort=order, limit=most * _CHOICE))
    if len(found) <= most:
        return found
    # Those above the priority of the last one chosen are taken for sure; the rest by lot.
    border = found[most - 1]["spec"].get("_priority")
    sure = [f for f in found[:most] if f["spec"].get("_priority") != border]
    equal = [f for f in found if f["spec"].get("_priority") == border]
    return sure + random.sample(equal, most - len(sure))


def _claim(launchpad: LaunchPad, found: Sequence[Mapping[str, Any]], owner: str, folder: Path) -> list[Taken]:
    counter = launchpad.fw_id_assigner.find_one_and_update({}, {"$inc": {"next_launch_id": len(found)}})
    first = int(counter["next_launch_id"])
    worker = FWorker(name=owner)
    wanted = [
        Taken(f["fw_id"], first + i, f["spec"]["htxas"]["batch"], int(f["spec"].get("_priority") or 0))
        for i, f in enumerate(found)
    ]
    launches = [
        Launch("RUNNING", str(folder), worker, launch_id=t.launch_id, fw_id=t.fw_id).to_db_dict()
        for t in wanted
    ]
    launchpad.launches.insert_many(launches)
    now = datetime.now(UTC)
    writes = [
        _driver.UpdateOne(
            {"fw_id": t.fw_id, "state": "READY"},
            {"$set": {"state": "RUNNING", "updated_on": now}, "$push": {"launches": t.launch_id}},
        )
        for t in wanted
    ]
    launchpad.fireworks.bulk_write(writes, ordered=False)
    ours = {"launches": {"$in": [t.launch_id for t in wanted]}, "state": "RUNNING"}
    mine = {f["fw_id"] for f in launchpad.fireworks.find(ours, {"_id": 0, "fw_id": 1})}
    missed = [t.launch_id for t in wanted if t.fw_id not in mine]
    if missed:
        launchpad.launches.delete_many({"launch_id": {"$in": missed}})
    return [t for t in wanted if t.fw_id in mine]


def complete(launchpad: LaunchPad, ended: Sequence[tuple[int, int, Mapping[str, Any]]]) -> None:
    """Complete Fireworks we hold: ids of Firework and launch, and what to keep with the launch. May be repeated.

    A Firework that was given to somebody else meanwhile stays as it is.
    """
    if not ended:
        return
    now = datetime.now(UTC)
    fw_ids = [fw_id for fw_id, _, _ in ended]
    entry = {"state": "COMPLETED", "created_on": now, "updated_on": now}
    writes = [
        _driver.UpdateOne(
            {"launch_id": launch_id, "state": "RUNNING"},
            {
                "$set": {
                    "state": "COMPLETED",
                    "time_end": now,
                    "action": FWAction(stored_data={"htxas": dict(stored)}).to_dict(),
                },
                "$push": {"state_history": entry},
            },
        )
        for _, launch_id, stored in ended
    ]
    with database_errors():
        launchpad.launches.bulk_write(writes, ordered=False)
        launchpad.fireworks.update_many(
            {
                "fw_id": {"$in": fw_ids},
                "launches": {"$in": [launch_id for _, launch_id, _ in ended]},
                "state": "RUNNING",
            },
            {"$set": {"state": "COMPLETED", "updated_on": now}},
        )
    settle(launchpad, fw_ids)
