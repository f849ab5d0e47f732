"""Mending what dead owners left: undelivered journals, leases, Fireworks that say RUNNING, calculations nobody carries.

FireWorks' ``detect_lostruns`` is not used: it needs four hours of silence, compares times modulo 24 h, and can take
a healthy rerun for an inconsistency. Who holds a Firework is known from the name of its launch's worker.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.engines.base import JOB_FILE
from htxas.errors import Busy, Cause, NotFound
from htxas.launch.agent.delivery import deliver_journals
from htxas.launch.agent.liveness import LOG_FILE
from htxas.launch.pad.bulk import OVER, STOPPED, held_by, make_ready, reignite
from htxas.launch.pad.launchpad import Document, campaign_query, database_errors, fireworks_of
from htxas.launch.pad.workflows import queue_batches
from htxas.launch.recovery.judge import FRESH_S, Life, Verdict, judge
from htxas.launch.recovery.witness import Scene, evidence, owner_folder, traces
from htxas.launch.work.compute import attempt_directory
from htxas.launch.work.evidence import directory_tail, log_tail
from htxas.launch.work.journal import Started
from htxas.store.records import Batch, ControlState, Lease, PilotRecord
from htxas.store.store import Store

__all__ = [
    "Concluded",
    "Requeued",
    "break_stale_locks",
    "conclude_owner",
    "free_fireworks",
    "free_ownerless",
    "owners",
    "pilots_of",
    "recover",
    "recovery_lock",
    "requeue_forgotten",
]

LOCK = "recovery"
_LOCK_PATIENCE_S = 1.0
_STALE_LOCK_S = 5.0
_RECOVERY_TTL_S = 10.0
_RECOVERY_WAIT_S = 30.0
_OWNERLESS_S = 60.0
_TIDY_EVERY_S = 30.0  # by all processes together
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


@dataclass(frozen=True, slots=True)
class Concluded:
    """How the affairs of a dead owner were settled.

    Attributes
    ----------
    stored
        Results found in its journals and stored now.
    known
        Results in its journals that were stored before, by itself.
    refused
        Results that came too late: somebody else has the calculation.
    released
        Calculations given back.
    charged
        Those of them that were being computed, and count as interrupted.
    fireworks
        Fireworks made READY.
    """

    stored: int = 0
    known: int = 0
    refused: int = 0
    released: int = 0
    charged: int = 0
    fireworks: int = 0


def recovery_lock(store: Store, wait_s: float = _RECOVERY_WAIT_S) -> Any:
    """Return the lock, as a context manager, under which owners are concluded: one process at a time does it."""
    return store.lock(LOCK, ttl_s=_RECOVERY_TTL_S, wait_s=wait_s)


def recover(store: Store, launchpad: LaunchPad) -> int:
    """Settle the affairs of all owners that are provably dead from here; return how many.

    Cheap enough to be called every minute: it looks at heartbeats, and at the locks of processes of this machine. It
    asks no scheduler and no other host: that is what reconciliation does. Safe beside living owners, and to repeat. One
    process at a time does it: another one's is waited for.
    """
    dead, living = _dead(store)
    tidy = not living or store.stamps().get(LOCK, math.inf) > _TIDY_EVERY_S
    if not dead and not (tidy and _untidy(launchpad)):
        return 0
    try:
        with recovery_lock(store):
            return _recover(store, launchpad)
    except Busy as error:
        _log.warning("%s", error)
        return 0


def _dead(store: Store) -> tuple[list[tuple[Document, Verdict]], list[str]]:
    """Return the owners that are dead and can be settled from here, and the names of all others."""
    workers = owners(store)
    scene = Scene.of(store.server_up_s(), workers, pilots_of(store, workers))
    judged = [(w, judge(evidence(w, scene))) for w in workers]
    dead = [(w, v) for w, v in judged if v.life is Life.DEAD and v.wait_s == 0 and readable(w)]
    names = {w["owner"] for w, _ in dead}
    return dead, [w["owner"] for w in workers if w["owner"] not in names]


def _untidy(launchpad: LaunchPad) -> bool:
    with database_errors():
        if launchpad.workflows.find_one({"locked": {"$exists": True}}, {"_id": 1}) is not None:
            return True
        return launchpad.fireworks.find_one(_held(), {"_id": 1}) is not None


def _recover(store: Store, launchpad: LaunchPad) -> int:
    store.stamp(LOCK)
    dead, _ = _dead(store)
    for worker, verdict in dead:
        conclude_owner(
            store,
            launchpad,
            worker["owner"],
            verdict.cause,
            verdict.why,
            info=worker["info"],
            last=worker.get("seen"),
        )
    free_ownerless(store, launchpad)
    break_stale_locks(launchpad)
    return len(dead)


def owners(store: Store) -> list[Document]:
    """Return all owners as ``Store.workers`` tells of them, and those that hold leases without a heartbeat.

    The latter have ``registered`` False.
    """
    unseen = [
        {"owner": u["owner"], "info": traces(u["owner"]), "age_s": u["age_s"], "registered": False}
        for u in store.unseen_holders()
        if u["owner"]
    ]
    return [*store.workers(), *unseen]


def pilots_of(store: Store, workers: Iterable[Mapping[str, Any]]) -> list[PilotRecord]:
    """Return the records of the pilots of silent owners: a few of the thousands there ever were."""
    silent = {str(w["info"]["pilot"]) for w in workers if w["info"].get("pilot") and w["age_s"] >= FRESH_S}
    found = []
    for pilot in sorted(silent):
        with contextlib.suppress(NotFound):
            found.append(store.pilot(pilot))
    return found


def readable(worker: Mapping[str, Any]) -> bool:
    """Whether the journals of an owner can be read from here, or it has none to be read."""
    info = worker["info"]
    return owner_folder(worker["owner"], info) is not None or not (info.get("held") or info.get("in_hand"))


def conclude_owner(
    store: Store,
    launchpad: LaunchPad,
    owner: str,
    cause: Cause | None,
    why: str,
    *,
    info: Mapping[str, Any] | None = None,
    last: datetime | None = None,
) -> Concluded:
    """Settle the affairs of an owner that is dead: deliver, release, free, forget. May be repeated at any point.

    Its journals go first, while its leases still hold: what it finished is stored, and only what it had begun and not
    finished counts as interrupted.

    Parameters
    ----------
    store, launchpad
        Where.
    owner
        Its name.
    cause
        What happened to the calculations it had in hand; None if they are not to blame and count nothing.
    why
        For people, one line.
    info
        What its last heartbeat told; looked up if not given.
    last
        Its last heartbeat. If it has beaten since, it is not forgotten, and whoever looks next judges it anew.

    Raises
    ------
    DatabaseUnavailable
        If the database goes away; do it again.
    OSError
        If a journal cannot be read; nothing was released then.
    """
    if info is None:
        found = {w["owner"]: w for w in store.workers()}.get(owner, {"info": {}, "seen": None})
        info, last = found["info"], last or found["seen"]
    folder = owner_folder(owner, info)
    journaled: Collection[Started] | None = None
    stored = known = refused = 0
    if folder is not None:
        delivered = deliver_journals(store, folder)
        stored, known, refused = delivered.stored, delivered.again, delivered.refused
        journaled = delivered.in_hand
    leases = store.held(owner)
    if journaled is None:
        told = set(info.get("in_hand") or ())
        charged = [lease for lease in leases if lease.key in told]
    else:  # an earlier attempt that it gave back is not this one
        charged = [lease for lease in leases if Started(lease.key, lease.attempt) in journaled]
    for lease in charged if cause is not None else ():
        facts = _facts(lease, info, folder, last)
        store.release([lease], cause=cause, message=why, evidence=facts, in_hand=[lease.key])
    released = store.release_owner(owner)
    freed = free_fireworks(launchpad, {owner})
    store.forget_worker(owner, seen=last)  # last: a kill before this line is mended by the next call
    count = len(charged) if cause is not None else 0
    _log.info("%s is dead: %s; %d stored, %d released", owner, why, stored, len(leases))
    return Concluded(stored, known, refused, released + count, count, freed)


def _facts(
    lease: Lease, info: Mapping[str, Any], folder: Path | None, last: datetime | None
) -> dict[str, Any]:
    """Return what is known of an interrupted attempt."""
    directory = attempt_directory(lease.key, lease.attempt)
    log = directory_tail(directory) or ([] if folder is None else log_tail(folder / LOG_FILE))
    facts: dict[str, Any] = {"host": info.get("host"), "log": log}
    try:  # written first, and once: whatever else comes into the folder changes the times of the folder itself
        began = (directory / JOB_FILE).stat().st_mtime
    except OSError:
        return facts
    ends = [e for e in (info.get("end"), None if last is None else last.timestamp()) if e is not None]
    facts["directory"] = str(directory)
    facts["elapsed_s"] = max(0.0, (min(ends) if ends else time.time()) - began)
    return facts


def free_fireworks(launchpad: LaunchPad, owners: Iterable[str]) -> int:
    """Make READY the Fireworks that these owners hold; return how many. What they once gave back is let alone."""
    names = sorted(owners)
    if not names:
        return 0
    of_theirs: Document = {"fworker.name": {"$in": names}}
    with database_errors():
        launches = [x["launch_id"] for x in launchpad.launches.find(of_theirs, {"launch_id": 1})]
        fw_ids = []
        for i in range(0, len(launches), _CHUNK):
            query = {
                "launches": {"$in": launches[i : i + _CHUNK]},
                "state": {"$in": ["RUNNING", "RESERVED", "FIZZLED"]},
                **campaign_query(None),
            }
            fw_ids += [f["fw_id"] for f in launchpad.fireworks.find(query, {"fw_id": 1})]
        _unlock(launchpad, {"nodes": {"$in": fw_ids}}, _LOCK_PATIENCE_S)
        freed = make_ready(launchpad, fw_ids, held_by(launches))
        launchpad.launches.update_many(  # of a checkout that was cut short
            {**of_theirs, "state": {"$in": ["RUNNING", "RESERVED"]}}, {"$set": {"state": "FIZZLED"}}
        )
    return freed


def _held() -> Document:
    return {**campaign_query(None), "state": {"$in": ["RUNNING", "RESERVED"]}}


def free_ownerless(store: Store, launchpad: LaunchPad, *, dry_run: bool = False) -> int:
    """Free our Fireworks that nobody on the list of owners holds; return how many.

    Left by those killed before their first sign of life, or in the middle of a checkout. A Firework that FireWorks'
    own ``rlaunch`` runs goes by another name: the leases of its batch tell who is at work.
    """
    before = time.time() - _OWNERLESS_S
    with database_errors():
        fields = {"fw_id": 1, "launches": 1, "updated_on": 1, "spec.htxas.batch": 1}
        held = [
            f
            for f in launchpad.fireworks.find(_held(), fields)
            if _when(f["updated_on"]).timestamp() < before
        ]
        ids = [i for f in held for i in f["launches"]]
        launches = launchpad.launches.find(
            {"launch_id": {"$in": ids}}, {"launch_id": 1, "fworker.name": 1, "state": 1}
        )
        names = {x["launch_id"]: x["fworker"]["name"] for x in launches}
    if not held:
        return 0
    # Read after the Fireworks: owners are on the list before they take any.
    living = {w["owner"] for w in owners(store)}
    suspects = [f for f in held if not any(names.get(i) in living for i in f["launches"])]
    lost = [f["fw_id"] for f in suspects if not store.holders_of_batch(f["spec"]["htxas"]["batch"]) & living]
    if dry_run or not lost:
        return len(lost)
    _unlock(launchpad, {"nodes": {"$in": lost}}, _LOCK_PATIENCE_S)
    return make_ready(launchpad, lost, held_by(ids))


def _when(when: datetime | str) -> datetime:
    """Return FireWorks' time; it stores both kinds, always in UTC."""
    parsed = datetime.fromisoformat(when) if isinstance(when, str) else when
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def break_stale_locks(launchpad: LaunchPad) -> int:
    """Break the locks of dead processes on workflows; return how many. Takes seconds if there is one."""
    with database_errors():
        return _unlock(launchpad, {}, _STALE_LOCK_S)


def _unlock(launchpad: LaunchPad, which: Document, patience_s: float) -> int:
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
    return len(before)


def requeue_forgotten(
    store: Store,
    launchpad: LaunchPad,
    campaign: str | None,
    *,
    dry_run: bool = False,
    check: Callable[[], object] | None = None,
) -> Requeued:
    """Queue batches again whose Firework is over while calculations of theirs are READY.

    That is what an interrupted ``retry``, a lost lease or a batch shared with another campaign leaves. What only
    cancelled campaigns want stays where it is; a Firework that was defused with its campaign runs again if another
    one wants some of it, one that a user defused does not. ``check`` is called now and then, to keep a lock.
    """
    cancelled = {n for n, c in store.controls().items() if c.state is ControlState.CANCELLED}
    fireworks = unsubmitted = 0
    batches: list[str] = []
    for batch, count in store.ready_batches(campaign, not_for=cancelled):
        if batch is None:
            unsubmitted += count
        else:
            batches.append(batch)
        if len(batches) >= _CHUNK:
            fireworks += _requeue(store, launchpad, batches, cancelled, dry_run)
            batches.clear()
            if check is not None:
                check()
    return Requeued(fireworks + _requeue(store, launchpad, batches, cancelled, dry_run), unsubmitted)


def _requeue(
    store: Store, launchpad: LaunchPad, batches: Sequence[str], cancelled: Collection[str], dry_run: bool
) -> int:
    found = fireworks_of(launchpad, batches)
    over = [i for i, f in found.items() if f["state"] in ("COMPLETED", "FIZZLED")]
    with database_errors():
        query = {"fw_id": {"$in": [i for i, f in found.items() if f["state"] == "DEFUSED"]}, **STOPPED}
        defused = {
            f["fw_id"]: str(found[f["fw_id"]]["batch"]) for f in launchpad.fireworks.find(query, {"fw_id": 1})
        }
    missing = sorted(set(batches) - {f["batch"] for f in found.values()})
    if dry_run:
        return len(over) + len(defused) + len(missing)
    count = make_ready(launchpad, over, OVER) + _restore(store, launchpad, missing)
    for fw_id, batch in defused.items():
        _share(store, launchpad, fw_id, batch, cancelled)
    return count + (reignite(launchpad, {"fw_id": {"$in": list(defused)}}) if defused else 0)


def _share(store: Store, launchpad: LaunchPad, fw_id: int, batch_id: str, cancelled: Collection[str]) -> None:
    """Note on a Firework who wants it besides the cancelled campaign it was made for, or it would be defused again."""
    batch = store.batch(batch_id)
    wanted = {c for r in store.calculations(batch.keys).values() for c in r.campaigns}
    others = sorted(wanted - set(cancelled) - {batch.campaign})
    with database_errors():
        launchpad.fireworks.update_one(
            {"fw_id": fw_id}, {"$addToSet": {"spec.htxas.shared_with": {"$each": others}}}
        )


def _restore(store: Store, launchpad: LaunchPad, batch_ids: Sequence[str]) -> int:
    """Make Fireworks for batches that have none, as after ``lpad reset``; those being submitted now are let alone."""
    by_campaign: dict[str, list[Batch]] = {}
    for batch_id in batch_ids:
        batch = store.batch(batch_id)
        by_campaign.setdefault(batch.campaign, []).append(batch)
    count = 0
    for campaign, batches in by_campaign.items():
        try:
            with store.lock(f"submission of {campaign}"):
                store.mark_submitted(queue_batches(launchpad, batches))
        except Busy:
            continue
        count += len(batches)
    return count
