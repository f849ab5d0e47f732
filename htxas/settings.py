"""Where htxas keeps things and where its database is. Read from the environment when asked, never at import.

=========================  ==========================================================================
``HTXAS_HOME``             folder of everything below; default ``~/.htxas``
``HTXAS_DB_URI``           connection string of a site's own MongoDB
``HTXAS_DB_URI_FILE``      file (mode 0600) that holds that connection string
``HTXAS_DB_PATIENCE_S``    seconds a command waits for a database that restarts; default 60
``HTXAS_MONGOD``           the ``mongod`` program of the private server
=========================  ==========================================================================
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from htxas.errors import DatabaseUnavailable, UserError

__all__ = [
    "DatabaseLocation",
    "database_folder",
    "database_location",
    "database_patience_s",
    "datasets_folder",
    "home",
    "models_folder",
    "mongod_override",
    "read_secret",
    "runs_folder",
    "studies_folder",
]

URI_FILE = "uri"
"""Name of the private server's connection string file inside :func:`database_folder`."""

_DEFAULT_PATIENCE_S = 60.0


def home() -> Path:
    """Return the folder of this user's htxas: ``$HTXAS_HOME`` or ``~/.htxas``. Not created here."""
    override = os.environ.get("HTXAS_HOME")
    return Path(override).expanduser().absolute() if override else Path.home() / ".htxas"


def database_folder() -> Path:
    """Folder of the private server: data, log, secrets."""
    return home() / "db"


def runs_folder() -> Path:
    """Folder of the run directories, ``<key[:2]>/<key>/<attempt>/``."""
    return home() / "runs"


def models_folder() -> Path:
    """Folder of trained models."""
    return home() / "models"


def studies_folder() -> Path:
    """Folder of studies."""
    return home() / "studies"


def datasets_folder() -> Path:
    """Folder of frozen datasets."""
    return home() / "datasets"


def mongod_override() -> Path | None:
    """Return ``$HTXAS_MONGOD`` if it is set."""
    value = os.environ.get("HTXAS_MONGOD")
    return Path(value).expanduser() if value else None


def database_patience_s() -> float:
    """Return how long an operation outlasts a database that restarts, in seconds.

    Raises
    ------
    UserError
        If ``$HTXAS_DB_PATIENCE_S`` is not a number >= 0.
    """
    text = os.environ.get("HTXAS_DB_PATIENCE_S")
    if text is None:
        return _DEFAULT_PATIENCE_S
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"{text!r} is not a number of seconds", where="HTXAS_DB_PATIENCE_S")
    return value


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """A connection string and where it came from.

    Attributes
    ----------
    uri
        Connection string; holds a password, so it is left out of ``repr``.
    source
        For messages: an environment variable or a file.
    private
        Whether it is the private server of this home.
    """

    uri: str = field(repr=False)
    source: str
    private: bool


def database_location() -> DatabaseLocation:
    """Return where the database is: ``$HTXAS_DB_URI``, ``$HTXAS_DB_URI_FILE``, or the private server.

    Raises
    ------
    DatabaseUnavailable
        No database was ever started, or a file of secrets is missing or readable by others.
    """
    uri = os.environ.get("HTXAS_DB_URI")
    if uri:
        return DatabaseLocation(uri, "HTXAS_DB_URI", private=False)
    file = os.environ.get("HTXAS_DB_URI_FILE")
    if file:
        path = Path(file).expanduser()
        return DatabaseLocation(read_secret(path), f"HTXAS_DB_URI_FILE={path}", private=False)
    path = database_folder() / URI_FILE
    if not path.exists():
        raise DatabaseUnavailable(
            "no database has been started here", where=str(database_folder()), hint="start one: htxas db up"
        )
    return DatabaseLocation(read_secret(path), str(path), private=True)


def read_secret(path: Path) -> str:
    """Return the one line in ``path``.

    Raises
    ------
    DatabaseUnavailable
        If it is missing, empty, not ours, or readable by group or others.
    """
    try:
        with path.open() as stream:
            status = os.fstat(stream.fileno())
            text = stream.read().strip()
    except OSError as error:
        raise DatabaseUnavailable(
            f"the file of secrets cannot be read: {error.strerror}", where=str(path)
        ) from None
    if status.st_uid != os.geteuid():
        raise DatabaseUnavailable("the file of secrets belongs to another user", where=str(path))
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DatabaseUnavailable(
            "the file of secrets is open to other users", where=str(path), hint=f"chmod 600 {path}"
        )
    if not text or "\n" in text:
        raise DatabaseUnavailable("the file of secrets must hold one line", where=str(path))
    return text
