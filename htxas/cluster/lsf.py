"""IBM Spectrum LSF 10.1 or newer: commands and answers. Written to its documentation, never run.

``bjobs -json`` says how many records it is going to give (``JOBS``), so a cut answer is told from a short one. It
remembers ended jobs for the site's ``CLEAN_PERIOD``, one hour if nobody changed it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from htxas.cluster.host import Completed, one_line
from htxas.cluster.jobs import (
    Cancelled,
    JobInfo,
    JobState,
    NodeInfo,
    Refused,
    Snapshot,
    Submission,
    Submitted,
    Unclear,
    Unknown,
)

__all__ = ["Lsf"]

_ENVIRONMENT = ["env", "LC_ALL=C", "TZ=UTC", "LSB_DISPLAY_YEAR=Y"]
_FIELDS = "jobid jobindex stat exit_code exit_reason pend_reason submit_time start_time finish_time exec_host job_name"
_SUBMITTED = re.compile(r"Job <(\d+)> is submitted to (?:default )?queue", re.MULTILINE)
_SAYS_NO = re.compile(r"Job not submitted|Request aborted", re.IGNORECASE)
_CONNECTION = re.compile(
    r"connect|timed? ?out|LIM is down|batch daemon|not responding|communicat", re.IGNORECASE
)
_JOB_ID = re.compile(r"(\d+)(?:\[(\d+)\])?")

_STATES = {
    "PEND": JobState.PENDING,
    "WAIT": JobState.PENDING,  # a member of a chunk that waits for its turn
    "PROV": JobState.PENDING,  # its host is being switched on
    "PSUSP": JobState.HELD,
    "RUN": JobState.RUNNING,
    "USUSP": JobState.SUSPENDED,
    "SSUSP": JobState.SUSPENDED,
    "DONE": JobState.DONE,
    "EXIT": JobState.FAILED,
    # UNKWN (the host does not answer) and ZOMBI (ended by a command while its host did not answer) stay UNKNOWN:
    # processes of such a job may well be alive.
}
_TERMINATED = {
    "TERM_RUNLIMIT": JobState.TIMEOUT,
    "TERM_DEADLINE": JobState.TIMEOUT,
    "TERM_WINDOW": JobState.TIMEOUT,
    "TERM_MEMLIMIT": JobState.OUT_OF_MEMORY,
    "TERM_SWAP": JobState.OUT_OF_MEMORY,
    "TERM_PREEMPT": JobState.PREEMPTED,
    "TERM_OWNER": JobState.CANCELLED,
    "TERM_ADMIN": JobState.CANCELLED,
    "TERM_FORCE_OWNER": JobState.CANCELLED,
    "TERM_FORCE_ADMIN": JobState.CANCELLED,
    "TERM_BUCKET_KILL": JobState.CANCELLED,
    "TERM_ZOMBIE": JobState.NODE_FAIL,
    "TERM_REQUEUE_OWNER": JobState.REQUEUED,
    "TERM_REQUEUE_ADMIN": JobState.REQUEUED,
}
_KILLED = 128


class Lsf:
    """LSF."""

    programs: tuple[str, ...] = ("bsub", "bjobs", "bkill", "bhosts")
    batch = 200
    asks_all = True
    script_on_stdin = True  # bsub reads #BSUB lines from there, and takes a file name for a command

    def build_submit(self, script: str, *, name: str, array: int) -> list[str]:
        """Return the bsub command."""
        return ["env", "LC_ALL=C", "bsub", "-J", f"{name}[1-{array}]" if array > 1 else name]

    def parse_submit(self, answer: Completed, *, array: int) -> Submission:
        """Return the ids, a refusal, or that it is unclear."""
        found = _SUBMITTED.search(answer.stdout)
        if found and answer.ok:
            job = found.group(1)
            return Submitted(tuple(f"{job}[{i}]" for i in range(1, array + 1)) if array > 1 else (job,))
        # Over ssh, bsub's own 255 looks like ssh's; its words tell.
        said = answer.stderr + answer.stdout
        if answer.returncode and not found and _SAYS_NO.search(said) and not _CONNECTION.search(said):
            return Refused(one_line(said))
        return Unclear(answer.complaint())

    def build_trial(self, script: str) -> list[str] | None:
        """Return None: there is no such command."""
        return None

    def build_query(self, ids: Sequence[str] | None, *, user: str) -> list[list[str]]:
        """Return the bjobs command; always all jobs of the user."""
        return [[*_ENVIRONMENT, "bjobs", "-a", "-u", user, "-json", "-o", _FIELDS]]

    def parse_query(self, answer: Completed, ids: Sequence[str] | None, *, user: str) -> Snapshot | Unknown:
        """Return the jobs; the status is no help, as bjobs ends with 255 where there are none."""
        if answer.returncode is None:
            return Unknown(answer.complaint())
        try:
            document = json.loads(answer.stdout)
        except ValueError:
            return Unknown(answer.complaint() if answer.returncode else _something_else(answer))
        records = document.get("RECORDS") if isinstance(document, dict) else None
        if not isinstance(records, list) or str(document.get("JOBS")) != str(len(records)):
            return Unknown(_something_else(answer))
        jobs: dict[str, JobInfo] = {}
        for record in records:
            if isinstance(record, dict) and set(record) == {"ERROR"}:
                continue
            job = _job(record)
            if job is None:
                return Unknown(_something_else(answer))
            jobs[job.id] = job
        return Snapshot(jobs, frozenset(ids or ()) - frozenset(jobs))

    def build_accounting(self, ids: Sequence[str]) -> list[list[str]]:
        """Return nothing: bjobs tells about ended jobs as long as the site keeps them."""
        return []

    def parse_accounting(self, answer: Completed, ids: Sequence[str]) -> Snapshot | Unknown:
        """Return Unknown."""
        return Unknown("bjobs told all that is kept")

    def build_cancel(self, ids: Sequence[str]) -> list[str]:
        """Return the bkill command."""
        return ["env", "LC_ALL=C", "bkill", *ids]

    def parse_cancel(self, answer: Completed, ids: Sequence[str]) -> Mapping[str, Cancelled]:
        """Return what became of each request."""
        lines = (answer.stdout + answer.stderr).splitlines()

        def outcome(job: str) -> Cancelled:
            mine = " ".join(x for x in lines if f"Job <{job}>" in x)
            if "is being terminated" in mine or "is being signaled" in mine:
                return Cancelled.ASKED
            gone = "already finished" in mine or "No matching job" in mine
            return Cancelled.ENDED_BEFORE if gone else Cancelled.FAILED

        return {job: outcome(job) for job in ids}

    def build_nodes(self) -> list[str] | None:
        """Return the bhosts command."""
        return ["env", "LC_ALL=C", "bhosts", "-w"]

    def parse_nodes(self, answer: Completed) -> Mapping[str, NodeInfo] | Unknown:
        """Return hosts by name."""
        if not answer.ok:
            return Unknown(answer.complaint())
        rows = [line.split() for line in answer.stdout.splitlines() if line.strip()]
        if not rows or rows[0][:2] != ["HOST_NAME", "STATUS"] or any(len(r) != len(rows[0]) for r in rows):
            return Unknown(_something_else(answer))
        return {
            row[0]: NodeInfo(row[0], row[1], not row[1].startswith(("unavail", "unreach")))
            for row in rows[1:]
        }


def _something_else(answer: Completed) -> str:
    said = one_line(answer.stdout, 80) or one_line(answer.stderr, 80) or "nothing at all"
    return f"{answer.program} answered something else: {said}"


def _job(record: Any) -> JobInfo | None:
    if not isinstance(record, dict) or not isinstance(record.get("STAT"), str):
        return None
    told = {key: str(value) for key, value in record.items()}
    found = _JOB_ID.fullmatch(told.get("JOBID", ""))
    if found is None:
        return None
    index = found.group(2) or told.get("JOBINDEX", "0")
    word = told["STAT"].split("+")[0].strip()  # DONE+PDONE: its post-processing is done, too
    reason = told.get("EXIT_REASON", "").strip(" -")
    state = _STATES.get(word, JobState.UNKNOWN)
    if word == "EXIT":
        state = _TERMINATED.get(reason.split(":")[0].strip(), JobState.FAILED)
    code = int(told["EXIT_CODE"]) if told.get("EXIT_CODE", "").isdigit() else None
    signalled = code is not None and code > _KILLED
    name = told.get("JOB_NAME", "")
    return JobInfo(
        id=f"{found.group(1)}[{index}]" if index not in ("", "0") else found.group(1),
        state=state,
        raw=told["STAT"],
        name=name.split("[")[0],
        nodes=told.get("EXEC_HOST", "").strip("-"),
        submitted=_unix(told.get("SUBMIT_TIME", "")),
        start=_unix(told.get("START_TIME", "")),
        end=_unix(told.get("FINISH_TIME", "")),
        reason=reason or told.get("PEND_REASON", ""),
        exit_code=0 if state is JobState.DONE else (None if signalled else code),
        exit_signal=code - _KILLED if signalled and code is not None else None,
    )


def _unix(text: str) -> float | None:
    """Return Unix seconds of ``Nov 20 18:09:57 2026 L``; None without a year, which older versions leave out."""
    words = text.split()[:4]
    for form in ("%b %d %H:%M:%S %Y", "%b %d %H:%M %Y"):
        try:
            return datetime.strptime(" ".join(words), form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None
