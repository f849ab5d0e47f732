"""Slurm, 20.02 or newer: commands and answers.

All jobs of the user are asked for, not single ids: ``squeue -j`` of one id the controller has forgotten fails as a
whole, while a query by user answers with a header whatever it knows. ``-t all`` adds jobs that ended within the
controller's ``MinJobAge`` with how they ended; later only ``sacct`` knows, if the site keeps accounts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
from htxas.cluster.script import JOB_PREFIX

__all__ = ["Slurm"]

_ENVIRONMENT = [
    "env",
    "LC_ALL=C",
    "SLURM_TIME_FORMAT=%s",
]  # times as Unix seconds, whatever the cluster's time zone
_COLUMNS = (  # -O field, its header, width: longer values are cut by squeue
    ("JobArrayID", "JOBID", 48),
    ("State", "STATE", 24),
    ("RestartCnt", "RESTART_COUNT", 14),
    ("exit_code", "EXIT_CODE", 12),
    ("SubmitTime", "SUBMIT_TIME", 24),
    ("StartTime", "START_TIME", 24),
    ("EndTime", "END_TIME", 24),
    ("NodeList", "NODELIST", 256),
    ("Name", "NAME", 128),
    ("Reason", "REASON", 128),
)
_NAME_COLUMN = [field for field, _, _ in _COLUMNS].index("Name")
_FORMAT = ",".join(f"{field}:{width}|" for field, _, width in _COLUMNS)
_ACCOUNTS = ("JobID", "State", "ExitCode", "Start", "End", "NodeList", "JobName")
_COMPLETIONS = ("JobID", "State", "Start", "End", "NodeList", "JobName")
_ID = re.compile(r"\d+(?:_\d+)?")
_COMPONENT = re.compile(r"\d+\+\d+")  # of a heterogeneous job
_SUBMITTED = re.compile(r"(\d+)(?:;\S+)?")
_SAYS_NO = re.compile(
    r"^sbatch: (?:error|fatal): (?!.*(?:timed? ?out|contact|connect|communicat))", re.I | re.M
)
_KILL_ERROR = re.compile(r"Kill job error on job id (\S+): (.*)")
_OVER = ("Invalid job id specified", "already completing or completed")

_STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,  # nodes are booting: nothing of the job runs yet
    "REQUEUE_FED": JobState.REQUEUED,
    "REQUEUED": JobState.REQUEUED,
    "REQUEUE_HOLD": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,  # requeued and held by the site's rules
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
    "COMPLETING": JobState.COMPLETING,
    "STAGE_OUT": JobState.COMPLETING,
    "COMPLETED": JobState.DONE,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,  # its sibling runs on another cluster of the federation
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "NODE_FAIL": JobState.NODE_FAIL,
    "BOOT_FAIL": JobState.NODE_FAIL,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "PREEMPTED": JobState.PREEMPTED,
}
_UP = ("idle", "mixed", "alloc", "compl", "reserved", "drain", "maint", "resv", "plnd", "planned", "comp")
_DOWN = ("down", "fail", "error", "unk", "boot", "power", "reboot", "no_respond", "future")


class Slurm:
    """Slurm."""

    programs: tuple[str, ...] = ("sbatch", "squeue", "scancel", "sinfo")
    batch = 200
    asks_all = True
    script_on_stdin = False

    def build_submit(self, script: str, *, name: str, array: int) -> list[str]:
        """Return the sbatch command."""
        tasks = [f"--array=1-{array}"] if array > 1 else []
        return ["env", "LC_ALL=C", "sbatch", "--parsable", f"--job-name={name}", *tasks, script]

    def parse_submit(self, answer: Completed, *, array: int) -> Submission:
        """Return the ids, a refusal, or that it is unclear."""
        lines = answer.stdout.split()
        found = _SUBMITTED.fullmatch(lines[-1]) if lines else None
        if found and answer.problem is None and answer.returncode == 0:
            job = found.group(1)
            return Submitted(tuple(f"{job}_{i}" for i in range(1, array + 1)) if array > 1 else (job,))
        # A number from a command that then failed or fell silent: the job probably exists.
        if answer.problem is None and answer.returncode and not found and _SAYS_NO.search(answer.stderr):
            return Refused(one_line(answer.stderr))
        return Unclear(answer.complaint())

    def build_trial(self, script: str) -> list[str] | None:
        """Return the command that only checks."""
        return ["env", "LC_ALL=C", "sbatch", "--test-only", script]

    def build_query(self, ids: Sequence[str] | None, *, user: str) -> list[list[str]]:
        """Return the squeue command; always all jobs of the user."""
        return [[*_ENVIRONMENT, "squeue", "--array", "--states=all", f"--user={user}", f"--Format={_FORMAT}"]]

    def parse_query(self, answer: Completed, ids: Sequence[str] | None, *, user: str) -> Snapshot | Unknown:
        """Return the jobs; an answer without the right header, or with a broken line, is none."""
        if not answer.ok:
            return Unknown(answer.complaint())
        rows = _table(_without_bars_in_names(answer.stdout), len(_COLUMNS))
        if rows is None or not rows or not _is_header(rows[0]):
            return Unknown(
                f"squeue answered something else: {one_line(answer.stdout, 80) or 'nothing at all'}"
            )
        jobs: dict[str, JobInfo] = {}
        for row in rows[1:]:
            identity, state, restarts, status, submitted, start, end, nodes, name, reason = row
            if _COMPONENT.fullmatch(identity) and state:
                continue  # the user's own: no pilot is one
            if not _ID.fullmatch(identity) or not state:
                return Unknown(f"squeue answered a broken line: {one_line('|'.join(row), 80)}")
            mapped = _state(state, reason)
            code, signal = _wait_status(status) if mapped.ended else (None, None)
            jobs[identity] = JobInfo(
                id=identity,
                state=mapped,
                raw=state,
                name=name,
                nodes=nodes,
                submitted=_unix(submitted),
                start=_unix(start),
                end=_unix(end),
                restarts=int(restarts) if restarts.isdigit() else None,
                reason="" if reason == "None" else reason,
                exit_code=code,
                exit_signal=signal,
            )
        return Snapshot(jobs, frozenset(ids or ()) - frozenset(jobs))

    def build_accounting(self, ids: Sequence[str]) -> list[list[str]]:
        """Return sacct, and sacct on the job completion log, which sites without accounting may have."""
        chosen = f"--jobs={','.join(ids)}"
        whole = ["--allocations", "--parsable2"]
        first = [*_ENVIRONMENT, "sacct", *whole, f"--format={','.join(_ACCOUNTS)}", chosen]
        # No array ids in that log: a task is listed under a number that only the live queue could have told.
        single = [i for i in ids if "_" not in i]
        columns = f"--format={','.join(_COMPLETIONS)}"
        return (
            [first, [*_ENVIRONMENT, "sacct", "--completion", "--parsable2", columns]] if single else [first]
        )

    def parse_accounting(self, answer: Completed, ids: Sequence[str]) -> Snapshot | Unknown:
        """Return ended and running jobs as sacct has them."""
        if not answer.ok:
            return Unknown(answer.complaint())
        columns = _COMPLETIONS if "--completion" in answer.argv else _ACCOUNTS
        rows = _table(answer.stdout, len(columns), closed=False)
        if not rows or tuple(rows[0]) != columns:
            return Unknown(
                f"sacct answered something else: {one_line(answer.stdout, 80) or 'nothing at all'}"
            )
        wanted = frozenset(ids)
        jobs: dict[str, JobInfo] = {}
        for row in rows[1:]:
            told = dict(zip(columns, row, strict=True))
            if told["JobID"] not in wanted:
                continue
            code, _, signal = told.get("ExitCode", "").partition(":")
            jobs[told["JobID"]] = JobInfo(
                id=told["JobID"],
                state=_state(told["State"], ""),
                raw=told["State"],
                name=told["JobName"],
                nodes=told["NodeList"],
                start=_unix(told["Start"]),
                end=_unix(told["End"]),
                exit_code=int(code) if code.isdigit() else None,
                exit_signal=int(signal) if signal.isdigit() and signal != "0" else None,
            )
        return Snapshot(jobs, wanted - frozenset(jobs))

    def build_cancel(self, ids: Sequence[str]) -> list[str]:
        """Return the scancel command; without ``-v`` it is silent about unknown ids, and ends with 0."""
        return ["env", "LC_ALL=C", "scancel", "-v", *ids]

    def parse_cancel(self, answer: Completed, ids: Sequence[str]) -> Mapping[str, Cancelled]:
        """Return what became of each request."""
        if answer.problem is not None:
            return dict.fromkeys(ids, Cancelled.FAILED)
        errors = dict(_KILL_ERROR.findall(answer.stderr))
        taken = set(re.findall(r"Terminating job (\S+)", answer.stderr))

        def outcome(job: str) -> Cancelled:
            if job in errors:
                over = any(words in errors[job] for words in _OVER)
                return Cancelled.ENDED_BEFORE if over else Cancelled.FAILED
            return Cancelled.ASKED if job in taken else Cancelled.FAILED

        return {job: outcome(job) for job in ids}

    def build_nodes(self) -> list[str] | None:
        """Return the sinfo command."""
        return ["env", "LC_ALL=C", "sinfo", "--Node", "--format=%N|%T|"]

    def parse_nodes(self, answer: Completed) -> Mapping[str, NodeInfo] | Unknown:
        """Return nodes by name; a ``*`` after the state means that the node does not answer."""
        if not answer.ok:
            return Unknown(answer.complaint())
        rows = _table(answer.stdout, 2)
        if not rows or tuple(rows[0]) != ("NODELIST", "STATE"):
            return Unknown(
                f"sinfo answered something else: {one_line(answer.stdout, 80) or 'nothing at all'}"
            )
        return {name: NodeInfo(name, raw, _up(raw)) for name, raw in rows[1:]}


def _table(text: str, columns: int, *, closed: bool = True) -> list[list[str]] | None:
    """Return rows of fields split at ``|``, or None if the text is cut or is no such table.

    ``closed``: every field, the last one too, is followed by a bar.
    """
    if not text.endswith("\n"):
        return None
    rows = []
    for line in text.splitlines():
        fields = [f.strip() for f in line.split("|")]
        if closed and fields.pop() != "":
            return None
        if len(fields) != columns:
            return None
        rows.append(fields)
    return rows


def _without_bars_in_names(text: str) -> str:
    """Return squeue's text without the rows of jobs, none of them ours, whose name has a bar in it.

    Such a row is as wide as all others, and only has too many bars. Rows that ran into each other are wider, torn ones
    narrower: those stay, and spoil the answer.
    """
    header, *rows = text.splitlines(keepends=True) or [""]
    kept = [row for row in rows if not _has_bars_in_name(row, header)]
    return "".join([header, *kept])


def _has_bars_in_name(row: str, header: str) -> bool:
    if row.count("|") <= len(_COLUMNS) or JOB_PREFIX in row or not row.endswith("|\n"):
        return False
    # squeue counts bytes or characters, as it was built
    if len(header) not in (len(row), len(row.encode())):
        return False
    # All columns before the name are as they should be, and end where they should.
    before = [width for _, _, width in _COLUMNS[:_NAME_COLUMN]]
    fields = row.split("|")
    return [len(f) for f in fields[: len(before)]] == before and bool(_ID.fullmatch(fields[0].strip()))


def _is_header(row: Sequence[str]) -> bool:
    """Tell a header, whose words squeue cuts to the width of their column."""
    return all(
        told == header[:width] and told for told, (_, header, width) in zip(row, _COLUMNS, strict=True)
    )


def _state(word: str, reason: str) -> JobState:
    # "CANCELLED by 1000", and "RUNNING+" of a column cut by sacct
    first = word.split()[0].rstrip("+") if word.split() else ""
    state = _STATES.get(first, JobState.UNKNOWN)
    if state is JobState.PENDING and ("Held" in reason or "held" in reason):
        return JobState.HELD
    return state


def _unix(text: str) -> float | None:
    return float(text) if text.isdigit() else None


def _wait_status(text: str) -> tuple[int | None, int | None]:
    """Return exit code and signal; squeue prints the status of wait(2)."""
    if not text.isdigit():
        return None, None
    status = int(text)
    signal = status & 0x7F
    return (None, signal) if signal else (status >> 8 & 0xFF, None)


def _up(raw: str) -> bool | None:
    word = raw.lower()
    if word.endswith("*") or word.startswith(_DOWN):
        return False
    return True if word.startswith(_UP) else None
