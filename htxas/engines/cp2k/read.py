"""From a folder CP2K has run in to a result, or to the one cause why there is none.

Absolute energies: ``E_f = [E(ion) - E(ground)] + eps_f`` with the levels of the transition potential, counted from
vacuum; nothing in the box is periodic. Strengths: ``f_a = 2 * 2 * E_f |<f|r_a|1s>|^2`` in atomic units. The method is
Slater's transition state as M. Iannuzzi and J. Hutter put it into CP2K, Phys. Chem. Chem. Phys. 9, 1599 (2007).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from htxas.domain.calculation import Calculation, Convergence
from htxas.domain.dos import Pdos
from htxas.domain.edges import BINDING_EV
from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.domain.spectrum import Sticks
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.cp2k.log import Cp2kLog, read_log
from htxas.engines.cp2k.parameters import hole_of
from htxas.engines.cp2k.tables import PdosTable, TableError, read_pdos, read_spectrum
from htxas.engines.cp2k.write import ABSORBER, Step, project, steps_of
from htxas.engines.external import exhausted, log_tail
from htxas.engines.transitions import oscillator_strengths
from htxas.errors import Cause, EngineFailure

__all__ = ["Finished", "ground_result", "read_steps", "site_result", "unfinished"]

_SAME_GROUND_HA = 1e-4  # one state, converged twice to 1e-5 in the density
_BETTER_BASIS_EV = (-2.0, 0.05)  # the absorber's own basis lowers the stored ground state, by 0.1 eV for CH4
_LOST_ELECTRONS = 5e-3
_SAME_LEVEL_HA = 2e-6  # six digits are written
_LEAST_BINDING = 0.9  # of the tabulated 1s; CP2K's levels with half a hole lie some 2 % above the table's
_OCCUPIED = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A step that ended as it should.

    Attributes
    ----------
    step
        Which.
    log
        What CP2K says.
    convergence
        Of all its self-consistencies.
    """

    step: Step
    log: Cp2kLog
    convergence: Convergence


def read_steps(job: Job, directory: Path) -> dict[str, Finished]:
    """Return the steps of a run by name.

    Raises
    ------
    EngineFailure
        The first thing that went wrong: WALLTIME (CP2K's own clock), SCF_UNCONVERGED, BAD_INPUT (it gave up before any
        self-consistency), ENGINE_CRASH (later, or cut short), BAD_OUTPUT (of another run), GATE_REJECTED (the grids do
        not hold the electrons).
    """
    done = {}
    for step in steps_of(job.calculation):
        text = _text(directory, step)
        log = read_log(text)
        failure = _failure(job.calculation, step, log, text, directory)
        if failure is not None:
            raise failure
        wanted = sum(job.structure.atomic_numbers) - step.charge
        if log.electrons and abs(log.electrons[-1] - wanted) > _LOST_ELECTRONS:
            raise EngineFailure(
                Cause.GATE_REJECTED,
                f"{step.name}: the grids hold {log.electrons[-1]:.4f} electrons, not {wanted:g}",
                evidence={"electrons": log.electrons[-1]},
                where=str(directory),
                hint="a larger box or cutoff_Ry",
            )
        done[step.name] = Finished(step, log, log.convergence(1 if step.method is None else 2))
    return done


def unfinished(job: Job, directory: Path) -> EngineFailure:
    """Return the failure of a run whose process is gone: where CP2K stood."""
    where, text = "before its first step", ""
    for step in steps_of(job.calculation):
        if not (directory / f"{step.name}.out").is_file():
            break
        text = _text(directory, step)
        log = read_log(text)
        if log.out_of_time or log.unconverged or log.abort is not None:
            failure = _failure(job.calculation, step, log, text, directory)
            assert failure is not None
            return failure
        cycle = "" if log.last_cycle is None else f", iteration {log.last_cycle}"
        where = f"after {step.name}" if log.ended else f"in {step.name}{cycle}"
    return _bad(Cause.ENGINE_CRASH, f"CP2K's process ended {where}, without a word", directory, text)


def ground_result(
    job: Job, directory: Path, done: Mapping[str, Finished], provenance: Provenance
) -> GroundResult:
    """Return a ground state.

    Raises
    ------
    EngineFailure
        BAD_OUTPUT: the projected densities of states or the dipole moment are missing or cut short.
    """
    ground = done["ground"]
    name = project(ground.step, job.calculation)
    tables = [_pdos(directory, f"{name}-list{i}-1.pdos", of=str(i)) for i in range(1, len(job.structure) + 1)]
    first = tables[0]
    for table in tables:
        same = len(table.levels_Ha) == len(first.levels_Ha) and np.array_equal(
            table.levels_Ha, first.levels_Ha
        )
        if not same:
            raise _bad(Cause.BAD_OUTPUT, f"the PDOS of atom {table.of} has other levels", directory)
    filled = first.occupations > _OCCUPIED
    if ground.log.dipole_D is None or not filled.any() or filled.all() or not ground.log.energies_Ha:
        raise _bad(Cause.BAD_OUTPUT, "there is no dipole moment, energy, or frontier level", directory)
    levels_eV = first.levels_Ha * HARTREE_EV
    return GroundResult(
        convergence=ground.convergence,
        total_energy_eV=ground.log.energies_Ha[-1] * HARTREE_EV,
        homo_eV=float(levels_eV[filled].max()),
        lumo_eV=float(levels_eV[~filled].min()),
        dipole_D=np.array(ground.log.dipole_D),
        pdos=Pdos(levels_eV, first.occupations, np.stack([t.weights for t in tables], axis=1)),
        provenance=provenance,
    )


def site_result(
    job: Job, directory: Path, done: Mapping[str, Finished], provenance: Provenance
) -> SiteResult:
    """Return the spectrum of a site.

    Raises
    ------
    EngineFailure
        HOLE_LEFT_SITE: what is empty is no 1s; GATE_REJECTED: the ground state is not the same in all steps, or not the
        stored one's; BAD_OUTPUT: a table is missing, cut short, or another's.
    """
    ground_Ha = _ground(job, directory, done)
    calculation = job.calculation
    hole = hole_of(calculation.parameters)
    shares = {n: _share(calculation, f, directory) for n, f in done.items() if f.step.method is not None}
    half = done["half"]
    assert half.log.core_Ha is not None
    name = f"{project(half.step, calculation)}-xas_at{(calculation.atom or 0) + 1}_st1.spectrum"
    try:
        table = read_spectrum((directory / name).read_text(errors="replace"))
    except FileNotFoundError:
        raise _bad(Cause.BAD_OUTPUT, f"there is no {name}", directory) from None
    except TableError as error:
        raise _bad(Cause.BAD_OUTPUT, f"{name}: {error}", directory) from None
    if table.atom != calculation.atom:
        raise _bad(Cause.BAD_OUTPUT, f"{name} is of atom {table.atom}", directory)
    if table.first != sum(job.structure.atomic_numbers) // 2:
        raise _bad(
            Cause.BAD_OUTPUT, f"{name} begins with level {table.first}, not with the lowest empty", directory
        )
    energies_Ha = {"ground": ground_Ha}
    energies_Ha |= {n: done[n].log.energies_Ha[-1] for n in ("ion", "neutral") if n in done}
    ionization_Ha = energies_Ha["ion"] - ground_Ha
    levels_Ha = half.log.core_Ha + table.distances_eV / HARTREE_EV
    order = np.argsort(levels_Ha, kind="stable")
    levels_Ha, dipoles = levels_Ha[order], table.dipoles_a0[order]
    shift_Ha = ionization_Ha
    scale = "Delta-SCF ion + transition potential; not relativistic"
    if hole.scale == "neutral":
        shift_Ha = energies_Ha["neutral"] - ground_Ha - levels_Ha[0]
        scale = "Delta-SCF core-excited neutral (E_ex - E_gs, mixed spins); not relativistic"
    absolute_Ha = shift_Ha + levels_Ha
    reach_eV = float(absolute_Ha[-1] - absolute_Ha[0]) * HARTREE_EV
    window_eV = min(hole.window_eV, reach_eV)
    kept = (absolute_Ha - absolute_Ha[0]) * HARTREE_EV <= window_eV
    energies_eV = absolute_Ha[kept] * HARTREE_EV
    sticks = Sticks(energies_eV, oscillator_strengths(energies_eV, dipoles[kept] ** 2))
    provenance.extra["hole_share"] = shares
    return SiteResult(
        convergence=_worst(done),
        sticks=sticks,
        excitation_energy_eV=float(sticks.energies_eV[0]),
        ionization_eV=ionization_Ha * HARTREE_EV,
        scale=scale,
        energies_eV={n: e * HARTREE_EV for n, e in energies_Ha.items()},
        hole_overlap=min(shares.values()),
        window_eV=window_eV,
        provenance=provenance,
    )


def _ground(job: Job, directory: Path, done: Mapping[str, Finished]) -> float:
    """Return the ground state's energy in the site's basis, Hartree: the same in all steps, and the stored state's."""
    energies = {n: f.log.energies_Ha[0] for n, f in done.items() if f.log.energies_Ha}
    if len(energies) < len(done) or any(
        len(f.log.energies_Ha) != (1 if f.step.method is None else 2) for f in done.values()
    ):
        raise _bad(Cause.BAD_OUTPUT, "a step does not tell all its total energies", directory)
    base = energies["base"]
    if max(abs(e - base) for e in energies.values()) > _SAME_GROUND_HA:
        raise EngineFailure(
            Cause.GATE_REJECTED,
            "the ground state is not the same in all steps",
            evidence={"ground_Ha": energies},
            where=str(directory),
        )
    if job.ground_energy_eV is not None:
        lowered = base * HARTREE_EV - job.ground_energy_eV
        if not _BETTER_BASIS_EV[0] <= lowered <= _BETTER_BASIS_EV[1]:
            raise EngineFailure(
                Cause.GATE_REJECTED,
                f"the ground state in the site's basis is {lowered:+.3f} eV from the stored one: not the same state",
                evidence={"ground_eV": base * HARTREE_EV, "stored_eV": job.ground_energy_eV},
                where=str(directory),
            )
    return base


def _share(calculation: Calculation, finished: Finished, directory: Path) -> float:
    """Return how much of the hole is in s functions of its site (Loewdin), by the level CP2K says it is."""
    step, core_Ha = finished.step, finished.log.core_Ha
    atom, element = calculation.atom, calculation.element
    assert atom is not None
    assert element is not None
    pattern = f"{project(step, calculation)}-xasat{atom + 1}_ALPHA_k*-1.pdos"
    tables = [_pdos(directory, p.name) for p in sorted(directory.glob(pattern))]
    table = next((t for t in tables if t.of == ABSORBER), None)
    if table is None or core_Ha is None:
        raise _bad(Cause.BAD_OUTPUT, f"{step.name}: there is no PDOS of the absorber, or no hole", directory)
    level = int(np.abs(table.levels_Ha - core_Ha).argmin())
    there = abs(table.levels_Ha[level] - core_Ha) < _SAME_LEVEL_HA
    if not there or abs(table.occupations[level] - step.occupation) > _OCCUPIED:
        raise _bad(Cause.BAD_OUTPUT, f"{step.name}: the hole is not among the levels of the PDOS", directory)
    binding = BINDING_EV[element, "K"]
    if -core_Ha * HARTREE_EV < _LEAST_BINDING * binding:
        raise EngineFailure(
            Cause.HOLE_LEFT_SITE,
            f"{step.name}: the hole's level is {core_Ha * HARTREE_EV:.1f} eV, no 1s of {element}",
            evidence={"level_eV": core_Ha * HARTREE_EV},
            where=str(directory),
        )
    return float(table.weights[level, 0])


def _worst(done: Mapping[str, Finished]) -> Convergence:
    found = {f.convergence for f in done.values()}
    for convergence in (Convergence.UNCONVERGED, Convergence.UNKNOWN):
        if convergence in found:
            return convergence
    return Convergence.CONVERGED


def _failure(
    calculation: Calculation, step: Step, log: Cp2kLog, text: str, directory: Path
) -> EngineFailure | None:
    name = step.name
    if log.project and log.project != project(step, calculation):
        return _bad(Cause.BAD_OUTPUT, f"{name}.out is of the run {log.project}", directory)
    if log.out_of_time:
        return _bad(Cause.WALLTIME, f"{name}: CP2K stopped at its time limit", directory, text)
    if log.unconverged:
        what = "the hole" if log.cycles or log.core_Ha is not None else "the ground state"
        return _bad(Cause.SCF_UNCONVERGED, f"{name}: {what} did not converge", directory, text)
    cause = None if log.ended else exhausted(text)
    if cause is not None:
        what = "the disk is full" if cause is Cause.DISK_FULL else "it got no memory"
        return _bad(cause, f"{name}: CP2K ended: {what}", directory, text)
    if log.abort is not None:
        cause = Cause.ENGINE_CRASH if log.begun else Cause.BAD_INPUT
        verb = "gave up" if log.begun else "refuses the input"
        return _bad(cause, f"{name}: CP2K {verb}: {log.abort}", directory, text)
    if not log.ended:
        cycle = "" if log.last_cycle is None else f", iteration {log.last_cycle}"
        return _bad(Cause.ENGINE_CRASH, f"CP2K ended in {name}{cycle}, before its end", directory, text)
    if log.project != project(step, calculation):
        return _bad(Cause.BAD_OUTPUT, f"{name}.out does not say which run it is of", directory)
    return None


def _text(directory: Path, step: Step) -> str:
    path = directory / f"{step.name}.out"
    return path.read_text(errors="replace") if path.is_file() else ""


def _pdos(directory: Path, name: str, *, of: str | None = None) -> PdosTable:
    try:
        table = read_pdos((directory / name).read_text(errors="replace"))
    except FileNotFoundError:
        raise _bad(Cause.BAD_OUTPUT, f"there is no {name}", directory) from None
    except TableError as error:
        raise _bad(Cause.BAD_OUTPUT, f"{name}: {error}", directory) from None
    if of is not None and table.of != of:
        raise _bad(Cause.BAD_OUTPUT, f"{name} is of list {table.of}", directory)
    return table


def _bad(cause: Cause, message: str, directory: Path, text: str = "") -> EngineFailure:
    return EngineFailure(cause, message, evidence={"log_tail": log_tail(text)}, where=str(directory))
