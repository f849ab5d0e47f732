"""Leased work in a folder, for nodes that cannot reach the database.

::

    DIR/
      tasks.jsonl    one task per line
      bundle.json    what it is; written last, so a folder without it was never finished
      runs/          run folders, logs and journals of whoever computed it: a home of its own for htxas
      closed.json    once all was brought in or given back; nothing more may be computed then

Nothing in it names the database's address, and no path in it is absolute, so it may be copied to where the computing is
done, and back. Only the journals in ``runs/workers`` need to come back.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.errors import Busy, NotFound, UserError
from htxas.launch.agent.delivery import journals
from htxas.launch.pilots.settings import SiteSettings
from htxas.launch.work.engine_run import Engines
from htxas.launch.work.journal import Started, read_journal
from htxas.launch.work.task import Task
from htxas.store.outcomes import Outcome

__all__ = [
    "Bundle",
    "Carried",
    "Progress",
    "Run",
    "alone",
    "close_folder",
    "is_closed",
    "moved",
    "progress",
    "read_bundle",
    "read_tasks",
    "run_folders",
    "runs",
    "write_bundle",
    "write_run",
]

BUNDLE_FILE, TASKS_FILE, CLOSED_FILE, RUN_FILE = "bundle.json", "tasks.jsonl", "closed.json", "run.json"
_LOCK = "running.lock"
_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Carried:
    """A batch that a bundle carries, and our launch of its Firework."""

    batch: str
    fw_id: int
    launch_id: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle is.

    Attributes
    ----------
    id
        The owner of its leases.
    database
        Name of the database they are in.
    cluster, pilot, campaign
        What it was made for; None for any.
    workers, cores_per_worker, memory_per_worker_MB, margin_s
        How it is meant to be run.
    hours
        Of work for those workers.
    made, until
        Unix seconds: when it was made, and when its results are expected back.
    tasks, estimate_s
        How many, and their expected seconds in all.
    carried
        Its batches.
    settings
        How engines are started where it is run.
    """

    id: str
    database: str
    cluster: str | None
    pilot: str | None
    campaign: str | None
    workers: int
    cores_per_worker: int
    memory_per_worker_MB: int
    margin_s: float
    hours: float
    made: float
    until: float
    tasks: int
    estimate_s: float
    carried: tuple[Carried, ...] = ()
    settings: SiteSettings = field(default_factory=SiteSettings)

    def engines(self) -> Engines:
        """Return how engines are started where it is run."""
        return self.settings.how(self.cluster, self.cores_per_worker, self.memory_per_worker_MB)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            **{name: getattr(self, name) for name in self.__slots__ if name not in ("carried", "settings")},
            "format": _FORMAT,
            "carried": [asdict(c) for c in self.carried],
            "settings": self.settings.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Bundle:
        """Rebuild it."""
        fields = dict(document)
        if fields.pop("format") != _FORMAT:
            raise ValueError("made by another version of htxas")
        fields["carried"] = tuple(Carried(**c) for c in fields["carried"])
        fields["settings"] = SiteSettings.from_dict(fields["settings"])
        return cls(**fields)


def write_bundle(folder: Path, bundle: Bundle, tasks: Iterable[Task]) -> None:
    """Write a bundle into an existing folder; readable by its user alone."""
    with _private(folder / TASKS_FILE) as stream:
        for task in tasks:
            stream.write(json.dumps(task.to_dict()) + "\n")
    draft = folder / f"{BUNDLE_FILE}.part"
    with _private(draft) as stream:
        json.dump(bundle.to_dict(), stream, indent=1)
    draft.replace(folder / BUNDLE_FILE)


@contextmanager
def _private(path: Path) -> Iterator[Any]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def read_bundle(folder: Path) -> Bundle:
    """Read what a bundle is.

    Raises
    ------
    NotFound
        If there is none, or its making was interrupted.
    UserError
        If it is damaged, of another version, or could have been written by somebody else: it says what programs run.
    """
    path = folder / BUNDLE_FILE
    try:
        for part in (folder, path, folder / TASKS_FILE):
            _check_ours(part)
        return Bundle.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise NotFound("no bundle is in this folder", where=str(folder), hint="htxas bundle make") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"the bundle cannot be read: {error}", where=str(path)) from None


def _check_ours(path: Path) -> None:
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise UserError("this part of a bundle belongs to another user", where=str(path))
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(
            "this part of a bundle can be changed by other users",
            where=str(path),
            hint=f"if it is as you made it: chmod go-w {path}",
        )


def read_tasks(folder: Path) -> Iterator[Task]:
    """Yield the tasks of a bundle.

    Raises
    ------
    UserError
        If the file is damaged, with its line.
    """
    path = folder / TASKS_FILE
    with path.open() as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield Task.from_dict(json.loads(line))
            except (ValueError, TypeError, LookupError) as error:
                raise UserError(f"a task cannot be read: {error}", where=f"{path}:{number}") from None


def is_closed(folder: Path) -> bool:
    """Whether all was brought in or given back."""
    return (folder / CLOSED_FILE).exists()


def close_folder(folder: Path) -> None:
    """Say that nothing of it may be computed any more."""
    draft = folder / f"{CLOSED_FILE}.part"
    draft.write_text(json.dumps({"closed": time.time()}) + "\n")
    draft.replace(folder / CLOSED_FILE)


# ---- runs


@dataclass(frozen=True, slots=True)
class Run:
    """One agent's time with a bundle.

    Attributes
    ----------
    owner, host
        The agent, and where it ran.
    root
        Where the bundle was then.
    started, seen, ended
        Unix seconds: the start, the last sign of life, the orderly end; None if that is still to come, or never came.
    allocated_s, engine_s
        Seconds of all its workers' places, and those of them that engines used.
    why
        How it ended, in a word: finished, deadline, terminated.
    job_id, pilot
        In whose name; None outside a queue.
    """

    owner: str
    host: str
    root: str
    started: float
    seen: float
    ended: float | None = None
    allocated_s: float = 0.0
    engine_s: float = 0.0
    why: str = ""
    job_id: str | None = None
    pilot: str | None = None

    @property
    def wall_s(self) -> float:
        """Seconds from its start to its end, as far as is known."""
        return max(0.0, (self.ended or self.seen) - self.started)


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of the agents that computed a bundle, oldest first."""
    found = [path.parent for path in (folder / "runs" / "workers").glob(f"*/{RUN_FILE}")]
    return sorted(found, key=lambda p: (_run(p).started, p.name))


def runs(folder: Path) -> list[Run]:
    """Return who computed a bundle, oldest first."""
    return [_run(path) for path in run_folders(folder)]


def _run(folder: Path) -> Run:
    path = folder / RUN_FILE
    try:
        run = Run(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"it cannot be read who computed this bundle: {error}", where=str(path)) from None
    if run.owner != folder.name:
        raise UserError(f"this is the file of {run.owner!r}", where=str(path))
    return run


def write_run(folder: Path, run: Run, **changes: Any) -> Run:
    """Write a run's file in one piece, with changes; return the run as written."""
    changed = replace(run, **changes)
    draft = folder / f".{RUN_FILE}.part"
    try:
        draft.write_text(json.dumps(asdict(changed)) + "\n")
        draft.replace(folder / RUN_FILE)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return changed


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one on this machine that computes a bundle.

    Raises
    ------
    Busy
        If somebody else does.
    """
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("this bundle is being computed already", where=str(folder)) from None
        except OSError as error:  # a file system without locks; Lustre, for one, has them only if mounted so
            _log.warning("%s: nobody is kept from computing it twice at once: %s", folder, error.strerror)
        yield


@dataclass(slots=True)
class Progress:
    """How far a bundle is.

    Attributes
    ----------
    ended
        Key -> state of the calculations that have an outcome.
    causes
        Key -> cause and message, where they failed.
    grounds
        Ground state -> its run folder, for those that are done.
    in_hand
        Keys that were begun and have no outcome.
    """

    ended: dict[str, State] = field(default_factory=dict)
    causes: dict[str, tuple[str, str]] = field(default_factory=dict)
    grounds: dict[str, str] = field(default_factory=dict)
    in_hand: set[str] = field(default_factory=set)

    def open(self, task: Task) -> bool:
        """Whether a task has no outcome and can get one here: its ground state has not come to grief."""
        ground = self.ended.get(task.ground_key or "")
        return task.key not in self.ended and ground in (None, State.DONE)


def progress(folder: Path, tasks: Sequence[Task]) -> Progress:
    """Return what the journals of a bundle tell of its own leases."""
    leases = {task.key: task.lease for task in tasks}
    grounds = {task.key for task in tasks if task.kind is Kind.GROUND}
    found = Progress()
    for path in run_folders(folder):
        run = _run(path)
        for journal in journals(path):
            for record, _ in read_journal(journal):
                if isinstance(record, Started):
                    found.in_hand.add(record.key)
                if not isinstance(record, Outcome) or record.lease != leases.get(record.lease.key):
                    continue
                key = record.lease.key
                found.ended[key] = record.state
                if record.entry["cause"] is not None:
                    found.causes[key] = (str(record.entry["cause"]), str(record.entry["message"] or ""))
                if key in grounds and record.state is State.DONE:
                    found.grounds[key] = moved(str(record.entry["directory"]), run.root, folder)
    found.in_hand -= found.ended.keys()
    return found


def moved(directory: str, root: str, folder: Path) -> str:
    """Return where a run folder is now that was made while the bundle was at ``root``."""
    inside = os.path.relpath(directory, root)
    return directory if inside.startswith("..") else str(folder / inside)
