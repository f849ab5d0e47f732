"""Mending what dead workers left: leases, Fireworks that still say RUNNING, batches with calculations nobody will run.

FireWorks' ``detect_lostruns`` is not used: it needs four hours of silence, compares times modulo 24 h, and can take
a healthy rerun for an inconsistency. Who holds a Firework is known from the name of its launch's worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.errors import Busy
from htxas.launch.fireworks_pad import Document, campaign_query, database_errors, fireworks_of, rerun
from htxas.launch.liveness import is_dead
from htxas.store.store import Store

__all__ = ["Requeued", "free_fireworks", "recover", "requeue_forgotten"]

_LOCK_PATIENCE_S = 1.0
_STALE_LOCK_S = 5.0
_RECOVERY_TTL_S = 10.0
_RECOVERY_WAIT_S = 30.0
_RESERVED_S = 60.0
_LOOK_S = 0.2
_CHUNK = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Requeued:
    """What was mended.

    Attributes
    ----------
    fireworks
        Fireworks made READY again.
    unsubmitted
        READY calculations that no batch carries: their submission was killed.
    """

    fireworks: int
    unsubmitted: int


def recover(store: Store, launchpad: LaunchPad) -> int:
    """Free everything that dead workers hold; return how many workers were dead.

    Safe beside living workers, and to repeat. One process at a time does it: another one's is waited for, and then
    there is nothing left to free.
    """
    try:
        with store.lock("recovery", ttl_s=_RECOVERY_TTL_S, wait_s=_RECOVERY_WAIT_S):
            return _recover(store, launchpad)
    except Busy as error:
        _log.warning("%s", error)
        return 0


def _recover(store: Store, launchpad: LaunchPad) -> int:
    workers = store.workers()
    dead = {w["owner"] for w in workers if is_dead(w)}
    for owner in dead:
        store.release_owner(owner)
    free_fireworks(launchpad, dead)
    _free_ownerless(launchpad, [w for w in workers if w["owner"] not in dead])
    _unlock(launchpad, {}, _STALE_LOCK_S)
    for owner in dead:  # last: a kill before this line is mended by the next call
        store.forget_worker(owner)
    return len(dead)


def free_fireworks(launchpad: LaunchPad, owners: Iterable[str]) -> int:
    """Make READY the Fireworks that these workers hold or gave back; return how many."""
    names = sorted(owners)
    if not names:
        return 0
    with database_errors():
        launches = launchpad.launches.find(
            {
                "fworker.name": {"$in": names},
                "state": {"$in": ["RUNNING", "RESERVED", "FIZZLED", "COMPLETED"]},
            },
            {"fw_id": 1},
        )
        query = {
            "fw_id": {"$in": sorted({launch["fw_id"] for launch in launches})},
            "state": {"$in": ["RUNNING", "RESERVED", "FIZZLED"]},
            **campaign_query(None),
        }
        fw_ids = [f["fw_id"] for f in launchpad.fireworks.find(query, {"fw_id": 1})]
        _unlock(launchpad, {"nodes": {"$in": fw_ids}})
    return rerun(launchpad, fw_ids)


def _free_ownerless(launchpad: LaunchPad, living: Sequence[Mapping[str, Any]]) -> None:
    """Free our Fireworks that no living worker holds: killed before its first sign of life, or in mid-checkout.

    A worker that FireWorks' own ``rlaunch`` started is another name to FireWorks: its batch tells what it holds.
    """
    names = {w["owner"] for w in living}
    batches = {w["info"].get("batch") for w in living}
    before = (datetime.now(UTC) - timedelta(seconds=_RESERVED_S)).isoformat()
    query = {**campaign_query(None), "state": {"$in": ["RUNNING", "RESERVED"]}}
    with database_errors():
        fields = {"fw_id": 1, "state": 1, "launches": 1, "updated_on": 1, "spec.htxas.batch": 1}
        held = list(launchpad.fireworks.find(query, fields))
        lost = []
        for firework in held:
            if firework["spec"]["htxas"]["batch"] in batches:
                continue
            ids = firework["launches"]
            launches = launchpad.launches.find({"launch_id": {"$in": ids}}, {"fworker.name": 1, "state": 1})
            active = [x for x in launches if x["state"] in ("RUNNING", "RESERVED", "COMPLETED")]
            if any(x["fworker"]["name"] in names or x["state"] == "RESERVED" for x in active):
                continue
            if _iso(firework["updated_on"]) < before:
                lost.append(firework["fw_id"])
        _unlock(launchpad, {"nodes": {"$in": lost}})
    rerun(launchpad, lost)


def _iso(when: datetime | str) -> str:
    """Return FireWorks' time as text; it stores both kinds, always in UTC."""
    if isinstance(when, str):
        return when if "+" in when else when + "+00:00"
    return when.replace(tzinfo=UTC).isoformat()


def _unlock(launchpad: LaunchPad, which: Document, patience_s: float = _LOCK_PATIENCE_S) -> None:
    """Break the locks that dead processes hold on workflows.

    A lock has no owner and no end. A living process holds one for milliseconds; one that is still there, on an
    unchanged workflow, ``patience_s`` later, belongs to a dead one.
    """
    query = {**which, "locked": {"$exists": True}}
    with database_errors():
        before = {w["_id"]: w["updated_on"] for w in launchpad.workflows.find(query, {"updated_on": 1})}
        end = time.monotonic() + patience_s
        while before:
            now = {
                w["_id"]: w["updated_on"]
                for w in launchpad.workflows.find(
                    {"_id": {"$in": list(before)}, "locked": {"$exists": True}}, {"updated_on": 1}
                )
            }
            before = {k: updated for k, updated in before.items() if now.get(k) == updated}
            if time.monotonic() >= end:
                break
            time.sleep(_LOOK_S)
        for workflow_id, updated in before.items():
            same = {"_id": workflow_id, "updated_on": updated, "locked": {"$exists": True}}
            launchpad.workflows.update_one(same, {"$unset": {"locked": True}})


def requeue_forgotten(store: Store, launchpad: LaunchPad, campaign: str | None) -> Requeued:
    """Queue batches again whose Firework is over while calculations of theirs are READY.

    That is what an interrupted ``retry``, a lost lease or a batch shared with another campaign leaves. To be asked when
    nothing is left to run; few calculations are READY then.
    """
    fireworks = unsubmitted = 0
    batches: set[str] = set()
    for record in store.find(campaign=campaign, state=State.READY):
        if record.batch is None:
            unsubmitted += 1
        else:
            batches.add(record.batch)
        if len(batches) >= _CHUNK:
            fireworks += _requeue(launchpad, batches)
            batches.clear()
    return Requeued(fireworks + _requeue(launchpad, batches), unsubmitted)


def _requeue(launchpad: LaunchPad, batches: set[str]) -> int:
    found = fireworks_of(launchpad, batches)
    carried = {f["batch"] for f in found.values() if f["state"] not in ("COMPLETED", "FIZZLED")}
    over = {f["batch"]: fw_id for fw_id, f in found.items() if f["batch"] not in carried}
    return rerun(launchpad, over.values())
