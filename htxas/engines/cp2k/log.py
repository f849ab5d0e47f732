"""What CP2K says in its output. Its exit status is 0 when nothing converged, and when its time was up."""

from __future__ import annotations

import re
from dataclasses import dataclass

from htxas.domain.calculation import Convergence

__all__ = ["Cp2kLog", "read_log"]

_VERSION = re.compile(r"^ CP2K\| version string:\s+CP2K version (\S.*?)\s*$", re.MULTILINE)
_PROJECT = re.compile(r"^ GLOBAL\| Project name\s+(\S+)", re.MULTILINE)
_CONVERGED = re.compile(r"\*\*\* SCF run converged in\s+(\d+) steps \*\*\*")
_UNCONVERGED = re.compile(r"SCF run NOT converged|SCF with core hole NOT converged")
_ENERGY = re.compile(r"^\s*Total energy:\s+(-?\d+\.\d+)\s*$", re.MULTILINE)
_HELD = re.compile(r"^\s*Total Rho_soft \+ Rho1_hard - Rho1_soft\s+(-?\d+\.\d+)", re.MULTILINE)
_CORE = re.compile(r"^\s*Ionization potential of the excited atom:\s+(-?\d+\.\d+)", re.MULTILINE)
_DIPOLE = re.compile(
    r"Dipole moment \[Debye\]\s+X=\s*(-?[\d.E+-]+)\s+Y=\s*(-?[\d.E+-]+)\s+Z=\s*(-?[\d.E+-]+)\s+Total="
)
_CYCLE = re.compile(r"^\s+(\d+) \S+/\S+\s+[\d.E+-]+\s+[\d.]+\s+[\d.]+\s+-?[\d.]+\s+\S+\s*$", re.MULTILINE)
_BOX = re.compile(r"^ \*\s{3}___.*?^ \*{20,}", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Cp2kLog:
    """What one run of CP2K says.

    Attributes
    ----------
    version, project
        Of CP2K, and the name in its input; empty if it did not come to tell.
    ended
        Whether it reached its own end.
    abort
        Why it gave up, or None.
    begun
        Whether a self-consistency had begun.
    out_of_time
        Whether its own clock stopped it.
    cycles
        Of each self-consistency that converged.
    unconverged
        Whether one did not.
    energies_Ha
        Total energy after each, Hartree.
    electrons
        How many the grids hold after each.
    core_Ha
        Level of the hole, Hartree; None without one.
    dipole_D
        Dipole moment in Debye, or None.
    last_cycle
        Of the self-consistency that was under way at the end of the text.
    """

    version: str
    project: str
    ended: bool
    abort: str | None
    begun: bool
    out_of_time: bool
    cycles: tuple[int, ...]
    unconverged: bool
    energies_Ha: tuple[float, ...]
    electrons: tuple[float, ...]
    core_Ha: float | None
    dipole_D: tuple[float, float, float] | None
    last_cycle: int | None

    def convergence(self, wanted: int) -> Convergence:
        """Return what is said of ``wanted`` self-consistencies: all of them must be told of."""
        if self.unconverged:
            return Convergence.UNCONVERGED
        told = len(self.cycles) == len(self.energies_Ha) == wanted
        return Convergence.CONVERGED if told else Convergence.UNKNOWN


def read_log(text: str) -> Cp2kLog:
    """Read one run's output."""
    version, project = _VERSION.search(text), _PROJECT.search(text)
    dipole = _DIPOLE.search(text)
    core = _CORE.findall(text)
    cycles = _CYCLE.findall(text)
    return Cp2kLog(
        version=version[1] if version else "",
        project=project[1] if project else "",
        ended="PROGRAM ENDED AT" in text,
        abort=_abort(text),
        begun="WAVEFUNCTION OPTIMIZATION" in text,
        out_of_time="exceeded requested execution time" in text,
        cycles=tuple(int(n) for n in _CONVERGED.findall(text)),
        unconverged=bool(_UNCONVERGED.search(text)),
        energies_Ha=tuple(float(e) for e in _ENERGY.findall(text)),
        electrons=tuple(-float(n) for n in _HELD.findall(text)),
        core_Ha=float(core[-1]) if core else None,
        dipole_D=(float(dipole[1]), float(dipole[2]), float(dipole[3])) if dipole else None,
        last_cycle=int(cycles[-1]) if cycles else None,
    )


def _abort(text: str) -> str | None:
    """Return the words in CP2K's box of an abort, beside its drawing."""
    for box in _BOX.findall(text):
        if "[ABORT]" in box:
            words = [line[10:].rstrip("* ").strip() for line in box.splitlines()]
            return " ".join(w for w in words if w) or "no reason given"
    return None
