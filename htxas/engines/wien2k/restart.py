"""Going on from an attempt that was cut short: states that had converged are taken over, the others are made again.

Energies of a state do not depend on how it was mixed, so that states of an attempt with other numerics are as good.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from htxas.domain.calculation import Convergence
from htxas.engines.base import JOB_FILE, Job, read_job
from htxas.engines.wien2k.scf import OutputError, error_text, read_scf, scf_state
from htxas.engines.wien2k.write import EXCITED, GROUND, title

__all__ = ["is_taken_over", "take_over"]

_MARK = "taken_over"
_ENDS = frozenset("struct klist in0 in1 in2 in inm scf scf2 dayfile out error".split())  # without a final c


def take_over(job: Job, directory: Path) -> None:
    """Copy converged states of the previous attempt, which may have gone, into ``directory``."""
    previous = job.previous_directory
    if previous is None:
        return
    try:
        if not (previous / JOB_FILE).is_file() or read_job(previous).calculation.key != job.calculation.key:
            return
    except (OSError, ValueError, KeyError):
        return
    for name in (GROUND, EXCITED):
        source, target = previous / name, directory / name
        if target.is_dir() and _is_done(source, title(job.calculation.key, job.structure.formula)):
            _copy(source, target)


def is_taken_over(folder: Path) -> bool:
    """Return whether a state is that of an earlier attempt."""
    return (folder / _MARK).is_file()


def _is_done(folder: Path, expected: str) -> bool:
    if scf_state(folder) is not Convergence.CONVERGED or error_text(folder):
        return False
    try:
        state = read_scf((folder / f"{folder.name}.scf").read_text(errors="replace"))
    except (OSError, OutputError):
        return False
    return bool(state.title) and expected.startswith(state.title)


def _copy(source: Path, target: Path) -> None:
    try:
        for path in source.iterdir():
            if path.is_file() and path.suffix.lstrip(".").rstrip("c") in _ENDS:
                shutil.copyfile(path, target / path.name)
        (target / _MARK).write_text(f"{source}\n")  # last: without it the state is made again
    except OSError:
        return
