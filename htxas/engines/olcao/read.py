"""From a folder OLCAO has run in to a result, or to the one cause why there is none.

Files, by OLCAO's own sources: ``1s_iter-fb.dat`` has a heading and, of each iteration, its number, the highest occupied
level, the error of the electrons, the change of the potential, and the total energy (Hartree);
``1s_pacs-eb.plot`` has a heading and energies (eV), the mean, and x, y, z of the optical conductivity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence
from htxas.domain.result import CurveResult
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.curves import by_own_level
from htxas.engines.external import exhausted, log_tail, provenance_of
from htxas.engines.olcao.parameters import parameters_from
from htxas.engines.olcao.process import site_folder
from htxas.engines.olcao.write import SLACK_EV
from htxas.errors import Cause, EngineFailure

__all__ = ["OutputError", "State", "read_iterations", "read_plot", "site_result", "unfinished"]

FloatArray = npt.NDArray[np.float64]
_ITERATION_COLUMNS = 5
_PLOT_HEADING = ["Energy", "totalXANES", "xXANES", "yXANES", "zXANES"]
_MEAN_WITHIN = 1e-5
_EMPTY = 1e-6  # of the highest: beyond the last transition there is nothing
_BEFORE = 0.01  # of the highest, three widths before the first final state
_START_EV = 0.02
_UNFINISHED = "Fortran success file missing"


class OutputError(ValueError):
    """A file is not there, cut short, or not what it should be."""


@dataclass(frozen=True, slots=True)
class State:
    """The last iteration of a state: its number, the change of the potential, the total energy (Hartree)."""

    iterations: int
    change: float
    energy_Hartree: float


def read_iterations(text: str) -> State:
    """Return the last line of ``*_iter-*.dat``.

    Raises
    ------
    OutputError
        It is no such table, or cut short.
    """
    lines = text.splitlines()
    if not lines or "Total Energy" not in lines[0] or not text.endswith("\n"):
        raise OutputError("the record of iterations is cut short, or has another heading")
    try:
        rows = [[float(w) for w in line.split()] for line in lines[1:] if line.strip()]
    except ValueError as error:
        raise OutputError(f"the record of iterations: {error}") from None
    if not rows or any(len(r) != _ITERATION_COLUMNS for r in rows):
        raise OutputError(f"the record of iterations has not {_ITERATION_COLUMNS} columns")
    if [r[0] for r in rows] != list(range(1, len(rows) + 1)):
        raise OutputError("the record of iterations has gaps")
    if not np.isfinite(rows).all():
        raise OutputError("the record of iterations has numbers that are none (NaN)")
    return State(len(rows), rows[-1][3], rows[-1][4])


def read_plot(text: str) -> tuple[FloatArray, FloatArray]:
    """Return energies (eV), shape (n,), and the absorption along x, y, z in OLCAO's units, shape (n, 3).

    Raises
    ------
    OutputError
        It is no such table, or cut short.
    """
    lines = text.splitlines()
    if not lines or lines[0].split() != _PLOT_HEADING or not text.endswith("\n"):
        raise OutputError("the spectrum is cut short, or has another heading")
    try:
        table = np.array([line.split() for line in lines[1:]], dtype=np.float64)
    except ValueError as error:
        raise OutputError(f"the spectrum: {error}") from None
    if (
        table.ndim != 2
        or table.shape[1] != len(_PLOT_HEADING)
        or len(table) < 3
        or not np.isfinite(table).all()
    ):
        raise OutputError(f"the spectrum is no table of {len(_PLOT_HEADING)} columns")
    energies, mean, columns = table[:, 0], table[:, 1], table[:, 2:]
    if (np.diff(energies) <= 0).any() or columns.min() < 0 or mean.max() <= 0:
        raise OutputError("the spectrum is empty, negative, or its energies are not in order")
    if np.abs(columns.mean(axis=1) - mean).max() > _MEAN_WITHIN * mean.max():
        raise OutputError("the spectrum's mean is not that of x, y and z")
    return energies, columns


def unfinished(directory: Path) -> EngineFailure:
    """Return the failure of a run whose process is gone."""
    where = "olcao" if (directory / "olcao.out").is_file() else "makeinput"
    return _bad(Cause.ENGINE_CRASH, f"OLCAO's process ended in {where}, without a word", directory)


def site_result(job: Job, directory: Path, outcome: Mapping[str, Any]) -> CurveResult:
    """Return the spectrum of a site.

    The excitation energy is the difference of total energies of all electrons, ``E_ex - E_gs`` (Mizoguchi, Tanaka, Gao
    and Pickard, J. Phys.: Condens. Matter 21, 104204 (2009)); OLCAO has put the first final state there.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, BAD_INPUT (``makeinput`` made none), ENGINE_CRASH, OUT_OF_MEMORY, DISK_FULL or BAD_OUTPUT.
    """
    parameters = parameters_from(job.calculation.parameters)
    for name, digest in outcome["outputs_sha256"].items():
        path = directory / name
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != digest:
            raise _bad(Cause.BAD_OUTPUT, f"{name} is not as the run left it", directory)
    folder = site_folder(directory, job.calculation.element)
    if folder is None:
        raise _bad(Cause.BAD_INPUT, "makeinput made no inputs of the core hole", directory)
    try:
        states = {}
        for name in ("gs", "1s"):
            path = folder / f"{name}_iter-{parameters.basis}.dat"
            if not path.is_file():
                raise _broken(directory, folder, f"there is no {path.name}")
            state = states[name] = read_iterations(path.read_text(errors="replace"))
            if state.change >= parameters.convergence:
                raise _bad(
                    Cause.SCF_UNCONVERGED,
                    f"the potential of {name} changed by {state.change:g} in iteration {state.iterations}",
                    directory,
                )
        plot = folder / f"1s_pacs-{parameters.spectrum_basis}.plot"
        if not plot.is_file():
            raise _broken(directory, folder, f"there is no {plot.name}")
        energies, columns = read_plot(plot.read_text(errors="replace"))
        transition_eV = (states["1s"].energy_Hartree - states["gs"].energy_Hartree) * HARTREE_EV
        energies, columns = _kept(energies, columns, transition_eV, parameters.window_eV, parameters.width_eV)
        curve, background, normalisation = by_own_level(
            energies, columns, transition_eV, units="1e15/s of optical conductivity"
        )
    except (OutputError, ValueError) as error:
        raise _bad(Cause.BAD_OUTPUT, str(error), directory) from None
    provenance = provenance_of(
        outcome,
        directory,
        version="unknown",  # OLCAO's outputs do not say it
        libraries={"olcao": "unknown"},
        extra={
            "program": outcome["program"],
            "steps_s": outcome["steps_s"],
            "scf_iterations": {name: s.iterations for name, s in states.items()},
            "energies_eV": {name: s.energy_Hartree * HARTREE_EV for name, s in states.items()},
            "gaussian_width_eV": parameters.width_eV,
        },
    )
    return CurveResult(
        convergence=Convergence.CONVERGED,
        curve=curve,
        background=background,
        edge_eV=transition_eV,
        fermi_eV=0.0,  # OLCAO counts levels from the highest occupied one
        lifetime_eV=0.0,
        normalisation=f"{normalisation}; OLCAO's Gaussian of {parameters.width_eV:g} eV is in it",
        scale="OLCAO: total energies of all electrons, E_ex - E_gs, excited electron kept; not aligned",
        doubts=(),
        dos=None,
        provenance=provenance,
    )


def _kept(
    energies: FloatArray, columns: FloatArray, transition_eV: float, window_eV: float, width_eV: float
) -> tuple[FloatArray, FloatArray]:
    """Return the part of a spectrum in which nothing lacks.

    Raises
    ------
    OutputError
        It is of another transition energy, begins before it, or ends before the window.
    """
    if not transition_eV > 0:
        raise OutputError(f"the hole costs {transition_eV:.2f} eV: OLCAO takes it without its sign")
    start = transition_eV - transition_eV % SLACK_EV
    if (
        min(
            abs(energies[0] - start), abs(energies[0] - start - SLACK_EV), abs(energies[0] - start + SLACK_EV)
        )
        > _START_EV
    ):
        raise OutputError(
            f"the spectrum begins at {energies[0]:.2f} eV, that of {transition_eV:.2f} eV would at {start:.2f}"
        )
    mean = columns.mean(axis=1)
    highest = float(mean.max())
    if mean[energies < transition_eV - 3 * width_eV].max(initial=0.0) > _BEFORE * highest:
        raise OutputError("the spectrum begins before its first final state")
    last = float(energies[mean > _EMPTY * highest][-1])
    if last < transition_eV + window_eV + width_eV:
        raise OutputError(
            f"OLCAO's levels end {last - transition_eV:.1f} eV above the edge, {window_eV:g} eV were asked for: "
            "more states_per_electron, or a smaller window_eV"
        )
    inside = energies <= transition_eV + window_eV
    return energies[inside], columns[inside]


def _broken(directory: Path, folder: Path, lacking: str) -> EngineFailure:
    said = _text(folder / "runtime") + _text(directory / "olcao.out")
    cause = exhausted(said) or Cause.ENGINE_CRASH
    why = "a program of OLCAO's ended before its end" if _UNFINISHED in said else "OLCAO ended early"
    return _bad(cause, f"{why}: {lacking}", directory)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _bad(cause: Cause, message: str, directory: Path) -> EngineFailure:
    runtime = "".join(_text(p) for p in sorted(directory.glob("*_1/runtime")))
    printed = _text(directory / "makeinput.out") + _text(directory / "olcao.out")
    tail = log_tail(runtime or printed)
    return EngineFailure(cause, message, evidence={"log_tail": tail} if tail else {}, where=str(directory))
