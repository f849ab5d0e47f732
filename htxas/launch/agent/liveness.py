"""Who is alive: each agent holds a lock that the kernel lets go of when the agent dies, however it dies."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from htxas.settings import runs_folder

__all__ = ["LOCK_FILE", "LOG_FILE", "boot_id", "hold_alive", "new_owner", "worker_folder"]

LOG_FILE = "agent.log"
"""In an agent's folder: what it said."""

LOCK_FILE = "alive.lock"
"""In an owner's folder: held while it lives."""

_log = logging.getLogger(__name__)


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
    """Hold an agent's lock; gives the facts for its heartbeat.

    On a file system without locks ``lock`` is None: whether it lives is told by other evidence, then.
    """
    folder = worker_folder(owner)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        held: str | None = str(folder / LOCK_FILE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:  # Lustre mounted without -o flock, NFS without its lock service
            held = None
            _log.warning("%s has no locks (%s): a crash is noticed later", folder, error.strerror)
        yield {"host": platform.node(), "pid": os.getpid(), "boot": boot_id(), "lock": held}
