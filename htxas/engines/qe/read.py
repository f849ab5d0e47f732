"""From a directory Quantum ESPRESSO has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence
from htxas.domain.dos import Pdos
from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.domain.spectrum import Sticks
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.external import exhausted, log_tail
from htxas.engines.qe.lanczos import Poles, is_converged, read_poles
from htxas.engines.qe.parameters import Hole, ground_from, hole_from
from htxas.engines.qe.scf import (
    Bands,
    OutputError,
    read_bands,
    read_projections,
    read_vacuum,
    refusal,
    wrong_pseudo,
)
from htxas.engines.qe.write import AXES, EXCITED, GROUND, Layout, lay_out, scale_layout
from htxas.engines.transitions import core_energy_eV, oscillator_strengths
from htxas.errors import Cause, EngineFailure

__all__ = ["bad", "ground_result", "site_result"]

_SAME_LEVEL_EV = 0.03
_NO_LEVEL = 1e-3  # of the spectrum, the tolerance of the recursion; 75 recursions of molecules had less than 1e-8 there
_FLAT_EV = 0.3
_SCALE = "total energies and isolated atoms' (Mizoguchi 2009); spin-unpolarised hole, excited electron kept"
_NO_HOLE = "no hole: the first empty level at what taking a 1s electron out of the isolated atom costs"
_ROUNDING = 1e-12  # of all weight: eigenvalues that rounding doubled have less
_INPUT_ROUTINES = ("read_", "iosys", "setup", "readpp", "card_", "ld1_", "checkallsym", "namelist")


def bad(cause: Cause, message: str, folder: Path, name: str = "pw.out", **evidence: Any) -> EngineFailure:
    """Return a failure with the end of a log."""
    path = folder / name
    text = path.read_text(errors="replace") if path.is_file() else ""
    return EngineFailure(cause, message, evidence={"log_tail": log_tail(text), **evidence}, where=str(folder))


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _scf(folder: Path, layout: Layout, outcome: Mapping[str, Any], part: str = "") -> Bands:
    """Return the self-consistent state of a run or of a part of it, or say why there is none."""
    ran_in = str(Path(outcome["folder"], part)) if "folder" in outcome else ""
    folder = folder / part
    output = _text(folder / "pw.out")
    said = refusal(output)
    ended = "JOB DONE." in output
    if not ended:
        _refuse_exhausted("pw.x", output, folder, "pw.out")
    if "convergence NOT achieved" in output:
        raise bad(Cause.SCF_UNCONVERGED, "self-consistency did not converge", folder)
    if "Maximum CPU time exceeded" in output:
        raise bad(Cause.WALLTIME, "pw.x stopped by its own clock", folder)
    if said is not None:
        refused = said.startswith(_INPUT_ROUTINES)
        verb = "refuses the input" if refused else "stopped"
        raise bad(Cause.BAD_INPUT if refused else Cause.ENGINE_CRASH, f"pw.x {verb}: {said}", folder)
    if not ended:
        raise bad(Cause.ENGINE_CRASH, "pw.x ended before its end", folder)
    try:
        bands = read_bands(folder)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    wrong = wrong_pseudo(output, ran_in, outcome["pseudopotentials_md5"])
    if wrong is not None:
        raise bad(Cause.BAD_OUTPUT, wrong, folder)
    if abs(bands.electrons - layout.electrons) > 1e-6:
        raise bad(
            Cause.BAD_OUTPUT,
            f"pw.x had {bands.electrons:g} electrons, the calculation has {layout.electrons:g}",
            folder,
        )
    return bands


def _refuse_exhausted(program: str, output: str, folder: Path, name: str) -> None:
    """Raise if what a program that did not end well printed says that memory or disk were at their end."""
    cause = exhausted(output)
    if cause is not None:
        why = "ended: the disk is full" if cause is Cause.DISK_FULL else "got no memory"
        raise bad(cause, f"{program} {why}", folder, name)


def ground_result(job: Job, folder: Path, outcome: Mapping[str, Any], provenance: Provenance) -> GroundResult:
    """Return a ground state.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, BAD_INPUT, WALLTIME or BAD_OUTPUT.
    """
    ground = ground_from(job.calculation.parameters)
    layout = lay_out(job.structure, ground)
    bands = _scf(folder, layout, outcome)
    projected = _text(folder / "projwfc.out")
    if "JOB DONE." not in projected:
        _refuse_exhausted("projwfc.x", projected, folder, "projwfc.out")
    try:
        shares = read_projections(folder, projected, len(layout.cell))
        if shares.shape[:2] != bands.energies_eV.shape:
            raise OutputError("atomic_proj.xml has other levels than pw.xml")
        zero_eV, spread_eV = read_vacuum(folder) if ground.box is not None else (0.0, 0.0)
        homo, lumo = bands.frontier_eV(layout.pairs)
    except OutputError as error:
        name = "pp1.out" if "vacuum" in str(error) else "projwfc.out"
        raise bad(Cause.BAD_OUTPUT, str(error), folder, name) from None
    reference = "average potential of the cell"
    if ground.box is not None:
        provenance.extra["vacuum_spread_eV"] = round(spread_eV, 4)
        reference = "vacuum" if spread_eV < _FLAT_EV else "average potential along the edges of the box"
    return GroundResult(
        convergence=bands.convergence,
        total_energy_eV=bands.energy_eV / layout.cell.copies,
        homo_eV=homo - zero_eV,
        lumo_eV=lumo - zero_eV,
        dipole_D=None,
        pdos=_pdos(bands, shares, layout, job.structure, zero_eV),
        provenance=provenance,
        reference=reference,
    )


def _pdos(bands: Bands, shares: Any, layout: Layout, structure: Structure, zero_eV: float) -> Pdos:
    points, levels = bands.energies_eV.shape
    weights = np.zeros((points, levels, len(structure), 3))
    for atom, origin in enumerate(layout.cell.origin):
        weights[:, :, origin] += shares[:, :, atom]
    energies = (bands.energies_eV - zero_eV).ravel()
    order = np.argsort(energies, kind="stable")
    share = np.repeat(bands.k_weights, levels) / layout.cell.copies
    return Pdos(
        energies[order],
        2.0 * bands.occupations.ravel()[order],
        weights.reshape(points * levels, len(structure), 3)[order],
        None if points * layout.cell.copies == 1 else share[order],
        complete=False,
        complete_to_eV=float(bands.energies_eV.max(axis=1).min()) - zero_eV,
    )


def site_result(job: Job, folder: Path, outcome: Mapping[str, Any], provenance: Provenance) -> SiteResult:
    """Return the spectrum of a site.

    The excitation energy is that of Mizoguchi, Tanaka, Gao and Pickard, J. Phys.: Condens. Matter 21, 104204 (2009):
    ``(E_ex - E_gs) + [(AE_ex - PA_ex) - (AE_gs - PA_gs)]``; the first final state, the lowest level that is not full
    beside the hole, is put there.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, BAD_INPUT, WALLTIME or BAD_OUTPUT.
    """
    parameters = job.calculation.parameters
    ground, hole = ground_from(parameters["ground"]), hole_from(parameters["hole"])
    layout = lay_out(job.structure, ground, job.calculation.atom, hole)
    bands = _scf(folder, layout, outcome)
    if bands.gamma_only:
        raise bad(
            Cause.BAD_OUTPUT, "pw.x kept half of the wave functions; spectra of these are wrong", folder
        )
    convergence = [bands.convergence]
    poles: list[Poles] = []
    for axis, vector in AXES.items():
        name = f"xspectra-{axis}.out"
        output = _text(folder / name)
        converged = is_converged(output)
        if converged is None or "END JOB XSpectra" not in output:
            _refuse_exhausted("xspectra.x", output, folder, name)
            said = refusal(output)
            raise bad(
                Cause.ENGINE_CRASH,
                f"xspectra.x ended before its end{f': {said}' if said else ''}",
                folder,
                name,
            )
        try:
            found = read_poles(folder / f"lanczos-{axis}.sav", bands.k_weights, vector)
        except OutputError as error:
            raise bad(Cause.BAD_OUTPUT, str(error), folder, name) from None
        poles.append(found)
        done = converged and found.converged
        convergence.append(Convergence.CONVERGED if done else Convergence.UNCONVERGED)
    excited = bands
    if hole.electrons and not hole.is_scale:
        excited = _scf(folder, scale_layout(layout), outcome, EXCITED)
        convergence.append(excited.convergence)
    energies = _energies(job, layout, folder, outcome, excited)
    first_eV = energies["atom"]
    if hole.electrons:
        first_eV += energies["excited"] - energies["ground"]
    try:
        sticks = _sticks(poles, bands.frontier_eV(layout.pairs), first_eV, hole.window_eV)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    return SiteResult(
        convergence=_worst(convergence),
        sticks=sticks,
        excitation_energy_eV=first_eV,
        ionization_eV=None,
        scale=_scale(hole),
        energies_eV=energies,
        hole_overlap=1.0,  # frozen in the pseudopotential of this very atom
        window_eV=hole.window_eV,
        provenance=provenance,
    )


def _worst(convergence: list[Convergence]) -> Convergence:
    order = (Convergence.UNKNOWN, Convergence.UNCONVERGED)
    return next((c for c in order if c in convergence), Convergence.CONVERGED)


def _scale(hole: Hole) -> str:
    if not hole.electrons:
        return _NO_HOLE
    if hole.is_scale:
        return _SCALE
    what = "half a hole" if hole.electrons < 1 else "a hole"
    return (
        f"{_SCALE}; levels above the first those of {what}, {'neutral' if hole.excited_electron else 'ion'}"
    )


def _energies(
    job: Job, layout: Layout, folder: Path, outcome: Mapping[str, Any], excited: Bands
) -> dict[str, float]:
    """Return the energies the scale is made of, eV: of the cell without a hole and with it, and of the atoms."""
    ground = outcome.get("ground")
    if ground is None:
        raise bad(Cause.BAD_OUTPUT, "there is no energy of the ground state", folder)
    if ground["from"] == GROUND:
        again = _scf(
            folder, lay_out(job.structure, ground_from(job.calculation.parameters["ground"])), outcome, GROUND
        )
        if abs(again.energy_eV / layout.cell.copies - ground["energy_eV"]) > 1e-6:
            raise bad(Cause.BAD_OUTPUT, "the ground state is not the one the run tells of", folder / GROUND)
    hole = hole_from(job.calculation.parameters["hole"])
    element, atoms = job.calculation.element, outcome["atoms_eV"]
    if hole.hole_upf is not None:
        atom_eV = hole.hole_upf.atom_eV
    else:
        without, with_hole = atoms[element], atoms[f"{element}-hole"]
        pairs = [(a["all_electron"], a["pseudo"] if hole.electrons else 0.0) for a in (with_hole, without)]
        atom_eV = core_energy_eV(*pairs)
    energies = {"ground": float(ground["energy_eV"]) * layout.cell.copies, "atom": float(atom_eV)}
    return {**energies, "excited": excited.energy_eV} if hole.electrons else energies


def _sticks(
    poles: list[Poles], frontier_eV: tuple[float, float], first_eV: float, window_eV: float
) -> Sticks:
    """Return the transitions to all levels that are not full, the first of them at ``first_eV``."""
    full_eV, lowest_eV = frontier_eV
    if lowest_eV - full_eV < 2 * _SAME_LEVEL_EV:
        raise OutputError(f"full and empty levels beside the hole are {lowest_eV - full_eV:.3f} eV apart")
    energies, strengths = [np.array([first_eV])], [np.zeros((1, 3))]
    for axis, found in enumerate(poles):
        above = found.energies_eV - lowest_eV
        above = np.where(np.abs(above) < _SAME_LEVEL_EV, 0.0, above)  # that level itself
        felt = found.squares_a02 > _ROUNDING * found.squares_a02.sum()
        kept = felt & (above >= 0.0) & (above <= window_eV)
        between = (above < 0.0) & (found.energies_eV > full_eV + _SAME_LEVEL_EV)
        if found.squares_a02[between].sum() > _NO_LEVEL * found.squares_a02[kept].sum():
            raise OutputError("the recursion found a level where pw.x has none, below the first final state")
        energy = first_eV + above[kept]
        strength = np.zeros((kept.sum(), 3))
        strength[:, axis] = oscillator_strengths(energy, found.squares_a02[kept])
        energies.append(energy)
        strengths.append(strength)
    joined, values = np.concatenate(energies), np.concatenate(strengths)
    order = np.argsort(joined, kind="stable")
    return Sticks(joined[order], values[order])
