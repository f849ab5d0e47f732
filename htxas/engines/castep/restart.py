"""Going on from an attempt that was cut short: a shorter way to the same answer.

CASTEP's own continuation (``CONTINUATION : name.check``): the converged density and wave functions are read, so that
the levels of the spectrum come next. It is done only if the input is the same to the letter, and the log says that the
density converged and the levels had begun: then the checkpoint is whole, and was readable if that run was a continued
one. The log goes along, for a continued run may not say again what the pseudopotentials were made of.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from htxas.domain.calculation import Convergence
from htxas.engines.castep.judge import BEFORE
from htxas.engines.castep.log import SPECTRAL_PART, read_log

__all__ = ["take_checkpoint"]

_LINE = f"CONTINUATION : {BEFORE}.check\n"


def take_checkpoint(
    previous: Path, directory: Path, seed: str, key: str, texts: dict[str, str]
) -> dict[str, str]:
    """Link the checkpoint of ``previous`` into ``directory`` if it serves; return the inputs to run there.

    Parameters
    ----------
    previous
        Folder of an earlier attempt, which may have gone.
    directory, seed
        Folder of this one, and the name of the run.
    key
        Of the calculation.
    texts
        Its inputs by name.
    """
    param = f"{seed}.param"
    try:
        for name in (f"{seed}.cell", param):
            if (previous / name).read_text().replace(_LINE, "") != texts[name]:
                return texts
        log = previous / f"{seed}.castep"
        if not _has(log, key, SPECTRAL_PART):
            return texts
        if not _is_converged(log, key):  # continued itself: it did not say so again
            log = previous / f"{BEFORE}.castep"
            if not _is_converged(log, key):
                return texts
        checkpoint = next(
            p for p in (previous / f"{seed}.check", previous / f"{BEFORE}.check") if p.is_file()
        )
        if not checkpoint.stat().st_size:
            return texts
        target = directory / f"{BEFORE}.check"
        try:
            os.link(checkpoint, target)
        except OSError:
            shutil.copyfile(checkpoint, target)
        shutil.copyfile(log, directory / f"{BEFORE}.castep")
    except (OSError, StopIteration):
        return texts
    return {**texts, param: texts[param] + _LINE}


def _has(path: Path, key: str, stage: str) -> bool:
    if not path.is_file():
        return False
    log = read_log(path.read_text(errors="replace"))
    return log.stood_in == stage and key in log.title


def _is_converged(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    log = read_log(path.read_text(errors="replace"))
    return log.convergence is Convergence.CONVERGED and key in log.title
