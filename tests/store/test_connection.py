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
    """Leases, returns and deliveries go on while mongod is killed and restarted: all arrive, none twice."""
    server = PrivateServer(tmp_path / "db")
    server.up()
    many = world.make(40)
    keys = list(many.calculations)
    answers = []
    try:
        with Store.open(read_secret(server.uri_file), patience_s=60) as store:
            many.submit(store)

            def work():
                for part in chunks(keys, 4):
                    first = [x.lease for x in store.lease_many(part, "w")]
                    assert set(store.release(first).values()) == {"ready"}
                    outcomes = [many.outcome(x.lease) for x in store.lease_many(part, "w")]
                    answers.extend(store.deliver(outcomes))
                    store.spend("w", {"demo": 3600.0}, len(answers))

            worker = threading.Thread(target=work)
            worker.start()
            for at in (8, 60):
                while len(answers) < at and worker.is_alive():
                    time.sleep(0.002)
                os.kill(server.files.pid(), signal.SIGKILL)
                while server.files.in_use():
                    time.sleep(0.02)
                server.up()
            worker.join(timeout=90)
            assert len(answers) == 120
            assert set(answers) <= {"stored", "again"}
            assert store.counts()["done"] == 120
            records = list(store.find())
            assert {r.attempts for r in records} == {2}
            assert {len(r.history) for r in records} == {1}
            assert store._db["spectra"].count_documents({"attempt": 2}) == 80
            assert store.spent() == {"demo": 30.0}
    finally:
        server.down()
