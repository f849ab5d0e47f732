"""Campaigns, structures, calculations, molecules and batches going in.

Every call may be repeated, and a campaign killed between any two of them is completed by running them again:
documents are keyed by content, written only if absent, and a batch takes its calculations in the transaction that
creates it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from typing import Any

from pymongo import InsertOne, UpdateMany, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError

from htxas.domain.calculation import State
from htxas.domain.identity import content_key
from htxas.errors import NotFound, StoreError, UserError
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import batch_from, molecule_document, plain, structure_document
from htxas.store.records import Batch, MoleculeRecord, PlannedCalculation, StructureRecord

__all__ = ["Submission", "molecule_id"]

_DUPLICATE = 11000
_BATCHES_PER_TRANSACTION = 100
_MOST_SKIPPED = 20_000  # a document ends at 16 MB


def molecule_id(campaign: str, name: str) -> str:
    """Return the ``_id`` of a molecule."""
    return content_key([campaign, name])


def _campaign_from(found: Document) -> Document:
    return {
        **found["document"],
        "name": found["_id"],
        "created": found["created"],
        "submitted": found.get("submitted", found["created"]),  # older databases did not tell
        "skipped": found.get("skipped", []),
    }


def _calculation_document(
    planned: PlannedCalculation, structure: Mapping[str, Any], now: datetime
) -> Document:
    c = planned.calculation
    return {
        "kind": c.kind.value,
        "structure_key": c.structure_key,
        "engine": c.engine,
        "parameters_key": c.parameters_key,
        "element": c.element,
        "edge": c.edge,
        "atom": c.atom,
        # Copied from the structure: a query by formula or composition needs no join.
        "formula": structure["formula"],
        "composition": structure["composition"],
        "smiles": structure["smiles"],
        "state": State.READY.value,
        "cause": None,
        "message": None,
        "evidence": {},
        "attempts": 0,
        "ladder": None,
        "history": [],
        "interrupted": {},
        "interruptions": 0,
        "batch": None,
        "estimate_s": float(planned.estimate_s),
        "wall_s": None,
        "host": None,
        "directory": None,
        "worker": None,
        "lease_until": None,
        "lease_token": None,
        "scalars": {},
        "provenance": None,
        "created": now,
        "updated": now,
    }


class Submission(Connected):
    """The part of the store that takes a plan."""

    def put_campaign(self, name: str, document: Mapping[str, Any]) -> bool:
        """Record a campaign; True if it is new, False if the very same one is there.

        Raises
        ------
        UserError
            If another campaign has that name: a campaign never changes under its results.
        """
        content = plain(document)
        key = content_key(content)
        entry = {
            "_id": name,
            "document": content,
            "content_key": key,
            "created": datetime.now(UTC),
            "submitted": None,
            "skipped": [],
        }

        def insert() -> bool:
            found = self._db["campaigns"].find_one({"_id": name}, {"content_key": 1, "created": 1})
            if found is None:
                try:
                    self._db["campaigns"].insert_one(dict(entry))
                except DuplicateKeyError:
                    return insert()  # another process was faster; look at what it wrote
                return True
            if found["content_key"] != key:
                raise UserError(
                    "a campaign of this name was submitted with other content",
                    where=name,
                    hint="give the changed campaign another name; what is computed already is shared",
                )
            return False

        return self._persist(insert)

    def campaign(self, name: str) -> Document:
        """Return the campaign as submitted, with ``name``, ``created``, ``submitted`` and ``skipped`` added.

        ``submitted`` is when its submission came to its end, None if it has not; ``skipped`` lists the molecules that
        were left out because the campaign says so: ``name``, ``why`` and ``message`` of each.

        Raises
        ------
        NotFound
            With near names.
        """
        found = self._persist(lambda: self._db["campaigns"].find_one({"_id": name}))
        if found is None:
            names = [c["_id"] for c in self._cursor("campaigns", {}, projection={"_id": 1})]
            near = get_close_matches(name, names, n=3)
            raise NotFound(
                f"no campaign is called {name!r}",
                hint="did you mean " + " or ".join(near) + "?" if near else "htxas campaign list",
            )
        return _campaign_from(found)

    def campaign_engines(self) -> dict[str, str]:
        """Return the engine of each campaign."""
        found = self._persist(self._all, "campaigns", {}, {"document.engine": 1})
        return {c["_id"]: c["document"]["engine"] for c in found}

    def seal_campaign(self, name: str, skipped: Sequence[Mapping[str, Any]] = ()) -> None:
        """Record that the submission of a campaign has come to its end, and what it left out."""
        change = {
            "$set": {"skipped": plain(list(skipped)[:_MOST_SKIPPED])},
            "$currentDate": {"submitted": True},
        }
        self._persist(self._db["campaigns"].update_one, {"_id": name}, change)

    def unfinished_submissions(self, name: str | None = None) -> list[str]:
        """Return the campaigns (of all, or of one) whose submission was interrupted or is under way."""
        query: Document = {"submitted": {"$type": "null"}}  # absent in databases of older versions
        if name is not None:
            query["_id"] = name
        found = self._persist(self._all, "campaigns", query, {"_id": 1})
        return sorted(c["_id"] for c in found)

    def campaigns(self) -> list[Document]:
        """Return all campaigns as :meth:`campaign` does, oldest first."""
        found = self._cursor("campaigns", {}, sort=[("created", 1)])
        return [_campaign_from(c) for c in found]

    def wanted(self, keys: Iterable[str], campaigns: Sequence[str]) -> tuple[str, str] | None:
        """Return the first calculation found among ``keys`` that one of these campaigns wants, and that campaign."""
        for chunk in chunks(keys):
            query = {"_id": {"$in": chunk}, "campaigns": {"$in": list(campaigns)}}
            found = self._persist(self._db["calculations"].find_one, query, {"campaigns": 1})
            if found is not None:
                return found["_id"], next(c for c in campaigns if c in found["campaigns"])
        return None

    def put_structures(self, records: Iterable[StructureRecord]) -> int:
        """Store structures that are not there yet; return how many were new."""
        return sum(
            self._upsert("structures", [structure_document(r) for r in chunk]) for chunk in chunks(records)
        )

    def put_calculations(
        self,
        campaign: str,
        planned: Iterable[PlannedCalculation],
        structures: Mapping[str, StructureRecord] | None = None,
    ) -> set[str]:
        """Make calculations known and wanted by ``campaign``; return the keys that need a batch.

        Parameters
        ----------
        campaign
            Added to each calculation's campaigns.
        planned
            Any number; written a thousand at a time.
        structures
            Structure records by key, to save reading them; those absent are read, so their
            structures must have been put before.

        Returns
        -------
        set of str
            Keys that are new, or that no batch carries and that are not done.

        Raises
        ------
        StoreError
            If a structure is not in the store.
        """
        homeless: set[str] = set()
        for chunk in chunks(planned):
            homeless |= self._put_calculations(campaign, chunk, structures or {})
        return homeless

    def _put_calculations(
        self, campaign: str, chunk: list[PlannedCalculation], structures: Mapping[str, StructureRecord]
    ) -> set[str]:
        described = self._describe({p.calculation.structure_key for p in chunk}, structures)
        parameters = {p.calculation.parameters_key: p.calculation.parameters for p in chunk}
        self._upsert("parameters", [{"_id": k, "parameters": plain(v)} for k, v in parameters.items()])
        now = datetime.now(UTC)
        writes = [
            UpdateOne(
                {"_id": p.calculation.key},
                {
                    "$setOnInsert": _calculation_document(p, described[p.calculation.structure_key], now),
                    "$addToSet": {"campaigns": campaign},
                },
                upsert=True,
            )
            for p in chunk
        ]
        keys = [p.calculation.key for p in chunk]
        self._persist(lambda: self._bulk("calculations", writes))
        query = {"_id": {"$in": keys}, "batch": None, "state": {"$ne": State.DONE.value}}
        return self._persist(lambda: {d["_id"] for d in self._db["calculations"].find(query, {"_id": 1})})

    def _describe(
        self, keys: set[str], structures: Mapping[str, StructureRecord]
    ) -> dict[str, Mapping[str, Any]]:
        described: dict[str, Mapping[str, Any]] = {
            key: {"formula": r.structure.formula, "composition": r.structure.composition, "smiles": r.smiles}
            for key in keys
            if (r := structures.get(key)) is not None
        }
        absent = [k for k in keys if k not in described]
        if absent:
            fields = {"formula": 1, "composition": 1, "smiles": 1}
            found = self._persist(lambda: list(self._db["structures"].find({"_id": {"$in": absent}}, fields)))
            described |= {d["_id"]: d for d in found}
        if len(described) != len(keys):
            lost = min(keys - set(described))
            raise StoreError("the structure of a calculation is not in the store", where=lost)
        return described

    def put_molecules(self, records: Iterable[MoleculeRecord]) -> int:
        """Store molecules that are not there yet; return how many were new.

        Raises
        ------
        UserError
            If a campaign has two different molecules of one name.
        """
        new = 0
        for chunk in chunks(records):
            writes = []
            for r in chunk:
                document = molecule_document(r)
                same = {k: document.pop(k) for k in ("structure_key", "ground_key")}
                # A molecule of this name but another content does not match, and its insertion collides.
                writes.append(
                    UpdateOne(
                        {"_id": molecule_id(r.campaign, r.name), **same},
                        {"$setOnInsert": document},
                        upsert=True,
                    )
                )
            new += self._put_once(writes, chunk)
        return new

    def _put_once(self, writes: list[Any], chunk: list[MoleculeRecord]) -> int:
        while True:
            try:
                return int(self._persist(self._bulk, "molecules", writes))
            except _Collision as collision:
                mine = chunk[collision.index]
                found = self._persist(
                    partial(self._db["molecules"].find_one, {"_id": molecule_id(mine.campaign, mine.name)})
                )
                theirs = found and (found["structure_key"], found["ground_key"])
                if theirs != (mine.structure_key, mine.ground_key):
                    raise UserError(
                        f"two different molecules are called {mine.name!r}",
                        where=mine.campaign,
                        hint="give each molecule of a campaign its own name",
                    ) from None
                # Another process inserted the very same molecule between our look and our insertion: look again.

    def put_batches(self, batches: Iterable[Batch]) -> int:
        """Store batches and give them those of their calculations that no other batch has; return how many were new.

        A batch of which every calculation belongs to others is not stored. A chunk of batches and the
        calculations they take are one transaction.
        """
        return sum(
            self._persist(self._in_transaction, partial(self._put_batches, chunk))
            for chunk in chunks(batches, _BATCHES_PER_TRANSACTION)
        )

    def _put_batches(self, chunk: list[Batch], session: ClientSession) -> int:
        keys = [k for b in chunk for k in b.keys]
        calculations, batches = self._db["calculations"], self._db["batches"]
        free = {
            d["_id"]
            for d in calculations.find({"_id": {"$in": keys}, "batch": None}, {"_id": 1}, session=session)
        }
        known = {
            d["_id"]
            for d in batches.find({"_id": {"$in": [b.id for b in chunk]}}, {"_id": 1}, session=session)
        }
        inserts, takes = [], []
        for batch in chunk:
            mine = [k for k in batch.keys if k in free]
            free.difference_update(mine)
            if mine:
                takes.append(UpdateMany({"_id": {"$in": mine}}, {"$set": {"batch": batch.id}}))
            if mine and batch.id not in known:
                known.add(batch.id)
                inserts.append(InsertOne(_batch_document(batch)))
        if takes:
            calculations.bulk_write(takes, ordered=False, session=session)
        if inserts:
            batches.bulk_write(inserts, ordered=False, session=session)
        return len(inserts)

    def unsubmitted_batches(self, campaign: str) -> Iterator[Batch]:
        """Yield the batches of ``campaign`` that no Firework carries; those that wait for another one last."""
        query = {"campaign": campaign, "fw_id": None}
        return map(batch_from, self._cursor("batches", query, sort=[("after", 1), ("_id", 1)]))

    def mark_submitted(self, fireworks: Mapping[str, int]) -> None:
        """Record the Firework (value) that carries each batch (key)."""
        for chunk in chunks(fireworks.items()):
            writes = [UpdateOne({"_id": k}, {"$set": {"fw_id": int(v)}}) for k, v in chunk]
            self._persist(self._bulk, "batches", writes)

    def batch(self, batch_id: str) -> Batch:
        """Return a batch.

        Raises
        ------
        NotFound
            If there is none of that id.
        """
        found = self._persist(lambda: self._db["batches"].find_one({"_id": batch_id}))
        if found is None:
            raise NotFound("no such batch", where=batch_id)
        return batch_from(found)

    def states(self, keys: Iterable[str]) -> dict[str, State]:
        """Return the state of each known calculation among ``keys``."""
        known: dict[str, State] = {}
        for chunk in chunks(keys):
            found = self._persist(self._all, "calculations", {"_id": {"$in": chunk}}, {"state": 1})
            known |= {d["_id"]: State(d["state"]) for d in found}
        return known

    def _upsert(self, collection: str, documents: list[Document]) -> int:
        """Insert the documents that are absent, by ``_id``; return how many were."""
        writes = [
            UpdateOne(
                {"_id": d["_id"]}, {"$setOnInsert": {k: v for k, v in d.items() if k != "_id"}}, upsert=True
            )
            for d in documents
        ]
        return self._persist(lambda: self._bulk(collection, writes)) if writes else 0

    def _bulk(self, collection: str, writes: list[Any]) -> int:
        try:
            return int(self._db[collection].bulk_write(writes, ordered=False).upserted_count)
        except BulkWriteError as error:
            problems = (error.details or {}).get("writeErrors", [])
            if any(p["code"] != _DUPLICATE for p in problems) or not problems:
                raise
            if collection == "molecules":
                raise _Collision(problems[0]["index"]) from None
            # Two processes upserted one key: the loser only has to look again.
            return int((error.details or {})["nUpserted"]) + self._bulk(
                collection, [writes[p["index"]] for p in problems]
            )


class _Collision(Exception):
    """A molecule's name is taken; carries its place in the chunk."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


def _batch_document(batch: Batch) -> Document:
    return {
        "_id": batch.id,
        "campaign": batch.campaign,
        "keys": list(batch.keys),
        "estimate_s": float(batch.estimate_s),
        "after": batch.after,
        "fw_id": batch.fw_id,
        "shortest_s": batch.shortest_s,
        "longest_s": batch.longest_s,
        "rerun": False,
    }
