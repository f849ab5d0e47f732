"""The private MongoDB of one user: a one-member replica set with its own folder, port and password.

A replica set, because a standalone loses acknowledged writes when it is killed and has no transactions. The folder is
described in :mod:`htxas.store.folder`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from htxas.errors import DatabaseUnavailable
from htxas.settings import database_folder
from htxas.store.connection import Document
from htxas.store.folder import ServerFolder, within
from htxas.store.mongod import Mongod, find_mongod

__all__ = ["PrivateServer", "ServerStatus"]

_HOST = "127.0.0.1"
_SET = "htxas"
_USER = "htxas"
_PORT_TRIES = 5
_SOCKET_PATH_LIMIT = 107  # sun_path of Linux, less its final zero
_ADOPTION_S = 10.0

# mongod's exit status and the server's error codes.
_EXIT_PORT_TAKEN, _EXIT_OTHER_VERSION = 48, 62
_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ALREADY_INITIATED, _NOT_YET_INITIALIZED = 13, 18, 23, 94


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
        self.files = ServerFolder(folder or database_folder())
        self.timeout_s = timeout_s

    @property
    def folder(self) -> Path:
        """The server's folder."""
        return self.files.path

    @property
    def uri_file(self) -> Path:
        """File (0600) with the connection string."""
        return self.files.uri

    def up(self) -> ServerStatus:
        """Start the server unless it runs; return once it takes writes. Safe from several processes at once.

        Raises
        ------
        DatabaseUnavailable
            No mongod, no room, a foreign server in the folder, or a server that does not start; with the last
            error of its log.
        """
        self.files.make()
        with self.files.alone(self.timeout_s):
            if self.files.in_use():
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
        if not self.files.in_use():
            return False
        with self.files.alone(self.timeout_s):
            port = self.files.notes().get("port")
            if port is None or not self.files.has_password:
                raise self._foreign()
            try:
                with _client(int(port), self.files.password()) as client:
                    client.admin.command("shutdown", force=True, timeoutSecs=1)
            except ConnectionFailure:
                pass  # the answer to a shutdown is a closed connection
            except OperationFailure as error:
                if error.code in (_UNAUTHORIZED, _AUTHENTICATION_FAILED):
                    raise self._foreign() from None
                raise self._trouble(f"the server refuses to stop: {error}") from error
            if not within(self.timeout_s, lambda: not self.files.in_use()):
                raise self._trouble("the server does not stop")
        return True

    def status(self) -> ServerStatus:
        """Look without changing anything."""
        files, facts = self.files, {}
        port, message = files.notes().get("port"), None
        if not files.in_use():
            state = "down"
            message = files.last_trouble() if files.uri.exists() else "never started"
        else:
            try:
                with _client(int(port or 0), files.password()) as client:
                    facts = client.admin.command("serverStatus", metrics=0, wiredTiger=0)
                state = "up"
            except (PyMongoError, DatabaseUnavailable) as error:
                state, message = "silent", str(error).split(", full error")[0]
        return ServerStatus(
            state=state,
            folder=str(files),
            uri_file=str(files.uri),
            port=int(port) if port and state == "up" else None,
            pid=None if state == "down" else files.pid(),
            version=str(facts["version"]) if facts else None,
            uptime_s=float(facts["uptime"]) if facts else None,
            data_bytes=files.data_bytes(),
            log=str(files.log),
            message=message,
        )

    def _start(self) -> None:
        notes = self.files.notes()
        remembered = notes.get("mongod")
        mongod = find_mongod(Path(remembered) if remembered else None)
        self.files.refuse_full_disk()
        self.files.prepare_data()
        port = int(notes.get("port") or _free_port())
        for _ in range(_PORT_TRIES):
            self.files.note(port=port, mongod=str(mongod.path))
            status = self._launch(mongod, port)
            if status == 0:
                self._make_ready(port)
                return
            if status != _EXIT_PORT_TAKEN:
                break
            port = _free_port()
        raise self._did_not_start(status, mongod)

    def _launch(self, mongod: Mongod, port: int) -> int:
        """Start the daemon; return mongod's exit status, 0 once it accepts connections."""
        local = ["--unixSocketPrefix", str(self.folder), "--filePermissions", "0700"]
        if len(os.fsencode(self.folder / f"mongodb-{port}.sock")) > _SOCKET_PATH_LIMIT:
            local = ["--nounixsocket"]
        command = [
            *(str(mongod.path), "--fork", "--quiet", "--dbpath", str(self.files.data)),
            *("--logpath", str(self.files.log), "--logappend"),
            *("--port", str(port), "--bind_ip", _HOST, *local),
            *("--replSet", _SET, "--auth", "--keyFile", str(self.files.keyfile)),
            *("--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "512"),
            # The compressors carry CVE-2025-14847 in old releases, and loopback does not need them.
            *("--networkMessageCompressors", "disabled"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # Nobody reads the past here; keeping it would hold the files of dropped collections open for minutes.
            *("--setParameter", "minSnapshotHistoryWindowInSeconds=0"),
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
            raise self._trouble(f"mongod is not ready after {self.timeout_s:.0f} s") from None
        self._raise_file_limit()
        return done.returncode

    def _raise_file_limit(self) -> None:
        """Let it open as many files as we may: one too many ends mongod, and each index is a file."""
        pid = self.files.pid()
        if pid is None or not hasattr(resource, "prlimit"):  # Linux only
            return
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError):  # it has just ended: seen by whoever asks it next
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))

    def _make_ready(self, port: int) -> None:
        """Bring a server that accepts connections to where it takes our writes; every step may be repeated."""
        password = self.files.password()
        try:
            if not within(self.timeout_s, lambda: self._is_ready(port, password)):
                raise self._trouble("the server does not become primary")
        except PyMongoError as error:
            raise self._trouble(f"the server runs but refuses to work: {error}") from error
        self.files.complete(
            f"mongodb://{_USER}:{password}@{_HOST}:{port}/?authSource=admin&directConnection=true"
        )

    def _is_ready(self, port: int, password: str) -> bool:
        """Do what can be done now. A server that reads its configuration says so or closes connections: not yet."""
        try:
            with _client(port) as anyone:
                if not self._knows_us(port, password):
                    self._initiate(anyone, port, password)
                with _client(port, password) as client:
                    _correct_address(client, port)
                return bool(anyone.admin.command("hello").get("isWritablePrimary"))
        except ConnectionFailure:
            if not self.files.in_use():
                raise
            return False
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED:
                raise
            return False

    def _knows_us(self, port: int, password: str) -> bool:
        try:
            with _client(port, password) as client:
                client.admin.command("ping")
        except OperationFailure as error:
            if error.code != _AUTHENTICATION_FAILED:
                raise
            return False
        return True

    def _initiate(self, anyone: MongoClient[Document], port: int, password: str) -> None:
        """Make the set and its user, which the server allows from loopback as long as it has no user."""
        members = [{"_id": 0, "host": f"{_HOST}:{port}"}]
        try:
            anyone.admin.command("replSetInitiate", {"_id": _SET, "members": members})
        except OperationFailure as error:
            if error.code == _UNAUTHORIZED:
                raise self._foreign() from None
            if error.code != _ALREADY_INITIATED:
                raise
        primary = within(self.timeout_s, lambda: bool(anyone.admin.command("hello").get("isWritablePrimary")))
        if not primary:
            raise self._trouble("the server does not become primary")
        anyone.admin.command("createUser", _USER, pwd=password, roles=["root"])

    def _adopt(self) -> None:
        """Make sure that the live server is ours and ready; a start killed half-way leaves one that is not."""
        port = self.files.notes().get("port")
        if port is None or not self.files.has_password:
            raise self._foreign()

        def answers() -> bool:
            try:
                with _client(int(port)) as anyone:
                    anyone.admin.command("ping")
            except ConnectionFailure:
                return False
            return True

        if not within(min(self.timeout_s, _ADOPTION_S), answers):
            raise self._foreign()
        self._make_ready(int(port))

    def _trouble(self, message: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(message, where=str(self.files), hint=f"see {self.files.log}")

    def _foreign(self) -> DatabaseUnavailable:
        pid = self.files.pid()
        return DatabaseUnavailable(
            "the folder is in use by another mongod" + (f" (process {pid})" if pid else ""),
            where=str(self.files.data),
            hint="stop that server, or set HTXAS_HOME to another folder",
        )

    def _did_not_start(self, status: int, mongod: Mongod) -> DatabaseUnavailable:
        if self.files.in_use():
            return self._foreign()
        reason = self.files.last_trouble() or f"exit status {status}"
        if status == _EXIT_OTHER_VERSION:
            return DatabaseUnavailable(
                f"the data were written by another MongoDB than {mongod.version_text}",
                where=str(self.files),
                hint="set HTXAS_MONGOD to the program that wrote them",
            )
        if "No space left" in reason:
            return DatabaseUnavailable(
                "the disk is full", where=str(self.files), hint="make room, then: htxas db up"
            )
        return self._trouble(f"mongod does not start: {reason}")


def _correct_address(client: MongoClient[Document], port: int) -> None:
    """Tell the set its new port: a member that does not find itself in the set takes no writes."""
    config = client.admin.command("replSetGetConfig")["config"]
    address = f"{_HOST}:{port}"
    if config["members"][0]["host"] != address:
        config["members"][0]["host"] = address
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


def _client(port: int, password: str | None = None) -> MongoClient[Document]:
    who: dict[str, Any] = {}
    if password is not None:
        who = {"username": _USER, "password": password, "authSource": "admin"}
    return MongoClient(
        _HOST, port, directConnection=True, serverSelectionTimeoutMS=2000, appname="htxas db", **who
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
