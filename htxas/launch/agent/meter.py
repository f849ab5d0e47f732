"""How the places of an agent are used, and which campaign's account that goes to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

__all__ = ["Meter"]


@dataclass(slots=True)
class _Busy:
    campaign: str
    places: int
    since: float


@dataclass(slots=True)
class Meter:
    """Adds up seconds of workers' places. All times are of one clock that never runs backwards.

    Parameters
    ----------
    places
        Of the agent.
    began
        When it began.
    """

    places: int
    began: float
    _engine_s: float = 0.0
    _busy: dict[int, _Busy] = field(default_factory=dict)
    _shares: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _charged: float = 0.0

    def start(self, place: int, campaign: str, places: int, now: float) -> None:
        """Say that a worker begins to compute for a campaign, on so many places."""
        self.stop(place, now)
        self._busy[place] = _Busy(campaign, places, now)

    def stop(self, place: int, now: float) -> None:
        """Say that it has stopped."""
        busy = self._busy.pop(place, None)
        if busy is not None:
            self._shares[busy.campaign] += busy.places * (now - max(busy.since, self._charged))

    def ran(self, seconds: float, places: int) -> None:
        """Add what an engine says it took."""
        self._engine_s += seconds * places

    def engine_s(self, now: float) -> float:
        """Return the seconds that engines have run, those of tasks under way included."""
        return self._engine_s + sum(b.places * (now - b.since) for b in list(self._busy.values()))

    def allocated_s(self, now: float) -> float:
        """Return the seconds that the places have been ours."""
        return self.places * (now - self.began)

    def charge(self, now: float) -> dict[str, float]:
        """Return the node-seconds since the last call, shared out among the campaigns by the places they used.

        Waiting costs as much as computing, so idle places are part of the price; if nothing ran, nobody pays.
        """
        shares = defaultdict(float, self._shares)
        last = self._charged or self.began
        for busy in list(self._busy.values()):
            shares[busy.campaign] += busy.places * (now - max(busy.since, last))
        self._shares.clear()
        self._charged = now
        total = sum(shares.values())
        return {c: (now - last) * s / total for c, s in shares.items()} if total > 0 else {}
