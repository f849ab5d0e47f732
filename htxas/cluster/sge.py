"""Grid Engine (Open, Son of, Univa, Altair): commands and answers.

``qstat -xml`` lists what is in the queue and forgets a job the moment it ends; how it ended only ``qacct`` knows, once
the master has written its accounting file. An answer that is not one whole XML document is none.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
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

__all__ = ["GridEngine"]

_ENVIRONMENT = ["env", "LC_ALL=C", "TZ=UTC"]
_SUBMITTED = re.compile(r"(\d+)(?:\.(\d+)-(\d+):\d+)?")
_CONNECTION = re.compile(
    r"commlib|connect|timed? ?out|got read error|unable to (?:contact|send)", re.IGNORECASE
)
_RANGE = re.compile(r"(\d+)(?:-(\d+):(\d+))?")
_NOT_FOUND = re.compile(r"error: job (?:id|name) \S+ not found")
_LIMIT_ENFORCED = "37"  # of qacct's failed: h_rt, h_cpu or h_vmem
_RESCHEDULED = "25"
_HOST_LOST = frozenset({"19", "21"})  # nobody wrote an exit status, or the host came back without the job
_KILLED = 128


class GridEngine:
    """Grid Engine."""

    programs: tuple[str, ...] = ("qsub", "qstat", "qdel", "qacct", "qhost")
    batch = 200
    asks_all = True
    script_on_stdin = False

    def build_submit(self, script: str, *, name: str, array: int) -> list[str]:
        """Return the qsub command."""
        tasks = ["-t", f"1-{array}"] if array > 1 else []
        return ["env", "LC_ALL=C", "qsub", "-terse", "-N", name, *tasks, script]

    def parse_submit(self, answer: Completed, *, array: int) -> Submission:
        """Return the ids, a refusal, or that it is unclear."""
        lines = answer.stdout.split()
        found = _SUBMITTED.fullmatch(lines[-1]) if lines else None
        if found and answer.ok and (array == 1) == (found.group(2) is None):
            job = found.group(1)
            return Submitted(tuple(f"{job}.{i}" for i in range(1, array + 1)) if array > 1 else (job,))
        refused = answer.problem is None and answer.returncode and answer.stderr.strip() and not found
        if refused and not _CONNECTION.search(answer.stderr):
            return Refused(one_line(answer.stderr))
        return Unclear(answer.complaint())

    def build_trial(self, script: str) -> list[str] | None:
        """Return the command that only checks."""
        return ["env", "LC_ALL=C", "qsub", "-w", "v", script]

    def build_query(self, ids: Sequence[str] | None, *, user: str) -> list[list[str]]:
        """Return the qstat command; always all jobs of the user, array tasks one by one."""
        return [[*_ENVIRONMENT, "qstat", "-xml", "-g", "d", "-u", user]]

    def parse_query(self, answer: Completed, ids: Sequence[str] | None, *, user: str) -> Snapshot | Unknown:
        """Return the jobs."""
        root = _xml(answer, "job_info")
        if isinstance(root, Unknown):
            return root
        jobs: dict[str, JobInfo] = {}
        for entry in root.iter("job_list"):
            number, state = entry.findtext("JB_job_number", ""), entry.findtext("state", "")
            if not number.isdigit() or not state:
                return Unknown("qstat answered a broken entry")
            for task in _tasks(entry.findtext("tasks", "")):
                job = _job(f"{number}.{task}" if task else number, state, entry)
                jobs[job.id] = job
        return Snapshot(jobs, frozenset(ids or ()) - frozenset(jobs))

    def build_accounting(self, ids: Sequence[str]) -> list[list[str]]:
        """Return one qacct command per job; it takes no more, and an array is one job."""
        numbers = dict.fromkeys(i.split(".")[0] for i in ids)
        return [[*_ENVIRONMENT, "qacct", "-j", number] for number in numbers]

    def parse_accounting(self, answer: Completed, ids: Sequence[str]) -> Snapshot | Unknown:
        """Return ended jobs."""
        if answer.problem is not None:
            return Unknown(answer.complaint())
        if answer.returncode:
            if _NOT_FOUND.search(answer.stderr):
                return Snapshot({}, frozenset(ids))
            return Unknown(answer.complaint())
        jobs: dict[str, JobInfo] = {}
        for record in _blocks(answer.stdout):
            number, task = record.get("jobnumber", ""), record.get("taskid", "")
            if not number.isdigit() or "exit_status" not in record:
                return Unknown(f"qacct answered something else: {one_line(answer.stdout, 80)}")
            job = _accounted(f"{number}.{task}" if task.isdigit() else number, record)
            jobs[job.id] = job  # a job that was started again has several records, the last one counts
        if not jobs:
            return Unknown(
                f"qacct answered something else: {one_line(answer.stdout, 80) or 'nothing at all'}"
            )
        return Snapshot(jobs, frozenset(ids) - frozenset(jobs))

    def build_cancel(self, ids: Sequence[str]) -> list[str]:
        """Return the qdel command."""
        return ["env", "LC_ALL=C", "qdel", *ids]

    def parse_cancel(self, answer: Completed, ids: Sequence[str]) -> Mapping[str, Cancelled]:
        """Return what became of each request. Its words are on standard output, its status is no help."""
        if answer.problem is not None:
            return dict.fromkeys(ids, Cancelled.FAILED)
        said = answer.stdout + answer.stderr

        def outcome(job: str) -> Cancelled:
            number, _, task = job.partition(".")
            asked = (
                rf"(?:registered the job(?:-array task)? {re.escape(job)} for deletion"
                rf"|has deleted job(?:-array task)? {re.escape(job)}\s*$"
                rf"|job {re.escape(job)} is already in deletion)"
            )
            if re.search(asked, said, re.MULTILINE):
                return Cancelled.ASKED
            gone = rf'job "{number}"(?: task "{task}")? does not exist'
            return Cancelled.ENDED_BEFORE if re.search(gone, said) else Cancelled.FAILED

        return {job: outcome(job) for job in ids}

    def build_nodes(self) -> list[str] | None:
        """Return the qhost command."""
        return [*_ENVIRONMENT, "qhost", "-xml"]

    def parse_nodes(self, answer: Completed) -> Mapping[str, NodeInfo] | Unknown:
        """Return hosts by name: one that reports no load does not answer."""
        root = _xml(answer, "qhost")
        if isinstance(root, Unknown):
            return root
        nodes = {}
        for host in root.iter("host"):
            name = host.get("name", "")
            values = {v.get("name"): (v.text or "").strip() for v in host.iter("hostvalue")}
            if name and name != "global":
                load = values.get("load_avg", "-")
                nodes[name] = NodeInfo(name, f"load {load}", load != "-")
        return nodes


def _xml(answer: Completed, root_tag: str) -> ET.Element | Unknown:
    if not answer.ok:
        return Unknown(answer.complaint())
    try:
        # The scheduler's own answer, no stranger's; expat limits what entities may expand to.
        root = ET.fromstring(answer.stdout)  # noqa: S314
    except (ET.ParseError, ValueError):
        root = None
    if root is None or root.tag != root_tag:
        said = one_line(answer.stdout, 80) or "nothing at all"
        return Unknown(f"{answer.program} answered something else: {said}")
    return root


def _tasks(text: str) -> Iterator[str]:
    """Yield single tasks of ``""``, ``3``, or ``4-10:2,12``; an empty one for a job that is no array."""
    if not text.strip():
        yield ""
    for part in text.split(",") if text.strip() else ():
        if found := _RANGE.fullmatch(part.strip()):
            first = int(found.group(1))
            last, step = int(found.group(2) or first), int(found.group(3) or 1)
            yield from (str(task) for task in range(first, last + 1, max(1, step)))


def _state(letters: str) -> JobState:
    """Return the state behind letters such as ``hqw``, ``Rr``, ``dT``."""
    if not set(letters) <= set("dEhrRsStTwqz"):
        return JobState.UNKNOWN
    if "E" in letters or "h" in letters:
        return JobState.HELD
    if "d" in letters:
        return JobState.COMPLETING  # being deleted; on a host that does not answer, for ever
    if set("sST") & set(letters):
        return JobState.SUSPENDED
    if "r" in letters or "t" in letters:
        return JobState.RUNNING
    if "q" in letters or "w" in letters:
        return JobState.REQUEUED if "R" in letters else JobState.PENDING
    return JobState.UNKNOWN


def _job(identity: str, letters: str, entry: ET.Element) -> JobInfo:
    queue = entry.findtext("queue_name", "") or ""
    return JobInfo(
        id=identity,
        state=_state(letters),
        raw=letters,
        name=entry.findtext("JB_name", "") or "",
        nodes=queue.partition("@")[2],
        submitted=_iso(entry.findtext("JB_submission_time", "")),
        start=_iso(entry.findtext("JAT_start_time", "")),
        restarts=None if "R" not in letters else 1,
    )


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Yield qacct's records: lines of a name and a value, between lines of ``=``."""
    record: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("===="):
            if record:
                yield record
            record = {}
        elif line.strip():
            key, _, value = line.partition(" ")
            record[key] = value.strip()
    if record:
        yield record


def _accounted(identity: str, told: Mapping[str, str]) -> JobInfo:
    failed = told.get("failed", "").split()[0] if told.get("failed") else "0"
    written = told["exit_status"].split()[0] if told["exit_status"] else ""  # "137   (Killed)"
    status = int(written) if written.isdigit() else None
    deleted_by = told.get("deleted_by", "NONE")
    state = JobState.FAILED
    if failed == _LIMIT_ENFORCED:
        state = JobState.TIMEOUT
    elif failed == _RESCHEDULED:
        state = JobState.REQUEUED  # of this run only; the next record, or the queue, tells what came of it
    elif deleted_by not in ("NONE", ""):
        state = JobState.CANCELLED
    elif failed in _HOST_LOST:
        state = JobState.NODE_FAIL
    elif failed == "0" and status == 0:
        state = JobState.DONE
    signalled = status is not None and status > _KILLED
    return JobInfo(
        id=identity,
        state=state,
        raw=f"failed {told.get('failed', '?')}, exit_status {written}",
        name=told.get("jobname", ""),
        nodes=told.get("hostname", ""),
        submitted=_ctime(told.get("qsub_time", "")),
        start=_ctime(told.get("start_time", "")),
        end=_ctime(told.get("end_time", "")),
        reason="" if failed == "0" else told.get("failed", ""),
        exit_code=None if signalled else status,
        exit_signal=status - _KILLED if signalled and status is not None else None,
    )


def _iso(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text or "").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _ctime(text: str) -> float | None:
    for form in ("%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S"):
        try:
            return datetime.strptime(text.split(".")[0], form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None
