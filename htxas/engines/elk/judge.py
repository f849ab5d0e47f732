"""What a step of Elk came to: never by its status, which is 0 after errors, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence
from htxas.engines.elk.output import OutputError, Scf, read_scf, refusal, trouble
from htxas.engines.elk.process import LOG
from htxas.engines.elk.write import Layout
from htxas.engines.external import exhausted, log_tail
from htxas.errors import Cause, EngineFailure

__all__ = ["bad", "judge_scf", "judge_step"]

_ENOUGH_CHARGE = 1e-3  # of all electrons; what lacks Elk spreads evenly, and warns at the same
_INPUT_ROUTINES = frozenset(
    "readinput readspecies init0 init1 checkmt findsymlat findsymcrys reciplat getxcdata xcifc genppts".split()
)


def bad(cause: Cause, message: str, folder: Path, **evidence: Any) -> EngineFailure:
    """Return a failure with the end of the log, or of ``INFO.OUT`` if that says nothing."""
    tail: list[str] = []
    for name in (LOG, "INFO.OUT"):
        path = folder / name
        tail = tail or (log_tail(path.read_text(errors="replace")) if path.is_file() else [])
    return EngineFailure(cause, message, evidence={"log_tail": tail, **evidence}, where=str(folder))


def _judge(folder: Path) -> str:
    """Return what Elk printed in a folder, unless it says of an error."""
    path = folder / LOG
    output = path.read_text(errors="replace") if path.is_file() else ""
    said = refusal(output)
    if said is not None:
        routine, words = said
        if "Error allocating" in words or "memory" in words.lower():
            raise bad(Cause.OUT_OF_MEMORY, f"Elk stopped: {words}", folder)
        if routine in _INPUT_ROUTINES:
            raise bad(Cause.BAD_INPUT, f"Elk refuses the input: {routine}: {words}", folder)
        raise bad(Cause.ENGINE_CRASH, f"Elk stopped: {routine}: {words}".replace(": :", ":"), folder)
    if "Elk code stopped" not in output:
        cause = exhausted(output)
        if cause is not None:
            why = "the disk is full" if cause is Cause.DISK_FULL else "it got no memory"
            raise bad(cause, f"Elk ended: {why}", folder)
        raise bad(Cause.ENGINE_CRASH, "Elk ended before its end", folder)
    return output


def judge_scf(folder: Path, layout: Layout) -> Scf:
    """Return the self-consistent state, or say why there is none."""
    output = _judge(folder)
    try:
        scf = read_scf(folder)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    if scf.convergence is Convergence.UNCONVERGED:
        raise bad(
            Cause.SCF_UNCONVERGED, f"self-consistency did not converge in {scf.loops} iterations", folder
        )
    told = (-scf.nuclear_charge, scf.core_charge, scf.core_charge + scf.valence_charge, scf.atoms)
    ours = (layout.electrons, layout.core_electrons, layout.electrons, len(layout.cell))
    if not np.allclose(told, ours, atol=1e-4):
        raise bad(
            Cause.BAD_OUTPUT,
            "Elk had {:g} protons, {:g} core electrons, {:g} electrons and {:g} atoms, ".format(*told)
            + "the calculation has {:g}, {:g}, {:g} and {:g}".format(*ours),
            folder,
        )
    if scf.charge_error > _ENOUGH_CHARGE:
        raise bad(
            Cause.BAD_OUTPUT,
            f"{scf.charge_error:.1%} of the electrons are in no sphere and not between: the basis is too small",
            folder,
        )
    _obeyed(output, scf.loops, folder)
    return scf


def judge_step(folder: Path, loops: int) -> None:
    """Refuse a step of so many iterations that did not end well, or did otherwise than it was told."""
    _obeyed(_judge(folder), loops, folder)


def _obeyed(output: str, loops: int, folder: Path) -> None:
    said = trouble(output, loops)
    if said is not None:
        raise bad(Cause.BAD_OUTPUT, f"Elk did not do as it was told: {said}", folder)
