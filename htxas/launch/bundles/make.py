"""Bundles made: Fireworks checked out and calculations leased into a folder, for nodes without a database."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.errors import Cause, UserError
from htxas.launch.agent.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.agent.source import Held, Source
from htxas.launch.bundles.folder import Bundle, Carried, write_bundle
from htxas.launch.pad.launchpad import prepare_launchpad
from htxas.launch.pilots.settings import SiteSettings
from htxas.launch.recovery.recover import free_fireworks
from htxas.launch.work.engine_run import Engines
from htxas.launch.work.task import Task
from htxas.store.outcomes import failed
from htxas.store.records import Lease
from htxas.store.store import Store

__all__ = ["Wish", "heartbeat_of", "make_bundle"]

_COLLECTED_WITHIN_S = 7 * 86_400.0
_H = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a bundle is to hold, and where it will be run.

    Attributes
    ----------
    hours
        Of work for the workers, the margin at its end included.
    workers, cores_per_worker, memory_per_worker_MB
        Who will do it.
    margin_s
        Kept free at the end: no task is taken that may not fit.
    campaign, cluster, pilot
        Only this campaign; made for this cluster and pilot. None for any.
    settings
        How engines are started there.
    """

    hours: float
    workers: int
    cores_per_worker: int = 1
    memory_per_worker_MB: int = 0
    margin_s: float = 0.0
    campaign: str | None = None
    cluster: str | None = None
    pilot: str | None = None
    settings: SiteSettings | None = None

    @property
    def room_s(self) -> float:
        """Useful seconds of one worker."""
        return self.hours * _H - self.margin_s

    @property
    def engines(self) -> Engines:
        """How engines are started there."""
        settings = self.settings or SiteSettings()
        return settings.how(self.cluster, self.cores_per_worker, self.memory_per_worker_MB)


def make_bundle(store: Store, launchpad: LaunchPad, folder: Path, wish: Wish) -> Bundle | None:
    """Lease work into ``folder``; None, and no folder, if nothing is ready that fits.

    Killed before its end it leaves nothing that the next reconciliation would not free.

    Raises
    ------
    UserError
        If the folder exists and is not empty, or the wish leaves no time.
    NotFound
        If there is no such campaign.
    """
    if wish.campaign is not None:
        store.campaign(wish.campaign)
    if wish.room_s <= 0:
        raise UserError(f"{wish.hours:g} h leave no time before a margin of {wish.margin_s:g} s")
    if folder.exists() and any(folder.iterdir()):
        raise UserError("the folder is not empty", where=str(folder), hint="give a new one")
    folder = folder.absolute()
    owner = f"bundle-{new_owner()}"
    prepare_launchpad(launchpad)
    with hold_alive(owner) as facts:
        # While it is being made this process is the owner, whose death is plain to see; then the folder is.
        store.heartbeat(owner, {**facts, "campaign": wish.campaign, "workers": 0, "in_hand": []})
        bundle = None
        try:
            bundle = _fill(store, launchpad, owner, folder, wish)
        finally:
            if bundle is None:
                _abandon(store, launchpad, owner)
    return bundle


def _fill(store: Store, launchpad: LaunchPad, owner: str, folder: Path, wish: Wish) -> Bundle | None:
    source = Source(store, launchpad, owner, worker_folder(owner), wish.campaign, wish.workers, wish.engines)
    source.look_at_controls()
    tasks: list[Task] = []
    carried: list[Held] = []
    full_s = wish.workers * wish.room_s
    estimate_s = 0.0
    while estimate_s < full_s and (held := source.checkout(wish.room_s)) is not None:
        mine = _leased(source, held, wish.room_s)
        if not mine:
            source.give_back([held])
            continue
        tasks += mine
        carried.append(held)
        estimate_s += sum(task.estimate_s for task in mine)
    if not tasks:
        return None
    now = time.time()
    until = now + wish.hours * _H + _COLLECTED_WITHIN_S
    bundle = Bundle(
        id=owner,
        database=store.name,
        cluster=wish.cluster,
        pilot=wish.pilot,
        campaign=wish.campaign,
        workers=wish.workers,
        cores_per_worker=wish.cores_per_worker,
        memory_per_worker_MB=wish.memory_per_worker_MB,
        margin_s=wish.margin_s,
        hours=wish.hours,
        made=now,
        until=until,
        tasks=len(tasks),
        estimate_s=estimate_s,
        carried=tuple(Carried(h.batch, h.fw_id, h.launch_id) for h in carried if h.fw_id and h.launch_id),
        settings=wish.settings or SiteSettings(store.name),
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # it may have been made for us
    store.renew(owner, until - now)
    store.heartbeat(owner, heartbeat_of(bundle, folder))
    write_bundle(folder, bundle, tasks)
    return bundle


def heartbeat_of(bundle: Bundle, folder: Path) -> Mapping[str, Any]:
    """Return what the database is told of a bundle instead of a heartbeat: it never beats."""
    return {
        "host": None,
        "made_on": platform.node(),
        "pid": None,
        "lock": None,
        "folder": str(folder),
        "campaign": bundle.campaign,
        "workers": 0,
        "in_hand": [],
        "held": bundle.tasks,
        "cluster": bundle.cluster,
        "pilot": None,  # its pilot does not beat, and must not be taken for one that has stopped
        "for_pilot": bundle.pilot,
        "job_id": None,
        "restart": 0,
        "end": bundle.until,
        "bundle": str(folder),
        "until": bundle.until,
    }


def _leased(source: Source, held: Held, room_s: float) -> list[Task]:
    """Return what of a batch can be computed apart from the database; give back the rest."""
    lent = source.lease(held, sorted(held.open), exact=True)
    for record in lent.over:
        held.found(record)
    if lent.failed:
        _end_without_ground(source.store, lent.failed)
    fits = {t.key: t for t in lent.tasks if t.estimate_s * t.safety <= room_s}
    # A site whose ground state is neither there nor in the bundle would wait for ever.
    runnable = {
        key: task
        for key, task in fits.items()
        if task.ground_key is None or task.ground_directory is not None or task.ground_key in fits
    }
    source.release([t.lease for t in lent.tasks if t.key not in runnable])
    return list(runnable.values())


def _end_without_ground(store: Store, failures: Any) -> None:
    store.deliver(
        [
            failed(
                task.lease,
                Cause.GROUND_FAILED,
                f"the ground state {ground.key[:12]} has no result: {ground.cause}: {ground.message}",
                {"ground": ground.key, "ground_cause": ground.cause},
                corrections=task.corrections,
            )
            for task, ground in failures
        ]
    )


def _abandon(store: Store, launchpad: LaunchPad, owner: str) -> None:
    """Give everything back: nothing was to be had, or the making failed."""
    leases: list[Lease] = store.held(owner)
    if leases:
        store.release(leases)
    free_fireworks(launchpad, {owner})
    store.forget_worker(owner)
