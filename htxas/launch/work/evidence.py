"""Why an engine process ended, from what it left: logs, exit status and the kernel's count of memory kills."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from htxas.errors import Cause, EngineFailure

__all__ = ["FULL", "died", "directory_tail", "log_tail", "memory_kills"]

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when there is no room."""

_LINES = 20
_BYTES = 8_000
_LOGS = ("*.log", "*.out", "*.err")
_DISK = ("No space left on device", "Disk quota exceeded")
_MEMORY = ("MemoryError", "Cannot allocate memory", "std::bad_alloc", "Out of memory", "unable to allocate")


def log_tail(path: Path, start: int = 0) -> list[str]:
    """Return the last lines of a file from byte ``start`` on; an absent file has none."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, 2)
            stream.seek(max(start, end - _BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-_LINES:]


def directory_tail(directory: Path) -> list[str]:
    """Return the last lines of the youngest log in a run directory."""
    logs = [p for pattern in _LOGS for p in directory.glob(pattern)]
    return log_tail(max(logs, key=lambda p: p.stat().st_mtime)) if logs else []


def memory_kills() -> int | None:
    """Return how many processes the kernel has killed for memory since boot; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def died(
    returncode: int, directory: Path, process_log: Sequence[str], kills_before: int | None
) -> EngineFailure:
    """Return the failure that names why the process died.

    Parameters
    ----------
    returncode
        Of the process; negative is a signal, 128 + n one passed on by a shell.
    directory
        Run directory.
    process_log
        Last lines of the process itself.
    kills_before
        :func:`memory_kills` before the start: SIGKILL alone proves nothing, a rise since then does.
    """
    number = -returncode if returncode < 0 else returncode - 128 if returncode > 128 else 0
    name = signal.Signals(number).name if number in set(signal.Signals) else None
    log = [*directory_tail(directory), *process_log][-_LINES:]
    text = "\n".join(log)
    kills = memory_kills()
    killed_for_memory = (
        number == signal.SIGKILL and kills is not None and kills_before is not None and kills > kills_before
    )
    evidence: dict[str, Any] = {"returncode": returncode, "signal": name, "log": log}
    how = f"was killed by {name}" if name else f"exited with status {returncode}"
    if any(sign in text for sign in _DISK):
        return EngineFailure(Cause.DISK_FULL, f"no space left on device; the engine {how}", evidence=evidence)
    if killed_for_memory or any(sign in text for sign in _MEMORY):
        evidence["memory_kills"] = kills
        return EngineFailure(Cause.OUT_OF_MEMORY, f"out of memory; the engine {how}", evidence=evidence)
    return EngineFailure(Cause.ENGINE_CRASH, f"the engine {how}", evidence=evidence)
