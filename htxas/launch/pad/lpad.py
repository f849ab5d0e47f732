"""FireWorks' own ``lpad`` on our LaunchPad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from htxas.store.store import Store

__all__ = ["lpad", "lpad_help"]

_PROGRAM = (sys.executable, "-m", "fireworks.scripts.lpad_run")


def lpad_help(arguments: Sequence[str]) -> int:
    """Run ``lpad`` for its help, which needs no LaunchPad; return its exit status."""
    return subprocess.run([*_PROGRAM, *arguments], check=False).returncode


def lpad(store: Store, arguments: Sequence[str]) -> int:
    """Run ``lpad`` with ``arguments`` and return its exit status.

    The connection is handed over in a file that only this user can read and that is gone afterwards: arguments of
    processes are public.
    """
    document = {
        "host": store.uri_for_launchpad(),
        "name": store.launchpad_database,
        "uri_mode": True,
        "strm_lvl": "WARNING",
    }
    with tempfile.TemporaryDirectory(prefix="htxas-lpad-") as folder:
        path = Path(folder) / "launchpad.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            json.dump(document, stream)
        command = [*_PROGRAM, "-l", str(path), *arguments]
        return subprocess.run(command, check=False).returncode
