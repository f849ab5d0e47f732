"""One connection, and what htxas does when it breaks: wait, try again, and in the end say so in one line."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from bson.codec_options import CodecOptions
from bson.errors import InvalidDocument
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from htxas.errors import DatabaseUnavailable, HtxasError, InternalError, StoreError
from htxas.settings import DatabaseLocation

__all__ = ["Connected", "Document", "Documents", "chunks", "connect", "is_passing", "translate"]

Document = dict[str, Any]
Documents = Collection[Document]
P = ParamSpec("P")
T = TypeVar("T")

MINIMUM_SERVER = (6, 0)
CHUNK = 1000
"""Documents per bulk write: large enough for the round trip not to matter, small enough for memory."""

_SELECTION_MS = 5_000
_AUTHENTICATION_FAILED, _UNAUTHORIZED, _VALIDATION, _DISK_FULL = 18, 13, 121, 14031
_TOO_LARGE = frozenset({10334, 17419, 17420})
# A server that starts, stops, elects, builds an index or is overloaded answers with these, and so does one that was
# started again under an open cursor or transaction (43, 251); everything else would fail again.
_PASSING = frozenset(
    {
        6,
        7,
        24,
        43,
        50,
        64,
        89,
        91,
        94,
        112,
        189,
        211,
        246,
        251,
        262,
        9001,
        10107,
        11600,
        11602,
        12587,
        13435,
        13436,
    }
)


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield lists of at most ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def connect(uri: str) -> MongoClient[Document]:
    """Return a client whose writes are acknowledged only once they are in the journal of a majority.

    Raises
    ------
    DatabaseUnavailable
        If the connection string is not one.
    """
    form = "mongodb://USER:PASSWORD@HOST:PORT/?..."
    if not uri.startswith(("mongodb://", "mongodb+srv://")):  # pymongo takes anything for a host name
        raise DatabaseUnavailable("the connection string does not begin with mongodb://", hint=form)
    try:
        with warnings.catch_warnings():
            # pymongo warns about an option it does not understand and goes on without it.
            warnings.simplefilter("error", UserWarning)
            return MongoClient(
                uri,
                w="majority",
                journal=True,
                retryWrites=True,
                readConcernLevel="majority",
                serverSelectionTimeoutMS=_SELECTION_MS,
                connectTimeoutMS=_SELECTION_MS,
                tz_aware=True,
                tzinfo=UTC,
                appname="htxas",
            )
    except (ConfigurationError, InvalidURI, ValueError, UserWarning) as error:
        raise DatabaseUnavailable(f"the connection string is not valid: {error}", hint=form) from None


def is_passing(error: PyMongoError) -> bool:
    """Tell whether the same call may succeed a little later."""
    if isinstance(error, ConnectionFailure):  # AutoReconnect, time-outs, no primary
        return True
    if error.has_error_label("TransientTransactionError") or error.has_error_label("RetryableWriteError"):
        return True
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        problems = details.get("writeErrors", [])
        if problems:
            return all(p.get("code") in _PASSING for p in problems)
        return bool(details.get("writeConcernErrors"))
    return isinstance(error, OperationFailure) and error.code in _PASSING


def translate(error: PyMongoError, location: DatabaseLocation) -> HtxasError:
    """Return the htxas error that says what a pymongo error means for the user."""
    where = location.source
    start = "htxas db up" if location.private else "is the server up, and is the connection string right?"
    if isinstance(error, AutoReconnect | ConnectionFailure):
        return DatabaseUnavailable("the database does not answer", where=where, hint=start)
    if is_passing(error):
        return DatabaseUnavailable(
            f"the database is not able to answer now: {str(error).splitlines()[0]}",
            where=where,
            hint="htxas db status",
        )
    if isinstance(error, DocumentTooLarge):
        return StoreError("a document is larger than MongoDB accepts (16 MB)", where=where)
    codes = {getattr(error, "code", None)}
    text = str(error)
    if isinstance(error, BulkWriteError):
        problems = (error.details or {}).get("writeErrors", [])
        codes |= {p.get("code") for p in problems}
        text = "; ".join(str(p.get("errmsg")) for p in problems[:1]) or text
    if codes & _TOO_LARGE:
        return StoreError("a document is larger than MongoDB accepts (16 MB)", where=where)
    if _AUTHENTICATION_FAILED in codes:
        return DatabaseUnavailable("the database refuses the user or password", where=where)
    if _UNAUTHORIZED in codes:
        return DatabaseUnavailable(f"the user may not do this: {text}", where=where)
    if _DISK_FULL in codes:
        return DatabaseUnavailable(
            "the disk of the database is full", where=where, hint="make room, then try again"
        )
    if _VALIDATION in codes:
        return StoreError(f"the database refuses a document: {text}", where=where)
    if isinstance(error, ConfigurationError):
        return DatabaseUnavailable(f"the connection string is not valid: {text}", where=where)
    return InternalError(f"{type(error).__name__}: {text}", where=where)


class Connected:
    """Base of the store's parts: a database and a way to outlast its restarts."""

    def __init__(self, location: DatabaseLocation, name: str, *, patience_s: float) -> None:
        self._location = location
        self._patience_s = patience_s
        self._client = connect(location.uri)
        # Majority reads: what was seen once is never rolled back.
        self._db: Database[Document] = self._client.get_database(
            name,
            codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
            write_concern=WriteConcern(w="majority", j=True),
            read_concern=ReadConcern("majority"),
        )

    def _persist(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``call(*args, **kwargs)``, repeated with growing pauses while the database restarts.

        ``call`` must be idempotent: a broken connection does not tell whether the server acted.

        Raises
        ------
        DatabaseUnavailable
            If it does not come back within the patience of this store.
        """
        deadline = time.monotonic() + self._patience_s
        pause = 0.05
        while True:
            try:
                return call(*args, **kwargs)
            except PyMongoError as error:
                if not is_passing(error) or time.monotonic() + pause > deadline:
                    raise translate(error, self._location) from error
            except InvalidDocument as error:
                raise InternalError(f"a value cannot be stored: {error}") from error
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _server_time(self) -> datetime:
        """Return the server's time as a value: an index alone does not answer a query with ``$$NOW``."""
        now: datetime = self._persist(self._client.admin.command, "hello")["localTime"]
        return now

    def _all(self, collection: str, query: Document, projection: Document | None = None) -> list[Document]:
        return list(self._db[collection].find(query, projection, batch_size=CHUNK))

    def _in_transaction(self, body: Callable[[ClientSession], T]) -> T:
        """Return ``body(session)``, all of it or nothing; repeated on conflicts with others."""
        with self._client.start_session() as session:
            return session.with_transaction(
                body, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern(w="majority", j=True)
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Around cursors, which cannot be resumed: only translates."""
        try:
            yield
        except PyMongoError as error:
            raise translate(error, self._location) from error

    def _cursor(
        self,
        collection: str,
        query: Document,
        *,
        projection: Document | None = None,
        sort: list[tuple[str, int]] | None = None,
        limit: int = 0,
    ) -> Generator[Document]:
        with self._translated():
            cursor = self._db[collection].find(query, projection, sort=sort, limit=limit, batch_size=CHUNK)
            with cursor:
                yield from cursor
