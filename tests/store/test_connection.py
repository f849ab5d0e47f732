from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from htxas.errors import DatabaseUnavailable, InternalError
from htxas.settings import DatabaseLocation, read_secret
from htxas.store.connection import Connected, chunks
from htxas.store.server import PrivateServer
from htxas.store.store import Store


def test_chunks_leave_nothing_out():
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []


@pytest.mark.parametrize(
    "uri", ["nonsense", "mongodb://", "mongodb://u:p@h:port/", "mongodb://a/?w=x&directConnection=maybe"]
)
def test_a_bad_connection_string_is_one_line(uri):
    with pytest.raises(DatabaseUnavailable):
        Store.open(uri)


def test_a_server_that_is_down_is_named_with_the_next_command(monkeypatch):
    monkeypatch.setattr("htxas.store.connection._SELECTION_MS", 100)
    here = DatabaseLocation("mongodb://127.0.0.1:9/?directConnection=true", "db/uri", True)
    connected = Connected(here, "x", patience_s=0.3)
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match=r"db/uri: the database does not answer \(htxas db up\)"):
        connected._persist(connected._db["a"].find_one, {})
    assert time.monotonic() - started < 10
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        list(connected._cursor("a", {}))
    connected._client.close()


def test_the_password_is_not_shown():
    location = DatabaseLocation("mongodb://u:secret@h/", "x", private=False)
    assert "secret" not in repr(location)


@pytest.mark.mongo
def test_what_cannot_be_stored_is_a_bug(store):
    with pytest.raises(InternalError, match="cannot be stored"):
        store._persist(store._db["workers"].insert_one, {"_id": object()})


@pytest.mark.mongo
def test_work_outlasts_a_killed_server(require_mongod, tmp_path, world):
    """Writes go on while mongod is killed and restarted: all arrive, none twice."""
    server = PrivateServer(tmp_path / "db")
    server.up()
    many = world.make(30)
    done = []
    try:
        with Store.open(read_secret(server.uri_file), patience_s=60) as store:
            many.submit(store)

            def work():
                done.extend(k for k in many.calculations if many.finish(store, k))

            worker = threading.Thread(target=work)
            worker.start()
            while len(done) == 0 and store.counts()["done"] < 5:
                time.sleep(0.005)
            os.kill(server.files.pid(), signal.SIGKILL)
            while server.files.in_use():
                time.sleep(0.02)
            server.up()
            worker.join(timeout=90)
            assert len(done) == 90
            assert store.counts()["done"] == 90
            assert max(r.attempts for r in store.find()) == 1
            assert store._db["spectra"].count_documents({}) == 60
    finally:
        server.down()
