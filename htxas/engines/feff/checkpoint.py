"""Potentials of an attempt that was cut short after they had converged: a shorter way to the same answer.

FEFF's own restart: the files of ``atomic`` and ``pot`` in place, and ``CONTROL 0`` for them. They are taken only if the
input is the same to the letter and the log says that they converged; the log up to there goes along, for it is what
tells of convergence.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from htxas.domain.calculation import Convergence
from htxas.engines.feff.log import MODULES, read_log

__all__ = ["take_potentials"]

_FILES = (
    "pot.bin",
    "apot.bin",
    ".dimensions.dat",
    "config.dat",
    "chemical.dat",
    "edges.dat",
    "convergence.scf",
)
_NEEDED = ("pot.bin", "apot.bin")
_ALL, _REST = "CONTROL 1 1 1 1 1 1", "CONTROL 0 1 1 1 1 1"


def take_potentials(previous: Path, folder: Path, text: str) -> str:
    """Copy the potentials of ``previous`` into ``folder`` if they serve; return the input to run there.

    Parameters
    ----------
    previous
        Folder of an earlier attempt, which may have gone.
    folder
        Folder of this one.
    text
        Its ``feff.inp``.
    """
    try:
        if (previous / "feff.inp").read_text().replace(_REST, _ALL) != text:
            return text
        output = (previous / "feff.out").read_text(errors="replace")
        log = read_log(output)
        if log.scf is not Convergence.CONVERGED or "pot" not in log.done or log.doubts:
            return text
        if any(not (previous / name).stat().st_size for name in _NEEDED):
            return text
        for name in _FILES:
            if (previous / name).is_file():
                shutil.copy2(previous / name, folder)
        end = MODULES["pot"][1]
        head, mark, _ = output.partition(end)
        (folder / "feff.out").write_text(f"{head}{mark}.\n")
    except OSError:
        return text
    return text.replace(_ALL, _REST)
