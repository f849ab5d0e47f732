"""Evidence about owners: from heartbeats, this machine, and what schedulers said. Decides nothing: judge.py does."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from htxas.cluster.jobs import JobInfo, JobState
from htxas.launch.agent.liveness import LOCK_FILE, boot_id, worker_folder
from htxas.launch.recovery.judge import FRESH_S, Answer, Evidence, Job
from htxas.store.records import PilotRecord, PilotState

__all__ = ["Heard", "Scene", "evidence", "lock_free", "owner_folder", "traces"]

_JOURNALS = "journal-*.bin"
_CLOCKS_DIFFER_S = 30.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What a scheduler said about one job, and what was found out elsewhere when it did not know it.

    Attributes
    ----------
    answer
        Its answer.
    info
        The job as it tells of it; None unless the answer has one.
    why
        For an unknown answer: why it is none.
    absent_for_s
        For how long good answers have lacked the job.
    asked
        Unix seconds.
    accounting
        The job in the accounting, if it ended.
    """

    answer: Answer
    info: JobInfo | None = None
    why: str = ""
    absent_for_s: float = 0.0
    asked: float = field(default_factory=time.time)
    accounting: JobInfo | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What all judgements of one look share.

    Attributes
    ----------
    database_up_s
        How long the database has been up.
    pilots
        By id.
    heard
        By cluster and job id.
    exits
        What pilots wrote when they ended, by owner.
    latest
        The highest restart of each job (cluster and id) that ever showed a sign of life.
    """

    database_up_s: float
    pilots: Mapping[str, PilotRecord] = field(default_factory=dict)
    heard: Mapping[tuple[str, str], Heard] = field(default_factory=dict)
    exits: Mapping[str, str] = field(default_factory=dict)
    latest: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        database_up_s: float,
        workers: Iterable[Mapping[str, Any]],
        pilots: Iterable[PilotRecord],
        heard: Mapping[tuple[str, str], Heard] | None = None,
        exits: Mapping[str, str] | None = None,
    ) -> Scene:
        """Return the scene of these heartbeats and pilots."""
        by_id = {p.id: p for p in pilots}
        latest: dict[tuple[str, str], int] = {}
        for worker in workers:
            job = _job_of(worker["info"])
            if job is not None:
                latest[job] = max(latest.get(job, 0), int(worker["info"].get("restart") or 0))
        for pilot in by_id.values():
            if pilot.job_id is not None:
                latest[pilot.cluster, pilot.job_id] = max(
                    latest.get((pilot.cluster, pilot.job_id), 0), pilot.restart
                )
        return cls(database_up_s, by_id, heard or {}, exits or {}, latest)


def owner_folder(owner: str, info: Mapping[str, Any]) -> Path | None:
    """Return the owner's folder if it can be seen from here."""
    folder = Path(info["folder"]) if info.get("folder") else worker_folder(owner)
    return folder if folder.is_dir() else None


def traces(owner: str) -> dict[str, Any]:
    """Return what an owner's name and folder tell of it when it has no heartbeat."""
    folder = worker_folder(owner)
    if not folder.is_dir() or not owner.startswith(f"{platform.node()}-"):
        return {}
    return {"host": platform.node(), "folder": str(folder), "lock": str(folder / LOCK_FILE)}


def evidence(worker: Mapping[str, Any], scene: Scene) -> Evidence:
    """Return what is known of an owner, given as ``Store.workers`` tells of it.

    Asks nobody but this machine's kernel and file system.
    """
    info, owner = worker["info"], str(worker["owner"])
    same_host = info.get("host") == platform.node()
    boot_changed = same_host and None not in (info.get("boot"), boot_id()) and info.get("boot") != boot_id()
    here = same_host and not boot_changed
    # Of one that beats nothing else is asked: a thousand pilots that look at each other's folders stop a file system.
    folder = owner_folder(owner, info) if float(worker["age_s"]) >= FRESH_S else None
    end = info.get("end")
    closed = info.get("bundle_closed")
    return Evidence(
        here=here,
        silent_s=max(0.0, float(worker["age_s"])),
        database_up_s=scene.database_up_s,
        lock_free=lock_free(info) if same_host else None,
        pid_gone=here and _pid_gone(info),
        boot_changed=boot_changed,
        lease_left_s=worker.get("lease_left_s"),
        journal_age_s=None if folder is None else _journal_age_s(folder),
        end_passed_s=None if end is None else time.time() - float(end),
        job=_job(owner, info, scene),
        bundle=info.get("bundle") is not None,
        bundle_closed=bool(closed),
        registered=bool(worker.get("registered", True)),
    )


def lock_free(info: Mapping[str, Any]) -> bool | None:
    """Return whether nobody holds the lock that ``info["lock"]`` names; None if that cannot be told from here."""
    if not info.get("lock"):
        return None
    try:
        with Path(info["lock"]).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:  # the folder is gone or in another container, or the file system has no locks
        return None


def _pid_gone(info: Mapping[str, Any]) -> bool:
    pid = info.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _journal_age_s(folder: Path) -> float | None:
    try:
        last = max((p.stat().st_mtime for p in folder.glob(_JOURNALS)), default=None)
    except OSError:
        return None
    return None if last is None else time.time() - last


def _job_of(info: Mapping[str, Any]) -> tuple[str, str] | None:
    if not info.get("cluster") or not info.get("job_id"):
        return None
    return str(info["cluster"]), str(info["job_id"])


def _job(owner: str, info: Mapping[str, Any], scene: Scene) -> Job | None:
    key = _job_of(info)
    if key is None:
        return None
    restart = int(info.get("restart") or 0)
    pilot = scene.pilots.get(str(info.get("pilot")))
    ended = None
    # One script submitted by hand twice has one record.
    of_this_job = pilot is not None and pilot.job_id in (None, key[1]) and pilot.restart <= restart
    if pilot is not None and of_this_job and pilot.state is PilotState.ENDED:
        ended = pilot.reason or "its pilot's record says that it ended"
    heard = scene.heard.get(key, Heard(Answer.NOT_ASKED))
    if heard.info is not None and _of_another_time(heard.info, info):
        heard = Heard(
            Answer.UNKNOWN, why="the answer is about an older job of this number", asked=heard.asked
        )
    said = heard.info or heard.accounting
    accounting = heard.accounting
    return Job(
        id=key[1],
        restart=restart,
        answer=heard.answer,
        restarts=None if said is None else said.restarts,
        raw=_words(said) if said is not None else heard.why,
        absent_looks=2 if heard.absent_for_s > 0 else 1,
        absent_for_s=heard.absent_for_s,
        answer_age_s=max(0.0, time.time() - heard.asked),
        accounting=None if accounting is None else _words(accounting),
        exit_file=scene.exits.get(owner),
        record_ended=ended,
        ending=heard.info is not None and heard.info.state is JobState.COMPLETING,
        successor=scene.latest.get(key, 0) > restart,
    )


def _of_another_time(job: JobInfo, info: Mapping[str, Any]) -> bool:
    """Whether the scheduler tells of a job that had ended before this owner began: numbers come round again."""
    if not job.state.ended or job.end is None or not info.get("started"):
        return False
    started = datetime.fromisoformat(str(info["started"]))
    return job.end < started.timestamp() - _CLOCKS_DIFFER_S


def _words(job: JobInfo) -> str:
    return job.state.value if not job.raw else f"{job.state.value} ({job.raw})"
