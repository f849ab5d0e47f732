"""Named locks in the database: one holder among all hosts, for as long as it lives.

A lock has an end, which its holder moves on while it works; one whose holder was killed ends by itself. Each holder
gets a number, larger than all before it (a fencing token). :meth:`HeldLock.check` asks the server, so a holder that
was suspended past its end learns that it has been replaced before it writes anything.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from pymongo import ReturnDocument

from htxas.errors import Busy, HtxasError
from htxas.store.connection import Connected, Document

__all__ = ["HeldLock", "Locks"]

_LOOKS_PER_TTL = 6
_RENEWALS_PER_TTL = 3
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_log = logging.getLogger(__name__)


class _Renewal(Protocol):
    def __call__(self, name: str, token: int, ttl_s: float) -> bool: ...


@dataclass(slots=True)
class HeldLock:
    """A lock in hand.

    Attributes
    ----------
    name
        What is locked.
    token
        Larger than that of every holder before.
    """

    name: str
    token: int
    _ttl_s: float
    _renew: _Renewal
    _quiet: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Make sure that the lock is still ours, and has its full time again.

        Raises
        ------
        Busy
            If it ended and somebody else took it.
        """
        if not self._renew(self.name, self.token, self._ttl_s):
            raise Busy(
                f"another process took over the {self.name} while this one was asleep",
                hint="look whether it is still at work, then do it again",
            )

    def _beat(self) -> None:
        while not self._quiet.wait(self._ttl_s / _RENEWALS_PER_TTL):
            try:
                if not self._renew(self.name, self.token, self._ttl_s):
                    return  # check() will say so
            except HtxasError as error:  # the next beat or check() meets it again
                _log.warning("the lock of %s is not renewed: %s", self.name, error)


class Locks(Connected):
    """The part of the store that lets one process do what two must not."""

    @contextmanager
    def lock(
        self, name: str, owner: str | None = None, *, ttl_s: float = 30.0, wait_s: float = 0.0
    ) -> Iterator[HeldLock]:
        """Hold the lock ``name``; released at the end, renewed until then.

        A holder that shows no sign of life is waited for, at most until its lock ends; then it is taken over.

        Parameters
        ----------
        name
            What to lock, in words that fit into a message: ``submission of qm9``.
        owner
            For messages; by default host and process.
        ttl_s
            Seconds until the lock of a killed holder ends.
        wait_s
            Seconds to wait for a holder that is alive.

        Raises
        ------
        Busy
            If another process holds it.
        """
        who = owner or f"process {os.getpid()} on {platform.node()}"
        held = HeldLock(name, self._take_in_time(name, who, ttl_s, wait_s), ttl_s, self._renew_lock)
        thread = threading.Thread(target=held._beat, name=f"lock {name}", daemon=True)
        thread.start()
        try:
            yield held
        finally:
            held._quiet.set()
            thread.join()
            mine = {"_id": name, "token": held.token}
            self._persist(self._db["locks"].update_one, mine, {"$set": {"owner": None, "holder": None}})

    def _take_in_time(self, name: str, who: str, ttl_s: float, wait_s: float) -> int:
        holder = secrets.token_hex(8)
        patience = time.monotonic() + wait_s
        first: Document | None = None
        while True:
            token = self._take(name, who, holder, ttl_s)
            if token is not None:
                return token
            found = self._persist(lambda: self._db["locks"].find_one({"_id": name})) or {}
            first = first or found
            alive = (found.get("token"), found.get("until")) != (first.get("token"), first.get("until"))
            if alive and time.monotonic() > patience:
                raise Busy(f"another {name} is under way, by {found.get('owner')}", hint="wait for it to end")
            time.sleep(min(ttl_s / _LOOKS_PER_TTL, 1.0))

    def _take(self, name: str, who: str, holder: str, ttl_s: float) -> int | None:
        locks = self._db["locks"]

        def take() -> int | None:
            empty = {"owner": None, "holder": None, "token": 0, "until": _LONG_AGO}
            locks.update_one({"_id": name}, {"$setOnInsert": empty}, upsert=True)
            free = [{"holder": None}, {"holder": holder}, {"$expr": {"$lt": ["$until", "$$NOW"]}}]
            found = locks.find_one_and_update(
                {"_id": name, "$or": free},
                [
                    {
                        "$set": {
                            "owner": {"$literal": who},
                            "holder": {"$literal": holder},
                            "token": {"$add": ["$token", 1]},
                            "until": _from_now(ttl_s),
                        }
                    }
                ],
                return_document=ReturnDocument.AFTER,
            )
            return None if found is None else int(found["token"])

        return self._persist(take)

    def _renew_lock(self, name: str, token: int, ttl_s: float) -> bool:
        mine = {"_id": name, "token": token, "holder": {"$ne": None}}
        change = [{"$set": {"until": _from_now(ttl_s)}}]
        return self._persist(lambda: self._db["locks"].update_one(mine, change).matched_count == 1)


def _from_now(seconds: float) -> Document:
    return {"$add": ["$$NOW", round(1000 * seconds)]}
