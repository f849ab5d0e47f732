"""What a pilot leaves behind when it ends: ``pilots/<id>/<restart>.exit.json``, to be read without a database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from htxas.settings import home

__all__ = ["PilotExit", "Why", "exit_name", "pilot_home", "read_exit", "write_exit"]


class Why(StrEnum):
    """Why a pilot ended. Each member says how it differs from its neighbour."""

    IDLE = "idle"  # no work came for the time it was told to linger
    DEADLINE = (
        "deadline"  # the end of its allocation, or the scheduler's warning of it; nothing more fitted in
    )
    TERMINATED = "terminated"  # told to end at once: cancelled, preempted, or the scheduler's last word
    UNFIT = "unfit"  # nothing could have worked here: disk full, engine crashing, no database
    ERROR = "error"  # a bug of ours


@dataclass(frozen=True, slots=True)
class PilotExit:
    """The end of one start of a pilot on one node.

    Attributes
    ----------
    pilot, owner, node
        Who, and where.
    job_id, restart
        The scheduler's job and which of its starts.
    why, message
        How it ended, in a word and in a line.
    started, ended
        Unix seconds.
    allocated_s, engine_s
        Seconds of all its workers' places, and those of them that engines used.
    counts
        Outcomes by state.
    notes
        What was not as asked for.
    """

    pilot: str
    owner: str
    node: str
    job_id: str | None
    restart: int
    why: Why
    message: str
    started: float
    ended: float
    allocated_s: float = 0.0
    engine_s: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {**asdict(self), "why": self.why.value, "notes": list(self.notes)}

    def __str__(self) -> str:
        return f"{self.why.value}: {self.message}" if self.message else self.why.value


def exit_name(restart: int, node_index: int = 0) -> str:
    """Return the name of the file; each further node of a job has its own."""
    return f"{restart}.exit.json" if node_index == 0 else f"{restart}-{node_index}.exit.json"


def pilot_home(pilot: str) -> Path:
    """Return the folder of what a pilot writes, seen from the cluster."""
    return home() / "pilots" / pilot


def write_exit(folder: Path, ending: PilotExit, node_index: int = 0) -> None:
    """Write the file in one piece."""
    path = folder / exit_name(ending.restart, node_index)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(json.dumps(ending.to_dict(), indent=1) + "\n")
    draft.replace(path)


def read_exit(text: str) -> PilotExit | None:
    """Return what the text of such a file says; None if it is not one."""
    try:
        document = json.loads(text)
        document["why"] = Why(document["why"])
        document["notes"] = tuple(document["notes"])
        return PilotExit(**document)
    except (ValueError, TypeError, KeyError):
        return None
