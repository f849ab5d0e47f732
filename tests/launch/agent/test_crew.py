"""Worker processes as the agent sees them."""

from __future__ import annotations

import os
import selectors
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from htxas.launch.agent.crew import Crew, Gone


def test_a_worker_that_dies_while_it_is_spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of what it says may be seen before the end of what it hears."""
    crew = Crew("me", tmp_path, 1)
    crew.start(0)
    while not crew.wait(10.0):  # until it is ready
        pass
    pid = crew.pid(0)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    crew.drop(0, ["0" * 32] * 100_000)  # more than a pipe takes
    os.kill(pid, signal.SIGKILL)
    select = crew._selector.select

    def ends_first(seconds: float) -> list[tuple[Any, int]]:
        return sorted(select(seconds), key=lambda event: event[1] == selectors.EVENT_WRITE)

    monkeypatch.setattr(crew._selector, "select", ends_first)
    time.sleep(0.3)  # both are there
    events = crew.wait(10.0)
    assert [type(event) for event in events] == [Gone]
    assert not crew.mans(0)
    crew.close()
