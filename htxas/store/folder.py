"""The folder of a private server: secrets, locks and notes, for its owner alone.

::

    db/             0700
      lock          held while a server is started or stopped
      data/         MongoDB's own files; MongoDB locks data/mongod.lock as long as it lives
      keyfile       0600, members of the replica set know each other by it
      password      0600
      uri           0600, the connection string, written when the server is ready
      server.json   port and program of the last start
      half-made     there until the first start has created the user
      mongod.log
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from htxas.errors import DatabaseUnavailable
from htxas.settings import URI_FILE, read_secret

__all__ = ["ServerFolder", "within", "write_private"]

_LEAST_FREE_BYTES = 400 * 2**20  # the journal alone takes 300 MB
_LOG_LIMIT_BYTES = 50 * 2**20
_LOG_TAIL_BYTES = 65536


def within(timeout_s: float, holds: Callable[[], bool]) -> bool:
    """Ask until ``holds`` (True) or the time is over (False), ever less often."""
    deadline = time.monotonic() + timeout_s
    pause = 0.02
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(1.5 * pause, 0.5)
    return True


class ServerFolder:
    """Paths and files of one private server.

    Parameters
    ----------
    path
        The folder; made by :meth:`make`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.data = self.path / "data"
        self.log = self.path / "mongod.log"
        self.uri = self.path / URI_FILE
        self.keyfile = self.path / "keyfile"
        self._password = self.path / "password"
        self._notes = self.path / "server.json"
        self._half_made = self.path / "half-made"

    def __str__(self) -> str:
        return str(self.path)

    def make(self) -> None:
        """Create the folder, 0700.

        Raises
        ------
        DatabaseUnavailable
            If the system refuses.
        """
        try:
            self.path.mkdir(0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise DatabaseUnavailable(
                f"the folder of the database cannot be made: {error.strerror}", where=str(self)
            ) from None

    def prepare_data(self) -> None:
        """Create secrets and an empty data folder, unless they are there."""
        if self._half_made.exists() and self.data.exists():
            shutil.rmtree(
                self.data
            )  # the first start was killed before there was a user: nothing can be in it
        if not self.data.exists():
            self._half_made.touch(0o600)
            self.data.mkdir(0o700)
        for path, secret in (
            (self.keyfile, secrets.token_hex(256)),
            (self._password, secrets.token_urlsafe(32)),
        ):
            if not path.exists():
                write_private(path, secret)
            read_secret(path)  # refuses one that others can read
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def complete(self, uri: str) -> None:
        """Write the connection string: from now on the data are worth something."""
        self._half_made.unlink(missing_ok=True)
        write_private(self.uri, uri)

    @property
    def has_password(self) -> bool:
        """Whether a server was ever started here by us."""
        return self._password.exists()

    def password(self) -> str:
        """Return the password of our user."""
        return read_secret(self._password)

    @contextmanager
    def alone(self, timeout_s: float) -> Iterator[None]:
        """Hold the folder's lock; the kernel lets go of it if we are killed.

        Raises
        ------
        DatabaseUnavailable
            If another process holds it for longer than ``timeout_s``.
        """
        with (self.path / "lock").open("a") as stream:
            if not within(timeout_s, lambda: _flock(stream.fileno(), fcntl.LOCK_EX)):
                raise DatabaseUnavailable("another htxas is starting or stopping the server", where=str(self))
            yield

    def in_use(self) -> bool:
        """Whether a live mongod has the data: it holds a lock, so neither a stale file nor a reused pid deceives."""
        try:
            stream = (self.data / "mongod.lock").open("r")
        except FileNotFoundError:
            return False
        with stream:
            return not _flock(stream.fileno(), fcntl.LOCK_SH)

    def pid(self) -> int | None:
        """Process id that mongod left; meaningful only while :meth:`in_use`."""
        try:
            return int((self.data / "mongod.lock").read_text())
        except (OSError, ValueError):
            return None

    def notes(self) -> dict[str, Any]:
        """Return what :meth:`note` wrote, or nothing."""
        try:
            notes = json.loads(self._notes.read_text())
        except (OSError, json.JSONDecodeError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def note(self, **facts: Any) -> None:
        """Remember facts for the next start."""
        write_private(self._notes, json.dumps(facts))

    def refuse_full_disk(self) -> None:
        """Raise :class:`DatabaseUnavailable` if a start would fill the disk."""
        free = shutil.disk_usage(self.path).free
        if free < _LEAST_FREE_BYTES:
            raise DatabaseUnavailable(
                f"the disk is full: {free / 2**20:.0f} MB free, {_LEAST_FREE_BYTES / 2**20:.0f} needed",
                where=str(self),
                hint="make room, or set HTXAS_HOME to another disk",
            )

    def last_trouble(self) -> str | None:
        """Return the last fatal or error line that the server logged since its last start."""
        if not self.log.exists():
            return None
        with self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
        for line in reversed(lines):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the first line of the tail is cut
            if entry.get("msg") == "SERVER RESTARTED":
                return None
            if entry.get("s") in ("E", "F"):
                attr = entry.get("attr", {})
                detail = attr.get("error") or attr.get("message") or attr.get("msg") or ""
                text = detail if isinstance(detail, str) else json.dumps(detail)
                return f"{entry.get('msg')} {text}".strip()[:300]
        return None

    def data_bytes(self) -> int:
        """Size of the data on disk."""
        total = 0
        for root, _, files in os.walk(self.data):
            for name in files:
                try:
                    total += (Path(root) / name).stat().st_size
                except FileNotFoundError:  # MongoDB removes files as it goes
                    continue
        return total


def write_private(path: Path, text: str) -> None:
    """Write ``path`` at once, 0600 from its first byte."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _flock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
