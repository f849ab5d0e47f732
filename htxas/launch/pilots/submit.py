"""New pilots, as work asks for them.

A pilot's record is written before its job is submitted, and the job's name carries the record's id: whatever dies in
between, the next look finds the job by its name. While the scheduler gives no usable answer nothing is submitted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from htxas.cluster.jobs import Cancelled, Refused, Submitted, Unclear
from htxas.cluster.profile import Partition, Profile
from htxas.cluster.queue import Queue
from htxas.cluster.script import Job, pilot_ids, render, submission_folder
from htxas.errors import UserError
from htxas.launch.pilots.look import Seen, refresh
from htxas.launch.pilots.plan import Plan, Room, adapt, affordable, keep
from htxas.launch.pilots.ready import ready_for
from htxas.launch.pilots.setback import KEPT_IN_MIND, NOT_NEEDED, NOT_STARTED, setback
from htxas.launch.pilots.settings import SETTINGS_FILE, site_settings
from htxas.launch.pilots.supply import active_of, held_work, room_of
from htxas.store.records import ControlState, PilotRecord, PilotState
from htxas.store.store import Store

__all__ = ["LOCK_TTL_S", "Submission", "pilots_lock", "submit_pilots"]

LOCK_TTL_S = 60.0


@dataclass(slots=True)
class Submission:
    """What a call of :func:`submit_pilots` did.

    Attributes
    ----------
    cluster
        Its name.
    seen
        The pilots there were.
    plan
        What was planned.
    submitted
        New pilots by id, with the id of the scheduler.
    scripts
        Partition -> script, for a dry run.
    notes
        What the user should know: one line each.
    problems
        What went wrong: one line each.
    """

    cluster: str
    seen: Seen
    plan: Plan = field(default_factory=Plan)
    submitted: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def pilots_lock(cluster: str) -> str:
    """Return the name of the lock under which pilots of a cluster are submitted and cancelled."""
    return f"submission of pilots to {cluster}"


def submit_pilots(
    store: Store,
    profile: Profile,
    queue: Queue,
    *,
    pilots: int | None = None,
    adaptive: bool = False,
    campaign: str | None = None,
    dry_run: bool = False,
    prepare: Callable[[Job], str | None] | None = None,
    patient: bool = True,
) -> Submission:
    """Submit the pilots that are missing; twice in a row the second finds nothing to do.

    Parameters
    ----------
    store, profile, queue
        Which database, which cluster.
    pilots
        Keep so many queued or running; with ``adaptive`` at most so many, None is no limit but the profile's.
    adaptive
        As many as the ready work needs.
    campaign
        Pilots for this campaign only.
    dry_run
        Say what would be submitted, with the scripts; change nothing, ask no scheduler.
    prepare
        Called with each job before it is submitted; a text is why it need not be, nor any after it.
    patient
        After pilots that ended in vain, wait before the next try; a person who asks once need not.

    Raises
    ------
    NotFound
        If there is no such campaign.
    UserError
        If the profile's template does not render.
    Busy
        If another process is submitting pilots to this cluster.
    """
    if campaign is not None:
        store.campaign(campaign)
    if dry_run:
        done = _plan(
            store, profile, Seen(store.pilots(profile.name, active=True)), pilots, adaptive, campaign, patient
        )
        for name, count in done.plan.submit.items():
            partition = profile.partition(name)
            done.scripts[name] = render(
                _job(profile, partition, "preview", _arrays(count, partition)[0], campaign)
            )
        return done
    with store.lock(pilots_lock(profile.name), ttl_s=LOCK_TTL_S) as lock:
        seen = refresh(store, profile, queue)
        if seen.unknown is not None:
            problem = f"nothing is submitted while the scheduler gives no usable answer: {seen.unknown}"
            return Submission(profile.name, seen, problems=[problem])
        notes = _free_places(store, queue, seen)
        done = _plan(store, profile, seen, pilots, adaptive, campaign, patient)
        done.notes[:0] = notes
        for name, count in done.plan.submit.items():
            partition = profile.partition(name)
            for size in _arrays(count, partition, single=prepare is not None):
                lock.check()
                job = _job(profile, partition, secrets.token_hex(4), size, campaign, prepare is not None)
                if not _submit(store, queue, job, done, prepare):
                    return done
    return done


def _free_places(store: Store, queue: Queue, seen: Seen) -> list[str]:
    """Cancel pilots that the scheduler could not start and holds; return what the user should know of held ones."""
    notes = [
        f"{p.id} (job {p.job_id}) is held and keeps its place: release it there, or htxas queue cancel {p.id}"
        for p in seen.held
    ]
    jobs = {p.job_id: p for p in seen.stranded if p.job_id is not None}
    answers = queue.cancel(jobs) if jobs else {}
    for job_id, pilot in jobs.items():
        if answers.get(job_id, Cancelled.FAILED) is Cancelled.FAILED:
            notes.append(f"{pilot.id} (job {job_id}) could not be started, nor cancelled: {pilot.reason}")
            continue
        seen.pilots.remove(pilot)  # its end is recorded once the scheduler confirms it, but not by that word
        store.update_pilot(pilot.id, reason=f"{NOT_STARTED}{pilot.reason}")
        notes.append(f"{pilot.id} (job {job_id}) could not be started and is cancelled: {pilot.reason}")
    return notes


def _job(
    profile: Profile,
    partition: Partition,
    submission: str,
    array: int,
    campaign: str | None,
    bundle: bool = False,
) -> Job:
    folder = f"{profile.home.rstrip('/')}/bundles/{submission}" if bundle else None
    return Job(profile, partition, submission, array, campaign, folder)


def _arrays(count: int, partition: Partition, *, single: bool = False) -> list[int]:
    """Return the sizes of the job arrays that make ``count`` pilots."""
    most = 1 if single else max(1, partition.max_array)
    return [most] * (count // most) + ([count % most] if count % most else [])


def _plan(
    store: Store,
    profile: Profile,
    seen: Seen,
    pilots: int | None,
    adaptive: bool,
    campaign: str | None,
    patient: bool,
) -> Submission:
    done = Submission(profile.name, seen)
    now = datetime.now(UTC)
    controls, spent = store.controls(), store.spent()
    names = list(controls) if campaign is None else [campaign]
    budgets = {n: h for n in names if (h := controls[n].budget_node_h) is not None}
    left = {name: budget - spent.get(name, 0.0) for name, budget in budgets.items()}
    stopped = [n for n in names if controls[n].state is not ControlState.ACTIVE]
    broke = [n for n in names if n in left and left[n] <= 0 and n not in stopped]
    for name in broke:
        done.notes.append(
            f"{name} has used up its budget of {budgets[name]:,.1f} node hours: "
            f"htxas campaign budget {name} HOURS raises it"
        )
    if campaign in stopped:
        done.notes.append(f"{campaign} is {controls[campaign].state.value}: htxas campaign resume {campaign}")
    wanted = sorted(
        (n for n in names if n not in stopped and n not in broke), key=lambda n: -controls[n].priority
    )
    held_s = held_work(store)
    active = [active_of(p, profile, held_s, now) for p in seen.pilots]
    rooms = [_room(p, profile, seen.pilots) for p in profile.partitions.values()]
    ready = ready_for(store, profile, wanted, [room.useful_s for room in rooms])
    with_work = sorted({work.campaign for work in ready})
    node_h = affordable(with_work, left, active, campaign)
    most = profile.pilots.most
    if adaptive or pilots is None:
        most = most if pilots is None else min(most, pilots)
        done.plan = adapt(ready, rooms, active, most=most, node_h=node_h, left_node_h=left)
    else:
        done.plan = keep(pilots, ready, rooms, active, most=most, node_h=node_h)
    done.notes += done.plan.notes
    _slow_down(store, profile, done, campaign, patient, now)
    return done


def _slow_down(
    store: Store, profile: Profile, done: Submission, campaign: str | None, patient: bool, now: datetime
) -> None:
    """Cut a plan to one pilot, or none for a while, where the last ones ended without having worked."""
    if not done.plan.submit:
        return

    def concerns(pilot: PilotRecord) -> bool:
        return campaign is None or pilot.campaign in (None, campaign)

    ended = [p for p in store.last_pilots(profile.name, KEPT_IN_MIND) if concerns(p)]
    active = [p for p in done.seen.pilots if concerns(p)]
    found = setback(ended, active, [p.id for p in done.seen.held], now)
    if found is None:
        return
    first = next(iter(done.plan.submit))
    if found.trying is not None:
        done.plan.submit, now_what = {}, f"no others before {found.trying} has shown whether it works"
    elif patient and now < found.again:
        # The time itself, not what is left of it: said once, not in every round of --watch.
        again = found.again.astimezone().strftime("%H:%M:%S")
        done.plan.submit, now_what = {}, f"one more is tried at {again}"
    else:
        done.plan.submit, now_what = {first: 1}, "one is tried"
    done.notes.append(
        f"{found} on {profile.name} ended without having worked, the latest with {found.reason!r}: {now_what}; "
        f"htxas queue check --cluster {profile.name}, and the job's log below "
        f"{profile.home.rstrip('/')}/pilots, say more"
    )


def _room(partition: Partition, profile: Profile, pilots: Iterable[PilotRecord]) -> Room:
    there = sum(1 for p in pilots if p.partition == partition.name)
    return room_of(
        partition, profile, sys.maxsize if partition.max_jobs is None else partition.max_jobs - there
    )


def _submit(
    store: Store, queue: Queue, job: Job, done: Submission, prepare: Callable[[Job], str | None] | None
) -> bool:
    """Submit one job; return whether to go on with the next."""
    script = render(job)
    ids = pilot_ids(job.submission, job.array)
    sha256 = hashlib.sha256(script.encode()).hexdigest()
    now = datetime.now(UTC)
    store.put_pilots(
        PilotRecord(
            id=pilot,
            cluster=job.profile.name,
            job_id=None,
            array_task=task if job.array > 1 else None,
            state=PilotState.SUBMITTING,
            campaign=job.campaign,
            partition=job.partition.name,
            nodes=job.partition.nodes,
            cores=job.profile.cores(job.partition) * job.partition.nodes,
            walltime_s=float(job.partition.walltime_s),
            submitted=now,
            script_sha256=sha256,
            bundle=job.bundle,
        )
        for task, pilot in enumerate(ids, start=1)
    )
    try:
        folder = submission_folder(job.profile, job.submission)
        queue.host.mkdir([folder])
        queue.host.put(
            json.dumps(site_settings(job.profile, job.partition, store.name).to_dict(), indent=1),
            f"{folder}/{SETTINGS_FILE}",
        )
        enough = None if prepare is None else prepare(job)
        answer = Refused(enough) if enough is not None else queue.submit(job)
    except UserError as error:  # nothing was submitted
        _end_all(store, ids, str(error))
        done.problems.append(str(error))
        return False
    match answer:
        case Submitted(job_ids):
            for pilot, job_id in zip(ids, job_ids, strict=True):
                # Not the state alone: the pilot may have started already and told so itself.
                store.update_pilot(pilot, job_id=job_id)
                _advance(store, pilot)
            done.submitted |= dict(zip(ids, job_ids, strict=True))
            return True
        case Refused(reason):
            _end_all(store, ids, reason if enough is None else NOT_NEEDED + reason)
            (done.notes if enough is not None else done.problems).append(reason)
        case Unclear(reason):
            done.problems.append(
                f"{job.name} may or may not be in the queue; the next call looks for it: {reason}"
            )
    return False


def _advance(store: Store, pilot: str) -> None:
    """Record that the scheduler has a pilot, unless that one is further already."""
    if store.pilot(pilot).state is PilotState.SUBMITTING:
        store.update_pilot(pilot, state=PilotState.QUEUED)


def _end_all(store: Store, ids: Iterable[str], reason: str) -> None:
    for pilot in ids:
        store.update_pilot(pilot, state=PilotState.ENDED, ended=datetime.now(UTC), reason=reason)
