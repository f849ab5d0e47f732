"""Is the owner of a lease alive, dead, or is it not known? A pure function of the evidence.

Tools that take a silent heartbeat or an empty answer of ``squeue`` for death lose finished work and compute twice.
Here death needs a positive proof, and each proof has a name (:class:`Reason`):

======================  =====================================================================================
``lock_free``           the kernel of this machine let go of the owner's lock
``process_gone``        this machine has no such process, no lock tells of it, and it is silent
``rebooted``            this machine has started anew since
``bundle_closed``       the bundle's results were collected to the end
``requeued``            the scheduler started the owner's job again, or put it back into the queue
``job_ended``           the scheduler, its accounting, or the pilot's own exit file says that the job ended
``job_gone``            the scheduler answered well, twice, a minute apart, without knowing the job
``allocation_over``     silent until well after the last second its allocation can have had; for a day, if the scheduler
                        still calls it running
``abandoned``           no scheduler knows of it, its leases ran out, and it has been silent for a day
``unregistered``        it holds leases, but took its name off the list of owners long ago
======================  =====================================================================================

A proof that is about the job rather than the process does not count while the owner shows signs of life: leases are
fenced, so nobody comes to harm by waiting, and a heart that beats is still at work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from htxas.errors import Cause

__all__ = [
    "ABANDONED_S",
    "FRESH_S",
    "Answer",
    "Evidence",
    "Job",
    "Life",
    "Reason",
    "Verdict",
    "cause_of",
    "judge",
]

FRESH_S = 35.0
"""A heartbeat younger than this is one: they come every ten seconds, and one may be late."""

SETTLED_S = 90.0
"""Silence counts only after the database was up for so long: owners need time to notice that it is back."""

WRITING_S = 60.0
"""A journal written within so many seconds is a sign of life of an owner that cannot reach the database."""

LOOKS = 2
LOOKS_APART_S = 60.0
KILL_GRACE_S = 300.0
"""What schedulers give a job between the end of its time and SIGKILL, with room for clocks that differ."""

ABANDONED_S = 86_400.0
STUCK_S = 180.0
"""A process that its own scheduler ended so long ago, and that still holds its lock in silence, is frozen."""

TOLD_WITHIN_S = 120.0
"""How long after a process has gone the scheduler is waited for to say how its job ended."""

UNREGISTERED_S = 600.0
"""Leases as old as this belong to nobody if their owner is not on the list."""


class Life(StrEnum):
    """What the evidence allows to say."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why: signs of life, proofs of death, and neither."""

    LOCK_HELD = "lock_held"
    BEATING = "beating"
    WRITING = "writing"
    IN_BUNDLE = "in_bundle"

    LOCK_FREE = "lock_free"
    PROCESS_GONE = "process_gone"
    REBOOTED = "rebooted"
    BUNDLE_CLOSED = "bundle_closed"
    REQUEUED = "requeued"
    JOB_ENDED = "job_ended"
    JOB_GONE = "job_gone"
    ALLOCATION_OVER = "allocation_over"
    ABANDONED = "abandoned"
    UNREGISTERED = "unregistered"

    DATABASE_WAS_AWAY = "database_was_away"
    UNREACHABLE = "unreachable"
    SCHEDULER_SILENT = "scheduler_silent"
    NOT_ASKED = "not_asked"
    ABSENT_ONCE = "absent_once"
    OTHER_HOST = "other_host"
    STILL_THERE = "still_there"


class Answer(StrEnum):
    """What a scheduler said of a job; each member says how it differs from its neighbour."""

    NOT_ASKED = "not_asked"  # there is a scheduler, but nobody asked it
    UNKNOWN = "unknown"  # asked; the answer was empty, garbled, late, or an error
    ABSENT = "absent"  # a good answer in which the job does not occur
    QUEUED = "queued"  # waits for its start
    RUNNING = "running"  # has nodes, suspended and completing ones included
    ENDED = "ended"  # over for good


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of the owner's queue job.

    Attributes
    ----------
    id
        As the scheduler names it.
    restart
        How often the job had been started before when the owner began.
    answer
        What the scheduler says now.
    restarts
        How often it says that it started the job again; None if it does not tell.
    raw
        The scheduler's own word for the state.
    absent_looks, absent_for_s
        Good answers in a row without the job, and seconds between the first and the last of them.
    answer_age_s
        How old the answer is.
    accounting
        The final state in the scheduler's accounting; None if it has none or was not asked.
    exit_file
        What the pilot wrote when it ended, in a few words; None if there is none.
    record_ended
        Why the pilot's record says that it ended: written by somebody who had proof. None if it does not.
    ending
        Whether the scheduler says that it is being brought to its end, and not yet how.
    successor
        Whether a later start of the same job has shown a sign of life.
    """

    id: str
    restart: int = 0
    answer: Answer = Answer.NOT_ASKED
    restarts: int | None = None
    raw: str = ""
    absent_looks: int = 0
    absent_for_s: float = 0.0
    answer_age_s: float = 0.0
    accounting: str | None = None
    exit_file: str | None = None
    record_ended: str | None = None
    ending: bool = False
    successor: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about an owner. Absent facts are None: never a guess.

    Attributes
    ----------
    here
        Whether the owner's machine is this one.
    lock_free
        Whether its lock could be taken; None if it cannot be seen from here.
    pid_gone
        Whether this machine has no process of its number.
    boot_changed
        Whether this machine has another boot id than the one the owner saw.
    silent_s
        Age of its last heartbeat, by the server's clock.
    database_up_s
        How long the database has been up.
    lease_left_s
        Seconds until its last lease ends, negative if that was in the past; None if it holds none.
    journal_age_s
        Seconds since it last wrote into its journal; None if that cannot be seen from here.
    end_passed_s
        Seconds since the end of its allocation, negative before; None if it had no end.
    job
        Its queue job; None outside a queue.
    bundle
        Whether it is the owner of a bundle for nodes without a database: such a one never beats.
    bundle_closed
        Whether the last results of the bundle were collected.
    registered
        Whether it has a heartbeat at all; without, ``silent_s`` is the age of its youngest lease.
    """

    here: bool
    silent_s: float
    database_up_s: float
    lock_free: bool | None = None
    pid_gone: bool = False
    boot_changed: bool = False
    lease_left_s: float | None = None
    journal_age_s: float | None = None
    end_passed_s: float | None = None
    job: Job | None = None
    bundle: bool = False
    bundle_closed: bool = False
    registered: bool = True

    @property
    def quiet_s(self) -> float:
        """Silence that counts: the database must have been there to hear it."""
        return min(self.silent_s, self.database_up_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to think of an owner.

    Attributes
    ----------
    life
        Alive, dead, or unknown.
    reason
        The rule that decided.
    why
        For people, one line.
    cause
        What happened to the calculations it had in hand, if it is dead. None if they are not to blame in any way: the
        job was cancelled.
    wait_s
        How long to wait before acting on it: it is dead for sure, but how its job ended is not told yet, and that
        decides what its calculations are charged with.
    """

    life: Life
    reason: Reason
    why: str
    cause: Cause | None = None
    wait_s: float = 0.0


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict that the evidence allows."""
    e = evidence
    if e.bundle:
        return _bundle(e)
    if e.here and e.lock_free:
        why = "its process is gone: the kernel let go of its lock"
        return replace(_dead(Reason.LOCK_FREE, why, _job_cause(e)), wait_s=_untold_s(e))
    if e.boot_changed and e.lock_free and e.quiet_s >= SETTLED_S:
        return _dead(Reason.REBOOTED, "its machine has started anew since", Cause.NODE_FAILURE)
    if e.here and e.lock_free is None and e.pid_gone and e.quiet_s >= SETTLED_S:
        why = "this machine has no such process, and no lock tells of it"
        return replace(_dead(Reason.PROCESS_GONE, why, _job_cause(e)), wait_s=_untold_s(e))
    if not e.registered:
        return _unregistered(e)
    alive = _signs_of_life(e)
    proof = _about_the_job(e)
    if proof is not None and not (alive and alive.reason is not Reason.LOCK_HELD):
        # Of two starts of one job the scheduler has given up the older; whatever still holds its lock is frozen.
        if alive is None or proof.reason is Reason.REQUEUED or e.quiet_s >= STUCK_S:
            return proof
        return _unknown(Reason.STILL_THERE, f"{proof.why}, but its process still holds its lock here")
    if alive is not None:
        return alive
    if e.database_up_s < SETTLED_S:
        return _unknown(Reason.DATABASE_WAS_AWAY, f"the database is back for only {e.database_up_s:.0f} s")
    return _by_silence(e)


def _dead(reason: Reason, why: str, cause: Cause | None) -> Verdict:
    return Verdict(Life.DEAD, reason, why, cause)


def _unknown(reason: Reason, why: str) -> Verdict:
    return Verdict(Life.UNKNOWN, reason, why)


def _signs_of_life(e: Evidence) -> Verdict | None:
    if e.silent_s < FRESH_S:
        return Verdict(Life.ALIVE, Reason.BEATING, f"its last heartbeat is {e.silent_s:.0f} s old")
    if e.journal_age_s is not None and abs(e.journal_age_s) < WRITING_S:
        why = f"it wrote a result {e.journal_age_s:.0f} s ago, though it has not reached the database since"
        return Verdict(Life.ALIVE, Reason.WRITING, why)
    if e.here and e.lock_free is False:
        return Verdict(Life.ALIVE, Reason.LOCK_HELD, "its process holds its lock on this machine")
    return None


def _about_the_job(e: Evidence) -> Verdict | None:
    """Return what is proven by the fate of the job."""
    job = e.job
    if job is None:
        return None
    # An answer from before the last sign of life tells of another time.
    answer = job.answer if job.answer_age_s <= e.silent_s else Answer.UNKNOWN
    restarted = job.restarts is not None and job.restarts > job.restart
    if job.successor or (restarted and answer in (Answer.QUEUED, Answer.RUNNING, Answer.ENDED)):
        return _dead(Reason.REQUEUED, f"job {job.id} was started again by the scheduler", Cause.NODE_FAILURE)
    if answer is Answer.QUEUED:
        why = f"job {job.id} is back in the queue ({job.raw})"
        return _dead(Reason.REQUEUED, why, Cause.NODE_FAILURE)
    if job.record_ended is not None:
        return _dead(Reason.JOB_ENDED, f"job {job.id}: {job.record_ended}", cause_of(job.record_ended))
    if answer is Answer.ENDED:
        return _dead(Reason.JOB_ENDED, f"the scheduler says of job {job.id}: {job.raw}", cause_of(job.raw))
    if answer is Answer.RUNNING:
        return None
    # Unknown, absent, not asked: what others say of the end.
    if job.exit_file is not None:
        return _dead(
            Reason.JOB_ENDED, f"its pilot wrote when it ended: {job.exit_file}", cause_of(job.exit_file)
        )
    if job.accounting is not None:
        why = f"the accounting says of job {job.id}: {job.accounting}"
        return _dead(Reason.JOB_ENDED, why, cause_of(job.accounting))
    if answer is Answer.ABSENT and job.absent_looks >= LOOKS and job.absent_for_s >= LOOKS_APART_S:
        why = f"the scheduler has not known job {job.id} for {job.absent_for_s:.0f} s"
        return _dead(Reason.JOB_GONE, why, _over(e) or Cause.LOST)
    return None


def _by_silence(e: Evidence) -> Verdict:
    """Judge one that shows no sign of life and of whose job nothing is proven."""
    job = e.job
    if job is not None and job.answer is Answer.RUNNING:
        over = e.end_passed_s is not None and e.end_passed_s > ABANDONED_S
        if over and e.quiet_s > ABANDONED_S and (e.lease_left_s is None or e.lease_left_s < 0):
            # Jobs that cannot be ended (a dead host, a hung file system) stay on the books for ever.
            hours = f"silent for {e.quiet_s / 3600:.0f} h, and its time was over a day ago"
            why = f"{hours}, whatever the scheduler calls job {job.id}"
            return _dead(Reason.ALLOCATION_OVER, why, Cause.NODE_FAILURE)
        why = f"silent for {e.silent_s:.0f} s, but the scheduler says of job {job.id}: {job.raw or 'running'}"
        return _unknown(Reason.UNREACHABLE, why)
    if e.end_passed_s is not None and e.end_passed_s > KILL_GRACE_S and e.quiet_s >= SETTLED_S:
        why = (
            f"its allocation ended {e.end_passed_s:.0f} s ago, and it has been silent for {e.silent_s:.0f} s"
        )
        return _dead(Reason.ALLOCATION_OVER, why, Cause.WALLTIME)
    if job is not None:
        return _waiting_for_scheduler(e, job)
    if e.quiet_s > ABANDONED_S and (e.lease_left_s is None or e.lease_left_s < 0):
        return _dead(Reason.ABANDONED, f"silent for {e.quiet_s / 3600:.0f} h; its leases ran out", Cause.LOST)
    why = f"silent for {e.silent_s:.0f} s on another machine: ask there, htxas reconcile"
    return _unknown(Reason.OTHER_HOST, why)


def _waiting_for_scheduler(e: Evidence, job: Job) -> Verdict:
    if job.answer is Answer.ABSENT:
        why = f"the scheduler does not list job {job.id}; a second look, a minute after the first, decides"
        return _unknown(Reason.ABSENT_ONCE, why)
    if job.answer is Answer.NOT_ASKED:
        why = f"silent for {e.silent_s:.0f} s; nobody asked the scheduler about job {job.id}: htxas reconcile"
        return _unknown(Reason.NOT_ASKED, why)
    return _unknown(Reason.SCHEDULER_SILENT, f"the scheduler gives no answer about job {job.id}: {job.raw}")


def _bundle(e: Evidence) -> Verdict:
    """Judge the owner of a bundle: its job is only one of several that may run it, so only collecting ends it."""
    if e.bundle_closed:
        return _dead(Reason.BUNDLE_CLOSED, "the bundle is collected to the end", None)
    if e.end_passed_s is not None and e.end_passed_s > 0:
        why = f"the bundle's time ended {e.end_passed_s:.0f} s ago: htxas collect; if its folder is gone, --forget it"
        return _unknown(Reason.IN_BUNDLE, why)
    return Verdict(Life.ALIVE, Reason.IN_BUNDLE, "its calculations are in a bundle")


def _unregistered(e: Evidence) -> Verdict:
    """Judge one without a heartbeat: owners register before they lease, and leave only at their end."""
    if e.lock_free is False or e.quiet_s < UNREGISTERED_S:
        return _unknown(Reason.STILL_THERE, f"it took leases {e.silent_s:.0f} s ago, but has no heartbeat")
    why = f"its leases are {e.silent_s:.0f} s old, and it is not on the list of owners any more"
    return _dead(Reason.UNREGISTERED, why, None)


def _over(e: Evidence) -> Cause | None:
    return Cause.WALLTIME if e.end_passed_s is not None and e.end_passed_s > -FRESH_S else None


def _job_cause(e: Evidence) -> Cause | None:
    """Return why a process is gone: as its job tells, or without a word."""
    job = e.job
    if job is None:
        return Cause.LOST
    if job.successor or (job.restarts is not None and job.restarts > job.restart):
        return Cause.NODE_FAILURE
    for said in (job.record_ended, job.accounting, job.exit_file):
        if said is not None:
            return cause_of(said)
    if job.answer is Answer.QUEUED:
        return Cause.NODE_FAILURE
    return cause_of(job.raw) if job.answer is Answer.ENDED else _over(e) or Cause.LOST


def _untold_s(e: Evidence) -> float:
    """Return how long the end of the owner's job may still be told."""
    job = e.job
    if job is None or job.successor:
        return 0.0
    told = job.answer in (Answer.ENDED, Answer.QUEUED) or (job.answer is Answer.RUNNING and not job.ending)
    if told or any(said is not None for said in (job.record_ended, job.accounting, job.exit_file)):
        return 0.0
    return max(0.0, TOLD_WITHIN_S - e.quiet_s)


def cause_of(said: str) -> Cause | None:
    """Return what a scheduler's word for an end means for the calculations in hand.

    A cancelled job is nobody's failure. Memory of the whole job is used up by several calculations at once, so none of
    them is told to have run out of it.
    """
    word = said.upper().replace(" ", "_")
    if any(w in word for w in ("TIMEOUT", "DEADLINE", "WALLTIME", "RUNLIMIT")):
        return Cause.WALLTIME
    if any(w in word for w in ("NODE_FAIL", "BOOT_FAIL", "PREEMPT", "REQUEUE", "NODE_FAILURE")):
        return Cause.NODE_FAILURE
    if any(w in word for w in ("CANCEL", "DELETED", "REVOKED", "TERMINATED", "UNFIT:", "IDLE:")):
        return None
    return Cause.LOST
