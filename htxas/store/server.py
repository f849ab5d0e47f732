"""The private MongoDB of one user: a one-member replica set with its own folder, port and password.

A replica set, because a standalone loses acknowledged writes when it is killed and has no transactions.
Everything in the folder is for its owner alone::

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
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from htxas.errors import DatabaseUnavailable
from htxas.settings import URI_FILE, database_folder, read_secret
from htxas.store.connection import Document
from htxas.store.mongod import Mongod, find_mongod

__all__ = ["PrivateServer", "ServerStatus"]

_HOST = "127.0.0.1"
_SET = "htxas"
_USER = "htxas"
_PORT_TRIES = 5
_LEAST_FREE_BYTES = 400 * 2**20
_SOCKET_PATH_LIMIT = 107  # sun_path of Linux, less its final zero
_LOG_LIMIT_BYTES = 50 * 2**20

# mongod's exit status and the server's error codes.
_EXIT_PORT_TAKEN, _EXIT_OTHER_VERSION = 48, 62
_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ALREADY_INITIATED = 13, 18, 23


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of the private server.

    Attributes
    ----------
    state
        ``up``, ``down``, or ``silent`` (the folder is in use, but nobody answers us).
    folder
        Its folder.
    uri_file
        File with the connection string.
    port, pid, version, uptime_s
        Of the live server, else None.
    data_bytes
        Size of the data on disk.
    log
        Its log.
    message
        Why it is not up, where that is known.
    """

    state: str
    folder: str
    uri_file: str
    port: int | None
    pid: int | None
    version: str | None
    uptime_s: float | None
    data_bytes: int
    log: str
    message: str | None


class PrivateServer:
    """Start, stop and look at the server in one folder.

    Parameters
    ----------
    folder
        By default :func:`htxas.settings.database_folder`.
    timeout_s
        How long a start or a stop may take; recovery after a crash is part of a start.
    """

    def __init__(self, folder: Path | None = None, *, timeout_s: float = 120.0) -> None:
        self.folder = (folder or database_folder()).absolute()
        self.timeout_s = timeout_s
        self.data = self.folder / "data"
        self.log = self.folder / "mongod.log"
        self.uri_file = self.folder / URI_FILE
        self._notes = self.folder / "server.json"
        self._half_made = self.folder / "half-made"

    def up(self) -> ServerStatus:
        """Start the server unless it runs; return once it takes writes. Safe from several processes at once.

        Raises
        ------
        DatabaseUnavailable
            No mongod, no room, a foreign server in the folder, or a server that does not start; with its last log line.
        """
        self._make_folder()
        with self._alone():
            if self._in_use():
                self._adopt()
            else:
                self._start()
        return self.status()

    def down(self) -> bool:
        """Stop the server; False if it was not running.

        Raises
        ------
        DatabaseUnavailable
            If it does not stop, or is not ours.
        """
        if not self._in_use():
            return False
        with self._alone():
            port = self._remembered().get("port")
            if port is None or not self.uri_file.exists():
                raise self._foreign()
            try:
                with _client(int(port), self._password()) as client:
                    client.admin.command("shutdown", timeoutSecs=10)
            except ConnectionFailure:
                pass  # the answer to a shutdown is a closed connection
            except OperationFailure as error:
                if error.code in (_UNAUTHORIZED, _AUTHENTICATION_FAILED):
                    raise self._foreign() from None
                raise DatabaseUnavailable(
                    f"the server refuses to stop: {error}", where=str(self.folder)
                ) from error
            if not _within(self.timeout_s, lambda: not self._in_use()):
                raise DatabaseUnavailable(
                    "the server does not stop", where=str(self.folder), hint=f"see {self.log}"
                )
        return True

    def status(self) -> ServerStatus:
        """Look without changing anything."""
        notes = self._remembered()
        port = notes.get("port")
        pid: int | None = None
        version: str | None = None
        uptime: float | None = None
        message: str | None = None
        if not self._in_use():
            state = "down"
            message = self._last_trouble() if self.uri_file.exists() else "never started"
        else:
            pid = self._pid()
            try:
                with _client(int(port or 0), self._password()) as client:
                    facts = client.admin.command("serverStatus", metrics=0, wiredTiger=0)
                state, version, uptime = "up", str(facts["version"]), float(facts["uptime"])
            except (PyMongoError, DatabaseUnavailable, ValueError) as error:
                state, message = "silent", str(error).split(", full error")[0]
        return ServerStatus(
            state=state,
            folder=str(self.folder),
            uri_file=str(self.uri_file),
            port=int(port) if port and state == "up" else None,
            pid=pid,
            version=version,
            uptime_s=uptime,
            data_bytes=_size(self.data),
            log=str(self.log),
            message=message,
        )

    # -- starting ---------------------------------------------------------------------------------

    def _start(self) -> None:
        notes = self._remembered()
        remembered = notes.get("mongod")
        mongod = find_mongod(Path(remembered) if remembered else None)
        self._refuse_full_disk()
        if self._half_made.exists() and self.data.exists():
            shutil.rmtree(
                self.data
            )  # the first start was killed before there was a user: nothing can be in it
        if not self.data.exists():
            self._half_made.touch(0o600)
            self.data.mkdir(0o700)
        self._secret("keyfile", lambda: secrets.token_hex(256))
        self._secret("password", lambda: secrets.token_urlsafe(32))
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        port = notes.get("port") or _free_port()
        for _ in range(_PORT_TRIES):
            self._note(port=port, mongod=str(mongod.path))
            status = self._launch(mongod, int(port))
            if status == 0:
                self._make_ready(int(port))
                return
            if status != _EXIT_PORT_TAKEN:
                break
            port = _free_port()
        raise self._did_not_start(status, mongod)

    def _launch(self, mongod: Mongod, port: int) -> int:
        """Start the daemon; return mongod's exit status, 0 once it accepts connections."""
        socket_path = self.folder / f"mongodb-{port}.sock"
        local = ["--unixSocketPrefix", str(self.folder), "--filePermissions", "0700"]
        if len(os.fsencode(socket_path)) > _SOCKET_PATH_LIMIT:
            local = ["--nounixsocket"]
        command = [
            *(str(mongod.path), "--fork", "--quiet", "--dbpath", str(self.data)),
            *("--logpath", str(self.log), "--logappend"),
            *("--port", str(port), "--bind_ip", _HOST, *local),
            *("--replSet", _SET, "--auth", "--keyFile", str(self.folder / "keyfile")),
            *("--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "512"),
            # The compressors carry CVE-2025-14847 in old releases, and loopback does not need them.
            *("--networkMessageCompressors", "disabled"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        try:
            # Its own session: Ctrl-C in the terminal that started it is none of its business.
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DatabaseUnavailable(
                f"mongod is not ready after {self.timeout_s:.0f} s",
                where=str(self.folder),
                hint=f"see {self.log}",
            ) from None
        return done.returncode

    def _make_ready(self, port: int) -> None:
        """Bring a server that accepts connections to where it takes our writes; every step may be repeated."""
        try:
            with _client(port) as anyone:
                if not self._knows_us(port):
                    self._initiate(anyone, port)
                with _client(port, self._password()) as client:
                    self._correct_address(client, port)
                self._await_primary(anyone)
        except PyMongoError as error:
            raise DatabaseUnavailable(
                f"the server was started but refuses to work: {error}",
                where=str(self.folder),
                hint=f"see {self.log}",
            ) from error
        self._half_made.unlink(missing_ok=True)
        uri = f"mongodb://{_USER}:{self._password()}@{_HOST}:{port}/?authSource=admin&directConnection=true"
        _write_private(self.uri_file, uri)

    def _knows_us(self, port: int) -> bool:
        try:
            with _client(port, self._password()) as client:
                client.admin.command("ping")
        except OperationFailure as error:
            if error.code != _AUTHENTICATION_FAILED:
                raise
            return False
        return True

    def _initiate(self, anyone: MongoClient[Document], port: int) -> None:
        """First start: make the set and its user, as the server allows from loopback while it has no user."""
        members = [{"_id": 0, "host": f"{_HOST}:{port}"}]
        try:
            anyone.admin.command("replSetInitiate", {"_id": _SET, "members": members})
        except OperationFailure as error:
            if error.code == _UNAUTHORIZED:
                raise self._foreign() from None
            if error.code != _ALREADY_INITIATED:
                raise
        self._await_primary(anyone)
        anyone.admin.command("createUser", _USER, pwd=self._password(), roles=["root"])

    def _correct_address(self, client: MongoClient[Document], port: int) -> None:
        """Tell the set its new port: a member that does not find itself in the set takes no writes."""
        config = client.admin.command("replSetGetConfig")["config"]
        address = f"{_HOST}:{port}"
        if config["members"][0]["host"] != address:
            config["members"][0]["host"] = address
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)

    def _await_primary(self, client: MongoClient[Document]) -> None:
        if not _within(self.timeout_s, lambda: bool(client.admin.command("hello").get("isWritablePrimary"))):
            raise DatabaseUnavailable(
                "the server does not become primary", where=str(self.folder), hint=f"see {self.log}"
            )

    def _adopt(self) -> None:
        """Make sure that the live server is ours and ready; a start killed half-way leaves one that is not."""
        port = self._remembered().get("port")
        if port is None or not (self.folder / "password").exists():
            raise self._foreign()

        def answers() -> bool:
            try:
                with _client(int(port)) as anyone:
                    anyone.admin.command("ping")
            except ConnectionFailure:
                return False
            return True

        if not _within(min(self.timeout_s, 10.0), answers):
            raise self._foreign()
        self._make_ready(int(port))

    # -- errors -----------------------------------------------------------------------------------

    def _foreign(self) -> DatabaseUnavailable:
        pid = self._pid()
        return DatabaseUnavailable(
            "the folder is in use by another mongod" + (f" (process {pid})" if pid else ""),
            where=str(self.data),
            hint="stop that server, or set HTXAS_HOME to another folder",
        )

    def _did_not_start(self, status: int, mongod: Mongod) -> DatabaseUnavailable:
        if self._in_use():
            return self._foreign()
        reason = self._last_trouble() or f"exit status {status}"
        hint = f"see {self.log}"
        if status == _EXIT_OTHER_VERSION:
            reason = f"the data were written by another MongoDB than {mongod.version_text}"
            hint = "set HTXAS_MONGOD to the program that wrote them"
        elif "No space left" in reason:
            reason, hint = "the disk is full", "make room, then: htxas db up"
        return DatabaseUnavailable(f"mongod does not start: {reason}", where=str(self.folder), hint=hint)

    def _last_trouble(self) -> str | None:
        """Return the last fatal or error line of the log, if the server ended with one."""
        if not self.log.exists():
            return None
        with self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - 65536))
            lines = stream.read().decode(errors="replace").splitlines()
        for line in reversed(lines):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry.get("msg") == "SERVER RESTARTED":
                return None
            if entry.get("s") in ("E", "F"):
                attr = entry.get("attr", {})
                detail = attr.get("error") or attr.get("message") or attr.get("msg") or ""
                detail = detail if isinstance(detail, str) else json.dumps(detail)
                return f"{entry.get('msg')} {detail}".strip()[:300]
        return None

    def _refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < _LEAST_FREE_BYTES:
            raise DatabaseUnavailable(
                f"the disk is full: {free / 2**20:.0f} MB free, {_LEAST_FREE_BYTES / 2**20:.0f} needed",
                where=str(self.folder),
                hint="make room, or set HTXAS_HOME to another disk",
            )

    # -- files ------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise DatabaseUnavailable(
                f"the folder of the database cannot be made: {error.strerror}", where=str(self.folder)
            ) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock; the kernel lets go of it if we are killed."""
        with (self.folder / "lock").open("a") as stream:
            if not _within(self.timeout_s, lambda: _flock(stream.fileno(), fcntl.LOCK_EX)):
                raise DatabaseUnavailable(
                    "another htxas is starting or stopping the server", where=str(self.folder)
                )
            yield

    def _in_use(self) -> bool:
        """Whether a live mongod has the data: it holds a lock, so neither a stale file nor a reused pid deceives."""
        try:
            stream = (self.data / "mongod.lock").open("r")
        except FileNotFoundError:
            return False
        with stream:
            return not _flock(stream.fileno(), fcntl.LOCK_SH)

    def _pid(self) -> int | None:
        try:
            return int((self.data / "mongod.lock").read_text())
        except (OSError, ValueError):
            return None

    def _remembered(self) -> dict[str, Any]:
        try:
            notes = json.loads(self._notes.read_text())
        except (OSError, json.JSONDecodeError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _note(self, **facts: Any) -> None:
        _write_private(self._notes, json.dumps({**facts, "host": socket.gethostname()}))

    def _password(self) -> str:
        return read_secret(self.folder / "password")

    def _secret(self, name: str, make: Callable[[], str]) -> None:
        path = self.folder / name
        if not path.exists():
            _write_private(path, make())
        read_secret(path)  # refuse one that others can read


def _client(port: int, password: str | None = None) -> MongoClient[Document]:
    who: dict[str, Any] = (
        {} if password is None else {"username": _USER, "password": password, "authSource": "admin"}
    )
    return MongoClient(
        _HOST, port, directConnection=True, serverSelectionTimeoutMS=2000, appname="htxas db", **who
    )


def _write_private(path: Path, text: str) -> None:
    """Write ``path`` at once, 0600 from its first byte."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _flock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _within(timeout_s: float, holds: Callable[[], bool]) -> bool:
    """Ask until ``holds`` or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _size(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(root) / name).stat().st_size
            except FileNotFoundError:  # MongoDB removes files as it goes
                continue
    return total
