"""What the user wants of campaigns, what they have cost, and the queue jobs that work on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from htxas.errors import InternalError, NotFound
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import pilot_document, pilot_from, plain
from htxas.store.records import Control, ControlState, PilotRecord, PilotState

__all__ = ["Controlling"]

_DUPLICATE = 11000
_ACTIVE = [PilotState.SUBMITTING.value, PilotState.QUEUED.value, PilotState.RUNNING.value]
_PILOT_FIELDS = {f.name for f in fields_of(PilotRecord)} - {"id"}


class Controlling(Connected):
    """The part of the store that steers."""

    def controls(self) -> dict[str, Control]:
        """Return how each campaign is to be treated."""
        found = self._persist(self._all, "campaigns", {}, {"control": 1})
        return {c["_id"]: _control(c.get("control", {})) for c in found}

    def set_control(
        self,
        name: str,
        *,
        state: ControlState | str | None = None,
        priority: int | None = None,
        budget_node_h: float | None = None,
    ) -> Control:
        """Change how a campaign is to be treated; None leaves things as they are. Return what holds now.

        Parameters
        ----------
        name
            Campaign.
        state
            ``active``, ``paused`` or ``cancelled``.
        priority
            Higher goes first.
        budget_node_h
            Node-hours it may use in all; ``math.inf`` takes the cap away.

        Raises
        ------
        NotFound
            If there is no such campaign.
        """
        change: Document = {}
        if state is not None:
            change["control.state"] = ControlState(state).value
        if priority is not None:
            change["control.priority"] = int(priority)
        if budget_node_h is not None:
            change["control.budget_node_h"] = None if math.isinf(budget_node_h) else float(budget_node_h)
        campaigns = self._db["campaigns"]
        if change:
            self._persist(lambda: campaigns.update_one({"_id": name}, {"$set": change}))
        found = self._persist(lambda: campaigns.find_one({"_id": name}, {"control": 1}))
        if found is None:
            raise NotFound(f"no campaign is called {name!r}", hint="htxas campaign list")
        return _control(found.get("control", {}))

    def spend(self, owner: str, node_s: Mapping[str, float], sequence: int) -> None:
        """Add node-seconds that ``owner`` used to what each campaign has cost.

        Parameters
        ----------
        owner
            Whose time it was.
        node_s
            Node-seconds by campaign.
        sequence
            Grows with each report of this owner: one that was sent before counts once.
        """
        writes = [
            UpdateOne(
                # A number that is stored already does not match, and its insertion collides.
                {"_id": f"{owner}/{campaign}", "sequence": {"$lt": sequence}},
                {
                    "$inc": {"node_s": float(seconds)},
                    "$set": {"sequence": sequence, "owner": owner, "campaign": campaign},
                },
                upsert=True,
            )
            for campaign, seconds in node_s.items()
        ]

        def write() -> None:
            try:
                self._db["spending"].bulk_write(writes, ordered=False)
            except BulkWriteError as error:
                problems = (error.details or {}).get("writeErrors", [])
                if not problems or any(p["code"] != _DUPLICATE for p in problems):
                    raise

        if writes:
            self._persist(write)

    def spent(self) -> dict[str, float]:
        """Return the node-hours that each campaign has used."""
        stages: list[Document] = [
            {"$match": {"campaign": {"$gte": ""}}},  # a bound, so that the index alone answers
            {"$group": {"_id": "$campaign", "node_s": {"$sum": "$node_s"}}},
            {"$sort": {"_id": 1}},
        ]
        rows = self._persist(lambda: list(self._db["spending"].aggregate(stages, hint="spent")))
        return {row["_id"]: float(row["node_s"]) / 3600 for row in rows}

    def put_pilots(self, pilots: Iterable[PilotRecord]) -> None:
        """Make pilots known; those that are known already stay as they are."""
        for chunk in chunks(pilots):
            writes = []
            for pilot in chunk:
                document = pilot_document(pilot)
                wanted = {"_id": document.pop("_id")}
                writes.append(UpdateOne(wanted, {"$setOnInsert": document}, upsert=True))
            self._persist(lambda w: self._db["pilots"].bulk_write(w, ordered=False), writes)

    def update_pilot(self, pilot_id: str, **fields: Any) -> None:
        """Change fields of a pilot.

        Raises
        ------
        NotFound
            If there is no such pilot.
        InternalError
            If a pilot has no such field.
        """
        unknown = sorted(set(fields) - _PILOT_FIELDS)
        if unknown:
            raise InternalError(f"a pilot has no {', '.join(unknown)}")
        change = {"$set": plain(fields)}
        matched = self._persist(
            lambda: self._db["pilots"].update_one({"_id": pilot_id}, change).matched_count
        )
        if matched == 0:
            raise NotFound("no such pilot", where=pilot_id, hint="htxas queue status")

    def count_pilot_time(self, pilot_id: str, *, allocated_s: float, engine_s: float) -> None:
        """Add what one start of a pilot, on one of its nodes, was given and used; an unknown pilot counts nothing."""
        change = {"$inc": {"allocated_s": float(allocated_s), "engine_s": float(engine_s)}}
        self._persist(self._db["pilots"].update_one, {"_id": pilot_id}, change)

    def pilots(
        self, cluster: str | None = None, active: bool | None = None, state: PilotState | None = None
    ) -> list[PilotRecord]:
        """Return pilots, oldest first.

        Parameters
        ----------
        cluster
            Only of this one.
        active
            True: only those being submitted, queued or running; False: only the others.
        state
            Only those in this one; ``active`` does not count then.
        """
        query: Document = {} if cluster is None else {"cluster": cluster}
        if state is not None:
            query["state"] = state.value
        elif active is not None:
            query["state"] = {"$in" if active else "$nin": _ACTIVE}
        found = self._persist(self._all, "pilots", query)
        return sorted(map(pilot_from, found), key=lambda p: (p.submitted, p.id))

    def last_pilots(self, cluster: str, limit: int) -> list[PilotRecord]:
        """Return the pilots of a cluster that ended last, at most so many, newest end first."""
        query = {"cluster": cluster, "state": PilotState.ENDED.value}
        pilots = self._db["pilots"]
        found = self._persist(
            lambda: list(pilots.find(query).sort([("ended", -1), ("_id", -1)]).limit(limit))
        )
        return [pilot_from(document) for document in found]

    def pilot(self, pilot_id: str) -> PilotRecord:
        """Return a pilot.

        Raises
        ------
        NotFound
            If there is none of that id.
        """
        found = self._persist(lambda: self._db["pilots"].find_one({"_id": pilot_id}))
        if found is None:
            raise NotFound("no such pilot", where=pilot_id, hint="htxas queue status")
        return pilot_from(found)

    def server_up_s(self) -> float:
        """Return for how long the database server (the primary, of several) has been up, by its own clock.

        Whoever counts on a heartbeat that came late should ask: the database may have been away, not the worker.
        """
        hello = self._persist(self._client.admin.command, "hello")
        started: datetime = hello["topologyVersion"]["processId"].generation_time
        now: datetime = hello["localTime"]
        return max(0.0, (now.replace(tzinfo=UTC) - started).total_seconds())


def _control(document: Mapping[str, Any]) -> Control:
    return Control(
        state=ControlState(document.get("state", ControlState.ACTIVE)),
        priority=int(document.get("priority", 0)),
        budget_node_h=document.get("budget_node_h"),
    )
