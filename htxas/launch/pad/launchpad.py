"""Our LaunchPad: FireWorks as it is, in a database beside the store's, with the indexes it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fireworks import LaunchPad
from fireworks.fw_config import pymongo as _driver  # FireWorks lets its driver's errors through

from htxas.errors import Busy, DatabaseUnavailable, InternalError
from htxas.settings import database_patience_s
from htxas.store.connection import is_passing
from htxas.store.store import Store

__all__ = [
    "Document",
    "campaign_query",
    "database_errors",
    "fireworks_of",
    "launchpad_of",
    "open_launchpad",
    "prepare_launchpad",
    "rerun",
]

Document = dict[str, Any]
_DUPLICATE = 11000
_FIRST_ID = {"next_fw_id": 1, "next_launch_id": 1}


def open_launchpad(store: Store) -> LaunchPad:
    """Return the LaunchPad that belongs to the store. Its driver waits for a database that restarts."""
    patience_ms = max(1000, round(1000 * database_patience_s()))
    return LaunchPad(
        host=store.uri_for_launchpad(),
        name=store.launchpad_database,
        uri_mode=True,
        strm_lvl="ERROR",
        mongoclient_kwargs={"serverSelectionTimeoutMS": patience_ms, "retryWrites": True, "appname": "htxas"},
    )


@contextmanager
def launchpad_of(store: Store) -> Iterator[LaunchPad]:
    """Open the LaunchPad of the store, and close it at the end."""
    launchpad = open_launchpad(store)
    try:
        yield launchpad
    finally:
        launchpad.connection.close()


def prepare_launchpad(launchpad: LaunchPad) -> None:
    """Create counters and indexes where they are missing; never resets anything."""
    with database_errors():
        # What LaunchPad.reset does for a new database, without deleting an old one.
        launchpad.fw_id_assigner.update_one({"_id": -1}, {"$setOnInsert": _FIRST_ID}, upsert=True)
        launchpad.tuneup()
        # Unique: whatever else goes wrong, the server refuses a second Firework for a batch.
        batch = "spec.htxas.batch"
        launchpad.fireworks.create_index(
            batch,
            name="one_firework_per_batch",
            unique=True,
            partialFilterExpression={batch: {"$exists": True}},
        )
        launchpad.fireworks.create_index("spec._fworker")
        # The order of a checkout: without it each one reads and sorts all READY Fireworks.
        launchpad.fireworks.create_index(
            [("state", 1), ("spec._priority", -1), ("fw_id", 1)], name="checkout"
        )
        for field in ("locked", "metadata.htxas.batches"):
            launchpad.workflows.create_index(field, sparse=True)


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn the driver's errors that FireWorks lets through into ours.

    Raises
    ------
    DatabaseUnavailable
        If the connection broke and did not come back.
    Busy
        If two processes queued the same batches at the same time; the server lets one of them.
    InternalError
        For anything else the server refused.
    """
    try:
        yield
    except _driver.errors.BulkWriteError as error:
        problems = (error.details or {}).get("writeErrors", [])
        if any(p.get("code") == _DUPLICATE for p in problems):
            raise Busy(
                "another process queued the same batches", hint="do it again: it adds what is missing"
            ) from error
        raise _translated(error) from error
    except _driver.errors.PyMongoError as error:
        raise _translated(error) from error


def _translated(error: Any) -> DatabaseUnavailable | InternalError:
    if is_passing(error):
        return DatabaseUnavailable("the database does not answer", hint="htxas db status")
    return InternalError(f"FireWorks' database: {error}")


def campaign_query(campaign: str | None) -> Document:
    """Return the FireWorks query for our Fireworks, of one campaign or of all."""
    if campaign is None:
        return {"spec.htxas.batch": {"$exists": True}}
    return {"$or": [{"spec.htxas.campaign": campaign}, {"spec.htxas.shared_with": campaign}]}


def fireworks_of(launchpad: LaunchPad, batch_ids: Iterable[str]) -> dict[int, Mapping[str, Any]]:
    """Return ``{fw_id: {"batch", "state"}}`` of the Fireworks that carry these batches."""
    query = {"spec.htxas.batch": {"$in": list(batch_ids)}}
    fields = {"_id": 0, "fw_id": 1, "state": 1, "spec.htxas.batch": 1}
    with database_errors():
        return {
            f["fw_id"]: {"batch": f["spec"]["htxas"]["batch"], "state": f["state"]}
            for f in launchpad.fireworks.find(query, fields)
        }


def rerun(launchpad: LaunchPad, fw_ids: Iterable[int]) -> int:
    """Make Fireworks READY again (WAITING where a parent is not completed); return how many."""
    count = 0
    with database_errors():
        for fw_id in fw_ids:
            count += len(launchpad.rerun_fw(fw_id))
    return count
