"""What CASTEP says in its ``.castep``: atoms, pseudopotentials, energies, convergence, whether it came to its end.

Of convergence it says little. A density that has not converged is told in one way (``max. SCF cycles performed but
system has not reached the groundstate``), levels that have not in several (``Warning: band structure not converged``).
So any words after the first cycle that deny that something converged are taken at their word. Nothing is printed when
levels converge; but a core-loss run that went well tells the time its matrix elements took (20.1, and castep-docs), and
the readers want that line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence

__all__ = ["CastepLog", "LabelledAtom", "read_log"]

_BANNER = "Welcome to"
_VERSION = re.compile(r"CASTEP version\s+([0-9][0-9A-Za-z.]*)")
_NUMBER = r"(-?\d+(?:\.\d*)?(?:[Ee][+-]?\d+)?)"
_ATOM = re.compile(r"(Pseudo atomic|Atomic) calculation performed for ([A-Z][a-z]?(?::\w+)?):?\s+(\S.*?)\s*$")
_ATOM_ENERGY = re.compile(rf"Converged in\s+\d+ iterations to an? (?:ae|total) energy of\s+{_NUMBER} eV")
_STRING = re.compile(r"^\s+([A-Z][a-z]?(?::\w+)?)\s+(\S+)\s*$")
_POSITION = re.compile(rf"^\s*x\s+([A-Z][a-z]?(?::\w+)?)\s+(\d+)\s+{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}\s+x\s*$")
_FINAL = re.compile(rf"^\s*Final energy(?:, E)?\s*=\s*{_NUMBER}\s*eV", re.MULTILINE)
_FREE = re.compile(rf"^\s*Final free energy \(E-TS\)\s*=\s*{_NUMBER}\s*eV", re.MULTILINE)
_ZERO_KELVIN = re.compile(rf"^\s*NB est\. 0K energy \(E-0\.5TS\)\s*=\s*{_NUMBER}\s*eV", re.MULTILINE)
_ELECTRONS = re.compile(rf"number of\s+electrons\s*:\s*{_NUMBER}")
_CHARGE = re.compile(r"net charge of system\s*:\s*([+-]?\d+(?:\.\d*)?)")
_CUTOFF = re.compile(rf"plane wave basis set cut-off\s*:\s*{_NUMBER}")
_TOTAL = re.compile(rf"^\s*Total time\s*=\s*{_NUMBER}\s*s", re.MULTILINE)
_PEAK = re.compile(r"^\s*Peak Memory Use\s*=\s*(\d+)\s*kB", re.MULTILINE)
_CYCLE = re.compile(r"^\s*(\d+)\s+\S+\s+\S+\s+\S+\s+\S+\s+<-- SCF", re.MULTILINE)
_SCF, _SPECTRUM = "<-- SCF", "Calculation of Spectral Properties"
_MATRIX_ELEMENTS = "Total time to compute matrix elements"
_SPEAKS = re.compile(r"converg|groundstate|ground state", re.IGNORECASE)
_DENIES = re.compile(
    r"\bnot\b|n't\b|\bun-?converg|\bnon-?converg|\bno converg|\bfail|\bunable\b|\bcannot\b", re.IGNORECASE
)
_LIMIT = re.compile(
    r"max\w*\.?\s+(?:\w+\.?\s+)*(?:iterations|steps|cycles)\s+(?:\w+\s+)*(?:reached|exceeded|performed|taken|done)",
    re.IGNORECASE,
)
_STAGES = (
    (_SPECTRUM, "the spectral part"),
    ("Final energy", "what follows self-consistency"),
    (_SCF, "self-consistency"),
    ("calculation performed for", "making the pseudopotentials"),
    (_BANNER, "reading the input"),
)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledAtom:
    """An atom of the cell as CASTEP names it.

    Attributes
    ----------
    label
        Its species: ``C``, ``C:ex``.
    species, rank
        Number of the species, and of the atom in it, from 1: other files name atoms by these.
    fractional
        Coordinates, shape (3,), to 6 decimals.
    """

    label: str
    species: int
    rank: int
    fractional: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CastepLog:
    """What the log of one run tells; None and empty where it does not.

    Attributes
    ----------
    version
        ``20.1``.
    title
        The input's comment.
    started
        Whether CASTEP said anything at all.
    finished
        Whether it told its total time: nothing comes after that.
    convergence
        Of self-consistency and of all else that says when it does not converge.
    cycles
        Of self-consistency.
    matrix_elements
        Whether it says that the matrix elements of core orbitals were computed: nothing of the spectrum comes after.
    all_electron_eV, pseudo_eV
        Energies of the isolated atoms, by species: all electrons, and the pseudopotential's valence electrons.
    configurations
        Electrons of the isolated atom that each pseudopotential was made of: ``1s1 2s2 2p2``.
    pseudopotentials
        Strings used, by species.
    atoms
        The cell's.
    final_eV, free_eV, zero_kelvin_eV
        E; E - TS; E - TS/2. Without smearing the first alone.
    electrons, charge, cutoff_eV
        Of the cell, as CASTEP took them.
    total_s, peak_MB
        Time and memory CASTEP says it took.
    stood_in
        Where it stood when the log ends, for people.
    complaint
        What it says did not converge, in its own words.
    """

    version: str | None
    title: str
    started: bool
    finished: bool
    convergence: Convergence
    cycles: int
    matrix_elements: bool
    all_electron_eV: Mapping[str, float]
    pseudo_eV: Mapping[str, float]
    configurations: Mapping[str, str]
    pseudopotentials: Mapping[str, str]
    atoms: tuple[LabelledAtom, ...]
    final_eV: float | None
    free_eV: float | None
    zero_kelvin_eV: float | None
    electrons: float | None
    charge: float | None
    cutoff_eV: float | None
    total_s: float | None
    peak_MB: float | None
    stood_in: str
    complaint: str | None

    def energy_eV(self, which: str) -> float | None:
        """Return the total energy by its name in the parameters; without smearing all are the same."""
        if which == "zero_kelvin" and self.zero_kelvin_eV is not None:
            return self.zero_kelvin_eV
        return self.final_eV


def read_log(text: str) -> CastepLog:
    """Return what a ``.castep`` tells; of several runs in one file, the last."""
    at = text.rfind(_BANNER)
    text = text if at < 0 else text[text.rfind("\n", 0, at) + 1 :]
    lines = text.splitlines()
    ae, pa, configurations = _atoms(lines)
    final = _last(_FINAL, text)
    total, peak = _last(_TOTAL, text), _last(_PEAK, text)
    complaint = _complaint(text)
    if complaint:
        convergence = Convergence.UNCONVERGED
    else:
        convergence = Convergence.UNKNOWN if final is None else Convergence.CONVERGED
    version = _VERSION.search(text)
    cycles = [int(n) for n in _CYCLE.findall(text)]
    return CastepLog(
        version=version[1] if version else None,
        title=_title(lines),
        started=at >= 0,
        finished=total is not None,
        convergence=convergence,
        cycles=cycles[-1] if cycles else 0,
        matrix_elements=_MATRIX_ELEMENTS in text,
        all_electron_eV=ae,
        pseudo_eV=pa,
        configurations=configurations,
        pseudopotentials=_strings(lines),
        atoms=_positions(lines),
        final_eV=final,
        free_eV=_last(_FREE, text),
        zero_kelvin_eV=_last(_ZERO_KELVIN, text),
        electrons=_last(_ELECTRONS, text),
        charge=_last(_CHARGE, text),
        cutoff_eV=_last(_CUTOFF, text),
        total_s=total,
        peak_MB=None if peak is None else peak / 1024,
        stood_in=next((words for mark, words in _STAGES if mark in text), "starting"),
        complaint=complaint,
    )


def _complaint(text: str) -> str | None:
    """Return what is said, once the density is sought, of something that did not converge."""
    starts = [at for at in (text.find(_SCF), text.find(_SPECTRUM)) if at >= 0]
    if not starts:
        return None
    lines = [" ".join(line.split()) for line in text[min(starts) :].splitlines()]
    for i, line in enumerate(lines):
        if _ATOM_ENERGY.search(line):  # an isolated atom's: it stops the run if it does not converge
            continue
        if _LIMIT.search(line) or (_SPEAKS.search(line) and _DENIES.search(line)):
            return line
        both = " ".join(lines[i : i + 2])  # a sentence broken in two
        if _SPEAKS.search(both) and _DENIES.search(both) and not _ATOM_ENERGY.search(both):
            return both
    return None


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.findall(text)
    return float(found[-1]) if found else None


def _title(lines: list[str]) -> str:
    start = next((i for i, line in enumerate(lines) if re.match(r"^ \*+ Title \*+$", line)), None)
    if start is None:
        return ""
    words: list[str] = []
    for line in lines[start + 1 :]:
        if line.lstrip().startswith("***"):
            break
        words += line.split()
    return " ".join(words)


def _atoms(lines: list[str]) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Return energies and configurations of the isolated atoms; told twice, they are the same."""
    ae: dict[str, float] = {}
    pa: dict[str, float] = {}
    configurations: dict[str, str] = {}
    for i, line in enumerate(lines):
        head = _ATOM.search(line)
        if head is None:
            continue
        found = next((m for near in lines[i + 1 : i + 4] if (m := _ATOM_ENERGY.search(near))), None)
        if found is None:
            continue
        if head[1] == "Atomic":
            ae[head[2]], configurations[head[2]] = float(found[1]), head[3]
        else:
            pa[head[2]] = float(found[1])
    return ae, pa, configurations


def _strings(lines: list[str]) -> dict[str, str]:
    start = next((i for i, line in enumerate(lines) if "Files used for pseudopotentials" in line), None)
    found: dict[str, str] = {}
    for line in lines[start + 1 :] if start is not None else ():
        entry = _STRING.match(line)
        if entry is None:
            break
        found[entry[1]] = entry[2]
    return found


def _positions(lines: list[str]) -> tuple[LabelledAtom, ...]:
    numbers: dict[str, int] = {}
    atoms = []
    for line in lines:
        if (m := _POSITION.match(line)) is not None:
            species = numbers.setdefault(m[1], len(numbers) + 1)
            atoms.append(LabelledAtom(m[1], species, int(m[2]), np.array([float(m[i]) for i in (3, 4, 5)])))
    return tuple(atoms)
