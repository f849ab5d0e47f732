"""What ``run_lapw`` and ``lapw2`` tell: ``case.scf``, ``case.dayfile``, ``case.scf2``.

Labels are those of the user's guide (section "The case.scf file") and of a genuine file of WIEN2k 14.2. How a cycle
ended is in the day file: ``ec cc and fc_conv 1 1 1`` (from version 21: ``ec cc fc and str_conv 1 1 1 1``) after each
iteration, one digit for each criterion, and ``>   stop`` or ``>   stop error`` at its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from htxas.domain.calculation import Convergence

__all__ = [
    "Bands",
    "OutputError",
    "Scf",
    "ended_with_error",
    "error_text",
    "read_bands",
    "read_scf",
    "scf_state",
]

_FLAGS = re.compile(r"^\s*ec cc (?:and fc_conv|fc and str_conv)((?: +[01])+)\s*$", re.MULTILINE)
_STOP = re.compile(r"^>\s+stop\b(.*)$", re.MULTILINE)
_NOT = re.compile(r"SCF NOT CONVERGED", re.IGNORECASE)
_NUMBER = r"([-+]?\d+\.\d+(?:[ED][-+]\d+)?)"
_ENERGY = re.compile(rf"^:ENE\s*:\s*(\S+)\s+TOTAL ENERGY IN Ry =\s*{_NUMBER}\s*$", re.MULTILINE)
_ITERATION = re.compile(r"^:ITE\d+:\s*(\d+)\. ITERATION", re.MULTILINE)
_VERSION = re.compile(r"using WIEN2k_(\S+)(?: \(Release ([^)]*)\))?")
_ATOMS = re.compile(r"^:NATO\s*:\s*(\d+) INDEPENDENT AND\s+(\d+) TOTAL ATOMS", re.MULTILINE)
_TITLE = re.compile(r"^\s*SUBSTANCE:\s*(.*?)\s*$", re.MULTILINE)
_BASIS = re.compile(r"^:RKM\s*:.*?RKM=\s*(\d+\.\d+)", re.MULTILINE)
_ELECTRONS = re.compile(r"^:NOE\s*:.*=\s*(\d+\.\d+)", re.MULTILINE)
_FERMI = re.compile(rf"^:FER\s*:.*=\s*{_NUMBER}\s*$", re.MULTILINE)
_NEUTRAL = re.compile(rf"^:NEC01\s*: NUCLEAR AND ELECTRONIC CHARGE\s+{_NUMBER}\s+{_NUMBER}", re.MULTILINE)
_WARNING = re.compile(r"^:WAR\w*\s*:\s*(.*?)\s*$", re.MULTILINE)
_BAND = re.compile(rf"^:BAN\d+\s*:\s*(\d+)\s+{_NUMBER}\s+{_NUMBER}\s+(\d+\.\d+)\s*$", re.MULTILINE)
_FULL, _EMPTY = 2.0 - 1e-4, 1e-4


class OutputError(ValueError):
    """A file is not there, cut short, or not what it should be."""


@dataclass(frozen=True, slots=True)
class Scf:
    """The last iteration of a self-consistent state.

    Attributes
    ----------
    title
        First line of its ``case.struct``, as far as it is told.
    version
        Of WIEN2k.
    energy_Ry
        Total energy of the cell.
    remark
        The word before it: ``**********``, or that there were warnings.
    iterations
        How many there were.
    atoms
        In the cell.
    rkmax
        Of the basis that was used.
    electrons
        Valence electrons of the bands.
    nuclear, electronic
        Charge of the cell before the mixer's normalisation.
    warnings
        The code's own, of the last iteration.
    """

    title: str
    version: str
    energy_Ry: float
    remark: str
    iterations: int
    atoms: int
    rkmax: float
    electrons: float
    nuclear: float
    electronic: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bands:
    """Levels about the Fermi level.

    Attributes
    ----------
    fermi_Ry
        Fermi level on the code's own scale.
    electrons
        Valence electrons up to it.
    first_empty_Ry
        Lowest level that is not full: the bottom of the first empty band; in a partly full one, the Fermi level.
    gap_Ry
        Between the highest full band and the first that is not, whatever is in it; 0 if they overlap.
    """

    fermi_Ry: float
    electrons: float
    first_empty_Ry: float
    gap_Ry: float


def _state_of(dayfile: str) -> Convergence:
    """Return what the day file, or what ``run_lapw`` printed, says of convergence."""
    flags = _FLAGS.findall(dayfile)
    if _NOT.search(dayfile):
        return Convergence.UNCONVERGED
    if not flags or not _STOP.search(dayfile) or ended_with_error(dayfile):
        return Convergence.UNKNOWN
    return Convergence.CONVERGED if set(flags[-1].split()) == {"1"} else Convergence.UNCONVERGED


def ended_with_error(dayfile: str) -> bool:
    """Return whether a program of the cycle stopped with an error."""
    return any("error" in said for said in _STOP.findall(dayfile))


def error_text(folder: Path) -> str:
    """Return what WIEN2k's programs left in their ``.error`` files: empty files are of those that ended well."""
    said = [p.read_text(errors="replace").strip() for p in sorted(folder.glob("*.error"))]
    return " ".join(" ".join(s.split()) for s in said if s)


def scf_state(folder: Path) -> Convergence:
    """Return what a case says of its self-consistency: in its day file, or what ``run_lapw`` printed."""
    for path in (folder / f"{folder.name}.dayfile", folder / "run_lapw.out"):
        state = _state_of(path.read_text(errors="replace")) if path.is_file() else Convergence.UNKNOWN
        if state is not Convergence.UNKNOWN:
            return state
    return Convergence.UNKNOWN


def read_scf(text: str) -> Scf:
    """Return the last iteration of a ``case.scf``.

    Raises
    ------
    OutputError
        Something lacks.
    """
    iterations = list(_ITERATION.finditer(text))
    if not iterations:
        raise OutputError("case.scf has no iteration")
    last = text[iterations[-1].start() :]
    version = _VERSION.search(text)
    if version is None:
        raise OutputError("case.scf does not say which WIEN2k made it")
    energies = _ENERGY.findall(last)
    if not energies:
        raise OutputError("the last iteration in case.scf has no total energy")
    remark, energy = energies[-1]
    if not float(energy) < 0:
        raise OutputError(f"the total energy in case.scf is {energy} Ry")
    neutral = _one(_NEUTRAL, last, "charges")
    return Scf(
        title=_one(_TITLE, last, "title")[1],
        version=version[1],
        energy_Ry=float(energy),
        remark=remark,
        iterations=int(iterations[-1][1]),
        atoms=int(_one(_ATOMS, last, "number of atoms")[2]),
        rkmax=float(_one(_BASIS, last, "RKM")[1]),
        electrons=float(_one(_ELECTRONS, last, "number of electrons")[1]),
        nuclear=float(neutral[1]),
        electronic=float(neutral[2]),
        warnings=tuple(dict.fromkeys(_WARNING.findall(last))),
    )


def read_bands(text: str) -> Bands:
    """Return what a ``case.scf2`` says of the levels.

    Raises
    ------
    OutputError
        Something lacks: it lists no empty band above full ones.
    """
    fermi = float(_one(_FERMI, text, "Fermi level", "case.scf2")[1])
    electrons = float(_one(_ELECTRONS, text, "number of electrons", "case.scf2")[1])
    bands = [(float(low), float(high), float(held)) for _, low, high, held in _BAND.findall(text)]
    full = [high for _, high, held in bands if held > _FULL]
    others = [(low, held) for low, _, held in bands if held <= _FULL]
    if not full or not others:
        raise OutputError(f"case.scf2 lists no {'full' if not full else 'empty'} band")
    lowest = min(low for low, _ in others)
    partly = any(held > _EMPTY for _, held in others)
    return Bands(fermi, electrons, fermi if partly else lowest, max(0.0, lowest - max(full)))


def _one(pattern: re.Pattern[str], text: str, what: str, where: str = "case.scf") -> re.Match[str]:
    found = None
    for found in pattern.finditer(text):  # noqa: B007  # the last one counts
        pass
    if found is None:
        raise OutputError(f"{where} has no {what}")
    return found
