"""Going on from an attempt that was cut short: what its programs had finished is taken over, the rest runs.

A spectrum is three recursions after a self-consistent state, each about as long: the one that was cut is made again.
Only what belongs to the same inputs, to the letter, is taken, and only what says that it ended and converged.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from htxas.domain.calculation import Convergence
from htxas.engines.qe.lanczos import is_converged
from htxas.engines.qe.scf import OutputError, read_bands
from htxas.engines.qe.write import AXES, EXCITED, GROUND

__all__ = ["take_over"]


def take_over(previous: Path, directory: Path, texts: Mapping[str, str]) -> None:
    """Link into ``directory`` what the attempt in ``previous``, which may have gone, had finished.

    Parameters
    ----------
    previous, directory
        Of the earlier attempt, and of this one.
    texts
        Inputs of this one by name.
    """
    try:
        if any((previous / name).read_text() != text for name, text in texts.items()):
            return
        if not _is_done(previous) or not any((previous / "pw.save").glob("wfc*")):
            return
        _take(previous, directory, "*.UPF", "*.ld1.out", "pw.out", "pw.xml", "pw.save/*")
        for axis in AXES:
            name = f"xspectra-{axis}.out"
            output = _text(previous / name)
            if "END JOB XSpectra" in output and is_converged(output):
                _take(previous, directory, name, f"xspectra-{axis}.in", f"lanczos-{axis}.sav")
        for part in (EXCITED, GROUND):
            if _is_done(previous / part):
                (directory / part).mkdir(exist_ok=True)
                _take(previous, directory, f"{part}/pw.out", f"{part}/pw.xml")
    except OSError:
        for path in directory.rglob("*.out"):  # a program runs again unless its output is there
            path.unlink()


def _is_done(folder: Path) -> bool:
    if "JOB DONE." not in _text(folder / "pw.out"):
        return False
    try:
        return read_bands(folder).convergence is Convergence.CONVERGED
    except OutputError:
        return False


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _take(previous: Path, directory: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in previous.glob(pattern):
            if path.is_file():
                target = directory / path.relative_to(previous)
                target.parent.mkdir(exist_ok=True)
                try:
                    os.link(path, target)
                except OSError:
                    shutil.copyfile(path, target)
