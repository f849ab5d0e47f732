"""Recorded answers of schedulers, in ``recorded/<scheduler>/<name>.txt``: command, status, both streams.

``slurm`` (but ``sacct``, for which a database of accounts would be needed) and ``sge`` were recorded from a Slurm
22.05.8 of three nodes and a Grid Engine 8.1.9. ``openpbs``, ``torque``, ``lsf`` and ``slurm/sacct`` were written after
public documentation and maintainers' threads: none of those was run.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from htxas.cluster.host import Completed

FOLDER = Path(__file__).parent / "recorded"


def recorded(name: str) -> Completed:
    """Return one recording, e.g. ``slurm/running``."""
    text = (FOLDER / f"{name}.txt").read_text()
    head, rest = text.split("\n--- stdout\n", 1)
    stdout, stderr = rest.split("--- stderr\n", 1)
    command, status = head.splitlines()
    return Completed(
        tuple(shlex.split(command.removeprefix("$ "))), int(status.removeprefix("rc ")), stdout, stderr
    )
