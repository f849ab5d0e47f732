"""A scheduler without a scheduler: processes of their own on the host, for workstations and tests.

The work is done by :mod:`htxas.cluster.localjob`, which is run on the host (here or through ssh) and keeps one folder
per job. Jobs start at once and do not wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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

__all__ = ["Local"]

_NUMBERS = ("submitted", "start", "end")


class Local:
    """No scheduler.

    Parameters
    ----------
    python
        The interpreter with htxas on the host.
    home
        ``HTXAS_HOME`` there.
    walltime_s, signal_s
        When a job is ended, and how long before it is warned.
    """

    programs: tuple[str, ...] = ()
    batch = 200
    asks_all = True
    script_on_stdin = False

    def __init__(self, python: str, home: str, *, walltime_s: int, signal_s: int) -> None:
        self._command = [python, "-m", "htxas.cluster.localjob", "--folder", f"{home.rstrip('/')}/queue"]
        self._walltime_s = walltime_s
        self._signal_s = signal_s

    def build_submit(self, script: str, *, name: str, array: int) -> list[str]:
        """Return the command that starts the processes."""
        limits = ["--walltime-s", str(self._walltime_s), "--signal-s", str(self._signal_s)]
        return [*self._command, "submit", "--name", name, "--array", str(array), *limits, script]

    def parse_submit(self, answer: Completed, *, array: int) -> Submission:
        """Return the ids, a refusal, or that it is unclear."""
        document = _document(answer)
        if isinstance(document, str):
            if answer.problem is None and answer.returncode == 1:
                return Refused(one_line(answer.stderr))
            return Unclear(document)
        ids = document.get("submitted")
        if not isinstance(ids, list) or len(ids) != array:
            return Unclear(f"{answer.program} answered something else")
        return Submitted(tuple(str(i) for i in ids))

    def build_trial(self, script: str) -> list[str] | None:
        """Return None: there is no such command."""
        return None

    def build_query(self, ids: Sequence[str] | None, *, user: str) -> list[list[str]]:
        """Return the command that lists all jobs of this home."""
        return [[*self._command, "list"]]

    def parse_query(self, answer: Completed, ids: Sequence[str] | None, *, user: str) -> Snapshot | Unknown:
        """Return the jobs."""
        document = _document(answer)
        if isinstance(document, str):
            return Unknown(document)
        listed = document.get("jobs")
        if not isinstance(listed, list):
            return Unknown(f"{answer.program} answered something else")
        jobs = {}
        for entry in listed:
            job = _job(entry)
            if job is None:
                return Unknown(f"{answer.program} answered a broken entry")
            jobs[job.id] = job
        return Snapshot(jobs, frozenset(ids or ()) - frozenset(jobs))

    def build_accounting(self, ids: Sequence[str]) -> list[list[str]]:
        """Return the same command: its folders are kept."""
        return [[*self._command, "list"]]

    def parse_accounting(self, answer: Completed, ids: Sequence[str]) -> Snapshot | Unknown:
        """Return the jobs."""
        return self.parse_query(answer, ids, user="")

    def build_cancel(self, ids: Sequence[str]) -> list[str]:
        """Return the command that ends processes."""
        return [*self._command, "cancel", *ids]

    def parse_cancel(self, answer: Completed, ids: Sequence[str]) -> Mapping[str, Cancelled]:
        """Return what became of each request."""
        document = _document(answer)
        told = document.get("cancelled") if isinstance(document, dict) else None
        if not isinstance(told, dict):
            return dict.fromkeys(ids, Cancelled.FAILED)
        words = {c.value: c for c in Cancelled}
        return {job: words.get(str(told.get(job)), Cancelled.FAILED) for job in ids}

    def build_nodes(self) -> list[str] | None:
        """Return None: there is only the host."""
        return None

    def parse_nodes(self, answer: Completed) -> Mapping[str, NodeInfo] | Unknown:
        """Return Unknown."""
        return Unknown("there are no nodes without a scheduler")


def _document(answer: Completed) -> dict[str, Any] | str:
    """Return the JSON object in the answer, or why there is none."""
    if not answer.ok:
        return answer.complaint()
    try:
        document = json.loads(answer.stdout)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    return f"{answer.program} answered something else: {one_line(answer.stdout, 80) or 'nothing at all'}"


def _job(entry: Any) -> JobInfo | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return None
    word = str(entry.get("state"))
    times = {key: entry.get(key) for key in _NUMBERS}
    if not all(t is None or isinstance(t, int | float) for t in times.values()):
        return None
    code, signal = entry.get("exit_code"), entry.get("exit_signal")
    return JobInfo(
        id=entry["id"],
        state=JobState(word) if word in frozenset(JobState) else JobState.UNKNOWN,
        raw=word,
        name=str(entry.get("name", "")),
        nodes=str(entry.get("node", "")),
        restarts=0,
        reason=str(entry.get("reason", "")),
        exit_code=code if isinstance(code, int) else None,
        exit_signal=signal if isinstance(signal, int) else None,
        **times,
    )
