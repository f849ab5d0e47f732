"""What those who watch ask and remember: recent endings, where calculations stand, what users were told.

==============  ==========================  =====================================================================
collection      ``_id``                     holds
==============  ==========================  =====================================================================
notices         what it is about            whether users were told, how often that was tried; values watched
==============  ==========================  =====================================================================
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pymongo import ReturnDocument

from htxas.domain.calculation import Kind, State
from htxas.errors import Cause
from htxas.store.connection import Connected, Document, chunks

__all__ = ["Ending", "Placed", "Watching"]

_UNTOLD: Document = {
    "told": None,
    "tries": 0,
    "claimed_until": datetime(2000, 1, 1, tzinfo=UTC),
    "token": None,
}
_ENDED = (State.DONE.value, State.FAILED.value, State.QUARANTINED.value)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a calculation stands, in short."""

    state: State
    campaigns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """Calculations that ended lately in one way.

    Attributes
    ----------
    campaign
        One that wants them; a calculation that several want is counted for each.
    state, cause, kind
        How they ended; no cause if done.
    count, now
        How many within the window, and within its last part.
    estimate_s, wall_s
        Expected and spent seconds of all of them.
    span_s
        Seconds since the one that began first began.
    """

    campaign: str
    state: State
    cause: Cause | str | None
    kind: Kind
    count: int
    now: int
    estimate_s: float
    wall_s: float
    span_s: float


class Watching(Connected):
    """The part of the store for those who look on."""

    def placed(self, keys: Iterable[str]) -> dict[str, Placed]:
        """Return state and campaigns of each known calculation among ``keys``."""
        known: dict[str, Placed] = {}
        fields = {"state": 1, "campaigns": 1}
        for chunk in chunks(keys):
            for d in self._persist(self._all, "calculations", {"_id": {"$in": chunk}}, fields):
                known[d["_id"]] = Placed(State(d["state"]), tuple(d["campaigns"]))
        return known

    def endings(self, window_s: float, *, now_s: float = 60.0, campaign: str | None = None) -> list[Ending]:
        """Return how calculations ended within the last ``window_s`` seconds, by campaign, state, cause and kind.

        Reads as many documents as calculations ended.
        """
        now = self._server_time()
        since = now - timedelta(seconds=window_s)
        match: Document = {"state": {"$in": list(_ENDED)}, "finished": {"$gte": since}}
        if campaign is not None:
            match["campaigns"] = campaign
        age = {"$divide": [{"$subtract": [now, "$finished"]}, 1000]}
        lately = {"$gte": ["$finished", now - timedelta(seconds=now_s)]}
        stages: list[Document] = [
            {"$match": match},
            {
                "$group": {
                    "_id": {"campaigns": "$campaigns", "state": "$state", "cause": "$cause", "kind": "$kind"},
                    "count": {"$sum": 1},
                    "now": {"$sum": {"$cond": [lately, 1, 0]}},
                    "estimate_s": {"$sum": "$estimate_s"},
                    "wall_s": {"$sum": "$wall_s"},
                    "span_s": {"$max": {"$add": [age, {"$ifNull": ["$wall_s", 0]}]}},
                }
            },
            {"$unwind": "$_id.campaigns"},
            {
                "$group": {
                    "_id": "$_id",
                    **{f: {"$sum": f"${f}"} for f in ("count", "now", "estimate_s", "wall_s")},
                    "span_s": {"$max": "$span_s"},
                }
            },
            {"$sort": {"_id": 1}},
        ]
        rows = self._persist(lambda: list(self._db["calculations"].aggregate(stages, hint="ended")))
        return [
            Ending(
                campaign=row["_id"]["campaigns"],
                state=State(row["_id"]["state"]),
                cause=row["_id"].get("cause"),
                kind=Kind(row["_id"]["kind"]),
                count=int(row["count"]),
                now=int(row["now"]),
                estimate_s=float(row["estimate_s"]),
                wall_s=float(row["wall_s"]),
                span_s=float(row["span_s"]),
            )
            for row in rows
            if campaign is None or row["_id"]["campaigns"] == campaign
        ]

    def stamp(self, name: str) -> None:
        """Remember that something was done now: ``reconcile``."""
        change = [{"$set": {"stamp": "$$NOW"}}]
        self._persist(lambda: self._db["notices"].update_one({"_id": f"stamp:{name}"}, change, upsert=True))

    def stamps(self) -> dict[str, float]:
        """Return for how many seconds each thing that was stamped was not done again."""
        stages: list[Document] = [
            {"$match": {"stamp": {"$exists": True}}},
            {"$project": {"age_s": {"$divide": [{"$subtract": ["$$NOW", "$stamp"]}, 1000]}}},
        ]
        rows = self._persist(lambda: list(self._db["notices"].aggregate(stages)))
        return {str(r["_id"]).removeprefix("stamp:"): float(r["age_s"]) for r in rows}

    def watch_value(self, name: str, value: str) -> float:
        """Remember ``value`` under ``name``; return for how many seconds it has been the same (0 if it is new)."""
        change = [
            {
                "$set": {
                    "since": {
                        "$cond": [
                            {"$eq": [{"$ifNull": ["$value", None]}, {"$literal": value}]},
                            "$since",
                            "$$NOW",
                        ]
                    },
                    "value": {"$literal": value},
                    "looked": "$$NOW",
                }
            }
        ]
        found = self._persist(
            lambda: self._db["notices"].find_one_and_update(
                {"_id": name}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        )
        return 0.0 if found is None else max(0.0, (found["looked"] - found["since"]).total_seconds())

    def claim_notice(self, name: str, *, ttl_s: float = 120.0, most: int = 3) -> str | None:
        """Take the right to tell the user of ``name``; None if that was done, is being done, or failed ``most`` times.

        Who takes it reports with :meth:`notice_told`; if it is killed before, another may take it after ``ttl_s``: the
        user may hear of it twice, but not never.
        """
        token = secrets.token_hex(8)

        def claim() -> str | None:
            notices = self._db["notices"]
            notices.update_one({"_id": name}, {"$setOnInsert": _UNTOLD}, upsert=True)
            free = {
                "_id": name,
                "told": None,
                "tries": {"$lt": most},
                "$expr": {"$lt": ["$claimed_until", "$$NOW"]},
            }
            change = [
                {
                    "$set": {
                        "claimed_until": {"$add": ["$$NOW", round(1000 * ttl_s)]},
                        "tries": {"$add": ["$tries", 1]},
                        "token": {"$literal": token},
                    }
                }
            ]
            if notices.find_one_and_update({"$or": [free, {"_id": name, "token": token}]}, change) is None:
                return None
            return token

        return self._persist(claim)

    def notice_told(self, name: str, token: str) -> None:
        """Record that the user was told."""
        mine = {"_id": name, "token": token}
        change = {"$currentDate": {"told": True}}
        self._persist(lambda: self._db["notices"].update_one(mine, change))

    def arm_notice(self, name: str) -> None:
        """Record that it does not hold: should it come to hold, users are told, even if they were before."""
        self._persist(lambda: self._db["notices"].update_one({"_id": name}, {"$set": _UNTOLD}, upsert=True))

    def notices(self) -> dict[str, int]:
        """Return how often telling of each notice was tried since it held last."""
        found = self._persist(self._all, "notices", {"tries": {"$exists": True}}, {"tries": 1})
        return {d["_id"]: int(d["tries"]) for d in found}
