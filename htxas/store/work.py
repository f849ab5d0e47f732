"""Leases, results and failures: who computes what, and what came of it.

A worker may report on a calculation only while it holds its lease: every report is conditional on key, attempt,
owner and state. Times are the server's, so clocks of workers do not matter.

A result and the change of state that makes it visible are one transaction. The alternative, arrays first and state
last, leaves a window in which a worker that lost its lease overwrites the arrays of the one that took over.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.gate import Rejection
from htxas.domain.result import GroundResult, Provenance, Result, SiteResult
from htxas.domain.spectrum import broaden
from htxas.domain.structure import Structure
from htxas.errors import Cause, InternalError, NotFound
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import ground_document, plain, site_document
from htxas.store.records import Lease

__all__ = ["MOST_LOST", "Work"]

MOST_LOST = 3
"""Leases of a calculation that may end without any outcome before it is taken out of the queue."""

_CLEARED: Document = {"cause": None, "message": None, "evidence": {}}
_UNLEASED: Document = {"lease_until": None, "lease_token": None}
_FREE: list[Document] = [
    {"state": State.READY.value},
    {"state": State.RUNNING.value, "$expr": {"$lt": ["$lease_until", "$$NOW"]}},
]


class Work(Connected):
    """The part of the store that workers use."""

    def lease(self, key: str, owner: str, ttl_s: float = 600) -> Lease | None:
        """Take a calculation that is READY, or RUNNING with an expired lease; None if it is neither.

        None, too, for one whose last ``MOST_LOST`` leases ended without any outcome: see :meth:`give_up`. They are
        counted when they begin and uncounted by an outcome or an orderly return, so it does not matter how a
        worker dies.

        Raises
        ------
        NotFound
            If there is no such calculation.
        """
        token = secrets.token_hex(8)
        taken = {
            **{k: {"$literal": v} for k, v in _CLEARED.items()},
            "state": State.RUNNING.value,
            "attempts": {"$add": ["$attempts", 1]},
            "lost": {"$add": [{"$ifNull": ["$lost", 0]}, 1]},
            "worker": {"$literal": owner},
            "lease_token": {"$literal": token},
            "lease_until": {"$add": ["$$NOW", _milliseconds(ttl_s)]},
            "updated": "$$NOW",
        }

        def take() -> Lease | None:
            found = self._db["calculations"].find_one_and_update(
                {"_id": key, "$or": _FREE, "lost": {"$not": {"$gte": MOST_LOST}}},
                [{"$set": taken}],
                projection={"attempts": 1},
                return_document=ReturnDocument.AFTER,
            )
            if found is None:
                found = self._db["calculations"].find_one({"_id": key}, {"attempts": 1, "lease_token": 1})
                if found is None:
                    raise NotFound("no such calculation", where=key)
                if found["lease_token"] != token:  # ours if the first answer was lost on the way
                    return None
            return Lease(key, int(found["attempts"]), owner)

        return self._persist(take)

    def give_up(self, key: str, message: str, evidence: Mapping[str, Any]) -> bool:
        """End a calculation that has been leased ``MOST_LOST`` times without any outcome: FAILED, cause LOST.

        False if it is in somebody's hands, has an outcome, or was not lost that often.
        """
        fields: Document = {
            "state": State.FAILED.value,
            "cause": Cause.LOST.value,
            "message": message,
            "evidence": plain(evidence),
            **_UNLEASED,
        }
        change = {"$set": fields, "$currentDate": {"updated": True, "finished": True}}
        query = {"_id": key, "$or": _FREE, "lost": {"$gte": MOST_LOST}}
        return self._persist(lambda: self._db["calculations"].update_one(query, change).matched_count == 1)

    def renew(self, owner: str, ttl_s: float = 600) -> int:
        """Extend all leases of ``owner`` to ``ttl_s`` from now; return how many it holds."""
        update = [{"$set": {"lease_until": {"$add": ["$$NOW", _milliseconds(ttl_s)]}}}]
        query = {"worker": owner, "state": State.RUNNING.value}
        return self._persist(lambda: self._db["calculations"].update_many(query, update).matched_count)

    def release(self, lease: Lease, *, lost: bool = False) -> bool:
        """Give a calculation back unfinished: READY again. False if the lease was lost.

        Parameters
        ----------
        lease
            As :meth:`lease` gave it.
        lost
            Whether it counts as one that ended without an outcome (an error of ours), not as an orderly return.
        """
        change = _giving_back()
        if not lost:
            change["$inc"] = {"lost": -1}
        return self._persist(
            lambda: self._db["calculations"].update_one(_fence(lease), change).matched_count == 1
        )

    def release_owner(self, owner: str) -> int:
        """Give back everything a dead ``owner`` held; return how many."""
        query = {"worker": owner, "state": State.RUNNING.value}
        return self._persist(
            lambda: self._db["calculations"].update_many(query, _giving_back()).matched_count
        )

    def finish(
        self,
        lease: Lease,
        calculation: Calculation,
        structure: Structure,
        result: Result,
        *,
        spectrum_sigma_eV: float = 0.5,
        step_eV: float = 0.1,
    ) -> bool:
        """Store a result that passed the gate: DONE. False, and nothing stored, if the lease was lost.

        Parameters
        ----------
        lease
            As :meth:`lease` gave it.
        calculation, structure
            What was computed, checked against the lease and the shapes of the result.
        result
            :class:`SiteResult` for a site, :class:`GroundResult` for a ground state.
        spectrum_sigma_eV, step_eV
            Broadening and step of the stored grid.

        Raises
        ------
        InternalError
            If the result is not of this calculation.
        """
        _check(lease, calculation, structure, result)
        fields = {"state": State.DONE.value, **_CLEARED, **_outcome(result)}
        return self._conclude(lease, fields, self._array_document(lease, result, spectrum_sigma_eV, step_eV))

    def fail(
        self,
        lease: Lease,
        cause: Cause,
        message: str,
        evidence: Mapping[str, Any],
        provenance: Provenance | Mapping[str, Any] | None = None,
    ) -> bool:
        """Record that the calculation ended without a result: FAILED. False if the lease was lost."""
        fields: Document = {
            "state": State.FAILED.value,
            "cause": cause.value,
            "message": message,
            "evidence": plain(evidence),
            **_origin(provenance),
        }
        return self._conclude(lease, fields, None)

    def quarantine(
        self,
        lease: Lease,
        result: Result,
        rejection: Rejection,
        *,
        spectrum_sigma_eV: float = 0.5,
        step_eV: float = 0.1,
    ) -> bool:
        """Keep a result that the gate refused as evidence: QUARANTINED. False if the lease was lost."""
        fields = {
            **_outcome(result),
            "state": State.QUARANTINED.value,
            "cause": rejection.cause.value,
            "message": rejection.message,
            "evidence": plain(rejection.evidence),
        }
        return self._conclude(lease, fields, self._array_document(lease, result, spectrum_sigma_eV, step_eV))

    def _array_document(
        self, lease: Lease, result: Result, sigma_eV: float, step_eV: float
    ) -> tuple[str, Document]:
        if isinstance(result, GroundResult):
            return "dos", ground_document(lease.key, lease.attempt, result)
        sound = len(result.sticks.energies_eV) > 0 and _finite(result)
        grid = broaden(result.sticks, sigma_eV=sigma_eV, step_eV=step_eV) if sound else None
        return "spectra", site_document(lease.key, lease.attempt, result, grid)

    def _conclude(self, lease: Lease, fields: Document, arrays: tuple[str, Document] | None) -> bool:
        change = {
            "$set": {**fields, **_UNLEASED, "lost": 0},
            "$currentDate": {"updated": True, "finished": True},
        }

        def body(session: ClientSession) -> bool:
            calculations = self._db["calculations"]
            if calculations.update_one(_fence(lease), change, session=session).matched_count == 0:
                # Ours already, if the answer to the commit was lost and this is the second try.
                again = {**_fence(lease), "state": fields["state"]}
                return calculations.find_one(again, {"_id": 1}, session=session) is not None
            if arrays is not None:
                collection, document = arrays
                self._db[collection].replace_one({"_id": lease.key}, document, upsert=True, session=session)
            return True

        return self._persist(lambda: self._in_transaction(body))

    def retry(
        self, campaign: str | None, *, cause: Cause | None = None, keys: Iterable[str] | None = None
    ) -> list[str]:
        """Make FAILED and QUARANTINED calculations READY; return the ids of the batches to run again.

        A batch stays on that list until :meth:`rerun_done`: a retry killed half-way is completed by the next.

        Parameters
        ----------
        campaign
            Only its calculations, or None for all.
        cause
            Only these.
        keys
            Only these.
        """
        query: Document = {"state": {"$in": [State.FAILED.value, State.QUARANTINED.value]}}
        if campaign is not None:
            query["campaigns"] = campaign
        if cause is not None:
            query["cause"] = cause.value
        for chunk in [None] if keys is None else chunks(keys):
            selected = query if chunk is None else {**query, "_id": {"$in": chunk}}
            self._persist(self._retry, selected)
        # Not filtered by campaign: a calculation two campaigns share travels in the batch of the first.
        return [
            b["_id"]
            for b in self._cursor("batches", {"rerun": True}, projection={"_id": 1}, sort=[("_id", 1)])
        ]

    def _retry(self, query: Document) -> None:
        calculations = self._db["calculations"]
        found = calculations.aggregate([{"$match": query}, {"$group": {"_id": "$batch"}}])
        for chunk in chunks(d["_id"] for d in found):
            self._db["batches"].update_many({"_id": {"$in": chunk}}, {"$set": {"rerun": True}})
            calculations.update_many(
                {**query, "batch": {"$in": chunk}},
                {
                    "$set": {"state": State.READY.value, "lost": 0, **_CLEARED},
                    "$currentDate": {"updated": True},
                },
            )

    def rerun_done(self, batch_ids: Iterable[str]) -> None:
        """Say that these batches of :meth:`retry` are queued again."""
        for chunk in chunks(batch_ids):
            change = {"$set": {"rerun": False}}
            self._persist(self._db["batches"].update_many, {"_id": {"$in": chunk}}, change)

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

    def forget_worker(self, owner: str) -> None:
        """Remove a worker's heartbeat."""
        self._persist(lambda: self._db["workers"].delete_one({"_id": owner}))


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _fence(lease: Lease) -> Document:
    return {
        "_id": lease.key,
        "attempts": lease.attempt,
        "worker": lease.owner,
        "state": State.RUNNING.value,
    }


def _giving_back() -> Document:
    return {"$set": {"state": State.READY.value, **_UNLEASED}, "$currentDate": {"updated": True}}


def _finite(result: SiteResult) -> bool:
    return bool(np.isfinite(result.sticks.energies_eV).all() and np.isfinite(result.sticks.strengths).all())


def _check(lease: Lease, calculation: Calculation, structure: Structure, result: Result) -> None:
    right = SiteResult if calculation.kind is Kind.SITE else GroundResult
    if (
        calculation.key != lease.key
        or structure.key != calculation.structure_key
        or not isinstance(result, right)
    ):
        raise InternalError("a result was reported for another calculation", where=lease.key)
    if isinstance(result, GroundResult) and result.pdos.weights.shape[1] != len(structure):
        raise InternalError(
            f"PDOS of {result.pdos.weights.shape[1]} atoms for a structure of {len(structure)}",
            where=lease.key,
        )


def _origin(provenance: Provenance | Mapping[str, Any] | None) -> Document:
    if provenance is None:
        return {"provenance": None}
    if isinstance(provenance, Provenance):
        provenance = {name: getattr(provenance, name) for name in Provenance.__slots__}
    document = plain(provenance)
    return {
        "provenance": document,
        "wall_s": document.get("wall_s"),
        "host": document.get("host"),
        "directory": document.get("directory"),
    }


def _outcome(result: Result) -> Document:
    scalars: dict[str, float]
    if isinstance(result, SiteResult):
        scalars = {
            "excitation_energy_eV": float(result.excitation_energy_eV),
            "strength_sum": float(result.sticks.isotropic.sum()),
            "hole_overlap": float(result.hole_overlap),
        }
        if result.ionization_eV is not None:
            scalars["ionization_eV"] = float(result.ionization_eV)
    else:
        scalars = {
            "total_energy_eV": float(result.total_energy_eV),
            "homo_eV": float(result.homo_eV),
            "lumo_eV": float(result.lumo_eV),
            "gap_eV": float(result.gap_eV),
            "dipole_D": float((result.dipole_D**2).sum() ** 0.5),
        }
    return {"scalars": scalars, **_origin(result.provenance)}
