"""Signs of life of an agent, from a thread of its own: nothing the agent does may hold them up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from htxas.errors import DatabaseUnavailable, HtxasError
from htxas.launch.agent.clerk import Clerk
from htxas.launch.agent.meter import Meter
from htxas.launch.agent.source import LEASE_S
from htxas.store.store import Store

__all__ = ["Heart"]

BEAT_S = 10.0
_RENEWED_PER_S = 50.0  # leases; of many agents with a stock the database would do little else
_log = logging.getLogger(__name__)


class Heart(threading.Thread):
    """Beats, renews the leases, and pays for what was used.

    Parameters
    ----------
    store, owner
        Where, and who.
    clerk
        Is told which leases the database knows.
    meter
        What was used.
    facts
        Gives the heartbeat's document.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        clerk: Clerk,
        meter: Meter,
        facts: Callable[[], Mapping[str, Any]],
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self._store = store
        self._owner = owner
        self._clerk = clerk
        self._meter = meter
        self._facts = facts
        self._quiet = threading.Event()
        self._sequence = 0
        self._renewed = -LEASE_S
        self._bill: dict[str, float] = {}

    def begin(self) -> None:
        """Beat once, then in the background."""
        self._store.heartbeat(self._owner, self._facts())
        self.start()

    def run(self) -> None:
        """Beat until :meth:`end`."""
        away = False
        while not self._quiet.wait(BEAT_S):
            try:
                self._beat()
                away = False
            except HtxasError as error:  # whatever it is: a heart that stops costs the agent its leases
                if not away:
                    _log.warning("no heartbeat: %s", error)
                away = True

    def _beat(self) -> None:
        self._store.heartbeat(self._owner, self._facts())
        before = self._clerk.books.attempts()
        if time.monotonic() - self._renewed >= min(LEASE_S / 5, len(before) / _RENEWED_PER_S):
            self._clerk.still_held(before, self._store.renew(self._owner, LEASE_S))
            self._renewed = time.monotonic()
        self._pay()

    def _pay(self) -> None:
        """Send a bill; one whose answer was lost is sent again as it was."""
        if not self._bill:
            self._bill = self._meter.charge(time.monotonic())
            self._sequence += 1
        if self._bill:
            self._store.spend(self._owner, self._bill, self._sequence)
            self._bill = {}

    def quiet(self) -> None:
        """Stop beating."""
        self._quiet.set()

    def end(self) -> None:
        """Stop beating; pay what is left, and say good-bye.

        If the database has just gone away, the heartbeat stays: whoever reconciles sees by the lock that the agent has
        gone. Everything it computed has been delivered before.
        """
        self._quiet.set()
        self.join()
        try:
            self._pay()
            self._pay()  # the first may have been one that was not paid before
            self._store.forget_worker(self._owner)
        except DatabaseUnavailable as error:
            _log.warning("%s; the last bill is not paid, and nobody was told good-bye", error)
