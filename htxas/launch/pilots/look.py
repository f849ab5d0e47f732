"""Pilots as the database and the scheduler together tell of them.

While the scheduler gives no usable answer nothing is concluded. A pilot that a good answer does not list is not gone
for that: its end is told by its own exit file, by the accounting, or by a second good answer a minute later; in between
its track is lost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from htxas.cluster.jobs import JobInfo, JobState, Snapshot, Unknown
from htxas.cluster.profile import Profile, Scheduler
from htxas.cluster.queue import Queue
from htxas.cluster.script import JOB_PREFIX, is_another, pilot_folder
from htxas.launch.pilots.exit import PilotExit, read_exit
from htxas.launch.pilots.setback import NOT_STARTED, NOT_SUBMITTED
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

__all__ = ["Seen", "array_task", "describe", "ending_of", "refresh"]

_IN_FLIGHT_S = 120.0
_LISTED_S = 30.0
_GONE_S = 60.0
_TOLD_AGAIN_S = 60.0
_FRESH_S = 60.0
_ACTIVE = (PilotState.SUBMITTING, PilotState.QUEUED, PilotState.RUNNING)
_AT_ONCE = 100
_RETURNED = (JobState.DONE, JobState.FAILED, JobState.ENDED)
# A fixed text; folders come as positional parameters. One line per file, those of further nodes left out.
_WORDS = (
    'for d; do for f in "$d"/*.exit.json; do case "${f##*/}" in *-*) continue;; esac; '
    '[ -f "$f" ] && { tr -d "\\n" < "$f"; echo; }; done; done'
)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Seen:
    """The pilots of a cluster, looked at.

    Attributes
    ----------
    pilots
        Those being submitted, queued or running, oldest first.
    unknown
        Why the scheduler's answer cannot be used; None if it can. Records are as they were then.
    changed
        Pilots whose state changed.
    stranded
        Those among ``pilots`` that the scheduler could not start and holds: they never will by themselves.
    held
        Those that a person holds.
    replaced
        Pilots the scheduler has forgotten, and given the number of their job to another.
    """

    pilots: list[PilotRecord]
    unknown: str | None = None
    changed: int = 0
    stranded: list[PilotRecord] = field(default_factory=list)
    held: list[PilotRecord] = field(default_factory=list)
    replaced: frozenset[str] = frozenset()


def refresh(store: Store, profile: Profile, queue: Queue) -> Seen:
    """Ask the scheduler once and bring the records of a cluster's pilots up to date.

    A pilot that a good answer does not list is not gone for that: its end is told by its own exit file, by the
    accounting, or by a second look. While it beats, it runs, whatever the scheduler has forgotten.
    """
    records = _of_interest(store, profile.name)
    if not records:
        return Seen([])
    answer = queue.snapshot(_asked_about(profile, records))
    if isinstance(answer, Unknown):
        return Seen([p for p in records if p.state is not PilotState.LOST_TRACK], unknown=answer.reason)
    found = {p.id: job for p in records if (job := _job_of(p, answer.jobs)) is not None}
    heard = _heard(store)
    beating = {pilot: w for pilot, w in heard.items() if w["age_s"] < _FRESH_S}
    missing = [p for p in records if p.id not in found]
    store.found_again([_absence(p) for p in records if p.id in found])
    silent = [p for p in missing if p.id not in beating]
    returned = [p for p in records if p.id in found and found[p.id].state in _RETURNED]
    words = _own_words(profile, queue, [*silent, *returned])
    endings = _endings(queue, silent, words)
    now = datetime.now(UTC)
    seen = Seen([], replaced=frozenset(p.id for p in missing if p.job_id in answer.jobs))
    for pilot in records:
        if pilot.id in found:
            fields = _told(pilot, found[pilot.id], words.get(pilot.id), now)
        elif pilot.id in beating:
            fields = _beats(pilot, beating[pilot.id])
        else:
            since = heard[pilot.id]["seen"] if pilot.id in heard else None
            missing_s = store.missing_for(_absence(pilot), since)
            fields = _untold(pilot, endings.get(pilot.id), missing_s, now)
        changes = {k: v for k, v in fields.items() if getattr(pilot, k) != v}
        if changes.keys() - {"seen"} or _long_ago(pilot.seen, now):
            store.update_pilot(pilot.id, **changes)
            seen.changed += "state" in changes
        fresh = replace(pilot, **changes)
        if fresh.state in _ACTIVE:
            seen.pilots.append(fresh)
            job = found.get(pilot.id)
            if job is not None and job.state is JobState.HELD:
                (seen.stranded if job.stranded else seen.held).append(fresh)
    return seen


def _of_interest(store: Store, cluster: str) -> list[PilotRecord]:
    """Return the active pilots, and those lost track of: a controller that comes back may know them again."""
    lost = store.pilots(cluster, state=PilotState.LOST_TRACK)
    return sorted([*store.pilots(cluster, active=True), *lost], key=lambda p: (p.submitted, p.id))


def _asked_about(profile: Profile, pilots: Sequence[PilotRecord]) -> list[str] | None:
    """Return the ids to ask about; None is all jobs of the user, among which a lost id is found by its name.

    PBS has no such question: it would list the jobs of everybody, with those that ended days ago.
    """
    ids = [p.job_id for p in pilots if p.job_id is not None]
    return ids if profile.scheduler is Scheduler.PBS and len(ids) == len(pilots) else None


def _job_of(pilot: PilotRecord, jobs: Mapping[str, JobInfo]) -> JobInfo | None:
    """Return the pilot's job in an answer: by its id, or by name and array task if the id was lost on the way."""
    if pilot.job_id is not None:
        job = jobs.get(pilot.job_id)
        return None if job is not None and is_another(job.name, pilot.id) else job
    name = JOB_PREFIX + pilot.id.partition("-")[0]
    for job in jobs.values():
        if job.name == name and array_task(job.id) == pilot.array_task:
            return job
    return None


_TASK = re.compile(r"\d+(?:_(\d+)|\[(\d+)\](?:\.\S*)?|\.(\d+)|-(\d+)\.\S+)")


def array_task(job_id: str) -> int | None:
    """Return the array task in a scheduler's id; None if it is no task's.

    >>> [array_task(i) for i in ("12", "12_3", "12[3].head", "12.3", "12[3]", "12.head", "12-3.head")]
    [None, 3, 3, 3, 3, None, 3]
    """
    match = _TASK.fullmatch(job_id)
    return None if match is None else int(next(g for g in match.groups() if g is not None))


def _heard(store: Store) -> dict[str, dict[str, Any]]:
    """Return the last heartbeat of each pilot; one on several nodes has as many."""
    of_pilots = [w for w in store.workers() if w["info"].get("pilot")]
    return {w["info"]["pilot"]: w for w in sorted(of_pilots, key=lambda w: -float(w["age_s"]))}


def _told(pilot: PilotRecord, job: JobInfo, own: PilotExit | None, now: datetime) -> dict[str, Any]:
    """Return the fields of a pilot that the scheduler tells of."""
    fields: dict[str, Any] = {"job_id": job.id, "scheduler_state": job.raw, "seen": now}
    if job.restarts is not None:
        fields["restart"] = max(pilot.restart, job.restarts)
    if job.state.waiting:
        fields |= {"state": PilotState.QUEUED, "reason": job.reason or None, "ended": None}
    elif job.state.on_nodes:
        fields |= {"state": PilotState.RUNNING, "reason": None, "ended": None}
        if job.start is not None:
            fields["started"] = _when(job.start)
        if job.end is not None:
            fields["end_time"] = _when(job.end)
    elif job.state.ended:
        # What the pilot wrote itself says more than the scheduler's word for a script that returned.
        fields |= {
            "state": PilotState.ENDED,
            "reason": _kept(pilot, ending_of(job)) if own is None else str(own),
            "ended": pilot.ended or _end(job, now),
        }
    return fields


def _kept(pilot: PilotRecord, reason: str) -> str:
    """Return how a pilot ended: that it could not be started says more than that we took it out of the queue then."""
    return pilot.reason if pilot.reason is not None and pilot.reason.startswith(NOT_STARTED) else reason


def ending_of(job: JobInfo) -> str:
    """Return in a few words how the scheduler says that a job ended."""
    extra = f" ({job.reason})" if job.reason and job.reason not in ("None", job.raw) else ""
    return f"{job.raw}{extra}"


def _end(job: JobInfo, now: datetime) -> datetime:
    return now if job.end is None else _when(job.end)


def _when(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)


def _beats(pilot: PilotRecord, worker: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a pilot that the scheduler does not list, but that is at work."""
    info = worker["info"]
    fields: dict[str, Any] = {"state": PilotState.RUNNING, "owner": worker["owner"], "ended": None}
    if pilot.job_id is None and info.get("job_id"):
        fields["job_id"] = info["job_id"]
    return fields


def _absence(pilot: PilotRecord) -> str:
    return f"pilot:{pilot.id}"


def _untold(
    pilot: PilotRecord, ending: tuple[str, datetime | None] | None, missing_s: float, now: datetime
) -> dict[str, Any]:
    """Return the fields of a pilot that neither the scheduler lists nor its own heart tells of."""
    if ending is not None:
        reason, ended = ending
        return {
            "state": PilotState.ENDED,
            "reason": _kept(pilot, reason),
            "ended": pilot.ended or ended or now,
        }
    age_s = (now - pilot.submitted).total_seconds()
    if pilot.job_id is None and pilot.owner is None:
        if age_s < _IN_FLIGHT_S:
            return {}  # the scheduler may still be taking it in
        return {"state": PilotState.ENDED, "reason": NOT_SUBMITTED, "ended": now}
    if age_s < _LISTED_S:
        return {}
    why = _kept(pilot, "the scheduler no longer lists it, and it left no word")
    if missing_s >= _GONE_S:  # a second good answer without it
        return {"state": PilotState.ENDED, "reason": why, "ended": now}
    return {"state": PilotState.LOST_TRACK, "reason": why}


def _long_ago(seen: datetime | None, now: datetime) -> bool:
    return seen is None or (now - seen).total_seconds() > _TOLD_AGAIN_S


def _own_words(profile: Profile, queue: Queue, pilots: Sequence[PilotRecord]) -> dict[str, PilotExit]:
    """Return what pilots wrote when they ended; one that never reached the database is on record with its job only."""
    started = [p for p in pilots if p.owner is not None or p.bundle is not None or p.job_id is not None]
    restarts = {p.id: p.restart for p in started}
    words: dict[str, PilotExit] = {}
    for chunk in _chunks([pilot_folder(profile, p.id) for p in started]):
        answer = queue.host.run(["sh", "-c", _WORDS, "sh", *chunk], timeout_s=profile.timeout_s)
        if answer.problem is not None:  # no words is no conclusion: the scheduler's accounting is asked next
            _log.warning("the exit files of pilots cannot be read: %s", answer.complaint())
            break
        for line in answer.stdout.splitlines():
            told = read_exit(line)
            # The word of an earlier start says nothing about a later one.
            if told is not None and told.restart >= restarts.get(told.pilot, 0):
                before = words.get(told.pilot)
                if before is None or told.restart > before.restart:
                    words[told.pilot] = told
    return words


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _endings(
    queue: Queue, pilots: Sequence[PilotRecord], words: Mapping[str, PilotExit]
) -> dict[str, tuple[str, datetime | None]]:
    """Return how pilots ended that the scheduler no longer lists: by their own word, or else by the accounting."""
    endings: dict[str, tuple[str, datetime | None]] = {}
    unexplained: dict[str, str] = {}
    for pilot in pilots:
        if pilot.id in words:
            endings[pilot.id] = (str(words[pilot.id]), _when(words[pilot.id].ended))
        elif pilot.job_id is not None:
            unexplained[pilot.job_id] = pilot.id
    answer = queue.accounting(list(unexplained)) if unexplained else Snapshot()
    if isinstance(answer, Snapshot):
        for job_id, pilot_id in unexplained.items():
            job = answer.jobs.get(job_id)
            if job is not None and job.state.ended and not is_another(job.name, pilot_id):
                endings[pilot_id] = (ending_of(job), None if job.end is None else _when(job.end))
    return endings


def describe(store: Store, pilots: Sequence[PilotRecord]) -> list[dict[str, Any]]:
    """Return pilots as JSON documents, with what their heartbeats tell.

    Besides the fields of the record: ``node``, ``left_s`` of the allocation, ``alive`` (whether a heartbeat is younger
    than a minute; None for one that is not to beat: not started, or for a bundle), ``in_hand`` (calculations being
    computed), ``utilisation`` (engine over allocated seconds).
    """
    workers = {w["info"]["pilot"]: w for w in store.workers() if w["info"].get("pilot")}
    now = datetime.now(UTC)
    rows = []
    for pilot in pilots:
        worker = workers.get(pilot.id)
        info: Mapping[str, Any] = {} if worker is None else worker["info"]
        running = pilot.state is PilotState.RUNNING
        allocated_s = max(pilot.allocated_s, float(info.get("allocated_s") or 0.0))
        engine_s = max(pilot.engine_s, float(info.get("engine_s") or 0.0))
        ends = running and pilot.end_time is not None
        rows.append(
            {
                **asdict(pilot),
                "state": pilot.state.value,
                "node": info.get("host"),
                "left_s": (pilot.end_time - now).total_seconds() if ends and pilot.end_time else None,
                "alive": None
                if not running or pilot.bundle is not None
                else worker is not None and worker["age_s"] < _FRESH_S,
                "in_hand": len(info["in_hand"]) if running and "in_hand" in info else None,
                "allocated_s": allocated_s,
                "engine_s": engine_s,
                "utilisation": engine_s / allocated_s if allocated_s > 0 else None,
            }
        )
    return rows
