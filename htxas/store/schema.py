"""Collections, validators and indexes, and the version that guards them.

==================  ====================================  ===================================================
collection          ``_id``                               holds
==================  ====================================  ===================================================
meta                ``schema``                            the schema version
campaigns           name                                  the campaign as submitted
structures          structure key                         atoms, formula, SMILES, provenance
parameters          parameters key                        resolved parameters, once per set
calculations        calculation key                       identity, state, outcome, scalars, provenance
spectra             calculation key                       sticks or curve of a site, and its grid
dos                 calculation key                       energies and PDOS of a ground state
molecules           content key of campaign and name      structure, sites and multiplicities
molecular_spectra   content key of sites and broadening   assembled spectra, complete ones only
batches             content key of its calculations       what a Firework carries
workers             owner                                 heartbeats
pilots              pilot id                              queue jobs
spending            owner and campaign                    node-seconds used
notices             what it is about                      whether users were told; values watched
looks               what was looked for                   since when it was not there
locks               what is locked                        holder, end, fencing token
models              content key of the run                trained models: dataset, recipe, metrics, card, folder
==================  ====================================  ===================================================
"""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.database import Database
from pymongo.errors import CollectionInvalid, OperationFailure
from pymongo.write_concern import WriteConcern

from htxas.domain.calculation import Kind, State
from htxas.domain.spectrum import Quantity
from htxas.errors import StoreError
from htxas.store.connection import Document
from htxas.store.records import MOST_INTERRUPTED, PilotState
from htxas.store.upgrade import drop_replaced, fill_in

__all__ = ["SCHEMA_VERSION", "ensure_schema"]

SCHEMA_VERSION = 2

_ADDED = ("models",)
"""Collections that came after the version: an older htxas never looks at them, and may go on beside this one."""

_NAMESPACE_EXISTS = 48
_SPECTRA_STORAGE = {"wiredTiger": {"configString": "block_compressor=zstd"}}

_STRING = {"bsonType": "string"}
_NUMBER = {"bsonType": ["double", "int", "long"]}
_INT = {"bsonType": ["int", "long"]}
_STRINGS = {"bsonType": "array", "items": _STRING}
_DATE = {"bsonType": "date"}
_OBJECT = {"bsonType": "object"}


def _or_null(kind: dict[str, Any]) -> dict[str, Any]:
    types = kind["bsonType"]
    return {**kind, "bsonType": [*(types if isinstance(types, list) else [types]), "null"]}


_ARRAY = {
    "bsonType": "object",
    "required": ["dtype", "shape", "data"],
    "properties": {
        "dtype": {"enum": ["<f4", "<f8"]},
        "shape": {"bsonType": "array", "items": _INT},
        "data": {"bsonType": "binData"},
    },
}
_GRID = {
    "bsonType": "object",
    "required": ["start", "step_eV", "sigma_eV", "intensity"],
    "properties": {
        "start": _INT,
        "step_eV": _NUMBER,
        "sigma_eV": _NUMBER,
        "intensity": _ARRAY,
        "quantity": {"enum": [q.value for q in Quantity]},
    },
}


def _arrays(*names: str, **others: Any) -> dict[str, Any]:
    properties = {**dict.fromkeys(names, _ARRAY), **others}
    return {"bsonType": "object", "required": list(properties), "properties": properties}


_STICKS: dict[str, Any] = {
    "sticks": _arrays("energies_eV", "strengths"),
    "excitation_energy_eV": _NUMBER,
    "energies_eV": _OBJECT,
    "hole_overlap": _NUMBER,
}
_CURVE: dict[str, Any] = {
    "curve": _arrays("energies_eV", "intensity", "background"),
    "edge_eV": _NUMBER,
    "fermi_eV": _NUMBER,
    "lifetime_eV": _NUMBER,
    "normalisation": _STRING,
    "doubts": _STRINGS,
    "dos": _or_null(_arrays("energies_eV", "density", "charges", kinds=_STRINGS, broadening_eV=_NUMBER)),
}

# collection -> field -> JSON schema; every field named here is required (none of notices, which are of several kinds).
_FIELDS: dict[str, dict[str, Any]] = {
    "campaigns": {"document": _OBJECT, "content_key": _STRING, "created": _DATE},
    "structures": {
        "symbols": _STRINGS,
        "positions_A": _ARRAY,
        "formula": _STRING,
        "composition": _OBJECT,
        "smiles": _or_null(_STRING),
        "provenance": _OBJECT,
    },
    "parameters": {"parameters": _OBJECT},
    "calculations": {
        "kind": {"enum": [k.value for k in Kind]},
        "structure_key": _STRING,
        "engine": _STRING,
        "parameters_key": _STRING,
        "element": _or_null(_STRING),
        "edge": _or_null(_STRING),
        "atom": _or_null(_INT),
        "state": {"enum": [s.value for s in State]},
        "cause": _or_null(_STRING),  # an open set: a newer htxas knows more causes
        "message": _or_null(_STRING),
        "evidence": _OBJECT,
        "attempts": _INT,
        "batch": _or_null(_STRING),
        "estimate_s": _NUMBER,
        "wall_s": _or_null(_NUMBER),
        "worker": _or_null(_STRING),
        "campaigns": _STRINGS,
        "scalars": _OBJECT,
        "ladder": _or_null(_OBJECT),
        "history": {"bsonType": "array", "items": _OBJECT},
        "interrupted": _OBJECT,
        "interruptions": _INT,
        "updated": _DATE,
    },
    "spectra": {"attempt": _INT, "grid": _or_null(_GRID)},
    "dos": {
        "attempt": _INT,
        "total_energy_eV": _NUMBER,
        "homo_eV": _NUMBER,
        "lumo_eV": _NUMBER,
        "pdos": _arrays("energies_eV", "occupations", "weights"),
    },
    "molecules": {
        "campaign": _STRING,
        "name": _STRING,
        "structure_key": _STRING,
        "ground_key": _or_null(_STRING),
        "file_order": {"bsonType": "array", "items": _INT},
        "sites": {"bsonType": "array", "items": _OBJECT},
    },
    "molecular_spectra": {"structure_key": _STRING, "site_keys": _STRINGS, "grid": _GRID},
    "batches": {
        "campaign": _STRING,
        "keys": _STRINGS,
        "estimate_s": _NUMBER,
        "after": _or_null(_STRING),
        "fw_id": _or_null(_INT),
        "rerun": {"bsonType": "bool"},
    },
    "workers": {"info": _OBJECT, "seen": _DATE},
    "pilots": {
        "cluster": _STRING,
        "job_id": _or_null(_STRING),
        "array_task": _or_null(_INT),
        "state": {"enum": [s.value for s in PilotState]},
        "submitted": _DATE,
    },
    "spending": {"owner": _STRING, "campaign": _STRING, "sequence": _INT, "node_s": _NUMBER},
    "notices": {},
    "looks": {"first": _DATE, "last": _DATE},
    "locks": {"owner": _or_null(_STRING), "token": _INT, "until": _DATE},
    "models": {
        "schema": _INT,
        "name": _STRING,
        "training": _STRING,
        "dataset": _OBJECT,
        "spec": _OBJECT,
        "code": _OBJECT,
        "targets": _OBJECT,
        "test_set": _STRING,
        "card": _OBJECT,
        "created": _DATE,
        "host": _STRING,
        "folder": _STRING,
    },
}

# collection -> sets of fields; a document has exactly one set.
_EITHER: dict[str, tuple[dict[str, Any], ...]] = {"spectra": (_STICKS, _CURVE)}


def _validator(name: str) -> dict[str, Any]:
    fields, either = _FIELDS[name], _EITHER.get(name, ())
    schema: dict[str, Any] = {"bsonType": "object"}
    if fields:  # MongoDB refuses empty lists
        schema |= {"required": list(fields), "properties": fields}
    if either:
        schema["oneOf"] = [{"required": list(some), "properties": some} for some in either]
    return {"$jsonSchema": schema}


def _index(*keys: str, **options: Any) -> IndexModel:
    return IndexModel([(k, ASCENDING) for k in keys], **options)


_INDEXES: dict[str, list[IndexModel]] = {
    "structures": [_index("formula"), _index("smiles")],
    "calculations": [
        # Answers all of `htxas status` without reading a document (only `campaigns` is an array).
        _index("campaigns", "state", "kind", "cause", "wall_s", "estimate_s", name="status"),
        # What was done lately, and how fast.
        _index("state", "finished", "campaigns", "wall_s", name="ended"),
        # How long the last ones with the same parameters took: every agent asks every few minutes.
        _index("parameters_key", "kind", "state", "finished", name="timings"),
        # Who holds what, and what came to grief on the way: neither reads a document.
        _index(
            "worker",
            "state",
            "_id",
            "attempts",
            name="leases",
            partialFilterExpression={"state": State.RUNNING.value},
        ),
        _index(
            "campaigns",
            "interruptions",
            *(f"interrupted.{c.value}" for c in MOST_INTERRUPTED),
            name="interrupted",
            partialFilterExpression={"interruptions": {"$gt": 0}},
        ),
        _index("structure_key"),
        _index("formula"),
        _index("smiles"),
        _index("scalars.excitation_energy_eV", name="energy", sparse=True),
        _index("scalars.edge_eV", name="edge", sparse=True),
    ],
    "molecules": [_index("campaign", "name", unique=True), _index("name"), _index("structure_key")],
    "batches": [
        _index("campaign", "fw_id", "after", name="unsubmitted"),
        _index("rerun", partialFilterExpression={"rerun": True}),
    ],
    "pilots": [_index("cluster", "state")],
    "spending": [_index("campaign", "node_s", name="spent")],
    "models": [_index("dataset.key", name="dataset")],
}


def ensure_schema(db: Database[Document]) -> None:
    """Create what is missing; one read if nothing is.

    Safe to interrupt and to run from many processes at once: every step is idempotent and the version is written last.

    Raises
    ------
    StoreError
        If the database was made by a newer htxas.
    """
    found = db["meta"].find_one({"_id": "schema"})
    version = 0 if found is None else int(found["version"])
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the database has schema {version}, this htxas knows {SCHEMA_VERSION}",
            where=db.name,
            hint="use a newer htxas; nothing was changed",
        )
    if found is not None and version == SCHEMA_VERSION and set(_ADDED) <= set(found.get("added", ())):
        return
    # Not journaled one by one: the version, written last and journaled, makes all before it durable.
    eager = db.with_options(write_concern=WriteConcern(w=1, j=False))
    existing = set(db.list_collection_names())
    if "calculations" in existing:
        fill_in(eager)  # before the validators that ask for it, so that workers of today go on undisturbed
    for name in _FIELDS:
        validator = _validator(name)
        if name not in existing:
            options: dict[str, Any] = (
                {"storageEngine": _SPECTRA_STORAGE} if name in ("spectra", "dos") else {}
            )
            try:
                eager.create_collection(name, validator=validator, **options)
            except CollectionInvalid:
                pass  # another process was faster
            except OperationFailure as error:
                if error.code != _NAMESPACE_EXISTS:
                    raise
        else:
            eager.command("collMod", name, validator=validator)
        if name in _INDEXES:
            eager[name].create_indexes(_INDEXES[name])
    if "calculations" in existing:
        fill_in(eager)  # again: what an older htxas put in meanwhile
        drop_replaced(eager)
    written = {"$max": {"version": SCHEMA_VERSION}, "$addToSet": {"added": {"$each": list(_ADDED)}}}
    db["meta"].update_one({"_id": "schema"}, written, upsert=True)
