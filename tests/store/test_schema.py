from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from htxas.errors import StoreError
from htxas.store.connection import connect
from htxas.store.schema import SCHEMA_VERSION, ensure_schema
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


def test_opening_twice_changes_nothing(store):
    before = {name: store._db[name].index_information() for name in store._db.list_collection_names()}
    ensure_schema(store._db)
    after = {name: store._db[name].index_information() for name in store._db.list_collection_names()}
    assert before == after
    assert len(before) == 17
    assert {"status", "ended", "leases", "interrupted", "energy"} <= set(before["calculations"])


def test_many_processes_may_create_it_at_once(mongod_uri):
    name = f"test_{uuid4().hex[:12]}"
    with connect(mongod_uri) as client:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: ensure_schema(client[name]), range(4)))
        assert client[name]["meta"].find_one({"_id": "schema"}) == {
            "_id": "schema",
            "version": SCHEMA_VERSION,
            "added": ["models"],
        }
        client.drop_database(name)


def test_half_a_schema_is_completed(store):
    store._db["meta"].delete_one({"_id": "schema"})
    store._db["calculations"].drop_index("status")
    store._db["dos"].drop()
    ensure_schema(store._db)
    assert "status" in store._db["calculations"].index_information()
    assert "dos" in store._db.list_collection_names()


def test_a_database_without_the_collections_that_came_later_gets_them(store):
    store._db["models"].drop()
    store._db["meta"].update_one({"_id": "schema"}, {"$unset": {"added": ""}})
    ensure_schema(store._db)
    assert "dataset" in store._db["models"].index_information()
    assert store._db["meta"].find_one({"_id": "schema"})["version"] == SCHEMA_VERSION


def test_a_newer_schema_is_refused_and_left_alone(store, mongod_uri):
    store._db["meta"].update_one({"_id": "schema"}, {"$set": {"version": SCHEMA_VERSION + 1}})
    with pytest.raises(StoreError, match="use a newer htxas"):
        Store.open(mongod_uri, name=store.name)
    assert store._db["meta"].find_one({"_id": "schema"})["version"] == SCHEMA_VERSION + 1


def test_validators_refuse_what_is_not_a_calculation(store, world):
    with pytest.raises(StoreError, match="refuses a document"):
        store._persist(store._db["calculations"].insert_one, {"_id": "x", "state": "ready"})
    world.submit(store)
    query = {"_id": world.site_key}
    with pytest.raises(StoreError, match="refuses a document"):
        store._persist(store._db["calculations"].update_one, query, {"$set": {"state": "finished"}})
    with pytest.raises(StoreError, match="refuses a document"):
        store._persist(
            store._bulk,
            "workers",
            [_insert({"_id": "w", "info": "not an object", "seen": datetime.now(UTC)})],
        )


def _insert(document):
    from pymongo import InsertOne

    return InsertOne(document)


def test_a_cause_of_a_newer_htxas_can_be_stored(store, world):
    world.submit(store)
    change = {"$set": {"cause": "a_cause_of_tomorrow"}}
    assert store._db["calculations"].update_one({"_id": world.site_key}, change).modified_count == 1
