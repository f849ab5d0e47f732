"""The agent's side of the database, in a thread of its own: while the database is away, workers go on.

It delivers journals, leases again what is to be tried again, waits for what others compute, completes Fireworks and
gives them back, and fetches more when asked. Every step may be repeated, so an outage is sat out by doing it again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.errors import Cause, DatabaseUnavailable
from htxas.launch.agent.books import News
from htxas.launch.agent.delivery import AT_ONCE, Courier
from htxas.launch.agent.ledger import Ledger
from htxas.launch.agent.policy import Unfit
from htxas.launch.agent.source import Held, Lent, Source
from htxas.launch.agent.stock import Stock
from htxas.launch.disk.keeper import Keeper

__all__ = ["Clerk"]

_DELIVER_S = 1.0
_POLL_S = (0.3, 5.0)
_ELSEWHERE_S = 10.0
_OUTAGE_S = (0.5, 10.0)
_IDLE_S = 5.0
_SILENT_S = 3.0
_TIDY_S = 0.3
_RESTOCK_S = (1.0, 10.0)  # as long as there is plenty, and else
_MOST_STOCKED = 3_000  # calculations
_log = logging.getLogger(__name__)


class Clerk(threading.Thread):
    """Speaks with the database for an agent.

    Parameters
    ----------
    courier
        Of the agent's folder.
    source
        Where tasks come from and outcomes go.
    on_news
        Called, from this thread, when the agent should look.
    keeper
        Packs run folders while there is nothing else to do.
    ahead_s, room
        Work for so long is leased ahead where there is plenty; returns the seconds left.

    Attributes
    ----------
    error
        What ended the thread.
    dry, more
        Whether the last fetch brought nothing, from the stock neither, and whether another may bring something.
    full
        Set by the agent while there is no room on the disk: nothing is leased.
    """

    def __init__(
        self,
        courier: Courier,
        source: Source,
        on_news: Callable[[], None],
        keeper: Keeper | None = None,
        *,
        ahead_s: float = 0.0,
        room: Callable[[], float] = lambda: math.inf,
    ) -> None:
        super().__init__(name="clerk", daemon=True)
        self.error: BaseException | None = None
        self._away_since: float | None = None
        self._round_began: float | None = None
        self.last_ok = time.monotonic()
        self.dry, self.more = False, True
        self.full = False
        self.ledger = Ledger(courier, source, self._tell, keeper)
        self.books = self.ledger.books
        self._source = source
        self._on_news = on_news
        self._keeper = keeper
        self._inbox: deque[Callable[[], None]] = deque()
        self._news = News()
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._concluded = 0
        self._wanted_s: float | None = None
        self._whole_s = 0.0  # the room at the beginning
        self._ahead_s, self._room = ahead_s, room
        self._ahead: dict[str, float] = {}  # batches on their way into the stock -> what must fit
        self._stock_at = 0.0
        self._finishing = self._abandoned = False
        self._hurry = False
        self._sweep = False
        self._exact = False
        self._delivered_at = self._polled_at = time.monotonic()
        self._poll_s = _POLL_S[0]

    # ---- called by the agent's thread

    def news(self) -> News:
        """Return what is new."""
        with self._lock:
            news, self._news = self._news, News()
        return news

    def concluded(self) -> None:
        """Say that an outcome is in a journal."""
        with self._lock:
            self._concluded += 1
            wake = self._concluded >= AT_ONCE or self._concluded == 1
        if wake:
            self._event.set()

    def flush(self) -> None:
        """Deliver at once what is in the journals."""
        if self._concluded and not self._hurry:
            self._hurry = True
            self._event.set()

    def want(self, room_s: float) -> None:
        """Ask for more tasks, of which something fits ``room_s``; while the database is away, from the stock."""
        if self._wanted_s is None:
            self._wanted_s = room_s
            self._event.set()
        elif self.away_since is not None:
            self.ledger.hand_out()

    @property
    def stock(self) -> Stock:
        """What is leased ahead."""
        return self.ledger.stock

    @property
    def away_since(self) -> float | None:
        """Unix seconds since which the database has not answered, or None."""
        began = self._round_began
        if self._away_since is None and began is not None and time.time() - began > _SILENT_S:
            return began
        return self._away_since

    @property
    def unfit(self) -> Unfit | None:
        """What is READY and too long for any allocation like this one, as far as it is known."""
        return self._source.unfit

    @property
    def fetching(self) -> bool:
        """Whether it has been asked for tasks and has not answered yet."""
        return self._wanted_s is not None

    def gone(self, number: int, keys: Sequence[str], evidence: dict[str, Any], out_of_memory: bool) -> None:
        """Say that a worker died which had these tasks; those it had not started come back as news."""
        self._ask(lambda: self.ledger.bury(number, keys, evidence, out_of_memory))

    def interrupted(self, key: str, cause: Cause, message: str, evidence: dict[str, Any]) -> None:
        """Say that an attempt was cut short."""
        self._ask(lambda: self.ledger.interrupt(key, cause, message, evidence))

    def withdrawn(self, keys: Collection[str]) -> None:
        """Give back tasks that were not started, or were stopped through no fault of theirs."""
        self._ask(lambda: self.ledger.withdraw(list(keys)))

    def still_held(self, before: Mapping[str, int], now: Collection[str]) -> None:
        """Say which leases the database knows; ``before`` are the attempts known before asking."""
        self._ask(lambda: self.ledger.lose(before, set(now)))

    def abandon(self) -> None:
        """End as soon as possible; what is not delivered stays in the journals."""
        self._abandoned = True
        self._event.set()

    def finish(self) -> None:
        """Deliver, return and complete what is left, then end."""
        self._finishing = True
        self._event.set()

    @property
    def busy(self) -> bool:
        """Whether anything is in hand or to be done."""
        return bool(self.books.held or self.books.tasks or self._inbox or self.fetching)

    def _ask(self, call: Callable[[], None]) -> None:
        self._inbox.append(call)
        self._event.set()

    # ---- its own thread

    def run(self) -> None:
        """Do what there is to do, until asked to finish."""
        pause = _OUTAGE_S[0]
        try:
            while not self._abandoned:
                self._round_began = time.time()
                try:
                    over = self._round()
                except DatabaseUnavailable as error:
                    if self._away_since is None:
                        self._away_since = self._round_began
                        _log.warning("%s; going on with what is in hand", error)
                    self._sweep = True
                    self._event.wait(pause)
                    self._event.clear()
                    pause = min(2 * pause, _OUTAGE_S[1])
                    continue
                if self._away_since is not None:
                    _log.warning("the database is back after %.0f s", time.time() - self._away_since)
                self._away_since = self._round_began = None
                pause, self.last_ok = _OUTAGE_S[0], time.monotonic()
                if over:
                    return
                if self._keeper is not None and not self._concluded and self._patience_s() > 0:
                    self._keeper.tick(_TIDY_S)
                self._event.wait(self._patience_s())
                self._event.clear()
        except BaseException as error:  # noqa: BLE001 - not swallowed: the agent's thread raises it
            self.error = error
        finally:
            self._on_news()

    def _patience_s(self) -> float:
        if self._inbox or self.fetching or self.ledger.owes:
            return 0.0
        waits = [_IDLE_S]
        if self._ahead_s:
            waits.append(self._stock_at - time.monotonic())
        if self._concluded:
            waits.append(self._delivered_at + _DELIVER_S - time.monotonic())
        if self.books.elsewhere:
            waits.append(self._polled_at + self._poll_s - time.monotonic())
        return max(0.0, min(waits))

    def _round(self) -> bool:
        """Do each kind of work once; return whether all is over."""
        due = time.monotonic() - self._delivered_at >= _DELIVER_S or self._concluded >= AT_ONCE
        # What is asked during a delivery, which may last for hours, waits for the next: it may be about what the
        # journals have told only since.
        asked, finishing = len(self._inbox), self._finishing
        if (self._concluded and (due or self._hurry)) or asked or self.ledger.owes or finishing:
            self._deliver()
        for _ in range(asked):
            self._inbox[0]()
            self._inbox.popleft()
        if self._sweep:
            fireworks = [h.fw_id for h in self.books.held.values() if h.fw_id is not None]
            self._source.sweep(fireworks, self.books.attempts())
            self._sweep = False
        self.ledger.control()
        self.ledger.return_stock()
        if not self._finishing:
            self._lease_again()
            self._poll()
            if self._wanted_s is not None:
                self._fetch(self._wanted_s)
            elif self._ahead_s and time.monotonic() >= self._stock_at:
                self._stock_up()
        elif finishing and not (self._inbox or self.ledger.owes):
            self._source.release([task.lease for task in self.books.tasks.values()])
            self.books.tasks.clear()
            self.books.again.clear()
            self.ledger.settle(all_back=True)
            return True
        self.ledger.settle(quiet=time.monotonic() - self._delivered_at > _ELSEWHERE_S)
        return False

    def _tell(self, **fields: Any) -> None:
        with self._lock:
            self._news.add(**fields)
        self._on_news()

    def _deliver(self) -> None:
        before = self._concluded
        self.ledger.deliver()
        with self._lock:  # not before: while the database is away they stay to be delivered
            self._concluded -= before
            self._hurry = False
        self._delivered_at = time.monotonic()

    def _lease_again(self) -> None:
        if self.full:
            return
        for batch in set(self.books.again.values()):
            keys = [k for k, b in self.books.again.items() if b == batch]
            held = self.books.held.get(batch)
            if held is not None and not held.returning:
                self.ledger.admit(held, self._lend(held, keys), ahead_s=self._ahead.get(batch))
            self._ahead.pop(batch, None)
            for key in keys:
                self.books.again.pop(key, None)
                if (held is None or held.returning) and (heir := self.books.heir(key, batch)) is not None:
                    self.books.elsewhere[key] = heir  # a ground state that others wait for

    def _lend(self, held: Held, keys: Collection[str]) -> Lent:
        return self._source.lease(held, keys, exact=self._exact)

    def _poll(self) -> None:
        """Look, less and less often, how what others compute comes along."""
        now = time.monotonic()
        if not self.books.elsewhere:
            self._poll_s = _POLL_S[0]
            return
        if now - self._polled_at < self._poll_s:
            return
        found = self._source.look(list(self.books.elsewhere))
        self._polled_at, self._poll_s = now, min(1.5 * self._poll_s, _POLL_S[1])
        for key, record in found.items():
            if record.state is State.RUNNING:
                continue
            self._poll_s = _POLL_S[0]
            batch = self.books.elsewhere.pop(key)
            if record.state is State.READY:
                self.books.again[key] = batch
                continue
            if (held := self.books.held.get(batch)) is not None:
                held.found(record)
            if record.kind is Kind.GROUND:
                self.ledger.ground_known(key)

    def _fetch(self, room_s: float) -> None:
        self._exact = room_s < math.inf
        self._whole_s = max(self._whole_s, room_s)
        held = self._source.checkout(room_s)
        if held is None and self._source.reconsider(room_s, self._whole_s):
            held = self._source.checkout(room_s)
        first = next(iter(self.stock.batches()), None)
        self.more = held is not None or first is not None or self._source.more_to_come(room_s)
        self.dry = held is None and first is None
        if held is not None:
            later = first is not None and held.priority <= first.held.priority
            self._take_in(held, ahead_s=room_s if later else None)
        if first is not None and (held is None or held.priority <= first.held.priority):
            self.ledger.hand_out()
        self._wanted_s = None
        self._on_news()

    def _take_in(self, held: Held, *, ahead_s: float | None) -> None:
        self.books.held[held.batch] = held
        self.books.again |= dict.fromkeys(held.open, held.batch)
        if ahead_s is not None:
            self._ahead[held.batch] = ahead_s
        self._lease_again()

    def _stock_up(self) -> None:
        """Lease a batch ahead, as long as there is plenty; give back what there is no time for any more."""
        room_s = self._room()
        self._exact = room_s < math.inf
        self.ledger.trim(room_s)
        self._stock_at = time.monotonic() + _RESTOCK_S[1]
        enough_s = min(self._ahead_s, room_s) * self._source.places
        if self.full or self.stock.seconds >= enough_s or len(self.stock) >= _MOST_STOCKED:
            return
        held = self._source.checkout(room_s, whole=True) if self._source.plenty(room_s) else None
        if held is not None:
            before = len(self.stock)
            self._take_in(held, ahead_s=room_s)
            if len(self.stock) > before:
                self._stock_at = time.monotonic() + _RESTOCK_S[0]
