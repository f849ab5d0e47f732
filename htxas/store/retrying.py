"""Failed and quarantined calculations made READY again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.errors import Cause
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import plain
from htxas.store.outcomes import CLEARED

__all__ = ["Retrying"]

_WRONG: Document = {"$in": [State.FAILED.value, State.QUARANTINED.value]}


class Retrying(Connected):
    """The part of the store that gives failures another chance."""

    def retry(
        self,
        campaign: str | None,
        *,
        cause: Cause | None = None,
        keys: Iterable[str] | None = None,
        numerics: Mapping[str, Any] | None = None,
        factors: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Make FAILED and QUARANTINED calculations READY; return the ids of the batches to run again.

        Their ladder begins anew, and interruptions are counted from zero. A site that failed because its ground state
        has no result goes along with its ground state, and the other way round: alone it would fail again.

        A batch stays on the list until :meth:`rerun_done`: a retry killed half-way is completed by the next.

        Parameters
        ----------
        campaign
            Only its calculations, or None for all.
        cause
            Only these.
        keys
            Only these.
        numerics
            What all further attempts of them do differently, by the engine's names; recorded as a correction.
        factors
            ``memory_factor`` and ``walltime_factor`` to begin with; recorded as corrections, too.
        """
        ladder = _ladder(numerics or {}, factors or {})
        query: Document = {"state": _WRONG}
        if campaign is not None:
            query["campaigns"] = campaign
        if cause is not None:
            query["cause"] = cause.value
        for chunk in [None] if keys is None else chunks(keys):
            selected = query if chunk is None else {**query, "_id": {"$in": chunk}}
            self._with_sites(selected, ladder)
            self._with_grounds(selected, ladder)
        # Not filtered by campaign: a calculation two campaigns share travels in the batch of the first.
        return [
            b["_id"]
            for b in self._cursor("batches", {"rerun": True}, projection={"_id": 1}, sort=[("_id", 1)])
        ]

    def _with_sites(self, selected: Document, ladder: Document | None) -> None:
        """Retry the selected ground states; first the sites that failed for want of them, so that a kill loses none."""
        fields = {"structure_key": 1}
        grounds = self._persist(self._all, "calculations", _and(selected, _GROUND), fields)
        for chunk in chunks(grounds):
            keys = [d["_id"] for d in chunk]
            sites: Document = {
                "state": State.FAILED.value,
                "cause": Cause.GROUND_FAILED.value,
                "structure_key": {"$in": [d["structure_key"] for d in chunk]},
                "evidence.ground": {"$in": keys},
            }
            self._persist(self._make_ready, sites, None)
            self._persist(self._make_ready, _and(selected, {"_id": {"$in": keys}}), ladder)

    def _with_grounds(self, selected: Document, ladder: Document | None) -> None:
        """Retry what is selected, and the ground states that its sites failed for want of."""
        wanting = _and(selected, {"cause": Cause.GROUND_FAILED.value})
        found = self._persist(self._all, "calculations", wanting, {"evidence.ground": 1})
        for chunk in chunks({d["evidence"]["ground"] for d in found if "ground" in d["evidence"]}):
            self._persist(self._make_ready, {"_id": {"$in": chunk}, "state": _WRONG}, None)
        self._persist(self._make_ready, selected, ladder)

    def _make_ready(self, query: Document, ladder: Document | None) -> None:
        calculations = self._db["calculations"]
        fresh = {
            "state": State.READY.value,
            **CLEARED,
            "ladder": ladder,
            "interrupted": {},
            "interruptions": 0,
        }
        found = calculations.aggregate([{"$match": query}, {"$group": {"_id": "$batch"}}])
        for chunk in chunks(d["_id"] for d in found):
            self._db["batches"].update_many({"_id": {"$in": chunk}}, {"$set": {"rerun": True}})
            calculations.update_many(
                _and(query, {"batch": {"$in": chunk}}), {"$set": fresh, "$currentDate": {"updated": True}}
            )

    def rerun_asked(self, batch_ids: Collection[str]) -> list[str]:
        """Return those of these batches that :meth:`retry` wants to run again."""
        query: Document = {"rerun": True, "_id": {"$in": list(batch_ids)}}
        return [d["_id"] for d in self._persist(self._all, "batches", query, {"_id": 1})]

    def rerun_done(self, batch_ids: Iterable[str]) -> None:
        """Say that these batches of :meth:`retry` are queued again."""
        for chunk in chunks(batch_ids):
            change = {"$set": {"rerun": False}}
            self._persist(self._db["batches"].update_many, {"_id": {"$in": chunk}}, change)


_GROUND: Document = {"kind": Kind.GROUND.value}


def _and(*conditions: Document) -> Document:
    return {"$and": list(conditions)}


def _ladder(numerics: Mapping[str, Any], factors: Mapping[str, float]) -> Document | None:
    """Return the foot of the ladder; what its user set is told like any other correction."""
    if not numerics and not factors:
        return None
    names = [f"set {name}={value}" for name, value in sorted({**numerics, **factors}.items())]
    return {"corrections": names, "numerics": plain(numerics), **{k: float(v) for k, v in factors.items()}}
