"""A database as version 1 of the schema left it, opened by today's htxas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from htxas.domain.calculation import State
from htxas.errors import Cause, StoreError
from htxas.store.schema import SCHEMA_VERSION, ensure_schema
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

_NEW_FIELDS = ("ladder", "history", "interrupted", "interruptions")


@pytest.fixture
def old(store, world):
    """Molecule 0 done; molecule 1: its ground state running for the second time, its sites lost once and thrice."""
    world.submit(store)
    for key in (world.ground_key, *(s.key for s in world.molecules[0].sites)):
        world.finish(store, key)
    ground, sites = world.molecules[1].ground_key, world.molecules[1].sites
    world.lease(store, ground)
    db = store._db
    for name in ("pilots", "spending", "notices", "looks"):
        db.drop_collection(name)
    fields = [
        "kind",
        "structure_key",
        "engine",
        "parameters_key",
        "state",
        "cause",
        "attempts",
        "batch",
        "updated",
    ]
    db.command("collMod", "calculations", validator={"$jsonSchema": {"required": fields}})
    db["calculations"].drop_indexes()
    db["calculations"].create_index(
        [("campaigns", 1), ("state", 1), ("kind", 1), ("cause", 1), ("wall_s", 1), ("estimate_s", 1)],
        name="status",
    )
    db["calculations"].create_index([("state", 1), ("finished", 1)], name="recent")
    db["calculations"].create_index(
        "worker", name="owner", partialFilterExpression={"state": State.RUNNING.value}
    )
    db["calculations"].update_many({}, {"$unset": dict.fromkeys(_NEW_FIELDS, ""), "$set": {"lost": 0}})
    for key, lost in ((ground, 2), (sites[0].key, 1), (sites[1].key, 3)):
        db["calculations"].update_one({"_id": key}, {"$set": {"lost": lost}})
    db["meta"].update_one({"_id": "schema"}, {"$set": {"version": 1}})
    return store


def test_it_is_upgraded_where_it_is(old, world, mongod_uri):
    ground, sites = world.molecules[1].ground_key, world.molecules[1].sites
    with Store.open(mongod_uri, name=old.name) as store:
        assert store.site_result(world.site_key).excitation_energy_eV == 285.0
        records = store.calculations(world.calculations)
        assert all(r.history == () and r.ladder is None for r in records.values())
        assert (records[ground].state, records[ground].lost) == (
            State.RUNNING,
            1,
        )  # but for the present lease
        assert (records[sites[0].key].state, records[sites[0].key].lost) == (State.READY, 1)
        given_up = records[sites[1].key]
        assert (given_up.state, given_up.cause, given_up.lost) == (State.FAILED, Cause.LOST, 3)
        assert given_up.message == "its worker ended without a word as often as is allowed"
        progress = store.progress("demo")
        assert progress["interrupted"] == {"lost": 5}
        assert (progress["counts"]["done"], progress["causes"]) == (3, {"lost": 1})
        # Work goes on, with the lease of version 1 too.
        (running,) = store.held("w")
        assert store.deliver([world.outcome(running)]) == ["stored"]
        assert world.finish(store, sites[0].key)
        assert not store._db["calculations"].count_documents({"lost": {"$exists": True}})
        assert store.pilots() == []
        assert store._db["meta"].find_one({"_id": "schema"})["version"] == SCHEMA_VERSION == 2


def test_its_schema_is_then_that_of_a_new_database(old, mongod_uri):
    def shape(db):
        options = {c["name"]: c["options"].get("validator") for c in db.list_collections()}
        indexes = {name: db[name].index_information() for name in options}
        return options, indexes

    with (
        Store.open(mongod_uri, name=old.name) as upgraded,
        Store.open(mongod_uri, name=old.name + "n") as new,
    ):
        assert shape(upgraded._db) == shape(new._db)
        new.drop()


def test_an_interrupted_upgrade_is_completed(old, world, mongod_uri, monkeypatch):
    class Died(BaseException):
        pass

    def die(*args):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr("htxas.store.schema.drop_replaced", die)
        with pytest.raises(Died):
            ensure_schema(old._db)
    assert old._db["meta"].find_one({"_id": "schema"})["version"] == 1
    ensure_schema(old._db)
    assert old.calculation(world.molecules[1].ground_key).lost == 1  # not reckoned twice


def test_many_processes_may_upgrade_at_once(old, world, mongod_uri):
    def work(_):
        with Store.open(mongod_uri, name=old.name) as store:
            return store.progress("demo")["total"]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [6] * 4
    assert old.calculation(world.molecules[1].ground_key).lost == 1
    assert "owner" not in old._db["calculations"].index_information()


def test_what_version_1_puts_in_meanwhile_is_filled_in_or_refused(old, world, monkeypatch):
    late = old._db["calculations"].find_one({"_id": world.site_key}, dict.fromkeys(_NEW_FIELDS, 0)) | {
        "_id": "f" * 32,
        "lost": 0,
    }
    real = type(old._db).command

    def command(self, name, *args, **kwargs):
        if name == "collMod" and args[0] == "calculations":
            self["calculations"].insert_one(late)
        return real(self, name, *args, **kwargs)

    monkeypatch.setattr(type(old._db), "command", command)
    ensure_schema(old._db)
    assert old.calculation("f" * 32).history == ()
    with pytest.raises(StoreError, match="refuses a document"):
        old._persist(old._db["calculations"].insert_one, {**late, "_id": "e" * 32})
