"""The registry of trained models: what each was made of, how good it is, where its folder is."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne

from htxas.domain.identity import KEY_LENGTH
from htxas.errors import NotFound, StoreError, UserError
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import plain
from htxas.store.records import ModelRecord

__all__ = ["Models"]

_SCHEMA = 1
_FIELDS = (
    "name", "training", "dataset", "spec", "code", "targets", "test_set", "card", "host", "folder",
)  # fmt: skip


class Models(Connected):
    """The part of the store that knows trained models."""

    def put_models(self, records: Iterable[ModelRecord]) -> int:
        """Register models; return how many were new. One that is known gets its present place and card."""
        new = 0
        for chunk in chunks(records):
            now = datetime.now(UTC)
            writes = [
                UpdateOne(
                    {"_id": r.key},
                    {
                        "$set": {"schema": _SCHEMA, **{f: plain(getattr(r, f)) for f in _FIELDS}},
                        "$setOnInsert": {"created": now},
                    },
                    upsert=True,
                )
                for r in chunk
            ]
            result = self._persist(lambda w: self._db["models"].bulk_write(w, ordered=False), writes)
            new += int(result.upserted_count)
        return new

    def models(self, *, dataset_key: str | None = None) -> list[ModelRecord]:
        """Return registered models, newest first; only those of one dataset, if its key is given."""
        query: Document = {} if dataset_key is None else {"dataset.key": dataset_key}
        found = self._persist(self._all, "models", query)
        return sorted(
            map(_record, found),
            key=lambda r: (r.created or datetime.min.replace(tzinfo=UTC), r.name),
            reverse=True,
        )

    def model(self, key_or_prefix: str) -> ModelRecord:
        """Return a registered model.

        Raises
        ------
        NotFound
            If there is none.
        UserError
            If several keys start so.
        """
        prefix = key_or_prefix.lower()
        if not prefix or len(prefix) > KEY_LENGTH or set(prefix) - set(string.hexdigits):
            raise NotFound(f"{key_or_prefix!r} is not the key of a model", hint="htxas model list")
        query = {"_id": {"$gte": prefix, "$lt": prefix + "g"}}  # "g" sorts after every hex digit
        found = self._persist(lambda: list(self._db["models"].find(query, limit=2)))
        if not found:
            raise NotFound(
                f"no registered model's key starts with {key_or_prefix!r}", hint="htxas model list"
            )
        if len(found) > 1:
            raise UserError(f"several models start with {key_or_prefix!r}", hint="give more digits")
        return _record(found[0])


def _record(document: Mapping[str, Any]) -> ModelRecord:
    if document["schema"] > _SCHEMA:
        raise StoreError(
            f"model document of schema {document['schema']}, this htxas knows {_SCHEMA}",
            where=str(document["_id"]),
            hint="use a newer htxas",
        )
    fields = {f: document[f] for f in _FIELDS}
    return ModelRecord(key=document["_id"], created=document["created"], **fields)
