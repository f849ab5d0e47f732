"""How whoever computes is asked to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Returned", "Stop", "listening"]


@dataclass(slots=True)
class Stop:
    """What has been asked for.

    Attributes
    ----------
    after_this
        Finish the calculations in hand, then stop.
    now
        Stop the engines at once and give the calculations back.
    deadline
        Unix seconds by which all must be over, or None: only what fits is started, what runs then is stopped.
    """

    after_this: bool = False
    now: bool = False
    deadline: float | None = None

    @property
    def asked(self) -> bool:
        """Whether no new calculation may start."""
        return self.after_this or self.now

    def room_s(self) -> float:
        """Return the seconds until the deadline; infinite without one."""
        return float("inf") if self.deadline is None else self.deadline - time.time()


class Returned(Exception):
    """A calculation ends before its end and goes back to the queue; not an error."""


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Let SIGINT ask for the end after the calculations in hand (a second one: at once), SIGTERM for at once.

    A queue or a system that sends SIGTERM does not wait for a calculation.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM or stop.after_this:
            stop.now = True
        stop.after_this = True

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
