"""A real private MongoDB for the whole session, a fresh database for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from htxas.errors import DatabaseUnavailable

settings.register_profile("derandomized", derandomize=True, deadline=None)
settings.load_profile("derandomized")

_ROOM_BYTES = 4 * 2**30
_DB_VARIABLES = ("HTXAS_DB_URI", "HTXAS_DB_URI_FILE", "HTXAS_DB_PATIENCE_S")


@pytest.fixture(scope="session", autouse=True)
def _no_database_of_the_users() -> Iterator[None]:
    """No test ever touches the user's home or database, whatever the environment says."""
    folder = Path(tempfile.mkdtemp(prefix="htxas-home-"))
    with pytest.MonkeyPatch.context() as patch:
        for name in _DB_VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("HTXAS_HOME", str(folder))
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mongod_folder() -> Iterator[Path]:
    """A short path, as unix socket names must fit into 107 characters; in memory if there is room, for speed."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix="htxas-db-", dir=memory if roomy else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def require_mongod() -> None:
    """Skip loudly without a mongod that runs; fail if HTXAS_REQUIRE_MONGO=1."""
    from htxas.store.mongod import find_mongod

    try:
        find_mongod()
    except DatabaseUnavailable as error:
        if os.environ.get("HTXAS_REQUIRE_MONGO") == "1":
            pytest.fail(f"HTXAS_REQUIRE_MONGO=1, but: {error}")
        pytest.skip(f"needs a real mongod: {error}")


@pytest.fixture(scope="session")
def mongod_uri(require_mongod: None, mongod_folder: Path) -> Iterator[str]:
    """Connection string of a private server of this session."""
    from htxas.settings import read_secret
    from htxas.store.connection import connect
    from htxas.store.server import PrivateServer

    server = PrivateServer(mongod_folder / "db")
    server.up()
    uri = read_secret(server.uri_file)
    with connect(uri) as client:
        # Files of dropped collections go with a checkpoint: a minute of tests has more than a process may open.
        client.admin.command({"setParameter": 1, "syncdelay": 5})
    yield uri
    server.down()


@pytest.fixture
def store(mongod_uri: str) -> Iterator[object]:
    """A store on a fresh database, dropped afterwards. Typed in tests as :class:`htxas.store.store.Store`."""
    from htxas.store.store import Store

    with Store.open(mongod_uri, name=f"test_{uuid4().hex[:12]}", patience_s=20) as opened:
        yield opened
        opened.drop()
