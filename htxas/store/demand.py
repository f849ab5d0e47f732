"""How much work waits, by campaign and length: what decides how many pilots are worth their place in a queue.

The database works out what each calculation is expected to take now: what was stored when it was submitted is the
engine's prior, and how good that is has been learned since. What an attempt cut short has shown holds besides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.store.connection import Connected, Document

__all__ = ["Demand", "Length", "ReadyWork", "Waiting"]


@dataclass(frozen=True, slots=True)
class Length:
    """How long calculations of one kind with the same parameters take.

    Attributes
    ----------
    engine, kind, parameters_key
        Which.
    fit
        The document of the correction of the prior, :class:`htxas.campaign.cost.Fit`.
    safety
        One fits where so many times its expected seconds are left.
    slots
        Workers' places that each takes.
    """

    engine: str
    kind: Kind
    parameters_key: str
    fit: Mapping[str, Any]
    safety: float
    slots: int = 1


@dataclass(frozen=True, slots=True)
class ReadyWork:
    """READY calculations of one campaign whose lengths lie between two limits.

    Attributes
    ----------
    campaign
        The campaign; a calculation that several want counts for the first of them.
    longest_s
        Seconds that must be left for the longest to be started, safety included.
    seconds
        Expected seconds of all together, times the workers' places that each takes.
    count
        How many.
    """

    campaign: str
    longest_s: float
    seconds: float
    count: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is READY of one batch.

    Attributes
    ----------
    shortest_s, longest_s
        Seconds that must be left for the shortest and the longest to be started, safety included.
    too_long
        How many need more than the limit asked about.
    """

    shortest_s: float
    longest_s: float
    too_long: int


class Demand(Connected):
    """The part of the store that says what waits."""

    def ready_work(
        self,
        campaigns: Iterable[str],
        limits_s: Sequence[float] = (),
        *,
        lengths: Iterable[Length] = (),
        safety: float = 1.0,
    ) -> list[ReadyWork]:
        """Return the READY calculations of ``campaigns``, in classes cut at ``limits_s``.

        Parameters
        ----------
        campaigns
            In order of preference.
        limits_s
            A calculation that needs just so long belongs to the class below the limit.
        lengths
            What has been learned; of others the stored estimate holds.
        safety
            Of those others.
        """
        names = list(dict.fromkeys(campaigns))
        if not names:
            return []
        limits = sorted(set(limits_s))
        length: Document = {"$sum": [{"$cond": [{"$gt": ["$room_s", limit]}, 1, 0]} for limit in limits]}
        # Not $unwind: a calculation that several campaigns share is computed once.
        first = {"$first": {"$filter": {"input": names, "cond": {"$in": ["$$this", "$campaigns"]}}}}
        stages: list[Document] = [
            {"$match": {"state": State.READY.value, "campaigns": {"$in": names}}},
            *_measured({"campaign": first}, list(lengths), safety),
            {
                "$group": {
                    "_id": {"campaign": "$campaign", "class": length if limits else {"$literal": 0}},
                    "longest_s": {"$max": "$room_s"},
                    "seconds": {"$sum": "$work_s"},
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

    def waiting(
        self,
        batch_ids: Collection[str],
        limit_s: float,
        *,
        lengths: Iterable[Length] = (),
        safety: float = 1.0,
    ) -> dict[str, Waiting]:
        """Return what is READY of batches, as far as anything is.

        Parameters
        ----------
        batch_ids
            Which.
        limit_s
            What needs more than that counts as too long.
        lengths, safety
            As for :meth:`ready_work`.
        """
        too_long = {"$cond": [{"$gt": ["$room_s", limit_s]}, 1, 0]}
        stages: list[Document] = [
            {"$match": {"batch": {"$in": list(batch_ids)}, "state": State.READY.value}},
            *_measured({"batch": 1}, list(lengths), safety),
            {
                "$group": {
                    "_id": "$batch",
                    "shortest_s": {"$min": "$room_s"},
                    "longest_s": {"$max": "$room_s"},
                    "too_long": {"$sum": too_long},
                }
            },
        ]
        rows = self._persist(lambda: list(self._db["calculations"].aggregate(stages)))
        return {r["_id"]: Waiting(r["shortest_s"], r["longest_s"], r["too_long"]) for r in rows}


# The expression of what :func:`htxas.launch.agent.maker.shown_s` gives; a user's retry begins anew.
_SHOWN: Document = {
    "$cond": [
        {"$gt": [{"$ifNull": ["$interrupted.walltime", 0]}, 0]},
        {"$ifNull": [{"$max": "$history.shown_s"}, 0]},
        0,
    ]
}


def _measured(kept: Document, lengths: Sequence[Length], safety: float) -> list[Document]:
    """Return the stages that give each calculation ``room_s`` and ``work_s``, beside what is kept."""
    every: Document = {
        **kept,
        "seconds": _case(lengths, [_seconds(one) for one in lengths], "$estimate_s"),
        "factor": _case(lengths, [one.safety for one in lengths], safety),
        "places": _case(lengths, [one.slots for one in lengths], 1),
        "shown": _SHOWN,
    }
    # As htxas.launch.estimates.Estimator reckons: what has been shown is certain, and needs no safety.
    found = {
        "room_s": {"$max": [{"$multiply": ["$seconds", "$factor"]}, "$shown"]},
        "work_s": {"$multiply": [{"$max": ["$seconds", "$shown"]}, "$places"]},
    }
    return [{"$project": every}, {"$project": {**dict.fromkeys(kept, 1), **found}}]


def _case(lengths: Sequence[Length], values: Sequence[Any], otherwise: Any) -> Any:
    """Return the expression of the value that belongs to a calculation."""
    if not lengths:
        return otherwise if isinstance(otherwise, str) else {"$literal": otherwise}
    branches = []
    for one, value in zip(lengths, values, strict=True):
        about = {"engine": one.engine, "kind": one.kind.value, "parameters_key": one.parameters_key}
        branches.append({"case": {"$and": [{"$eq": [f"${k}", v]} for k, v in about.items()]}, "then": value})
    return {"$switch": {"branches": branches, "default": otherwise}}


def _seconds(length: Length) -> Any:
    """Return the expression of what :meth:`htxas.campaign.cost.Fit.seconds` gives, as agents use it."""
    fit = length.fit
    if not fit["samples"]:
        return "$estimate_s"
    atoms = {"$sum": {"$map": {"input": {"$objectToArray": "$composition"}, "in": "$$this.v"}}}
    terms = (
        (fit["slope_prior"], {"$max": ["$estimate_s", 1e-9]}, fit["prior_range"], fit["typical"][0]),
        (fit["slope_atoms"], {"$max": [atoms, 1]}, fit["atoms_range"], fit["typical"][1]),
    )
    parts = [
        {"$multiply": [slope, {"$subtract": [_within({"$ln": value}, limits), typical]}]}
        for slope, value, limits, typical in terms
        if slope
    ]
    correction = _within({"$add": [fit["level"], *parts]}, fit["ratio_range"])
    return {"$multiply": ["$estimate_s", {"$exp": correction}]}


def _within(value: Any, limits: Sequence[float]) -> Document:
    return {"$min": [{"$max": [value, limits[0]]}, limits[1]]}
