"""How much the run folders take, without walking all of them: the tree is hashed, so a part of it is a sample of it.

Calculation keys are content hashes, so each of the 256 folders ``runs/<key[:2]>`` holds a random share of the
calculations. A few of them, measured in turn, tell the size of the whole within a few percent (once there are thousands
of calculations; few are measured completely, in milliseconds), whoever wrote or deleted what meanwhile. What was
measured is kept in ``runs/usage.json`` for the next process.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from htxas.domain.identity import is_key
from htxas.launch.disk.archive import SUFFIX, bytes_on_disk
from htxas.settings import runs_folder

__all__ = [
    "DiskQuota",
    "Held",
    "Room",
    "Usage",
    "file_system",
    "folder_usage",
    "held_in",
    "prefixes",
]

_PREFIXES = 256
_USAGE_FILE = "usage.json"
_BUDGET_S = 0.1
_FRESH_S = 10.0
_STALE_S = 600.0
_SAVE_EVERY_S = 60.0
_NEARLY = 0.98  # the sample's error, and what is being written
_LEAST_FREE_BYTES, _LEAST_FREE_SHARE = 200 * 2**20, 0.02
_LEAST_FREE_FILES = 2000
_HEX = frozenset("0123456789abcdef")


def prefixes() -> list[str]:
    """Return the existing folders of keys, ``00`` to ``ff``."""
    try:
        names = [p.name for p in runs_folder().iterdir()]
    except FileNotFoundError:
        return []
    return sorted(n for n in names if len(n) == 2 and set(n) <= _HEX)


@dataclass(frozen=True, slots=True)
class Held:
    """What one calculation takes on disk.

    Attributes
    ----------
    key
        Calculation key; empty for leftovers of a killed process.
    packed
        Whether it is an archive or a directory with attempts.
    bytes, files
        As a quota counts them: blocks; files and folders.
    """

    key: str
    packed: bool
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and files.

    Attributes
    ----------
    bytes, files
        As a quota counts them.
    exact
        Whether all was measured, or a part of it.
    """

    bytes: int
    files: int
    exact: bool = True


def folder_usage(folder: Path) -> Usage:
    """Measure a folder and all below it; what vanishes meanwhile is not counted, an absent folder is nothing."""
    used = files = 0
    stack = [str(folder)]
    try:
        used, files = bytes_on_disk(folder.lstat()), 1
    except OSError:
        return Usage(0, 0)
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    try:
                        used += bytes_on_disk(entry.stat(follow_symlinks=False))
                    except FileNotFoundError:
                        continue
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:  # vanished, or not ours to read
            continue
    return Usage(used, files)


def file_system() -> dict[str, int]:
    """Return ``bytes``, ``free_bytes``, ``files`` and ``free_files`` of the file system of the run folders.

    ``files`` is 0 where the file system has no fixed number of them.
    """
    folder = runs_folder()
    while not folder.exists():
        folder = folder.parent
    status = os.statvfs(folder)
    return {
        "bytes": status.f_blocks * status.f_frsize,
        "free_bytes": status.f_bavail * status.f_frsize,
        "files": status.f_files,
        "free_files": status.f_favail,
    }


def _file_system_share() -> tuple[float, str]:
    """Return how full the file system is (1.0: no more work) and the sentence that says so."""
    status = file_system()
    free, least = status["free_bytes"], min(_LEAST_FREE_BYTES, _LEAST_FREE_SHARE * status["bytes"])
    # Nine tenths full when as much again is left above the least: full disks of others are none of our business.
    share = min(1.0, max(0.0, 1.0 - (free - least) / (10 * least))) if least else 0.0
    if status["files"] and status["free_files"] < min(_LEAST_FREE_FILES, _LEAST_FREE_SHARE * status["files"]):
        return 1.0, f"only {status['free_files']:,} files more fit on the file system"
    return share, f"only {free / 1e6:,.0f} MB are free on the file system"


def held_in(prefix: str) -> Iterator[Held]:
    """Yield what each calculation of one prefix takes: one entry per archive and per directory."""
    folder = runs_folder() / prefix
    try:
        with os.scandir(folder) as scan:
            entries = list(scan)
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        key = entry.name.partition(".")[0]
        if entry.is_dir(follow_symlinks=False):
            usage = folder_usage(Path(entry.path))
            yield Held(key if is_key(entry.name) else "", False, usage.bytes, usage.files)
        else:
            packed = entry.name.endswith(SUFFIX) and is_key(key)
            yield Held(key if packed else "", packed, bytes_on_disk(status), 1)


@dataclass(frozen=True, slots=True)
class Room:
    """Whether there is room for more work, and if not, why; true if there is.

    Attributes
    ----------
    ok
        Whether to go on.
    what
        What is fullest, in numbers.
    share
        How full that is; 1.0 is full.
    """

    ok: bool
    what: str
    share: float

    @property
    def why(self) -> str:
        """Why there is no room, and what to do; empty if there is."""
        return "" if self.ok else f"{self.what} ({runs_folder()}); htxas disk says what can be freed"

    def __bool__(self) -> bool:
        return self.ok


@dataclass(slots=True)
class _Measured:
    bytes: int
    files: int
    when: float  # unix seconds: shared between processes


class DiskQuota:
    """What the run folders may take, and whether the file system has room at all.

    Cheap enough to be asked before every lease: it measures for at most a tenth of a second every ten seconds. For any
    number of threads.

    Parameters
    ----------
    most_bytes, most_files
        Limits of everything below ``runs/``; None is no limit. Files are inodes: folders count.
    """

    def __init__(self, most_bytes: int | None = None, most_files: int | None = None) -> None:
        self.most_bytes = most_bytes
        self.most_files = most_files
        self._lock = threading.Lock()
        self._parts: dict[str, _Measured] = {}
        self._asked: Usage | None = None
        self._asked_at = self._saved_at = float("-inf")

    def room(self) -> Room:
        """Return whether there is room for more calculations, else why not."""
        shares: list[tuple[float, str]] = [_file_system_share()]
        if self.most_bytes is not None or self.most_files is not None:
            used = self.used()
            if self.most_bytes is not None:
                share = used.bytes / self.most_bytes if self.most_bytes else 1.0
                text = f"the run folders take {used.bytes / 1e9:,.1f} of {self.most_bytes / 1e9:,.1f} GB"
                shares.append((share, text))
            if self.most_files is not None:
                share = used.files / self.most_files if self.most_files else 1.0
                shares.append((share, f"the run folders hold {used.files:,} of {self.most_files:,} files"))
        share, what = max(shares)
        return Room(share < _NEARLY, what, share)

    def used(self, *, budget_s: float = _BUDGET_S, fresh_s: float = _FRESH_S) -> Usage:
        """Return what the run folders take, measuring for at most ``budget_s`` if the last answer is too old."""
        with self._lock:
            now = time.monotonic()
            if self._asked is None or now - self._asked_at > fresh_s:
                self._asked, self._asked_at = self._estimate(budget_s), now
            return self._asked

    def _estimate(self, budget_s: float) -> Usage:
        if not self._parts:
            self._parts = _load()
        present = ["workers", *prefixes()]
        self._parts = {p: m for p, m in self._parts.items() if p in present}
        oldest = sorted(present, key=lambda p: self._parts[p].when if p in self._parts else 0.0)
        deadline, now = time.monotonic() + budget_s, time.time()
        for part in oldest:
            known = self._parts.get(part)
            if known is not None and now - known.when < _FRESH_S:
                break
            usage = folder_usage(runs_folder() / part)
            self._parts[part] = _Measured(usage.bytes, usage.files, now)
            if time.monotonic() > deadline:
                break
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self._saved_at = time.monotonic()
            _save(self._parts)
        return self._sum(present)

    def _sum(self, present: list[str]) -> Usage:
        keyed = [p for p in present if p != "workers"]
        measured = [self._parts[p] for p in keyed if p in self._parts]
        factor = len(keyed) / len(measured) if measured else 0.0
        total_bytes = factor * sum(m.bytes for m in measured)
        total_files = factor * sum(m.files for m in measured)
        logs = self._parts.get("workers")
        if logs is not None:
            total_bytes, total_files = total_bytes + logs.bytes, total_files + logs.files
        return Usage(round(total_bytes), round(total_files), len(measured) == len(keyed))


def _load() -> dict[str, _Measured]:
    try:
        document = json.loads((runs_folder() / _USAGE_FILE).read_text())
        parts = {
            str(k): _Measured(int(v["bytes"]), int(v["files"]), float(v["when"])) for k, v in document.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # absent or damaged: measured again
    return {k: v for k, v in parts.items() if time.time() - v.when < _STALE_S}


def _save(parts: Mapping[str, _Measured]) -> None:
    path = runs_folder() / _USAGE_FILE
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        draft.write_text(json.dumps({k: asdict(v) for k, v in parts.items()}))
        draft.replace(path)
    except OSError:  # only a memory aid; a full disk is what this module is about
        draft.unlink(missing_ok=True)
