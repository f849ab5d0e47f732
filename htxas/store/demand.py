"""How much work waits, by campaign and length: what decides how many pilots are worth their place in a queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from htxas.domain.calculation import State
from htxas.store.connection import Connected, Document

__all__ = ["Demand", "ReadyWork"]


@dataclass(frozen=True, slots=True)
class ReadyWork:
    """READY calculations of one campaign whose lengths lie between two limits.

    Attributes
    ----------
    campaign
        The campaign; a calculation that several want counts for the first of them.
    longest_s
        Expected seconds of the longest.
    seconds
        Expected seconds of all together.
    count
        How many.
    """

    campaign: str
    longest_s: float
    seconds: float
    count: int


class Demand(Connected):
    """The part of the store that says what waits."""

    def ready_work(self, campaigns: Iterable[str], limits_s: Sequence[float] = ()) -> list[ReadyWork]:
        """Return the READY calculations of ``campaigns``, in classes cut at ``limits_s``.

        Parameters
        ----------
        campaigns
            In order of preference.
        limits_s
            A calculation that is expected to last just so long belongs to the class below the limit.
        """
        names = list(dict.fromkeys(campaigns))
        if not names:
            return []
        limits = sorted(set(limits_s))
        length: Document = {"$sum": [{"$cond": [{"$gt": ["$estimate_s", limit]}, 1, 0]} for limit in limits]}
        # Not $unwind: a calculation that several campaigns share is computed once.
        first = {"$first": {"$filter": {"input": names, "cond": {"$in": ["$$this", "$campaigns"]}}}}
        stages: list[Document] = [
            {"$match": {"state": State.READY.value, "campaigns": {"$in": names}}},
            {
                "$group": {
                    "_id": {"campaign": first, "class": length if limits else {"$literal": 0}},
                    "longest_s": {"$max": "$estimate_s"},
                    "seconds": {"$sum": "$estimate_s"},
                    "count": {"$sum": 1},
                }
            },
            {"$sort": {"_id.campaign": 1, "_id.class": 1}},
        ]
        rows = self._persist(lambda: list(self._db["calculations"].aggregate(stages, hint="status")))
        return [
            ReadyWork(r["_id"]["campaign"], float(r["longest_s"]), float(r["seconds"]), int(r["count"]))
            for r in rows
        ]
