"""Database, schedulers, heartbeats and folders compared; what is provably dead is settled, the rest is told.

One process does it at a time. It may be killed anywhere and done again, and it may run beside everything else.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.cluster.jobs import JobInfo, Unknown
from htxas.cluster.profile import Profile
from htxas.cluster.queue import Queue, pilot_folder
from htxas.cluster.script import is_another
from htxas.errors import Cause, ClusterError
from htxas.launch.agent.delivery import Courier
from htxas.launch.agent.liveness import LOCK_FILE
from htxas.launch.control import enforce
from htxas.launch.pad.bulk import settle
from htxas.launch.pad.launchpad import database_errors, prepare_launchpad
from htxas.launch.pilots.exit import exit_name, read_exit
from htxas.launch.pilots.look import refresh
from htxas.launch.recovery.judge import FRESH_S, Answer, Life, Verdict, judge
from htxas.launch.recovery.recover import (
    Concluded,
    break_stale_locks,
    conclude_owner,
    free_ownerless,
    owners,
    pilots_of,
    readable,
    recovery_lock,
    requeue_forgotten,
)
from htxas.launch.recovery.witness import Heard, Scene, evidence, lock_free
from htxas.settings import runs_folder
from htxas.store.records import PilotRecord
from htxas.store.store import Store

__all__ = ["Cluster", "Owner", "Report", "reconcile"]

UNREADABLE_S = 3600.0
"""How long the leases of a dead owner wait for somebody who can read its journals."""

_CHUNK = 5000
_log = logging.getLogger(__name__)
Worker = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that can be asked."""

    profile: Profile
    queue: Queue


@dataclass(slots=True)
class Owner:
    """An owner, judged.

    Attributes
    ----------
    name, host, cluster, pilot, job_id
        Who and where.
    silent_s
        Age of its last heartbeat.
    life, reason, why, cause
        The verdict.
    settled
        What was done; None if nothing was.
    left
        Why nothing was done although it is dead.
    """

    name: str
    host: str | None
    cluster: str | None
    pilot: str | None
    job_id: str | None
    silent_s: float
    life: Life
    reason: str
    why: str
    cause: Cause | None
    settled: Concluded | None = None
    left: str | None = None


@dataclass(slots=True)
class Report:
    """What was found and done.

    Attributes
    ----------
    dry_run
        Whether nothing was changed; numbers say what would be.
    owners
        All of them, judged.
    pilots
        Cluster -> pilots queued or running.
    pilots_changed
        Pilots whose record was brought up to date.
    unknown
        What could not be told, and why: one line each.
    journals
        Results found in journals of owners that are off the list.
    fireworks_freed, locks, workflows
        Fireworks nobody held, stale locks broken, workflows that disagreed with their Fireworks.
    fireworks_requeued
        Fireworks that were over while calculations of theirs were READY.
    fireworks_controlled
        Fireworks that disagreed with what is wanted of their campaign.
    unsubmitted
        READY calculations that no batch carries.
    """

    dry_run: bool = False
    owners: list[Owner] = field(default_factory=list)
    pilots: dict[str, list[PilotRecord]] = field(default_factory=dict)
    pilots_changed: int = 0
    unknown: list[str] = field(default_factory=list)
    journals: dict[str, int] = field(default_factory=lambda: {"stored": 0, "again": 0, "refused": 0})
    fireworks_freed: int = 0
    locks: int = 0
    workflows: int = 0
    fireworks_requeued: int = 0
    fireworks_controlled: int = 0
    unsubmitted: int = 0

    @property
    def dead(self) -> list[Owner]:
        """Owners that are dead."""
        return [o for o in self.owners if o.life is Life.DEAD]

    @property
    def clean(self) -> bool:
        """Whether there was nothing to mend and nothing unknown."""
        mended = (
            self.fireworks_freed
            + self.locks
            + self.workflows
            + self.fireworks_requeued
            + self.fireworks_controlled
        )
        unclear = self.unknown or any(o.life is Life.UNKNOWN for o in self.owners)
        return not (self.dead or mended or unclear or self.journals["stored"] or self.pilots_changed)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        document = asdict(self)
        document["pilots"] = {c: [p.id for p in pilots] for c, pilots in self.pilots.items()}
        return document


def reconcile(
    store: Store,
    launchpad: LaunchPad,
    clusters: Mapping[str, Cluster],
    *,
    only: str | None = None,
    dry_run: bool = False,
    thorough: bool = True,
) -> Report:
    """Find out who is dead, settle their affairs, and mend what is left over.

    Parameters
    ----------
    store, launchpad
        What to look at.
    clusters
        Those that can be asked, by name.
    only
        Look at the owners and pilots of this cluster alone.
    dry_run
        Change nothing, here or in the database.
    thorough
        Also look through what is large: all unfinished workflows, all READY calculations, all journals.

    Raises
    ------
    Busy
        If another process is at it, and stays at it.
    """
    report = Report(dry_run=dry_run)
    if not dry_run:
        prepare_launchpad(launchpad)
    asked = [cluster for name, cluster in clusters.items() if only in (None, name)]
    for cluster in asked:
        _pilots(store, cluster, report)
    # Schedulers and ssh take their time: pilots that start meanwhile must not wait for the lock.
    said = _hear(store, asked, report)
    with _alone(store, dry_run) as check:
        workers = _judge_owners(store, launchpad, clusters, only, said, report, check)
        check()
        report.fireworks_freed = free_ownerless(store, launchpad, dry_run=dry_run)
        if not dry_run:
            report.locks = break_stale_locks(launchpad)
        if thorough:
            check()
            _journals(store, {w["owner"] for w in workers if w.get("registered", True)}, report)
            check()
            if not dry_run:
                report.workflows = _workflows(launchpad)
            found = requeue_forgotten(store, launchpad, None, dry_run=dry_run, check=check)
            report.fireworks_requeued, report.unsubmitted = found.fireworks, found.unsubmitted
        report.fireworks_controlled = enforce(store, launchpad, dry_run=dry_run)
        if not dry_run:
            store.stamp("reconcile")
    return report


@contextmanager
def _alone(store: Store, dry_run: bool) -> Iterator[Callable[[], object]]:
    if dry_run:
        yield lambda: None
        return
    with recovery_lock(store) as lock:
        yield lock.check


def _pilots(store: Store, cluster: Cluster, report: Report) -> None:
    name = cluster.profile.name
    if report.dry_run:
        report.pilots[name] = store.pilots(name, active=True)
        return
    try:
        seen = refresh(store, cluster.profile, cluster.queue)
    except ClusterError as error:
        report.unknown.append(f"{name}: {error}")
        return
    report.pilots[name] = seen.pilots
    report.pilots_changed += seen.changed
    if seen.unknown is not None:
        report.unknown.append(f"{name}: {seen.unknown}")


@dataclass(frozen=True, slots=True)
class _Said:
    """What schedulers said of jobs (by cluster and id), and pilots of their own end (by owner)."""

    heard: dict[tuple[str, str], Heard] = field(default_factory=dict)
    exits: dict[str, str] = field(default_factory=dict)


def _hear(store: Store, clusters: Sequence[Cluster], report: Report) -> _Said:
    """Ask about all owners that are silent."""
    workers, said = owners(store), _Said()
    for cluster in clusters:
        of_it = [w for w in workers if w["info"].get("cluster") == cluster.profile.name]
        silent = _silent(of_it)
        said.heard.update(_ask(store, cluster, silent, _last_signs(of_it), report))
        for worker in silent:
            if (word := _exit_file(cluster, worker)) is not None:
                said.exits[worker["owner"]] = word
    return said


def _judge_owners(
    store: Store,
    launchpad: LaunchPad,
    clusters: Mapping[str, Cluster],
    only: str | None,
    said: _Said,
    report: Report,
    check: Callable[[], object],
) -> Sequence[Worker]:
    """Judge all owners and settle the dead; return all there were."""
    workers = owners(store)  # anew: whoever has beaten since is not what the schedulers were asked about
    scene = Scene.of(store.server_up_s(), workers, pilots_of(store, workers), said.heard, said.exits)
    for worker in workers:
        if only is not None and worker["info"].get("cluster") != only:
            continue
        verdict = judge(evidence(worker, scene))
        owner = _owner(worker, verdict)
        report.owners.append(owner)
        if verdict.life is Life.DEAD:
            check()
            _settle(store, launchpad, worker, verdict, owner, report.dry_run)
        elif verdict.life is Life.UNKNOWN and owner.cluster and owner.cluster not in clusters:
            owner.why += f"; no profile of {owner.cluster} is known here"
    return workers


def _owner(worker: Worker, verdict: Verdict) -> Owner:
    info = worker["info"]
    return Owner(
        name=worker["owner"],
        host=info.get("host"),
        cluster=info.get("cluster"),
        pilot=info.get("pilot"),
        job_id=info.get("job_id"),
        silent_s=float(worker["age_s"]),
        life=verdict.life,
        reason=verdict.reason.value,
        why=verdict.why,
        cause=verdict.cause,
    )


def _settle(
    store: Store, launchpad: LaunchPad, worker: Worker, verdict: Verdict, owner: Owner, dry_run: bool
) -> None:
    if verdict.wait_s > 0:
        owner.left = f"how its job ended is not told yet; waited for {verdict.wait_s:.0f} s more"
        return
    waits = f"unreadable:{owner.name}"
    if not readable(worker):
        waited_s = 0.0 if dry_run else store.missing_for(waits)
        if waited_s < UNREADABLE_S:
            owner.left = (
                f"its folder cannot be seen from here: a pilot there, or htxas reconcile on {owner.host}, brings in "
                f"its results; without either its {worker['info'].get('held', 0)} leases are freed in "
                f"{(UNREADABLE_S - waited_s) / 60:.0f} min"
            )
            return
    if dry_run:
        return
    try:
        owner.settled = conclude_owner(
            store,
            launchpad,
            owner.name,
            verdict.cause,
            verdict.why,
            info=worker["info"],
            last=worker.get("seen"),
        )
    except OSError as error:
        owner.left = f"its journals cannot be read: {error}"
        return
    store.found_again([waits])


def _last_signs(workers: Sequence[Worker]) -> dict[str, datetime]:
    """Return the last heartbeat of each job; one on several nodes has as many hearts."""
    last: dict[str, datetime] = {}
    for worker in workers:
        job, seen = worker["info"].get("job_id"), worker.get("seen")
        if job and seen is not None:
            last[str(job)] = max(seen, last.get(str(job), seen))
    return last


def _silent(workers: Sequence[Worker]) -> list[Worker]:
    here = platform.node()
    in_jobs = (w for w in workers if w["info"].get("job_id"))
    return [
        w
        for w in in_jobs
        if w["age_s"] >= FRESH_S or (w["info"].get("host") == here and lock_free(w["info"]))
    ]


def _ask(
    store: Store,
    cluster: Cluster,
    silent: Sequence[Worker],
    last: Mapping[str, datetime],
    report: Report,
) -> dict[tuple[str, str], Heard]:
    """Ask a scheduler about the jobs of silent owners."""
    name = cluster.profile.name
    ids = {str(w["info"]["job_id"]) for w in silent}
    if not ids:
        return {}
    answer = cluster.queue.snapshot(ids)
    if isinstance(answer, Unknown):
        report.unknown.append(f"{name}: {answer.reason}")
        heard = {i: Heard(Answer.UNKNOWN, why=answer.reason) for i in ids}
    else:
        pilots = _pilots_in(silent)
        jobs = {i: job for i, job in answer.jobs.items() if _is_theirs(job, pilots.get(i, ()))}
        heard = {i: Heard(_answer(job), info=job) for i, job in jobs.items()}
        if not report.dry_run:
            store.found_again([_absence(name, i) for i in jobs])
        absent = {i: last.get(i) for i in ids - jobs.keys()}
        heard |= _absent(store, cluster, absent, pilots, report)
    return {(name, i): told for i, told in heard.items()}


def _pilots_in(silent: Sequence[Worker]) -> dict[str, set[str]]:
    """Return the pilots of silent owners by the job they were in."""
    pilots: dict[str, set[str]] = {}
    for worker in silent:
        if worker["info"].get("pilot"):
            pilots.setdefault(str(worker["info"]["job_id"]), set()).add(str(worker["info"]["pilot"]))
    return pilots


def _is_theirs(job: JobInfo, pilots: Collection[str]) -> bool:
    """Whether a job is one of these pilots': its number may have been given to another submission since."""
    return not pilots or not all(is_another(job.name, pilot) for pilot in pilots)


def _answer(job: JobInfo) -> Answer:
    if job.state.waiting:
        return Answer.QUEUED
    if job.state.on_nodes:
        return Answer.RUNNING
    return Answer.ENDED if job.state.ended else Answer.UNKNOWN


def _absent(
    store: Store,
    cluster: Cluster,
    jobs: Mapping[str, datetime | None],
    pilots: Mapping[str, Collection[str]],
    report: Report,
) -> dict[str, Heard]:
    """Look twice since their last sign of life, and into the accounting, for jobs that a good answer does not list."""
    if not jobs:
        return {}
    name = cluster.profile.name
    accounts = cluster.queue.accounting(set(jobs))
    known = {} if isinstance(accounts, Unknown) else accounts.jobs
    heard = {}
    for job_id, last in jobs.items():
        gone_s = 0.0 if report.dry_run else store.missing_for(_absence(name, job_id), last)
        ended = known.get(job_id)
        if ended is not None and not (ended.state.ended and _is_theirs(ended, pilots.get(job_id, ()))):
            ended = None
        heard[job_id] = Heard(Answer.ABSENT, absent_for_s=gone_s, accounting=ended)
    return heard


def _absence(cluster: str, job_id: str) -> str:
    return f"absent:{cluster}:{job_id}"


def _exit_file(cluster: Cluster, worker: Worker) -> str | None:
    """Return what the owner's pilot wrote when it ended, if it is of this very owner."""
    info = worker["info"]
    if not info.get("pilot"):
        return None
    folder = pilot_folder(cluster.profile, str(info["pilot"]))
    try:
        text = cluster.queue.host.get(f"{folder}/{exit_name(int(info.get('restart') or 0))}")
    except ClusterError as error:
        _log.warning("%s", error)
        return None
    told = None if text is None else read_exit(text)
    return str(told) if told is not None and told.owner == worker["owner"] else None


def _journals(store: Store, listed: set[str], report: Report) -> None:
    """Bring in results that lie on disk, unread, of owners without a heartbeat."""
    try:
        folders = sorted(p for p in (runs_folder() / "workers").iterdir() if p.is_dir())
    except FileNotFoundError:
        return
    for folder in folders:
        if folder.name in listed or lock_free({"lock": str(folder / LOCK_FILE)}) is False:
            continue
        try:
            _bring_in(store, folder, report)
        except OSError as error:
            report.unknown.append(f"{folder}: its journals cannot be read: {error}")


def _bring_in(store: Store, folder: Path, report: Report) -> None:
    courier = Courier(folder, None if report.dry_run else store)
    while carried := courier.carry():
        for _, answer in carried:
            report.journals["stored" if report.dry_run else answer] += 1


def _workflows(launchpad: LaunchPad) -> int:
    """Mend what an interrupted refresh of FireWorks left; return in how many workflows."""
    with database_errors():
        unfinished = launchpad.workflows.find({"state": {"$nin": ["COMPLETED", "ARCHIVED"]}}, {"nodes": 1})
        firsts = [w["nodes"][0] for w in unfinished if w["nodes"]]
    return sum(settle(launchpad, firsts[i : i + _CHUNK]) for i in range(0, len(firsts), _CHUNK))
