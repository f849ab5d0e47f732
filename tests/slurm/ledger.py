"""What engines really did, written by the engine processes themselves: independent of everything htxas remembers.

As a profile's ``program``: ``python ledger.py FOLDER python -m ENGINE_MODULE --serve`` runs the engine in this very
process (so a kill hits what it would have hit) and notes each start and end of a directory. It also spoils output on
request: whoever finds ``FOLDER/spoil`` takes it and truncates the outcome that it is about to report.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["SPOIL", "Run", "read_ledger"]

SPOIL = "spoil"
_OUTCOME = "outcome.json"
_PYSCF = "htxas.engines.pyscf"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a run directory; ``ended`` is None if the process did not live to see the end."""

    key: str
    attempt: int
    host: str
    started: float
    ended: float | None
    returncode: int | None
    spoilt: bool


def read_ledger(folder: Path) -> Iterator[Run]:
    """Yield every execution, in no particular order."""
    for path in folder.glob("*.jsonl"):
        open_line: dict[str, Any] | None = None
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == "start":
                if open_line is not None:
                    yield _run(open_line, None)
                open_line = entry
            elif open_line is not None:
                yield _run(open_line, entry)
                open_line = None
        if open_line is not None:
            yield _run(open_line, None)


def _run(start: dict[str, Any], end: dict[str, Any] | None) -> Run:
    return Run(
        start["key"], start["attempt"], start["host"], start["t"],
        None if end is None else end["t"], None if end is None else end["returncode"],
        end is not None and end["spoilt"],
    )  # fmt: skip


class _Ledger:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        name = f"{platform.node()}-{os.getpid()}-{time.time_ns()}.jsonl"  # PIDs repeat between namespaces
        self._file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def note(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "t": time.time(), "host": platform.node(), **facts})
        os.write(self._file, line.encode() + b"\n")

    def spoil(self, directory: Path) -> bool:
        """Truncate the outcome if somebody asked for that; the first to take the request serves it."""
        outcome = directory / _OUTCOME
        if not outcome.exists():
            return False
        try:
            (self._folder / SPOIL).rename(self._folder / f"spoilt-{directory.parent.name}-{directory.name}")
        except FileNotFoundError:
            return False
        os.truncate(outcome, outcome.stat().st_size // 2)
        return True


def _main(folder: Path, command: list[str]) -> int:
    at = command.index("-m")
    name, arguments = command[at + 1], command[at + 2 :]
    if name == _PYSCF:
        import_module(f"{name}.surroundings").keep_out_configuration()  # before PySCF is imported
    module = import_module(f"{name}.process" if name == _PYSCF else name)
    ledger = _Ledger(folder)
    really = module.run_directory

    def noting(directory: Path, *rest: Any) -> int:
        key, attempt = directory.parent.name, int(directory.name)
        ledger.note("start", key=key, attempt=attempt)
        returncode: int = really(directory, *rest)
        ledger.note("end", key=key, attempt=attempt, returncode=returncode, spoilt=ledger.spoil(directory))
        return returncode

    module.run_directory = noting  # type: ignore[attr-defined]
    sys.argv = [name, *arguments]
    status: int = module.main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), sys.argv[2:]))
