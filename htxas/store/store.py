"""The store: the one interface to everything htxas keeps in MongoDB."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pymongo.errors import PyMongoError

from htxas.errors import DatabaseUnavailable, StoreError
from htxas.settings import DatabaseLocation, database_folder, database_location, database_patience_s
from htxas.store.assembly import Assembly
from htxas.store.connection import MINIMUM_SERVER, translate
from htxas.store.control import Controlling
from htxas.store.delivery import Delivery
from htxas.store.demand import Demand
from htxas.store.folder import ServerFolder
from htxas.store.locks import Locks
from htxas.store.mending import Mending
from htxas.store.models import Models
from htxas.store.reading import Reading
from htxas.store.retrying import Retrying
from htxas.store.schema import ensure_schema
from htxas.store.submission import Submission
from htxas.store.watching import Watching
from htxas.store.work import Work

__all__ = ["Store"]


class Store(
    Submission,
    Work,
    Delivery,
    Retrying,
    Controlling,
    Reading,
    Assembly,
    Watching,
    Demand,
    Mending,
    Models,
    Locks,
):
    """Structures, calculations, results, campaigns, molecules and trained models in one database.

    Open it with :meth:`open`, close it with :meth:`close` or use it as a context manager. Everything it takes and
    gives is in :mod:`htxas.store.records` and :mod:`htxas.domain`. Operations outlast a restart of the database
    (``$HTXAS_DB_PATIENCE_S``); iterators do not and raise :class:`DatabaseUnavailable`. Not for use across a fork: open
    one store per process.
    """

    @staticmethod
    def open(
        uri: str | None = None,
        *,
        name: str = "htxas",
        patience_s: float | None = None,
        source: str = "the given URI",
    ) -> Store:
        """Return an open store with its collections in place.

        Parameters
        ----------
        uri
            Connection string; by default what :func:`htxas.settings.database_location` finds.
        name
            Database name.
        patience_s
            Seconds an operation waits for a database that restarts; by default as in the settings.
        source
            Where ``uri`` came from, for messages.

        Raises
        ------
        DatabaseUnavailable
            If there is no database, or it does not answer, or refuses us.
        StoreError
            If the server is too old or no replica set, or the database was made by a newer htxas.
        """
        location = database_location() if uri is None else DatabaseLocation(uri, source, private=False)
        if location.private and not ServerFolder(database_folder()).in_use():
            raise DatabaseUnavailable(
                "the private database is not running", where=str(database_folder()), hint="htxas db up"
            )
        patience = database_patience_s() if patience_s is None else patience_s
        store = Store(location, name, patience_s=patience)
        with ExitStack() as unless_sound:
            unless_sound.callback(store.close)
            store._check_server()
            store._persist(lambda: ensure_schema(store._db))
            unless_sound.pop_all()
        return store

    def _check_server(self) -> None:
        try:
            hello = self._client.admin.command("hello")
            version = self.server_version
        except PyMongoError as error:  # at once: nobody wants to wait for a server that was never up
            raise translate(error, self._location) from error
        if tuple(int(n) for n in version.split(".")[:2]) < MINIMUM_SERVER:
            raise StoreError(
                f"MongoDB {version} is too old",
                where=self._location.source,
                hint=f"use {MINIMUM_SERVER[0]}.{MINIMUM_SERVER[1]} or newer",
            )
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreError(
                "the server is a standalone: it loses acknowledged writes when it is killed and has no transactions",
                where=self._location.source,
                hint="run it as a replica set; one member is enough",
            )

    @property
    def name(self) -> str:
        """Database name."""
        return self._db.name

    @property
    def server_version(self) -> str:
        """Version of the MongoDB server."""
        return str(self._client.server_info()["version"])

    @property
    def launchpad_database(self) -> str:
        """Name of the FireWorks database beside this one."""
        return f"{self.name}_fireworks"

    def uri_for_launchpad(self) -> str:
        """Return the connection string for a LaunchPad in URI mode. It holds the password: never log it."""
        return self._location.uri

    def drop(self) -> None:
        """Delete this database and its LaunchPad: for tests and benchmarks.

        Raises
        ------
        DatabaseUnavailable
            If the server is away.
        """
        for name in (self.launchpad_database, self.name):
            self._persist(self._client.drop_database, name)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
