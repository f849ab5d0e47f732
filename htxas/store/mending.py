"""Questions of those who mend: what waits without a Firework, who holds leases unseen, what was tried in vain.

==============  ==========================  =====================================================================
collection      ``_id``                     holds
==============  ==========================  =====================================================================
looks           what was looked for         when it was first not there
==============  ==========================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from htxas.domain.calculation import State
from htxas.errors import Cause
from htxas.store.connection import Connected, Document

__all__ = ["Mending"]


class Mending(Connected):
    """The part of the store for recovery, retries and lists of failures."""

    def ready_batches(
        self, campaign: str | None = None, *, not_for: Collection[str] = ()
    ) -> Iterator[tuple[str | None, int]]:
        """Yield the batches that carry READY calculations, and how many each; None is no batch at all.

        Parameters
        ----------
        campaign
            Only its calculations, or None for all.
        not_for
            Campaigns that do not count: what only they want is left out.
        """
        wanted: Document = {"$elemMatch": {"$nin": sorted(not_for)}}
        match: list[Document] = [{"state": State.READY.value, "campaigns": wanted}]
        if campaign is not None:
            match.append({"campaigns": campaign})
        stages: list[Document] = [
            {"$match": {"$and": match}},
            {"$group": {"_id": "$batch", "count": {"$sum": 1}}},
        ]
        with self._translated():
            for row in self._db["calculations"].aggregate(stages, allowDiskUse=True):
                yield row["_id"], int(row["count"])

    def unseen_holders(self) -> list[Document]:
        """Return the owners that hold leases but have no heartbeat: ``owner``, ``count``, ``age_s`` of the youngest."""
        stages: list[Document] = [
            {"$match": {"state": State.RUNNING.value}},
            {"$group": {"_id": "$worker", "count": {"$sum": 1}, "last": {"$max": "$updated"}}},
            {"$lookup": {"from": "workers", "localField": "_id", "foreignField": "_id", "as": "seen"}},
            {"$match": {"seen": []}},
            {"$set": {"owner": "$_id", "age_s": {"$divide": [{"$subtract": ["$$NOW", "$last"]}, 1000]}}},
            {"$unset": ["_id", "seen", "last"]},
            {"$sort": {"owner": 1}},
        ]
        return self._persist(lambda: list(self._db["calculations"].aggregate(stages)))

    def missing_for(self, name: str, since: datetime | None = None) -> float:
        """Remember that ``name`` was looked for and not there; return the seconds since that was first so.

        Parameters
        ----------
        name
            Of what was looked for.
        since
            When it last showed a sign of life, by the server's clock: looks before that do not count.
        """
        first: Document = {"$ifNull": ["$first", "$$NOW"]}
        if since is not None:
            first = {"$cond": [{"$gt": ["$first", since]}, "$first", "$$NOW"]}  # an absent field is less
        change: list[Document] = [{"$set": {"first": first, "last": "$$NOW"}}]
        found = self._persist(
            lambda: self._db["looks"].find_one_and_update(
                {"_id": name}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        )
        return 0.0 if found is None else max(0.0, float((found["last"] - found["first"]).total_seconds()))

    def found_again(self, names: Collection[str]) -> None:
        """Forget that these were not there."""
        self._persist(lambda: self._db["looks"].delete_many({"_id": {"$in": sorted(names)}}))

    def holders_of_batch(self, batch_id: str) -> set[str]:
        """Return who holds calculations of a batch."""
        batch = self._persist(lambda: self._db["batches"].find_one({"_id": batch_id}, {"keys": 1}))
        query: Document = {"_id": {"$in": batch["keys"] if batch else []}, "state": State.RUNNING.value}
        return {d["worker"] for d in self._persist(self._all, "calculations", query, {"worker": 1})}

    def attempts_by_cause(self, campaign: str | None = None, cause: Cause | None = None) -> list[Document]:
        """Return the attempts that came to nothing and were followed, or will be, by another one.

        Each entry has ``cause``, ``attempts``, ``calculations``, how many of these are ``done``, ``left`` (still to
        run) or ``wrong`` by now, and the ``key`` of one. Reads the history of calculations that had more than one
        attempt.
        """
        match: Document = {"history.0": {"$exists": True}}
        if campaign is not None:
            match["campaigns"] = campaign
        left = [State.READY.value, State.RUNNING.value]
        match["$or"] = [{"history.1": {"$exists": True}}, {"state": {"$in": left}}]
        followed: Document = {
            "$filter": {
                "input": "$history",
                "cond": {
                    "$and": [
                        {"$ne": ["$$this.cause", None]},
                        {
                            "$or": [
                                {"$lt": ["$$this.attempt", "$attempts"]},
                                {"$eq": ["$$this.state", "ready"]},
                            ]
                        },
                    ]
                },
            }
        }

        def counted(*states: State) -> Document:
            return {"$sum": {"$cond": [{"$in": ["$state", [s.value for s in states]]}, 1, 0]}}

        stages: list[Document] = [
            {"$match": match},
            {"$project": {"state": 1, "history": followed}},
            {"$unwind": "$history"},
            {
                "$group": {
                    "_id": {"key": "$_id", "cause": "$history.cause"},
                    "attempts": {"$sum": 1},
                    "state": {"$first": "$state"},
                }
            },
            *([] if cause is None else [{"$match": {"_id.cause": cause.value}}]),
            {
                "$group": {
                    "_id": "$_id.cause",
                    "attempts": {"$sum": "$attempts"},
                    "calculations": {"$sum": 1},
                    "done": counted(State.DONE),
                    "left": counted(State.READY, State.RUNNING),
                    "wrong": counted(State.FAILED, State.QUARANTINED),
                    "key": {"$first": "$_id.key"},
                }
            },
            {"$set": {"cause": "$_id"}},
            {"$unset": "_id"},
            {"$sort": {"attempts": -1, "cause": 1}},
        ]
        return self._persist(lambda: list(self._db["calculations"].aggregate(stages, allowDiskUse=True)))

    def named_site(self, key: str, campaign: str | None = None) -> Mapping[str, Any] | None:
        """Return ``campaign``, ``name`` and, for a site, ``file_atom`` of a molecule that a calculation belongs to."""
        of: Document = {"$or": [{"sites.key": key}, {"ground_key": key}]}
        known = self._persist(lambda: self._db["calculations"].find_one({"_id": key}, {"structure_key": 1}))
        if known is None:
            return None
        query: Document = {"structure_key": known["structure_key"], **of}
        if campaign is not None:
            query["campaign"] = campaign
        fields = {"campaign": 1, "name": 1, "sites": {"$elemMatch": {"key": key}}}
        found = self._persist(lambda: self._db["molecules"].find_one(query, fields))
        if found is None:
            return None
        sites = found.get("sites", [])
        return {
            "campaign": found["campaign"],
            "name": found["name"],
            "file_atom": sites[0]["file_atom"] if sites else None,
        }
