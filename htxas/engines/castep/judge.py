"""Whether a run of CASTEP came to its end, and the one cause why not: by what it wrote, never by its exit status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from htxas.domain.calculation import Convergence
from htxas.engines.castep.log import CastepLog, read_log
from htxas.engines.castep.pseudopotentials import is_library
from htxas.engines.castep.write import SITE, Layout
from htxas.engines.external import log_tail
from htxas.errors import Cause, EngineFailure

__all__ = ["is_done", "log_of", "refuse_other_cell", "sound_log", "unfinished"]

_MEMORY = re.compile(
    r"error in allocating|allocat\w* (?:of \w+ )?fail|out of memory|cannot allocate memory|insufficient memory",
    re.IGNORECASE,
)
_DISK = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_STACK = "Current trace stack"
_LINE_BYTES = 400
_SAME_PLACE = 2e-5  # fractions in the log have six decimals


def log_of(directory: Path, seed: str) -> CastepLog | None:
    """Return what the log of a run tells, or None without one."""
    path = directory / f"{seed}.castep"
    return read_log(path.read_text(errors="replace")) if path.is_file() else None


def is_done(log: CastepLog | None, key: str) -> bool:
    """Return whether a log is the whole one of calculation ``key``, converged, with all its energies."""
    return (
        log is not None
        and log.finished
        and log.convergence is Convergence.CONVERGED
        and key in log.title
        and log.final_eV is not None
        and bool(log.all_electron_eV)
        and bool(log.pseudo_eV)
    )


def sound_log(directory: Path, seed: str, key: str, strings: Mapping[str, str]) -> CastepLog:
    """Return the log of a run that came to its end, converged, with what it was asked for.

    Parameters
    ----------
    directory, seed
        Where it ran, under which name.
    key
        The calculation it must be of.
    strings
        Pseudopotential string of each species.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, BAD_INPUT, OUT_OF_MEMORY, DISK_FULL, ENGINE_CRASH or BAD_OUTPUT.
    """
    log = log_of(directory, seed)
    complaint = _complaint(directory, seed)
    said = "\n".join([complaint, *(_text(directory / f"{seed}.{end}") for end in ("castep", "out"))])
    if log is None or not log.started or not log.finished or complaint:
        if log is not None and log.convergence is Convergence.UNCONVERGED:
            raise _unconverged(directory, seed, log)
        raise _broken(directory, seed, log, complaint, said)
    if log.convergence is Convergence.UNCONVERGED:
        raise _unconverged(directory, seed, log)
    if key not in log.title:
        raise _bad(
            Cause.BAD_OUTPUT,
            f"{seed}.castep is of {log.title or 'a run without a title'}, not of calculation {key}",
            directory,
            seed,
        )
    if log.convergence is Convergence.UNKNOWN or (seed == SITE and not log.matrix_elements):
        lacking = (
            "matrix elements were computed" if log.convergence is Convergence.CONVERGED else "it converged"
        )
        raise _bad(Cause.BAD_OUTPUT, f"{seed}.castep ends without saying that {lacking}", directory, seed)
    for label, string in strings.items():
        used = log.pseudopotentials.get(label)
        if used is None or not (used == string or is_library(string)):
            raise _bad(
                Cause.BAD_OUTPUT, f"the pseudopotential of {label} was {used}, not {string}", directory, seed
            )
    return log


def unfinished(directory: Path, seeds: tuple[str, ...]) -> EngineFailure:
    """Return the failure of a run whose process is gone."""
    seed = next((s for s in seeds if (directory / f"{s}.castep").is_file()), seeds[0])
    log = log_of(directory, seed)
    if log is not None and log.convergence is Convergence.UNCONVERGED:
        return _unconverged(directory, seed, log)
    where = "before it said anything" if log is None else f"in {log.stood_in}"
    return _bad(Cause.ENGINE_CRASH, f"CASTEP's process ended {where}, without a word", directory, seed)


def refuse_other_cell(log: CastepLog, layout: Layout, directory: Path) -> dict[tuple[int, int], int]:
    """Return the index in the cell of each (species, rank), by the positions in the log.

    Raises
    ------
    EngineFailure
        BAD_OUTPUT: the log's atoms are not the cell's.
    """
    wanted = layout.cell.positions_A @ np.linalg.inv(layout.cell.cell_A)
    found: dict[tuple[int, int], int] = {}
    taken: set[int] = set()
    for atom in log.atoms:
        delta = wanted - atom.fractional
        apart = np.abs(delta - np.round(delta)).max(axis=1)
        index = int(apart.argmin())
        if apart[index] > _SAME_PLACE or layout.labels[index] != atom.label or index in taken:
            break
        taken.add(index)
        found[atom.species, atom.rank] = index
    if len(found) != len(layout.labels):
        raise EngineFailure(
            Cause.BAD_OUTPUT,
            f"the log has {len(found)} of the {len(layout.labels)} atoms of the cell where they should be",
            where=str(directory),
        )
    return found


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _complaint(directory: Path, seed: str) -> str:
    """Return what CASTEP's error files say, without the trace."""
    said = [_text(p).split(_STACK)[0] for p in sorted(directory.glob(f"{seed}.*.err"))]
    return " ".join(" ".join(dict.fromkeys(s.strip() for s in said)).split())[:_LINE_BYTES]


def _broken(directory: Path, seed: str, log: CastepLog | None, complaint: str, said: str) -> EngineFailure:
    printed = log_tail(_text(directory / f"{seed}.out"))
    words = complaint or (printed[-1] if printed else "it left no word of why")
    if _DISK.search(said):
        return _bad(Cause.DISK_FULL, f"CASTEP found the disk full: {words}", directory, seed)
    if _MEMORY.search(said):
        return _bad(Cause.OUT_OF_MEMORY, f"CASTEP got no memory: {words}", directory, seed)
    computing = log is not None and log.started and "<-- SCF" in said
    if complaint and not computing:
        return _bad(Cause.BAD_INPUT, f"CASTEP refuses the input: {complaint}", directory, seed)
    where = "before it said anything" if log is None or not log.started else f"in {log.stood_in}"
    return _bad(Cause.ENGINE_CRASH, f"CASTEP ended {where}: {words}", directory, seed)


def _unconverged(directory: Path, seed: str, log: CastepLog) -> EngineFailure:
    return _bad(
        Cause.SCF_UNCONVERGED, f"{log.complaint}, after {log.cycles} cycles of the density", directory, seed
    )


def _bad(cause: Cause, message: str, directory: Path, seed: str) -> EngineFailure:
    logs = {"log_tail": f"{seed}.castep", "output_tail": f"{seed}.out"}
    evidence = {name: tail for name, file in logs.items() if (tail := log_tail(_text(directory / file)))}
    return EngineFailure(cause, message, evidence=evidence, where=str(directory))
