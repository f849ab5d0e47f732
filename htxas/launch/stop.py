"""How a worker is asked to stop."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from types import FrameType

__all__ = ["BatchReturned", "Stop", "listen"]


@dataclass(slots=True)
class Stop:
    """What has been asked for.

    Attributes
    ----------
    after_this
        Finish the calculation in hand, then stop.
    now
        Stop the engine at once and give the calculation back.
    """

    after_this: bool = False
    now: bool = False

    @property
    def asked(self) -> bool:
        """Whether no new calculation may start."""
        return self.after_this or self.now


class BatchReturned(Exception):
    """A batch ends before its end and goes back to the queue; not an error."""


def listen(stop: Stop) -> None:
    """Let SIGINT ask for the end of the calculation in hand (a second one: at once) and SIGTERM for at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM or stop.after_this:
            stop.now = True
        stop.after_this = True

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
