"""What Elk prints, and ``INFO.OUT``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from htxas.domain.calculation import Convergence

__all__ = [
    "OutputError",
    "Scf",
    "read_scf",
    "read_text",
    "refusal",
    "trouble",
]

_ERROR = re.compile(r"Error\((\w+)\)\s*:?[ \t]*(.*)")
_RUNTIME = re.compile(r"^(?:Fortran runtime error|Error allocating|Operating system error).*", re.MULTILINE)
_CHANGED = re.compile(r"Info\(checkmt\): .*")
_WARNING = re.compile(r"(Warning\(\w+\): [^()]*?(?:\n[^()]*?)?s\.c\. loop\s+(\d+))")


class OutputError(ValueError):
    """A file is not there, cut short, or not what it should be."""


@dataclass(frozen=True, slots=True)
class Scf:
    """A self-consistent state as ``INFO.OUT`` tells it.

    Attributes
    ----------
    version
        Of the code.
    convergence
        As it says itself.
    energy_Ha
        Total energy without the entropy of the occupations.
    nuclear_charge, core_charge, valence_charge
        That it began with.
    charge_error
        Share of the electrons that the density lacks before it is normalised.
    atoms
        In the cell.
    loops
        Of self-consistency.
    """

    version: str
    convergence: Convergence
    energy_Ha: float
    nuclear_charge: float
    core_charge: float
    valence_charge: float
    charge_error: float
    atoms: int
    loops: int


def read_text(path: Path) -> str:
    """Return a text file of Elk's whose last line is whole.

    Raises
    ------
    OutputError
        It is not there, or cut short.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        raise OutputError(f"there is no {path.name}") from None
    if not text.endswith("\n"):
        raise OutputError(f"{path.name} is cut short")
    return text


def refusal(output: str) -> tuple[str, str] | None:
    """Return the routine and the words of the error that ended Elk, or None; Elk's status is 0 all the same."""
    found = _ERROR.search(output)
    if found is not None:
        return found[1], found[2].strip()
    found = _RUNTIME.search(output)
    return None if found is None else ("", found[0].strip())


def trouble(output: str, loops: int) -> str | None:
    """Return what Elk did otherwise than it was told, or says of its last iteration; None if nothing.

    Warnings of earlier iterations are of a density that was still moving.
    """
    changed = _CHANGED.search(output)
    if changed is not None:
        return changed[0]
    for words, loop in _WARNING.findall(output):
        if int(loop) >= loops:
            return " ".join(words.split())
    return None


def read_scf(folder: Path) -> Scf:
    """Return the state ``INFO.OUT`` tells.

    Raises
    ------
    OutputError
        It is not there, cut short, or lacks something.
    """
    text = read_text(folder / "INFO.OUT")
    version = re.search(r"Elk version (\S+) started", text)
    if version is None or f"Elk version {version[1]} stopped" not in text:
        raise OutputError("INFO.OUT ends before its end")

    def last(label: str) -> float:
        found = re.findall(rf"^\s*{label}\s*:\s*(\S+)", text, re.MULTILINE)
        if not found:
            raise OutputError(f"INFO.OUT says nothing of {label}")
        return float(found[-1])

    try:
        converged = "Convergence targets achieved" in text
        exhausted = "Reached self-consistent loops maximum" in text
        total = last("total charge")
        return Scf(
            version=version[1],
            convergence=Convergence.CONVERGED
            if converged
            else Convergence.UNCONVERGED
            if exhausted
            else Convergence.UNKNOWN,
            energy_Ha=last("total energy") - last("electron entropic"),
            nuclear_charge=last("Total nuclear charge"),
            core_charge=last("Total core charge"),
            valence_charge=last("Total valence charge"),
            charge_error=abs(last("total calculated charge") / total - 1.0),
            atoms=int(last("Total number of atoms per unit cell")),
            loops=len(re.findall(r"Loop number :", text)),
        )
    except ValueError as error:
        raise OutputError(str(error)) from None
