"""OpenPBS (and PBS Professional), and Torque: commands and answers. Written to their documentation, never run.

Both are asked for plain text, ``qstat -f``. The JSON of OpenPBS is not dependable: strings are not escaped (balsam
#324), array jobs make it invalid (openpbs #2541), and some versions leave out every job but the first (openpbs #2672).
So an answer counts only if it accounts for *every* id asked about: by a record, or by name as unknown on standard
error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

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
from htxas.cluster.quantities import parse_clock

__all__ = ["OpenPbs", "Torque"]

_ENVIRONMENT = ["env", "LC_ALL=C", "TZ=UTC"]  # qstat writes times in its own time zone
_ID = re.compile(r"\d+(?:\[\d*\])?(?:\.\S+)?")
_TASK = re.compile(r"(\d+)\[(\d+)\](.*)")
_UNKNOWN_ID = re.compile(
    r"qstat: Unknown Job Id(?: Error)? (\S+)|qstat: (\S+) Job has finished", re.MULTILINE
)
_ATTRIBUTE = re.compile(r" {4}([A-Za-z_][\w.]*) = ?(.*)")
_CONNECTION = re.compile(r"connect|timed? ?out|communicat|premature end|end of message", re.IGNORECASE)
_GONE = re.compile(r"Unknown Job Id|Job has finished|Request invalid for state", re.IGNORECASE)

_STATES = {
    "Q": JobState.PENDING,
    "W": JobState.PENDING,  # waits for its start time or its input files
    "T": JobState.PENDING,  # on its way to another queue
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "B": JobState.RUNNING,  # an array of which some task began
    "S": JobState.SUSPENDED,
    "U": JobState.SUSPENDED,  # the workstation's user came back
    "E": JobState.COMPLETING,
}
_OVER = frozenset("FXC")  # finished; an array's task finished; completed (Torque)
# Exit statuses below zero are PBS' own: why the execution daemon ended it, or could not start it.
_OWN_STATUS = {
    -29: JobState.TIMEOUT,
    -28: JobState.TIMEOUT,
    -27: JobState.OUT_OF_MEMORY,
    -26: JobState.OUT_OF_MEMORY,
    -20: JobState.NODE_FAIL,
}
_SIGNALLED = 256  # added to the number of the signal that ended the script
_SIGTERM = 15
_SUBSTATE_TERMINATED = "91"
_NODE_DOWN = ("down", "unknown", "stale", "provisioning")


class OpenPbs:
    """OpenPBS and PBS Professional."""

    programs: tuple[str, ...] = ("qsub", "qstat", "qdel", "pbsnodes")
    batch = 100
    asks_all = False
    script_on_stdin = False
    _array_option = "-J"
    _query: tuple[tuple[str, ...], ...] = (("-f", "-t", "-x"), ("-f", "-t"))

    def build_submit(self, script: str, *, name: str, array: int) -> list[str]:
        """Return the qsub command."""
        tasks = [self._array_option, f"1-{array}"] if array > 1 else []
        return ["env", "LC_ALL=C", "qsub", "-N", name, *tasks, script]

    def parse_submit(self, answer: Completed, *, array: int) -> Submission:
        """Return the ids, a refusal, or that it is unclear."""
        lines = answer.stdout.split()
        told = lines[-1] if lines and _ID.fullmatch(lines[-1]) else None
        if told and answer.ok:
            if array == 1:
                return Submitted((told,))
            if "[]" in told:
                return Submitted(tuple(told.replace("[]", f"[{i}]", 1) for i in range(1, array + 1)))
        refused = answer.problem is None and answer.returncode and "qsub:" in answer.stderr
        if refused and not told and not _CONNECTION.search(answer.stderr):
            return Refused(one_line(answer.stderr))
        return Unclear(answer.complaint())

    def build_trial(self, script: str) -> list[str] | None:
        """Return None: there is no such command."""
        return None

    def build_query(self, ids: Sequence[str] | None, *, user: str) -> list[list[str]]:
        """Return qstat with finished jobs, and without, for servers that keep none."""
        whole = sorted({_parent(i) for i in ids}) if ids is not None else []
        return [[*_ENVIRONMENT, "qstat", *options, *whole] for options in self._query]

    def parse_query(self, answer: Completed, ids: Sequence[str] | None, *, user: str) -> Snapshot | Unknown:
        """Return the jobs; an answer that leaves an id unmentioned is none."""
        if answer.problem is not None:
            return Unknown(answer.complaint())
        unknown = {a or b for a, b in _UNKNOWN_ID.findall(answer.stderr)}
        other = [x for x in answer.stderr.splitlines() if x.strip() and not _UNKNOWN_ID.search(x)]
        if other or (answer.returncode and not unknown):
            return Unknown(answer.complaint())
        records = dict(_records(answer.stdout))
        if None in records or (answer.stdout.strip() and not records):
            return Unknown(f"qstat answered something else: {one_line(answer.stdout, 80)}")
        if any("job_state" not in attributes for attributes in records.values()):
            return Unknown("qstat's answer was cut")
        jobs = {i: _job(i, a) for i, a in records.items() if i is not None and "[]" not in i}
        if ids is None:
            if not records and not answer.stdout.endswith("\n"):
                # Nothing at all is what a server without jobs says, and also what a broken command says.
                return Unknown("qstat answered nothing at all")
            owned = {i for i, a in records.items() if i and a.get("Job_Owner", "").split("@")[0] == user}
            return Snapshot({i: job for i, job in jobs.items() if i in owned})
        named = {_short(i) for i in records if i is not None} | {_short(i) for i in unknown}
        silent = [i for i in ids if _short(i) not in named and _short(_parent(i)) not in named]
        if silent:
            return Unknown(f"qstat did not say a word about {silent[0]}")
        by_short = {_short(i): job for i, job in jobs.items()}
        found = {i: by_short[_short(i)] for i in ids if _short(i) in by_short}
        return Snapshot(found, frozenset(ids) - frozenset(found))

    def build_accounting(self, ids: Sequence[str]) -> list[list[str]]:
        """Return nothing: the query tells about finished jobs as long as the server remembers them."""
        return []

    def parse_accounting(self, answer: Completed, ids: Sequence[str]) -> Snapshot | Unknown:
        """Return Unknown."""
        return Unknown("PBS keeps its accounts to itself")

    def build_cancel(self, ids: Sequence[str]) -> list[str]:
        """Return the qdel command."""
        return ["env", "LC_ALL=C", "qdel", *ids]

    def parse_cancel(self, answer: Completed, ids: Sequence[str]) -> Mapping[str, Cancelled]:
        """Return what became of each request; some versions name only the first of several failures."""
        if answer.problem is not None:
            return dict.fromkeys(ids, Cancelled.FAILED)
        errors = [line for line in answer.stderr.splitlines() if line.strip()]

        def outcome(job: str) -> Cancelled:
            mine = [e for e in errors if _short(job) in {_short(w) for w in e.split()}]
            if mine:
                gone = all(_GONE.search(e) for e in mine)
                return Cancelled.ENDED_BEFORE if gone else Cancelled.FAILED
            return Cancelled.ASKED if answer.returncode == 0 else Cancelled.FAILED

        return {job: outcome(job) for job in ids}

    def build_nodes(self) -> list[str] | None:
        """Return the pbsnodes command."""
        return ["env", "LC_ALL=C", "pbsnodes", "-a"]

    def parse_nodes(self, answer: Completed) -> Mapping[str, NodeInfo] | Unknown:
        """Return nodes by name."""
        if not answer.ok:
            return Unknown(answer.complaint())
        nodes: dict[str, NodeInfo] = {}
        name = ""
        for line in answer.stdout.splitlines():
            if line and not line[0].isspace():
                name = line.strip()
            elif name and (found := re.fullmatch(r"\s+state = (.*)", line)):
                words = found.group(1).split(",")
                nodes[name] = NodeInfo(
                    name, found.group(1), not any(w.strip().startswith(_NODE_DOWN) for w in words)
                )
        return nodes or Unknown(f"pbsnodes answered something else: {one_line(answer.stdout, 80)}")


class Torque(OpenPbs):
    """Torque."""

    _array_option = "-t"
    _query = (("-f", "-t"),)  # -x is XML here


def _parent(job: str) -> str:
    """Return the id of the array of a task; other ids as they are."""
    found = _TASK.fullmatch(job)
    return f"{found.group(1)}[]{found.group(3)}" if found else job


def _short(job: str) -> str:
    """Return an id without the server, whose name may be written in different lengths."""
    return job.strip(",;").split(".")[0]


def _records(text: str) -> Iterator[tuple[str | None, dict[str, str]]]:
    """Yield ids and attributes; None as an id where the text is not what qstat writes."""
    job: str | None = None
    attributes: dict[str, str] = {}
    last: str | None = None
    begun = False
    for line in text.splitlines():
        if line.startswith("Job Id: "):
            if begun:
                yield job, attributes
            begun, last, attributes = True, None, {}
            told = line.removeprefix("Job Id: ").strip()
            job = told if _ID.fullmatch(told) else None
        elif found := _ATTRIBUTE.fullmatch(line):
            last = found.group(1)
            attributes[last] = found.group(2)
        elif line[:1] in ("\t", " ") and last is not None:
            attributes[last] += line.strip()  # a long value goes on after a tab
        elif line.strip():
            yield None, {}
            return
    if begun:
        yield job, attributes


def _job(job: str, told: Mapping[str, str]) -> JobInfo:
    word = told["job_state"].strip()
    status = told.get("Exit_status", told.get("exit_status", ""))
    state = _ended(status, told) if word in _OVER else _STATES.get(word, JobState.UNKNOWN)
    number = int(status) if re.fullmatch(r"-?\d+", status) else None
    signalled = number is not None and number > _SIGNALLED
    start = _unix(told.get("stime", told.get("start_time", "")))
    return JobInfo(
        id=job,
        state=state,
        raw=word,
        name=told.get("Job_Name", ""),
        nodes=told.get("exec_host", ""),
        submitted=_unix(told.get("ctime", "")),
        start=start,
        end=_unix(told.get("obittime", told.get("comp_time", told.get("mtime", ""))))
        if state.ended
        else None,
        # run_count also counts tries to start a job that failed before its script ran, so it proves no restart. That
        # the job waits again, or that the next start claims its number, does.
        restarts=None,
        reason=told.get("comment", ""),
        exit_code=None if signalled or number is None else number,
        exit_signal=number - _SIGNALLED if signalled and number is not None else None,
    )


def _ended(status: str, told: Mapping[str, str]) -> JobState:
    if not re.fullmatch(r"-?\d+", status):
        return JobState.CANCELLED  # deleted before it ran: there never was a status
    number = int(status)
    if number < 0:
        return _OWN_STATUS.get(number, JobState.FAILED)
    if number > _SIGNALLED:
        used = parse_clock(told.get("resources_used.walltime", ""))
        limit = parse_clock(told.get("Resource_List.walltime", ""))
        if used is not None and limit is not None and used >= limit:
            return JobState.TIMEOUT
        deleted = told.get("substate") == _SUBSTATE_TERMINATED or number == _SIGNALLED + _SIGTERM
        return JobState.CANCELLED if deleted else JobState.FAILED
    return JobState.DONE if number == 0 else JobState.FAILED


def _unix(text: str) -> float | None:
    """Return Unix seconds of ``Wed Jun  8 09:44:04 2022`` (UTC, see above)."""
    try:
        return datetime.strptime(text.strip(), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
