"""Leases: who computes what.

A lease is taken from READY calculations only, and ended by an outcome (:mod:`htxas.store.delivery`), by its holder,
or by somebody who weighed the evidence that the holder is dead. None ends by itself: the clock that says a lease is
over cannot tell a dead worker from one whose network is away. ``lease_until`` is evidence, nothing more.

Times are the server's, so clocks of workers do not matter.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne

from htxas.domain.calculation import State
from htxas.errors import Cause, InternalError
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import plain, record_from
from htxas.store.outcomes import CLEARED
from htxas.store.records import MOST_INTERRUPTED, Hungry, Lease, Leased

__all__ = ["HISTORY", "UNLEASED", "Work", "fence"]

HISTORY = 20
"""Attempts that a calculation remembers."""

UNLEASED: Document = {"lease_until": None, "lease_token": None}

_SURE = 0.8  # of the time from an agent's beginning to its end: what one that comes afresh has for an attempt


class Work(Connected):
    """The part of the store that gives and takes back leases."""

    def lease_many(
        self, keys: Iterable[str], owner: str, ttl_s: float = 600, *, blocked: Collection[str] = ()
    ) -> list[Leased]:
        """Take those among ``keys`` that are READY; return them in the order given.

        Two commands for a thousand keys. If the database goes away between two thousands, what was taken is still
        ``owner``'s: see :meth:`held`.

        Parameters
        ----------
        keys
            Calculation keys.
        owner
            Unique for ever: a name used twice could report on what another process leased.
        ttl_s
            Seconds from now to ``lease_until``.
        blocked
            Campaigns nothing may be begun for: what no other wants is let alone.
        """
        leased: list[Leased] = []
        for chunk in chunks(dict.fromkeys(keys)):
            leased += self._persist(self._lease, chunk, owner, secrets.token_hex(8), ttl_s, blocked)
        return leased

    def _lease(
        self, keys: list[str], owner: str, token: str, ttl_s: float, blocked: Collection[str]
    ) -> list[Leased]:
        taken = {
            **{k: {"$literal": v} for k, v in CLEARED.items()},
            "state": State.RUNNING.value,
            "attempts": {"$add": ["$attempts", 1]},
            "worker": {"$literal": owner},
            "lease_token": {"$literal": token},
            "lease_until": {"$add": ["$$NOW", _milliseconds(ttl_s)]},
            "updated": "$$NOW",
        }
        calculations, wanted = self._db["calculations"], {"$in": keys}
        ready: Document = {"_id": wanted, "state": State.READY.value}
        if blocked:
            ready["campaigns"] = {"$elemMatch": {"$nin": sorted(blocked)}}
        calculations.update_many(ready, [{"$set": taken}])
        # By the token, not by the answer to the update: that may have been lost, and this be the second try.
        query = {"_id": wanted, "lease_token": token, "state": State.RUNNING.value}
        found = {d["_id"]: d for d in self._all("calculations", query)}
        return [
            Leased(Lease(key, int(found[key]["attempts"]), owner), record_from(found[key]))
            for key in keys
            if key in found
        ]

    def held(self, owner: str) -> list[Lease]:
        """Return what ``owner`` holds."""
        # Hinted: with few leases about, the planner takes any index that begins with the state, and reads documents.
        found = self._persist(
            lambda: list(self._db["calculations"].find(_holding(owner), {"attempts": 1}, hint="leases"))
        )
        return [Lease(d["_id"], int(d["attempts"]), owner) for d in found]

    def renew(self, owner: str, ttl_s: float = 600) -> set[str]:
        """Move ``lease_until`` of all that ``owner`` holds to ``ttl_s`` from now; return the keys of it."""
        update = [{"$set": {"lease_until": {"$add": ["$$NOW", _milliseconds(ttl_s)]}}}]
        self._persist(lambda: self._db["calculations"].update_many(_holding(owner), update, hint="leases"))
        return {lease.key for lease in self.held(owner)}

    def release(
        self,
        leases: Sequence[Lease],
        *,
        cause: Cause | None = None,
        message: str = "",
        evidence: Mapping[str, Any] | None = None,
        in_hand: Collection[str] = (),
    ) -> dict[str, str]:
        """End leases without an outcome: READY again, or FAILED where that happened too often.

        Parameters
        ----------
        leases
            What to give back.
        cause
            None for an orderly return. Otherwise what ended the attempts ``in_hand``, one of
            :data:`~htxas.store.records.MOST_INTERRUPTED`: each gets an entry in its history and is counted against
            its limit.
        message, evidence
            What happened. ``host`` and ``directory`` in the evidence go into the history, and so does ``elapsed_s``;
            after WALLTIME twice that must be left for the next attempt to begin, but no more than a fresh agent like
            this one has, as long as no attempt has had nearly that much.
        in_hand
            Keys of those that were being computed; the others go back as if nothing had been.

        Returns
        -------
        dict of str to str
            By key: ``ready`` or ``failed``, or ``refused`` if the lease was not held any more.

        Raises
        ------
        InternalError
            For a cause that ends an attempt with an outcome.
        """
        if cause is not None and cause not in MOST_INTERRUPTED:
            raise InternalError(f"{cause.value} is an outcome, not an interruption")
        answers: dict[str, str] = {}
        charged = set(in_hand) if cause is not None else set()
        whole_s = self._whole_s({x.owner for x in leases}) if cause is Cause.WALLTIME else {}
        for chunk in chunks(leases):
            writes = []
            for lease in chunk:
                change: list[Document] = _GIVING_BACK
                if cause is not None and lease.key in charged:
                    facts = plain(evidence or {})
                    change = _interruption(lease, cause, message, facts, whole_s.get(lease.owner, 0.0))
                writes.append(UpdateOne(fence(lease), change))
            self._persist(lambda w: self._db["calculations"].bulk_write(w, ordered=False), writes)
            answers |= self._released(chunk, None if cause is None else cause.value, charged)
        return answers

    def _whole_s(self, owners: Collection[str]) -> dict[str, float]:
        """Return how long owners had from their beginning to the end of their allocations, as far as they told."""
        query = {"_id": {"$in": sorted(owners)}, "info.end": {"$gt": 0}}
        fields = {"info.started": 1, "info.end": 1}
        found = self._persist(lambda: list(self._db["workers"].find(query, fields)))
        return {d["_id"]: whole_s for d in found if (whole_s := _lifetime_s(d["info"])) > 0}

    def _released(self, leases: Sequence[Lease], cause: str | None, charged: set[str]) -> dict[str, str]:
        """Tell from the documents what became of leases: the answer to the write may have been lost."""
        fields = {"attempts": 1, "worker": 1, "state": 1, "history.attempt": 1, "history.cause": 1}
        query = {"_id": {"$in": [lease.key for lease in leases]}}
        found = {d["_id"]: d for d in self._persist(self._all, "calculations", query, fields)}
        answers = {}
        for lease in leases:
            document = found.get(lease.key, {})
            entries = [e for e in document.get("history", []) if e["attempt"] == lease.attempt]
            ours = (document.get("attempts"), document.get("worker")) == (lease.attempt, lease.owner)
            expected = [cause] if lease.key in charged else []
            ended = ours and [e["cause"] for e in entries] == expected
            answers[lease.key] = document["state"] if ended else "refused"
        return answers

    def release_owner(
        self,
        owner: str,
        *,
        cause: Cause | None = None,
        message: str = "",
        evidence: Mapping[str, Any] | None = None,
        in_hand: Collection[str] = (),
    ) -> int:
        """Give back everything that ``owner`` holds, as :meth:`release` does; return how many."""
        held = self.held(owner)
        answers = self.release(held, cause=cause, message=message, evidence=evidence, in_hand=in_hand)
        return sum(answer != "refused" for answer in answers.values())

    def heartbeat(self, owner: str, info: Mapping[str, Any]) -> None:
        """Say that a worker lives, with a few facts about it."""
        change = {"$set": {"info": plain(info)}, "$currentDate": {"seen": True}}
        self._persist(lambda: self._db["workers"].update_one({"_id": owner}, change, upsert=True))

    def workers(self) -> list[Document]:
        """Return ``owner``, ``info``, ``seen`` and ``age_s`` (seconds since, by the server's clock) of each worker."""
        age = {"$divide": [{"$subtract": ["$$NOW", "$seen"]}, 1000]}
        stages: list[Document] = [
            {"$set": {"age_s": age, "owner": "$_id"}},
            {"$unset": "_id"},
            {"$sort": {"owner": 1}},
        ]
        return self._persist(lambda: list(self._db["workers"].aggregate(stages)))

    def fellows(self, owner: str, within_s: float) -> tuple[int, list[Hungry]]:
        """Return how many other agents gave a sign of life lately, and which of them have nothing to do."""
        age_s = {"$divide": [{"$subtract": ["$$NOW", "$seen"]}, 1000]}
        query = {"_id": {"$ne": owner}, "$expr": {"$lt": [age_s, within_s]}}
        fields = {"_id": 0, "info.hungry": 1, "info.campaign": 1}
        found = [d["info"] for d in self._persist(lambda: list(self._db["workers"].find(query, fields)))]
        hungry = [Hungry(i.get("campaign"), **i["hungry"]) for i in found if i.get("hungry")]
        return len(found), hungry

    def is_known(self, owner: str) -> bool:
        """Return whether a worker has a heartbeat, be it an old one."""
        return self._persist(lambda: self._db["workers"].find_one({"_id": owner}, {"_id": 1})) is not None

    def forget_worker(self, owner: str, *, seen: datetime | None = None) -> None:
        """Remove a worker's heartbeat; with ``seen``, only if there was none since: it is alive then."""
        query: Document = {"_id": owner} if seen is None else {"_id": owner, "seen": seen}
        self._persist(lambda: self._db["workers"].delete_one(query))


def fence(lease: Lease) -> Document:
    """Return what a calculation must still be for its leaseholder to report on it."""
    return {
        "_id": lease.key,
        "attempts": lease.attempt,
        "worker": lease.owner,
        "state": State.RUNNING.value,
    }


_GIVING_BACK: list[Document] = [{"$set": {"state": State.READY.value, **UNLEASED, "updated": "$$NOW"}}]


def _holding(owner: str) -> Document:
    return {"worker": owner, "state": State.RUNNING.value}


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _lifetime_s(info: Mapping[str, Any]) -> float:
    """Return the seconds from beginning to end that a heartbeat tells of; 0 if it does not."""
    try:
        started = datetime.fromisoformat(info["started"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    since = started if started.tzinfo is not None else started.replace(tzinfo=UTC)
    return float(info["end"]) - since.timestamp()


def _shown_s(elapsed_s: float, whole_s: float) -> float:
    """Return what must be left for the next attempt after one that was cut short.

    Twice as long. But what needs more than a whole allocation is never begun again: that is asked for only if an
    attempt has had nearly a whole one.
    """
    sure_s = _SURE * whole_s
    return min(2.0 * elapsed_s, sure_s) if elapsed_s < sure_s else 2.0 * elapsed_s


def _interruption(
    lease: Lease, cause: Cause, message: str, evidence: Mapping[str, Any], whole_s: float
) -> list[Document]:
    """Return the change that ends an attempt without an outcome and counts it."""
    elapsed_s = evidence.get("elapsed_s")
    count = f"interrupted.{cause.value}"
    over = {"$gte": [f"${count}", MOST_INTERRUPTED[cause]]}
    entry = {
        "attempt": lease.attempt,
        "state": {"$cond": [over, State.FAILED.value, State.READY.value]},
        "cause": cause.value,
        "message": {"$literal": message},
        "corrections": {"$ifNull": ["$ladder.corrections", []]},
        "worker": {"$literal": lease.owner},
        "host": {"$literal": evidence.get("host")},
        "wall_s": {"$literal": elapsed_s},
        "directory": {"$literal": evidence.get("directory")},
        "ended": "$$NOW",
    }
    if cause is Cause.WALLTIME and elapsed_s is not None:
        entry["shown_s"] = {"$literal": _shown_s(float(elapsed_s), whole_s)}
    final = {"cause": cause.value, "message": message, "evidence": evidence}
    change: Document = {
        **UNLEASED,
        "history": {"$slice": [{"$concatArrays": ["$history", [entry]]}, -HISTORY]},
        "state": entry["state"],
        **{k: {"$cond": [over, {"$literal": v}, {"$literal": CLEARED[k]}]} for k, v in final.items()},
        "finished": {"$cond": [over, "$$NOW", "$finished"]},
        "updated": "$$NOW",
    }
    counted = {
        count: {"$add": [{"$ifNull": [f"${count}", 0]}, 1]},
        "interruptions": {"$add": ["$interruptions", 1]},
    }
    return [{"$set": counted}, {"$set": change}]
