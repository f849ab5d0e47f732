"""Questions: how far, what failed, which calculations, what came of one."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.identity import KEY_LENGTH
from htxas.domain.result import GroundResult, Spectral
from htxas.domain.spectrum import Spectrum
from htxas.errors import NotFound, StoreError, UserError
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import (
    calculation_from,
    ground_from,
    molecule_from,
    record_from,
    site_from,
    spectrum_from,
    structure_from,
)
from htxas.store.records import MOST_INTERRUPTED, CalculationRecord, MoleculeRecord, StructureRecord

__all__ = ["Reading", "Sort", "StoredTiming"]

Sort = Literal["key", "energy", "-energy", "updated", "-updated", "wall_s", "-wall_s"]

_ONSETS = ("scalars.excitation_energy_eV", "scalars.edge_eV")  # a calculation has one of them at most
_SORT_FIELDS = {"key": ("_id",), "energy": _ONSETS, "updated": ("updated",), "wall_s": ("wall_s",)}
_RECENT_S = 600
_WRONG = (State.FAILED.value, State.QUARANTINED.value)
_EXAMPLE = ("kind", "message", "evidence", "directory", "host", "attempts", "history")


class StoredTiming(NamedTuple):
    """What a finished calculation took: structure, wall seconds, where, and on how many threads (None: not told)."""

    structure_key: str
    wall_s: float
    host: str | None
    cluster: str | None = None
    threads: int | None = None


def _timing(found: Document) -> StoredTiming:
    run = ((found.get("provenance") or {}).get("extra") or {}).get("run") or {}
    return StoredTiming(
        found["structure_key"],
        float(found["wall_s"]),
        found.get("host"),
        run.get("cluster"),
        run.get("threads"),
    )


class Reading(Connected):
    """The part of the store that answers."""

    def counts(self, campaign: str | None = None) -> dict[State, int]:
        """Return how many calculations are in each state; every state is there."""
        within: Document = {} if campaign is None else {"campaigns": campaign}
        # The count command scans the index alone; count_documents, which aggregates, takes twice as long.
        hint = "ended" if campaign is None else "status"
        return {
            state: int(
                self._persist(
                    self._db.command,
                    "count",
                    "calculations",
                    query={**within, "state": state.value},
                    hint=hint,
                )["n"]
            )
            for state in State
        }

    def _tally(self, campaign: str | None) -> list[Document]:
        """Count and add up by state, kind and cause, from the index alone."""
        fields = ("state", "kind", "cause")
        stages: list[Document] = [
            {"$match": {} if campaign is None else {"campaigns": campaign}},
            {
                "$group": {
                    "_id": {f: f"${f}" for f in fields},
                    "count": {"$sum": 1},
                    "wall_s": {"$sum": "$wall_s"},
                    "estimate_s": {"$sum": "$estimate_s"},
                }
            },
        ]
        return self._persist(lambda: list(self._db["calculations"].aggregate(stages, hint="status")))

    def _interrupted(self, campaign: str | None) -> dict[str, int]:
        """Count interrupted attempts by cause, from an index that only they are in."""
        # "Any name" rather than nothing at all: without a bound on its first field the index alone does not answer.
        match: Document = {
            "campaigns": {"$gte": ""} if campaign is None else campaign,
            "interruptions": {"$gt": 0},
        }
        sums = {c.value: {"$sum": f"$interrupted.{c.value}"} for c in MOST_INTERRUPTED}
        stages: list[Document] = [{"$match": match}, {"$group": {"_id": None, **sums}}]
        rows = self._persist(lambda: list(self._db["calculations"].aggregate(stages, hint="interrupted")))
        return {c: int(n) for row in rows for c, n in row.items() if c != "_id" and n}

    def cause_counts(self, campaign: str | None = None) -> list[Document]:
        """Return what went wrong, most frequent first.

        Each entry has ``state``, ``cause``, ``count`` and of one example ``key``, ``kind``, ``message``, ``evidence``,
        ``log`` (the last lines of its log, if any were kept), ``directory``, ``host``, ``attempts`` and ``history``.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for row in self._tally(campaign):
            if row["_id"]["state"] in _WRONG:
                counts[row["_id"]["state"], row["_id"]["cause"]] += row["count"]
        rows = []
        for (state, cause), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            query = {"state": state, "cause": cause} | ({} if campaign is None else {"campaigns": campaign})
            example = self._persist(self._db["calculations"].find_one, query, _EXAMPLE)
            if example is None:  # retried meanwhile
                continue
            log = example["evidence"].get("log", [])
            rows.append(
                {
                    "state": state,
                    "cause": cause,
                    "count": count,
                    "key": example.pop("_id"),
                    "log": log,
                    **example,
                }
            )
        return rows

    def progress(self, campaign: str | None = None) -> Document:
        """Return how far a campaign is.

        Keys: ``campaign``, ``total``, ``counts`` (by state), ``kinds`` (by kind, then state), ``causes`` (failed and
        quarantined, by cause), ``interrupted`` (attempts that ended without an outcome, by cause), ``done_wall_s``
        (seconds spent on what is done), ``left_estimate_s`` (expected for READY and RUNNING), ``recent_done`` and
        ``recent_s`` (done within that many seconds, at most 600), ``rate_per_s`` (0 if nothing was done in that time).
        """
        counts = {s.value: 0 for s in State}
        kinds = {k.value: dict(counts) for k in Kind}
        causes: dict[str, int] = {}
        done_wall_s = left_s = 0.0
        for row in self._tally(campaign):
            state, kind, cause = row["_id"]["state"], row["_id"]["kind"], row["_id"].get("cause")
            counts[state] += row["count"]
            kinds[kind][state] += row["count"]
            if cause is not None:
                causes[cause] = causes.get(cause, 0) + row["count"]
            if state == State.DONE:
                done_wall_s += row["wall_s"]
            if state in (State.READY, State.RUNNING):
                left_s += row["estimate_s"]
        recent, recent_s = self._recent(campaign)
        return {
            "campaign": campaign,
            "total": sum(counts.values()),
            "counts": counts,
            "kinds": kinds,
            "causes": causes,
            "interrupted": self._interrupted(campaign),
            "done_wall_s": done_wall_s,
            "left_estimate_s": left_s,
            "recent_done": recent,
            "recent_s": recent_s,
            "rate_per_s": recent / recent_s if recent else 0.0,
        }

    def _recent(self, campaign: str | None) -> tuple[int, float]:
        now = self._server_time()
        match: Document = {
            "state": State.DONE.value,
            "finished": {"$gte": now - timedelta(seconds=_RECENT_S)},
        }
        if campaign is not None:
            match["campaigns"] = campaign
        age = {"$divide": [{"$subtract": [now, "$finished"]}, 1000]}
        # A run younger than the window began about one calculation before its first one ended.
        began = {"$add": [age, {"$ifNull": ["$wall_s", 0]}]}
        stages: list[Document] = [
            {"$match": match},
            {"$group": {"_id": None, "count": {"$sum": 1}, "age_s": {"$max": began}}},
        ]
        rows = self._persist(lambda: list(self._db["calculations"].aggregate(stages, hint="ended")))
        if not rows:
            return 0, float(_RECENT_S)
        return int(rows[0]["count"]), min(float(_RECENT_S), max(1.0, float(rows[0]["age_s"])))

    def calculation(self, key_or_prefix: str) -> CalculationRecord:
        """Return a calculation by its key or the first digits of it.

        Raises
        ------
        NotFound
            If none starts like that.
        UserError
            If several do.
        """
        return record_from(self._calculation_document(key_or_prefix))

    def _calculation_document(self, key_or_prefix: str) -> Document:
        prefix = key_or_prefix.lower()
        if not prefix or len(prefix) > KEY_LENGTH or set(prefix) - set(string.hexdigits):
            raise NotFound(f"{key_or_prefix!r} is not a calculation key", hint="htxas query lists keys")
        query = {"_id": {"$gte": prefix, "$lt": prefix + "g"}}  # "g" sorts after every hex digit
        found = self._persist(lambda: list(self._db["calculations"].find(query, limit=2)))
        if not found:
            raise NotFound(f"no calculation starts with {key_or_prefix!r}", hint="htxas query lists keys")
        if len(found) > 1:
            first, second = (d["_id"][: len(prefix) + 6] for d in found)
            raise UserError(
                f"several calculations start with {key_or_prefix!r}: {first}, {second}",
                hint="give more digits",
            )
        return found[0]

    def calculations(self, keys: Iterable[str]) -> dict[str, CalculationRecord]:
        """Return the known calculations among ``keys``: for a batch, not for a campaign."""
        found: dict[str, CalculationRecord] = {}
        for chunk in chunks(keys):
            documents = self._persist(self._all, "calculations", {"_id": {"$in": chunk}})
            found |= {d["_id"]: record_from(d) for d in documents}
        return found

    def identity(self, key: str) -> Calculation:
        """Return the calculation itself, with its parameters: what an engine is given.

        Raises
        ------
        NotFound
            If there is no such calculation.
        StoreError
            If its document no longer has its key.
        """
        document = self._calculation_document(key)
        wanted = {"_id": document["parameters_key"]}
        parameters = self._persist(lambda: self._db["parameters"].find_one(wanted))
        if parameters is None:
            raise StoreError("the parameters of a calculation are not in the store", where=key)
        return calculation_from(document, parameters["parameters"])

    def find(
        self,
        *,
        campaign: str | None = None,
        state: State | None = None,
        kind: Kind | None = None,
        element: str | None = None,
        edge: str | None = None,
        engine: str | None = None,
        formula: str | None = None,
        smiles: str | None = None,
        contains: Mapping[str, int] | None = None,
        structure_key: str | None = None,
        corrected: bool | None = None,
        min_energy_eV: float | None = None,
        max_energy_eV: float | None = None,
        limit: int | None = None,
        sort: Sort | None = None,
    ) -> Iterator[CalculationRecord]:
        """Yield the calculations that meet every condition given.

        Parameters
        ----------
        campaign, state, kind, element, edge, engine, structure_key
            Equal to.
        formula, smiles
            Hill formula and SMILES of the structure, equal to.
        contains
            Element -> least number of atoms in the structure.
        corrected
            Whether the last attempt made corrections after a failure.
        min_energy_eV, max_energy_eV
            Bounds of the first final state or the threshold in eV, inclusive.
        limit
            At most so many.
        sort
            ``key``, ``energy``, ``updated`` or ``wall_s``; with ``-`` descending. Unsorted if None. By energy, those
            with a first final state are sorted among themselves, and so are those with a threshold.
        """
        equal = {
            "campaigns": campaign,
            "state": state,
            "kind": kind,
            "element": element,
            "edge": edge,
            "engine": engine,
            "formula": formula,
            "smiles": smiles,
            "structure_key": structure_key,
        }
        query: Document = {k: str(v) for k, v in equal.items() if v is not None}
        query |= {f"composition.{symbol}": {"$gte": count} for symbol, count in (contains or {}).items()}
        if corrected is not None:
            query["ladder.corrections.0"] = {"$exists": corrected}
        bounds = {k: v for k, v in (("$gte", min_energy_eV), ("$lte", max_energy_eV)) if v is not None}
        if bounds:
            query["$or"] = [{field: bounds} for field in _ONSETS]
        order = None
        if sort is not None:
            order = [(f, -1 if sort.startswith("-") else 1) for f in _SORT_FIELDS[sort.lstrip("-")]]
        if limit is not None and limit <= 0:
            return iter(())
        return map(record_from, self._cursor("calculations", query, sort=order, limit=limit or 0))

    def structure(self, key: str) -> StructureRecord:
        """Return a structure.

        Raises
        ------
        NotFound
            If there is none of that key.
        """
        found = self._persist(lambda: self._db["structures"].find_one({"_id": key}))
        if found is None:
            raise NotFound("no such structure", where=key)
        return structure_from(found)

    def structures(self, keys: Iterable[str]) -> dict[str, StructureRecord]:
        """Return the known structures among ``keys``: a few, not a campaign's."""
        found: dict[str, StructureRecord] = {}
        for chunk in chunks(keys):
            documents = self._persist(self._all, "structures", {"_id": {"$in": chunk}})
            found |= {d["_id"]: structure_from(d) for d in documents}
        return found

    def timings(self, *, engine: str, kind: Kind, parameters_key: str, limit: int) -> list[StoredTiming]:
        """Return what the last finished calculations with these parameters took, newest first.

        Only of first attempts from the beginning to the end: one with corrections, one that went on from a checkpoint
        and one that had to compute its ground state again say nothing about the next.
        """
        query: Document = {
            "state": State.DONE.value,
            "engine": engine,
            "kind": kind.value,
            "parameters_key": parameters_key,
            "wall_s": {"$gt": 0},
            "ladder": None,
            "provenance.extra.numerics": None,
            "provenance.extra.started_from": None,
            "provenance.extra.ground_state": {"$ne": "computed again"},
        }
        run = "provenance.extra.run"
        fields = {"structure_key": 1, "wall_s": 1, "host": 1, f"{run}.cluster": 1, f"{run}.threads": 1}
        calculations = self._db["calculations"]
        # Hinted: the planner may take another, and read all that is done to choose and to sort.
        found = self._persist(
            lambda: list(
                calculations.find(query, fields, sort=[("finished", -1)], limit=limit, hint="timings")
            )
        )
        return [_timing(d) for d in found]

    def molecule(self, campaign: str | None, name: str) -> MoleculeRecord:
        """Return a molecule by its name in a campaign, or in any if they agree on it.

        Raises
        ------
        NotFound
            With near names.
        UserError
            If campaigns mean different molecules by it.
        """
        query = {"name": name} if campaign is None else {"campaign": campaign, "name": name}
        found = self._persist(lambda: list(self._db["molecules"].find(query, sort=[("campaign", 1)])))
        if not found:
            within = {} if campaign is None else {"campaign": campaign}
            names = {d["name"] for d in self._cursor("molecules", within, projection={"_id": 0, "name": 1})}
            near = get_close_matches(name, names, n=3)
            raise NotFound(
                f"no molecule is called {name!r}" + (f" in campaign {campaign!r}" if campaign else ""),
                hint="did you mean " + " or ".join(near) + "?" if near else None,
            )
        if len({(d["structure_key"], d["ground_key"], *(s["key"] for s in d["sites"])) for d in found}) > 1:
            raise UserError(
                f"campaigns {', '.join(d['campaign'] for d in found)} have different molecules called {name!r}",
                hint="name the campaign",
            )
        return molecule_from(found[0])

    def molecules(
        self, campaign: str | None = None, *, structure_key: str | Sequence[str] | None = None
    ) -> Iterator[MoleculeRecord]:
        """Yield the molecules of a campaign (of all, if None), by name; or those with one of these structures."""
        query: Document = {} if campaign is None else {"campaign": campaign}
        if structure_key is not None:
            keys = [structure_key] if isinstance(structure_key, str) else list(structure_key)
            query["structure_key"] = {"$in": keys}
        return map(molecule_from, self._cursor("molecules", query, sort=[("campaign", 1), ("name", 1)]))

    def _arrays(
        self, collection: str, key: str, kind: Kind, quarantined: bool
    ) -> tuple[Document, Mapping[str, Any]]:
        """Return the document of arrays and the provenance, if the calculation is one that is served."""
        record = self.calculation(key)
        if record.kind is not kind:
            raise UserError(
                f"this calculation is a {record.kind.value}, not a {kind.value}", where=record.key
            )
        served = (State.DONE, State.QUARANTINED) if quarantined else (State.DONE,)
        if record.state not in served:
            why = f": {record.cause.value}" if record.cause else ""
            raise NotFound(f"no result, the calculation is {record.state.value}{why}", where=record.key)
        query = {"_id": record.key, "attempt": record.attempts}
        found = self._persist(lambda: self._db[collection].find_one(query))
        if found is None or record.provenance is None:
            raise StoreError("the arrays of a finished calculation are not in the store", where=record.key)
        return found, record.provenance

    def site_result(self, key: str, *, include_quarantined: bool = False) -> Spectral:
        """Return the result of a site: sticks or a curve.

        Raises
        ------
        NotFound
            If it is not done (or quarantined, where that is allowed).
        """
        return site_from(*self._arrays("spectra", key, Kind.SITE, include_quarantined))

    def ground_result(self, key: str, *, include_quarantined: bool = False) -> GroundResult:
        """Return the result of a ground state; raises like :meth:`site_result`."""
        return ground_from(*self._arrays("dos", key, Kind.GROUND, include_quarantined))

    def spectrum(self, key: str, *, include_quarantined: bool = False) -> Spectrum:
        """Return the stored grid of a site; raises like :meth:`site_result`."""
        document, _ = self._arrays("spectra", key, Kind.SITE, include_quarantined)
        if document["grid"] is None:
            raise NotFound("this result cannot be broadened", where=key)
        return spectrum_from(document["grid"])
