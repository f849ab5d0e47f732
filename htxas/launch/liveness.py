"""Who is alive: each agent holds a lock that the kernel lets go of when the agent dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from htxas.settings import runs_folder

__all__ = ["LOCK_FILE", "LOG_FILE", "boot_id", "hold_alive", "is_dead", "new_owner", "worker_folder"]

LOG_FILE = "agent.log"
"""In an agent's folder: what it said."""

LOCK_FILE = "alive.lock"
"""In an owner's folder: held while it lives."""

_SILENT_S = 600.0
_UNKNOWN_S = 90.0


def boot_id() -> str | None:
    """Return what names this run of the kernel, or None where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def new_owner() -> str:
    """Return a name that no other agent ever had: host, process, and a random part."""
    return f"{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}"


def worker_folder(owner: str) -> Path:
    """Return the folder of an agent's logs, lock and journals."""
    return runs_folder() / "workers" / owner


@contextmanager
def hold_alive(owner: str) -> Iterator[dict[str, Any]]:
    """Hold an agent's lock; gives the facts for its heartbeat."""
    folder = worker_folder(owner)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        facts = {"host": platform.node(), "pid": os.getpid(), "boot": boot_id()}
        yield {**facts, "lock": str(folder / LOCK_FILE)}


def is_dead(worker: Mapping[str, Any]) -> bool:
    """Return whether a worker (as ``Store.workers`` tells of it) can no longer be working.

    On this host the lock tells at once. On another only silence does: as long as a lease lasts.
    """
    info, age_s = worker["info"], float(worker["age_s"])
    if info.get("host") != platform.node():
        return age_s > _SILENT_S
    try:
        with Path(info["lock"]).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except (OSError, KeyError):  # its folder is gone, or in another container
        return age_s > _UNKNOWN_S
