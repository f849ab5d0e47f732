"""One compressed file in place of a run directory: written whole before the directory goes, read back like it.

``runs/<key[:2]>/<key>/<attempt>/`` becomes ``runs/<key[:2]>/<key>.<attempt>.tar.gz``: one file instead of two folders
and a handful of files. gzip, because every machine can open it and because what is kept is small or compressed already:
for PySCF runs xz saves 6 % more at ten times the time, and neither saves a block of the file system.

A kill at any moment leaves the directory or the archive, whole:

1. ``.<archive>.<host>-<pid>-<random>.part`` is written, brought to disk and read back;
2. it gets its name, if the directory is still there (another process may have been faster);
3. the directory is renamed to ``<attempt>.packed``, and only then deleted.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import secrets
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from htxas.domain.result import Result
from htxas.engines.base import JOB_FILE, Engine, read_job
from htxas.errors import NotFound, StoreError
from htxas.settings import runs_folder

__all__ = [
    "GONE",
    "MANIFEST",
    "SUFFIX",
    "Saved",
    "archive_path",
    "archives_of",
    "bytes_on_disk",
    "finish_removal",
    "matching_archives",
    "pack",
    "read_archived",
    "unpack",
]

SUFFIX = ".tar.gz"
GONE = ".packed"
"""Ending of a directory whose archive is complete and which is being deleted."""
MANIFEST = "packed.json"
"""In every archive: what was packed, when, and which files were left out."""

_LEVEL = 6
_BLOCK = 512  # of st_blocks, whatever the file system's own
_EVIDENCE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Saved:
    """What packing one directory changed on disk."""

    bytes_before: int
    bytes_after: int
    files_before: int
    files_after: int = 1


def archive_path(key: str, attempt: int) -> Path:
    """Return where the archive of an attempt is or would be."""
    return runs_folder() / key[:2] / f"{key}.{attempt}{SUFFIX}"


def archives_of(key: str) -> list[int]:
    """Return the packed attempts of a calculation, oldest first."""
    found = (runs_folder() / key[:2]).glob(f"{key}.*{SUFFIX}")
    numbers = (p.name[len(key) + 1 : -len(SUFFIX)] for p in found)
    return sorted(int(n) for n in numbers if n.isdecimal())


def matching_archives(prefix: str) -> list[str]:
    """Return the keys of packed calculations that start with ``prefix``, at least its first two digits."""
    if len(prefix) < 2 or not set(prefix) <= set("0123456789abcdef"):
        return []
    found = (runs_folder() / prefix[:2]).glob(f"{prefix}*{SUFFIX}")
    return sorted({p.name.partition(".")[0] for p in found})


def bytes_on_disk(status: os.stat_result) -> int:
    """Return the bytes a file or folder takes, as ``du`` and quotas count them."""
    return status.st_blocks * _BLOCK


def pack(
    directory: Path,
    archive: Path,
    *,
    keep: Sequence[str],
    evidence: bool,
    facts: Mapping[str, Any],
    leave_out: Sequence[str] = (),
) -> Saved | None:
    """Put what is worth keeping of ``directory`` into ``archive`` and remove the directory.

    Parameters
    ----------
    directory, archive
        On one file system. An older archive of that name is replaced.
    keep
        Glob patterns of the files to keep.
    evidence
        Keep every other file, too, unless it is larger than 16 MiB: for what failed.
    facts
        For the manifest.
    leave_out
        Names that are never kept.

    Returns
    -------
    Saved or None
        None if somebody else removed the directory meanwhile.

    Raises
    ------
    OSError
        If there is no room for the archive, or a file cannot be read; the directory is as it was.
    """
    part = archive.with_name(f".{archive.name}.{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}.part")
    try:
        identity = _identity(directory)
        files, n_entries, n_bytes = _listing(directory)
        chosen = _chosen(directory, files, keep, evidence, set(leave_out))
        dropped = [{"name": n, "bytes": s} for n, s in sorted(files.items()) if n not in chosen]
        manifest = {
            **facts,
            "directory": str(directory),
            "packed": datetime.now(UTC).isoformat(timespec="seconds"),
            "left_out": dropped,
        }
        _write(part, directory, chosen, manifest)
        _read_back(part, {n: files[n] for n in chosen})
        # Another process may have packed it while we read: what we hold would be a part of it, or nothing.
        if _identity(directory) != identity:
            raise FileNotFoundError(directory)
        part.replace(archive)
    except FileNotFoundError:
        part.unlink(missing_ok=True)
        return None
    except OSError:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(archive.parent)
    _remove(directory)
    return Saved(n_bytes, bytes_on_disk(archive.stat()), n_entries)


def _identity(directory: Path) -> tuple[int, int]:
    status = directory.lstat()
    return status.st_dev, status.st_ino


def _listing(directory: Path) -> tuple[dict[str, int], int, int]:
    """Return the regular files (relative name -> size), the number of entries and the bytes they take."""
    files: dict[str, int] = {}
    entries, used = 1, bytes_on_disk(directory.lstat())
    for folder, folders, names in os.walk(directory, onerror=_raise):
        for name in (*folders, *names):
            path = Path(folder, name)
            status = path.lstat()
            entries += 1
            used += bytes_on_disk(status)
            if path.is_file() and not path.is_symlink():
                files[path.relative_to(directory).as_posix()] = status.st_size
    return files, entries, used


def _raise(error: OSError) -> None:
    raise error


def _chosen(
    directory: Path, files: Mapping[str, int], keep: Sequence[str], evidence: bool, leave_out: set[str]
) -> list[str]:
    wanted = {
        p.relative_to(directory).as_posix() for pattern in (JOB_FILE, *keep) for p in directory.glob(pattern)
    }
    if evidence:
        wanted |= {name for name, size in files.items() if size <= _EVIDENCE_BYTES}
    return sorted(name for name in wanted & files.keys() if PurePosixPath(name).name not in leave_out)


def _write(part: Path, directory: Path, names: Sequence[str], manifest: Mapping[str, Any]) -> None:
    with part.open("xb") as raw:
        with (
            gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0, filename="") as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name in names:
                with (directory / name).open("rb") as stream:
                    tar.addfile(_member(name, os.fstat(stream.fileno())), stream)
            text = (json.dumps(dict(manifest), indent=1) + "\n").encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size, entry.mode = len(text), 0o600
            tar.addfile(entry, io.BytesIO(text))
        raw.flush()
        os.fsync(raw.fileno())


def _member(name: str, status: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = status.st_size, status.st_mode & 0o700, int(status.st_mtime)
    return entry


def _read_back(part: Path, expected: Mapping[str, int]) -> None:
    """Make sure that the archive can be read to its end (gzip has a checksum) and holds every file in full."""
    with gzip.open(part) as packed:
        with tarfile.open(fileobj=packed, mode="r|") as tar:
            found = {m.name: m.size for m in tar}
        _drain(packed)
    if found.keys() - {MANIFEST} != expected.keys() or any(found[n] < s for n, s in expected.items()):
        raise OSError(f"the archive {part} does not hold what was written to it")


def _drain(packed: gzip.GzipFile) -> None:
    """Read to the end, where the checksum is."""
    while packed.read(2**20):
        pass


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    gone = directory.with_name(directory.name + GONE)
    if gone.exists():  # of an earlier life of this attempt, killed while it was being deleted
        shutil.rmtree(gone, ignore_errors=True)
    try:
        directory.rename(gone)
    except FileNotFoundError:
        return  # another process packed it at the same time
    finish_removal(gone)


def finish_removal(gone: Path) -> None:
    """Delete a directory that was packed, and its parent if nothing else is in it."""
    shutil.rmtree(gone, ignore_errors=True)
    try:
        gone.parent.rmdir()
    except OSError:
        return  # other attempts are in it, or another process was faster


def unpack(archive: Path, directory: Path) -> dict[str, Any]:
    """Unpack into ``directory`` (made; must be empty or absent) and return the manifest.

    Raises
    ------
    StoreError
        If the archive is damaged, or holds anything but plain files below the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with gzip.open(archive) as packed:
            _drain(packed)  # tarfile itself stops before the checksum
        with tarfile.open(archive, mode="r:gz") as tar:
            members = tar.getmembers()
            odd = [m.name for m in members if not m.isreg()]
            if odd:
                raise StoreError(
                    f"the archive holds {odd[0]!r}, which is not a plain file", where=str(archive)
                )
            tar.extractall(
                directory, members=members, filter="data"
            )  # refuses paths that leave the directory
        manifest = json.loads((directory / MANIFEST).read_text())
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError, FileNotFoundError) as error:
        raise StoreError(
            f"the archive cannot be unpacked: {type(error).__name__}: {error}", where=str(archive)
        ) from error
    (directory / MANIFEST).unlink()
    return dict(manifest)


@contextmanager
def _unpacked(key: str, attempt: int) -> Iterator[tuple[Path, Path]]:
    archive = archive_path(key, attempt)
    if not archive.exists():
        packed = ", ".join(map(str, archives_of(key)))
        raise NotFound(
            f"attempt {attempt} is not packed here",
            where=key,
            hint=f"packed attempts: {packed}" if packed else None,
        )
    with tempfile.TemporaryDirectory(prefix="htxas-") as name:
        directory = Path(name) / str(attempt)
        original = Path(unpack(archive, directory).get("directory", directory))
        yield directory, original


def read_archived(engine: Engine, key: str, attempt: int) -> Result:
    """Read the result of a packed attempt again: the same as from its directory.

    Raises
    ------
    NotFound
        If it is not packed here.
    EngineFailure
        As the engine reads it.
    StoreError
        If the archive is damaged.
    """
    with _unpacked(key, attempt) as (directory, original):
        result = engine.read(read_job(directory), directory)
    return replace(result, provenance=replace(result.provenance, directory=str(original)))
