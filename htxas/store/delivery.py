"""Outcomes going in: many at once, each exactly once, and only from whoever holds the lease.

A result and the change of state that makes it visible are one transaction. The alternative, arrays first and state
last, leaves a window in which a worker that lost its lease overwrites the arrays of the one that took over.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

from pymongo import ReplaceOne, UpdateOne
from pymongo.client_session import ClientSession

from htxas.domain.calculation import State
from htxas.errors import Cause, InternalError, StoreError
from htxas.store.connection import CHUNK, Connected, Document
from htxas.store.outcomes import Outcome, size, unstorable
from htxas.store.records import MOST_INTERRUPTED
from htxas.store.work import HISTORY, UNLEASED, fence

__all__ = ["Delivery"]

_MOST, _MOST_BYTES = 200, 8_000_000  # of a transaction
_SIGNS = ("attempt", "worker", "state", "cause", "ended")
_UNSTORABLE = (State.FAILED.value, Cause.BAD_OUTPUT.value)
_INTERRUPTED = {cause.value for cause in MOST_INTERRUPTED}
_log = logging.getLogger(__name__)


class Delivery(Connected):
    """The part of the store that takes outcomes."""

    def deliver(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Store how attempts ended; return what became of each, in the order given.

        An outcome that the database refuses (too large a document, a value out of range) is stored as a failure,
        BAD_OUTPUT: it would block the journal it comes from for ever.

        Returns
        -------
        list of str
            ``stored``; ``again`` if it was stored before; ``refused`` if its lease had ended otherwise, unless it is a
            result and nobody has taken the calculation since.

        Raises
        ------
        DatabaseUnavailable
            If the database does not come back. Deliver all of them again.
        """
        answers: list[str] = []
        for chunk in _transactions(outcomes):
            answers += self._deliver(chunk)
        return answers

    def _deliver(self, chunk: list[Outcome]) -> list[str]:
        try:
            return self._persist(self._in_transaction, partial(self._conclude, chunk))
        except StoreError as error:
            if len(chunk) > 1:  # one of them; the others shall not wait for it
                half = len(chunk) // 2
                return self._deliver(chunk[:half]) + self._deliver(chunk[half:])
            _log.warning("%s: the database refuses the result: %s", chunk[0].lease.key, error)
            instead = [unstorable(chunk[0], error.message)]
        return self._persist(self._in_transaction, partial(self._conclude, instead))

    def _conclude(self, chunk: list[Outcome], session: ClientSession) -> list[str]:
        calculations = self._db["calculations"]
        signs = {f"history.{sign}": 1 for sign in _SIGNS}
        fields = {"attempts": 1, "worker": 1, "state": 1, "cause": 1, **signs}
        query = {"_id": {"$in": [o.lease.key for o in chunk]}}
        known = {d["_id"]: d for d in calculations.find(query, fields, batch_size=CHUNK, session=session)}
        answers: list[str] = []
        changes: list[UpdateOne] = []
        arrays: dict[str, list[ReplaceOne[Document]]] = defaultdict(list)
        for outcome in chunk:
            lease, found = outcome.lease, known.get(outcome.lease.key)
            if found is None:
                answers.append("refused")
            elif _holds(found, outcome) or _comes_late(found, outcome):
                answers.append("stored")
                changes.append(UpdateOne({**fence(lease), "state": found["state"]}, _change(outcome)))
                # For a second outcome of this calculation in this chunk.
                found |= {"state": outcome.state.value, "cause": outcome.fields.get("cause")}
                found["history"].append(outcome.entry)
                if outcome.arrays is not None:
                    collection, document = outcome.arrays
                    arrays[collection].append(
                        ReplaceOne({"_id": lease.key}, cast(Document, document), upsert=True)
                    )
            else:
                answers.append("again" if _stored(found, outcome) else "refused")
        if changes:
            written = calculations.bulk_write(changes, ordered=False, session=session).matched_count
            if written != len(changes):  # what was read and what is written are of one snapshot
                raise InternalError(f"{written} of {len(changes)} outcomes found their calculation")
        for collection, replacements in arrays.items():
            self._db[collection].bulk_write(replacements, ordered=False, session=session)
        return answers


def _transactions(outcomes: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    chunk: list[Outcome] = []
    volume = 0
    for outcome in outcomes:
        bytes_ = size(outcome)
        if chunk and (len(chunk) >= _MOST or volume + bytes_ > _MOST_BYTES):
            yield chunk
            chunk, volume = [], 0
        chunk.append(outcome)
        volume += bytes_
    if chunk:
        yield chunk


def _holds(found: Document, outcome: Outcome) -> bool:
    return {name: found[name] for name in fence(outcome.lease)} == fence(outcome.lease)


def _comes_late(found: Document, outcome: Outcome) -> bool:
    """Tell whether a result comes after its lease was taken back, but before anybody took the calculation again.

    It is as good as ever, and there is no newer attempt to overwrite; to compute it once more would be waste. Where
    that was one interruption too many the calculation has been given up: the result refutes what was said of it.
    """
    given_up = found["state"] == State.FAILED.value and found["cause"] in _INTERRUPTED
    if outcome.state is not State.DONE or not (given_up or found["state"] == State.READY.value):
        return False
    ours = {**fence(outcome.lease), "state": found["state"]}
    return {name: found[name] for name in ours} == ours and not _stored(found, outcome)


def _stored(found: Document, outcome: Outcome) -> bool:
    """Tell whether the history has this very outcome: not another end that the attempt came to, like being given up."""
    for entry in found["history"]:
        if all(entry.get(sign) == outcome.entry[sign] for sign in ("attempt", "worker", "ended")):
            end = (entry["state"], entry["cause"])
            if end in ((outcome.entry["state"], outcome.entry["cause"]), _UNSTORABLE):
                return True
    return False


def _change(outcome: Outcome) -> Document:
    dates = {"updated": True}
    if outcome.state is not State.READY:
        dates["finished"] = True
    return {
        "$set": {**outcome.fields, **UNLEASED},
        "$push": {"history": {"$each": [outcome.entry], "$slice": -HISTORY}},
        "$currentDate": dates,
    }
