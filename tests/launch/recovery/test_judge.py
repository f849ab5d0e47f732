"""The judge: a table of cases, and no death without a proof for any evidence at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.errors import Cause
from htxas.launch.recovery.judge import (
    ABANDONED_S,
    FRESH_S,
    KILL_GRACE_S,
    LOOKS_APART_S,
    SETTLED_S,
    STUCK_S,
    TOLD_WITHIN_S,
    UNREGISTERED_S,
    WRITING_S,
    Answer,
    Evidence,
    Job,
    Life,
    Reason,
    judge,
)

DAY = 86_400.0
SILENT = Evidence(here=False, silent_s=400.0, database_up_s=DAY)
JOB = Job("17", answer=Answer.RUNNING, raw="running", restarts=0)


def local(**facts: Any) -> Evidence:
    return replace(SILENT, here=True, lock_free=False, **facts)


def pilot(job: dict[str, Any] | None = None, **facts: Any) -> Evidence:
    return replace(SILENT, job=replace(JOB, **(job or {})), **facts)


ABSENT = {"answer": Answer.ABSENT, "restarts": None}
CASES: dict[str, tuple[Evidence, Life, Reason, Cause | None]] = {
    # on this machine: the kernel knows
    "held": (local(silent_s=3.0), Life.ALIVE, Reason.BEATING, None),
    "frozen, but its lock is held": (local(silent_s=DAY), Life.ALIVE, Reason.LOCK_HELD, None),
    "killed a moment ago": (
        replace(SILENT, here=True, lock_free=True, silent_s=3.0),
        Life.DEAD,
        Reason.LOCK_FREE,
        Cause.LOST,
    ),
    "its pilot was killed at its end": (
        pilot({"answer": Answer.ENDED, "raw": "timeout (TIMEOUT)"}, here=True, lock_free=True),
        Life.DEAD,
        Reason.LOCK_FREE,
        Cause.WALLTIME,
    ),
    "lock and process gone": (
        replace(SILENT, here=True, pid_gone=True),
        Life.DEAD,
        Reason.PROCESS_GONE,
        Cause.LOST,
    ),
    "lock cannot be seen": (replace(SILENT, here=True), Life.UNKNOWN, Reason.OTHER_HOST, None),
    "rebooted": (
        replace(SILENT, boot_changed=True, lock_free=True),
        Life.DEAD,
        Reason.REBOOTED,
        Cause.NODE_FAILURE,
    ),
    "rebooted, or a machine of the same name": (
        replace(SILENT, boot_changed=True, lock_free=True, silent_s=FRESH_S - 1),
        Life.ALIVE,
        Reason.BEATING,
        None,
    ),
    # elsewhere, without a scheduler
    "silent on another machine": (SILENT, Life.UNKNOWN, Reason.OTHER_HOST, None),
    "silent for a day": (
        replace(SILENT, silent_s=DAY + 1, database_up_s=2 * DAY, lease_left_s=-1.0),
        Life.DEAD,
        Reason.ABANDONED,
        Cause.LOST,
    ),
    "silent for a day, but leases go on": (
        replace(SILENT, silent_s=DAY + 1, database_up_s=2 * DAY, lease_left_s=60.0),
        Life.UNKNOWN,
        Reason.OTHER_HOST,
        None,
    ),
    "cannot reach the database, writes results": (
        replace(SILENT, journal_age_s=5.0),
        Life.ALIVE,
        Reason.WRITING,
        None,
    ),
    # pilots
    "silent, scheduler says running": (pilot(), Life.UNKNOWN, Reason.UNREACHABLE, None),
    "squeue gave garbage": (pilot({"answer": Answer.UNKNOWN}), Life.UNKNOWN, Reason.SCHEDULER_SILENT, None),
    "nobody asked": (pilot({"answer": Answer.NOT_ASKED}), Life.UNKNOWN, Reason.NOT_ASKED, None),
    "absent once": (pilot(ABSENT), Life.UNKNOWN, Reason.ABSENT_ONCE, None),
    "absent twice": (
        pilot({**ABSENT, "absent_looks": 2, "absent_for_s": LOOKS_APART_S}),
        Life.DEAD,
        Reason.JOB_GONE,
        Cause.LOST,
    ),
    "absent twice, too close": (
        pilot({**ABSENT, "absent_looks": 2, "absent_for_s": 1.0}),
        Life.UNKNOWN,
        Reason.ABSENT_ONCE,
        None,
    ),
    "absent, but in the accounting": (
        pilot({**ABSENT, "accounting": "node_fail (NODE_FAIL)"}),
        Life.DEAD,
        Reason.JOB_ENDED,
        Cause.NODE_FAILURE,
    ),
    "absent, but its pilot wrote its end": (
        pilot({**ABSENT, "exit_file": "terminated: told to end"}),
        Life.DEAD,
        Reason.JOB_ENDED,
        None,
    ),
    "no answer, but the accounting knows": (
        pilot({"answer": Answer.UNKNOWN, "accounting": "timeout"}),
        Life.DEAD,
        Reason.JOB_ENDED,
        Cause.WALLTIME,
    ),
    "cancelled": (
        pilot({"answer": Answer.ENDED, "raw": "cancelled (CANCELLED by 1000)"}),
        Life.DEAD,
        Reason.JOB_ENDED,
        None,
    ),
    "job ended, heart beats": (
        pilot({"answer": Answer.ENDED, "raw": "failed"}, silent_s=20.0),
        Life.ALIVE,
        Reason.BEATING,
        None,
    ),
    "job ended, process still there": (
        pilot({"answer": Answer.ENDED, "raw": "failed"}, here=True, lock_free=False, silent_s=STUCK_S - 1),
        Life.UNKNOWN,
        Reason.STILL_THERE,
        None,
    ),
    "job ended, process frozen": (
        pilot({"answer": Answer.ENDED, "raw": "preempted"}, here=True, lock_free=False, silent_s=STUCK_S),
        Life.DEAD,
        Reason.JOB_ENDED,
        Cause.NODE_FAILURE,
    ),
    "an answer older than its last heartbeat": (
        pilot({"answer": Answer.ENDED, "raw": "failed", "answer_age_s": 401.0}),
        Life.UNKNOWN,
        Reason.SCHEDULER_SILENT,
        None,
    ),
    "requeued and running again": (pilot({"restarts": 1}), Life.DEAD, Reason.REQUEUED, Cause.NODE_FAILURE),
    "requeued, the older start is frozen on this machine": (
        pilot({"restarts": 1}, here=True, lock_free=False, silent_s=60.0),
        Life.DEAD,
        Reason.REQUEUED,
        Cause.NODE_FAILURE,
    ),
    "requeued, waits": (pilot({"answer": Answer.QUEUED}), Life.DEAD, Reason.REQUEUED, Cause.NODE_FAILURE),
    "requeued, its successor beats, the scheduler does not answer": (
        pilot({"answer": Answer.UNKNOWN, "successor": True}),
        Life.DEAD,
        Reason.REQUEUED,
        Cause.NODE_FAILURE,
    ),
    "the second start of a requeued job": (
        pilot({"restart": 1, "restarts": 1}),
        Life.UNKNOWN,
        Reason.UNREACHABLE,
        None,
    ),
    "requeued, but it still beats": (
        pilot({"restarts": 1}, silent_s=10.0),
        Life.ALIVE,
        Reason.BEATING,
        None,
    ),
    "its record says that it ended": (
        pilot({"answer": Answer.NOT_ASKED, "record_ended": "PREEMPTED"}),
        Life.DEAD,
        Reason.JOB_ENDED,
        Cause.NODE_FAILURE,
    ),
    "allocation over, no answer": (
        pilot({"answer": Answer.UNKNOWN}, end_passed_s=KILL_GRACE_S + 1),
        Life.DEAD,
        Reason.ALLOCATION_OVER,
        Cause.WALLTIME,
    ),
    "allocation just over": (
        pilot({"answer": Answer.UNKNOWN}, end_passed_s=KILL_GRACE_S - 1),
        Life.UNKNOWN,
        Reason.SCHEDULER_SILENT,
        None,
    ),
    "time extended by an administrator": (
        pilot(end_passed_s=DAY),
        Life.UNKNOWN,
        Reason.UNREACHABLE,
        None,
    ),
    "called running for days, silent, its time long over": (
        pilot(end_passed_s=ABANDONED_S + 1, silent_s=9 * DAY, database_up_s=9 * DAY, lease_left_s=-1.0),
        Life.DEAD,
        Reason.ALLOCATION_OVER,
        Cause.NODE_FAILURE,
    ),
    # the database was away
    "database back for a minute": (
        pilot({"answer": Answer.UNKNOWN}, end_passed_s=DAY, database_up_s=60.0),
        Life.UNKNOWN,
        Reason.DATABASE_WAS_AWAY,
        None,
    ),
    "database was away, job has ended": (
        pilot({"answer": Answer.ENDED, "raw": "timeout"}, database_up_s=5.0),
        Life.DEAD,
        Reason.JOB_ENDED,
        Cause.WALLTIME,
    ),
    "database was away, killed here": (
        replace(SILENT, here=True, lock_free=True, database_up_s=1.0),
        Life.DEAD,
        Reason.LOCK_FREE,
        Cause.LOST,
    ),
    # bundles never beat
    "bundle": (replace(SILENT, bundle=True, silent_s=10 * DAY), Life.ALIVE, Reason.IN_BUNDLE, None),
    "bundle, its job has ended": (
        pilot({"answer": Answer.ENDED, "raw": "failed"}, bundle=True, end_passed_s=DAY),
        Life.UNKNOWN,
        Reason.IN_BUNDLE,
        None,
    ),
    "bundle collected": (
        replace(SILENT, bundle=True, bundle_closed=True),
        Life.DEAD,
        Reason.BUNDLE_CLOSED,
        None,
    ),
    # without a heartbeat
    "leases without a heartbeat, young": (
        replace(SILENT, registered=False),
        Life.UNKNOWN,
        Reason.STILL_THERE,
        None,
    ),
    "leases without a heartbeat": (
        replace(SILENT, registered=False, silent_s=UNREGISTERED_S),
        Life.DEAD,
        Reason.UNREGISTERED,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    evidence, life, reason, cause = CASES[name]
    verdict = judge(evidence)
    assert (verdict.life, verdict.reason, verdict.cause) == (life, reason, cause), verdict.why
    assert verdict.why


@pytest.mark.parametrize(
    ("job", "cause", "waits"),
    [
        ({}, Cause.LOST, False),  # its job runs, its process does not: killed by somebody else
        ({"ending": True}, Cause.LOST, True),
        ({"answer": Answer.NOT_ASKED}, Cause.LOST, True),
        ({"answer": Answer.UNKNOWN}, Cause.LOST, True),
        (ABSENT, Cause.LOST, True),
        ({"answer": Answer.ENDED, "raw": "timeout"}, Cause.WALLTIME, False),
        ({"answer": Answer.ENDED, "raw": "cancelled"}, None, False),
        ({"answer": Answer.QUEUED}, Cause.NODE_FAILURE, False),
        ({**ABSENT, "accounting": "node_fail"}, Cause.NODE_FAILURE, False),
        ({"answer": Answer.NOT_ASKED, "record_ended": "PREEMPTED"}, Cause.NODE_FAILURE, False),
        ({"answer": Answer.UNKNOWN, "successor": True}, Cause.NODE_FAILURE, False),
    ],
)
def test_a_process_that_is_gone_is_charged_once_the_end_of_its_job_is_told(
    job: dict[str, Any], cause: Cause | None, waits: bool
) -> None:
    just_now = pilot(job, here=True, lock_free=True, silent_s=3.0)
    verdict = judge(just_now)
    assert (verdict.life, verdict.reason, verdict.cause) == (Life.DEAD, Reason.LOCK_FREE, cause)
    assert (verdict.wait_s > 0) is waits
    assert judge(replace(just_now, silent_s=TOLD_WITHIN_S)).wait_s == 0


def test_a_process_that_is_gone_at_the_end_of_its_allocation_ran_out_of_time() -> None:
    verdict = judge(pilot({"answer": Answer.UNKNOWN}, here=True, lock_free=True, end_passed_s=-2.0))
    assert verdict.cause is Cause.WALLTIME


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("timeout (TIMEOUT)", Cause.WALLTIME),
        ("failed (DEADLINE)", Cause.WALLTIME),
        ("node_fail (NODE_FAIL)", Cause.NODE_FAILURE),
        ("node_fail (BOOT_FAIL)", Cause.NODE_FAILURE),
        ("preempted (PREEMPTED)", Cause.NODE_FAILURE),
        ("cancelled (CANCELLED by 0)", None),
        ("idle: no work came", None),
        ("out_of_memory (OUT_OF_MEMORY)", Cause.LOST),
        ("failed (FAILED)", Cause.LOST),
        ("done (COMPLETED)", Cause.LOST),
    ],
)
def test_what_an_end_means_for_what_was_in_hand(said: str, cause: Cause | None) -> None:
    assert judge(pilot({"answer": Answer.ENDED, "raw": said})).cause is cause


seconds = st.sampled_from(
    [
        0.0,
        10.0,
        FRESH_S,
        WRITING_S,
        SETTLED_S,
        200.0,
        KILL_GRACE_S + 1,
        STUCK_S,
        DAY,
        ABANDONED_S + 1,
        9 * DAY,
    ]
)
jobs = st.builds(
    Job,
    id=st.just("17"),
    restart=st.integers(0, 2),
    answer=st.sampled_from(Answer),
    restarts=st.none() | st.integers(0, 3),
    raw=st.sampled_from(["running", "timeout", "pending"]),
    absent_looks=st.integers(0, 3),
    absent_for_s=seconds,
    answer_age_s=seconds,
    accounting=st.none() | st.just("failed"),
    exit_file=st.none() | st.just("idle: "),
    record_ended=st.none() | st.just("TIMEOUT"),
    successor=st.booleans(),
)
everything = st.builds(
    Evidence,
    here=st.booleans(),
    silent_s=seconds,
    database_up_s=seconds,
    lock_free=st.none() | st.booleans(),
    pid_gone=st.booleans(),
    boot_changed=st.booleans(),
    lease_left_s=st.none() | st.sampled_from([-1.0, 100.0]),
    journal_age_s=st.none() | seconds,
    end_passed_s=st.none() | seconds | seconds.map(lambda s: -s),
    job=st.none() | jobs,
    bundle=st.booleans(),
    bundle_closed=st.booleans(),
    registered=st.booleans(),
)


def proven(e: Evidence) -> bool:
    """Whether there is any positive proof of death, said in another way than the judge says it."""
    if e.bundle:
        return e.bundle_closed
    kernel = (
        (e.here and e.lock_free is True)
        or (e.boot_changed and e.lock_free is True)
        or (e.here and e.lock_free is None and e.pid_gone)
    )
    job = e.job
    told = job is not None and (
        job.record_ended is not None
        or job.successor
        or job.accounting is not None
        or job.exit_file is not None
        or job.answer in (Answer.ENDED, Answer.QUEUED)
        or (job.restarts or 0) > job.restart
        or (job.answer is Answer.ABSENT and job.absent_looks >= 2 and job.absent_for_s >= 60.0)
    )
    over = e.end_passed_s is not None and e.end_passed_s > 0 and e.silent_s > FRESH_S
    abandoned = job is None and e.silent_s > DAY and e.database_up_s > DAY
    off_the_list = not e.registered and e.silent_s >= UNREGISTERED_S
    return bool(kernel or told or over or abandoned or off_the_list)


@given(everything)
def test_no_death_without_a_proof(evidence: Evidence) -> None:
    verdict = judge(evidence)
    if verdict.life is Life.DEAD:
        assert proven(evidence), verdict
    else:
        assert verdict.cause is None


@given(everything)
def test_a_heart_that_beats_is_never_dead_unless_the_kernel_says_so(evidence: Evidence) -> None:
    verdict = judge(replace(evidence, silent_s=5.0, bundle=False, registered=True))
    if verdict.life is Life.DEAD:
        assert verdict.reason is Reason.LOCK_FREE


@given(everything)
def test_one_answer_that_is_none_never_kills(evidence: Evidence) -> None:
    """Whatever the scheduler fails to say, only what others prove counts."""
    silent = Job("17", answer=Answer.UNKNOWN)
    alone = replace(
        evidence, job=silent, end_passed_s=None, lock_free=None, pid_gone=False, bundle=False, registered=True
    )
    assert judge(alone).life is not Life.DEAD


@given(everything)
def test_silence_after_a_restart_of_the_database_counts_from_its_return(evidence: Evidence) -> None:
    back = replace(evidence, database_up_s=30.0, bundle=False, registered=True)
    verdict = judge(back)
    if verdict.life is Life.DEAD:
        assert verdict.reason in (Reason.LOCK_FREE, Reason.REQUEUED, Reason.JOB_ENDED, Reason.JOB_GONE)
