"""From schema version 1 to 2, in place. Every step may be repeated.

Version 2 keeps the history of attempts and counts interrupted ones by cause. Version 1 counted in ``lost`` the leases
that had not ended with an outcome, the present one included.
"""

from __future__ import annotations

from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from htxas.domain.calculation import State
from htxas.errors import Cause
from htxas.store.connection import Document
from htxas.store.records import MOST_INTERRUPTED

__all__ = ["drop_replaced", "fill_in"]

_REPLACED = ("owner", "recent")
_INDEX_NOT_FOUND = 27
_MESSAGE = "its worker ended without a word as often as is allowed"


def fill_in(db: Database[Document]) -> None:
    """Give calculations of version 1 the fields of version 2."""
    running = {"$eq": ["$state", State.RUNNING.value]}
    lost: dict[str, Any] = {
        "$max": [0, {"$subtract": [{"$ifNull": ["$lost", 0]}, {"$cond": [running, 1, 0]}]}]
    }
    # A calculation that version 1 would have given up when somebody next came to it: nobody does that any more.
    hopeless = {
        "$and": [
            {"$eq": ["$state", State.READY.value]},
            {"$gte": ["$interruptions", MOST_INTERRUPTED[Cause.LOST]]},
        ]
    }
    given_up = {"state": State.FAILED.value, "cause": Cause.LOST.value, "message": _MESSAGE}
    stages: list[Document] = [
        {"$set": {"ladder": None, "history": [], "interruptions": lost}},
        {
            "$set": {
                "interrupted": {
                    "$cond": [
                        {"$gt": ["$interruptions", 0]},
                        {Cause.LOST.value: "$interruptions"},
                        {"$literal": {}},
                    ]
                },
                **{k: {"$cond": [hopeless, {"$literal": v}, f"${k}"]} for k, v in given_up.items()},
            }
        },
        {"$unset": "lost"},
    ]
    db["calculations"].update_many({"history": {"$exists": False}}, stages)


def drop_replaced(db: Database[Document]) -> None:
    """Drop the indexes of version 1 that version 2 has better ones for."""
    for name in _REPLACED:
        try:
            db["calculations"].drop_index(name)
        except OperationFailure as error:
            if error.code != _INDEX_NOT_FOUND:
                raise
