"""From a folder CASTEP has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.engines.base import Job
from htxas.engines.castep.bands import Bands, OutputError, read_bands
from htxas.engines.castep.binary import CoreElements, parse_elnes_fmt, read_core_elements, read_projections
from htxas.engines.castep.judge import refuse_other_cell, sound_log
from htxas.engines.castep.log import CastepLog
from htxas.engines.castep.parameters import CastepParameters, State, ground_of, site_of
from htxas.engines.castep.pdos import pdos_of
from htxas.engines.castep.process import state_key
from htxas.engines.castep.pseudopotentials import site_label
from htxas.engines.castep.spectrum import Scale, transition_energy, transitions
from htxas.engines.castep.write import GROUND, SITE, Layout, extra_bands, lay_out
from htxas.engines.external import provenance_of
from htxas.errors import Cause, EngineFailure

__all__ = ["read_ground", "read_site"]

T = TypeVar("T")
_SAME_GROUND_EV = 0.005
_SAME_CELL_A = 1e-4
_SAME_ATOM_EV = 0.005
_SAME_CUTOFF_EV = 1e-3
_COVERED = 0.9  # of the window that was asked for
_SCALE = {
    which: f"pseudo total energies ({energy}, excited electron kept) and isolated all-electron atoms; not aligned"
    for which, energy in (("final", "E"), ("zero_kelvin", "E - TS/2"))
}
_ZERO = "CASTEP's own: the average electrostatic potential of the cell, no vacuum level"


def read_ground(job: Job, directory: Path, outcome: Mapping[str, Any]) -> GroundResult:
    """Return the ground state.

    Raises
    ------
    EngineFailure
        As :func:`htxas.engines.castep.judge.sound_log`; BAD_OUTPUT if the files are cut short or another run's.
    """
    ground = ground_of(job.calculation.parameters)
    layout = lay_out(job.structure, ground, None)
    log = sound_log(directory, GROUND, job.calculation.key, _strings(ground, layout, {}))

    def read() -> GroundResult:
        _refuse_other_settings(log, ground)
        bands = _bands(directory, GROUND, log, layout)
        if round(bands.electrons) % 2:
            raise OutputError(f"there are {bands.electrons:g} electrons, which leaves a shell open")
        indices = refuse_other_cell(log, layout, directory)
        path = _one_of(directory, f"{GROUND}.pdos_bin", f"{GROUND}.pdos_weights")
        pdos, least = pdos_of(bands, read_projections(path), layout.cell, indices)
        energy = log.energy_eV(ground.total_energy)
        if energy is None:
            raise OutputError("the log has no total energy")
        empty = bands.final_states()
        return GroundResult(
            convergence=log.convergence,
            total_energy_eV=energy / layout.cell.copies,
            homo_eV=float(bands.levels_eV[~empty].max()),
            lumo_eV=float(bands.levels_eV[empty].min()),
            dipole_D=None,
            pdos=pdos,
            provenance=_provenance(
                outcome, directory, log, {"bands": bands.levels_eV.shape[1], "least_projection": least}
            ),
            reference=_ZERO,
        )

    return _told(read, directory)


def read_site(job: Job, directory: Path, outcome: Mapping[str, Any]) -> SiteResult:
    """Return the spectrum of a site.

    Raises
    ------
    EngineFailure
        As :func:`read_ground`; GATE_REJECTED if the ground state here is not the stored one, or the levels do not reach
        as far as was asked.
    """
    c = job.calculation
    assert c.atom is not None
    assert c.element is not None
    parameters = site_of(c.parameters)
    ground = parameters.ground
    without = lay_out(job.structure, ground, None)
    layout = lay_out(job.structure, ground, c.atom)
    label = site_label(c.element)
    ground_log = sound_log(directory, GROUND, state_key(job), _strings(ground, without, {}))
    log = sound_log(directory, SITE, c.key, _strings(ground, layout, {label: parameters.absorber}))

    def read() -> SiteResult:
        _refuse_other_settings(ground_log, ground)
        _refuse_other_settings(log, ground)
        _refuse_other_hole(ground_log, log, label)
        scale = transition_energy(
            ground_log, log, ground_label=c.element or "", excited_label=label, which=ground.total_energy
        )
        _refuse_other_ground(job, scale.ground_eV / layout.cell.copies, directory)
        bands = _bands(directory, SITE, log, layout)
        indices = refuse_other_cell(log, layout, directory)
        species, rank = next(place for place, index in indices.items() if index == c.atom)
        elements = _core_elements(directory)
        _refuse_other_atoms(elements, indices)
        squared = elements.squared_1s(species, rank)
        sticks, window = transitions(bands, squared, scale.transition_eV)
        _refuse_narrow(parameters, layout, window, directory)
        extra = {
            "first_band": bands.first_empty + 1,
            "bands": bands.levels_eV.shape[1],
            "gap_below_first_eV": bands.gap_eV,
            "ground": outcome.get("ground"),
            "ground_total_s": ground_log.total_s,
            "hole": log.configurations.get(label),
        }
        return SiteResult(
            convergence=log.convergence,
            sticks=sticks,
            excitation_energy_eV=scale.transition_eV,
            ionization_eV=None,
            scale=_SCALE[ground.total_energy],
            energies_eV=_energies(scale, ground_log, log, c.element or "", label),
            hole_overlap=1.0,  # it is in the pseudopotential of this atom: it cannot leave
            window_eV=window,
            provenance=_provenance(outcome, directory, log, extra),
        )

    return _told(read, directory)


def _told(read: Callable[[], T], directory: Path) -> T:
    try:
        return read()
    except OutputError as error:
        raise EngineFailure(Cause.BAD_OUTPUT, str(error), where=str(directory)) from None


def _strings(ground: State, layout: Layout, absorber: Mapping[str, str]) -> dict[str, str]:
    """Return the pseudopotential string of each species."""
    return {label: absorber.get(label) or ground.string(label) or "" for label in layout.labels}


def _one_of(directory: Path, *names: str) -> Path:
    found = next((directory / n for n in names if (directory / n).is_file()), None)
    if found is None:
        raise OutputError(f"there is no {' or '.join(names)}")
    return found


def _bands(directory: Path, seed: str, log: CastepLog, layout: Layout) -> Bands:
    bands = read_bands(_one_of(directory, f"{seed}.bands").read_text(errors="replace"))
    if np.abs(bands.cell_A - layout.cell.cell_A).max() > _SAME_CELL_A:
        raise OutputError(f"{seed}.bands is of another cell")
    if log.electrons is None or abs(bands.electrons - log.electrons) > 1e-3:
        raise OutputError(f"{seed}.bands has {bands.electrons:g} electrons, the log {log.electrons}")
    return bands


def _core_elements(directory: Path) -> CoreElements:
    path = _one_of(directory, f"{SITE}.elnes_bin", f"{SITE}.eels_mat", f"{SITE}.elnes_fmt")
    if path.suffix == ".elnes_fmt":
        return parse_elnes_fmt(path.read_text(errors="replace"))
    return read_core_elements(path)


def _refuse_other_atoms(elements: CoreElements, indices: Mapping[tuple[int, int], int]) -> None:
    """Refuse matrix elements whose atoms are not counted as the log counts them; hydrogen has no core."""
    there = {(int(s), int(r)) for s, r in zip(elements.species, elements.rank, strict=True)}
    species = {s for s, _ in there}
    if there != {place for place in indices if place[0] in species}:
        raise OutputError("the matrix elements are of other atoms than those of the log")


def _refuse_other_settings(log: CastepLog, ground: State) -> None:
    """Refuse a run that CASTEP says it did with another cutoff, or in a charged cell."""
    if log.cutoff_eV is None or abs(log.cutoff_eV - ground.cutoff_eV) > _SAME_CUTOFF_EV:
        raise OutputError(f"the cutoff was {log.cutoff_eV} eV, not {ground.cutoff_eV:g}")
    if log.charge != 0:
        raise OutputError(f"the cell had the charge {log.charge}")


def _refuse_other_hole(ground: CastepLog, log: CastepLog, label: str) -> None:
    """Refuse a run without the hole, or with another number of electrons than the hole leaves."""
    made_of = log.configurations.get(label, "")
    if made_of.split()[:1] != ["1s1"]:
        raise OutputError(
            f"the pseudopotential of {label} was made of {made_of or 'nothing'}, without a hole in 1s"
        )
    _refuse_other_potentials(ground, log)
    with_hole, without = log.electrons, ground.electrons
    if with_hole is None or without is None or abs(with_hole - without - 1) > 1e-3:
        raise OutputError(
            f"there are {with_hole} electrons with the hole and {without} without: not one more"
        )


def _refuse_narrow(parameters: CastepParameters, layout: Layout, window_eV: float, directory: Path) -> None:
    """Refuse levels that end well below what was asked for, and say how many would do."""
    hole = parameters.hole
    if hole.extra_bands is not None or window_eV >= _COVERED * hole.window_eV:
        return
    asked = extra_bands(layout.cell, hole.window_eV)
    # free electrons' levels grow with the power 3/2 from the bottom of the band, with less from the gap
    enough = math.ceil(asked * (hole.window_eV / max(window_eV, 1.0)) ** 1.5)
    raise EngineFailure(
        Cause.GATE_REJECTED,
        f"{asked} empty bands reach {window_eV:.1f} eV above the first final state; window_eV is {hole.window_eV:g}",
        evidence={"window_eV": window_eV, "extra_bands": asked},
        where=str(directory),
        hint=f"say extra_bands: {enough}",
    )


def _refuse_other_potentials(ground: CastepLog, log: CastepLog) -> None:
    """Refuse total energies that rest on different pseudopotentials: of libraries or versions that are not the same."""
    for label in ground.pseudopotentials.keys() & log.pseudopotentials.keys():
        if ground.pseudopotentials[label] != log.pseudopotentials[label]:
            raise OutputError(f"the pseudopotential of {label} is another one with the hole than without")
        for energies in ((ground.all_electron_eV, log.all_electron_eV), (ground.pseudo_eV, log.pseudo_eV)):
            without, with_hole = (e.get(label) for e in energies)
            if without is not None and with_hole is not None and abs(without - with_hole) > _SAME_ATOM_EV:
                raise OutputError(
                    f"the isolated atom {label} has {with_hole} eV with the hole and {without} eV without: were they "
                    "the same CASTEP?"
                )


def _refuse_other_ground(job: Job, found_eV: float, directory: Path) -> None:
    stored = job.ground_energy_eV
    if stored is not None and abs(found_eV - stored) > _SAME_GROUND_EV:
        raise EngineFailure(
            Cause.GATE_REJECTED,
            f"the ground state here is {(found_eV - stored) * 1000:+.1f} meV from the stored one: "
            "they are not the same state",
            evidence={"ground_eV": found_eV, "stored_eV": stored},
            where=str(directory),
        )


def _energies(scale: Scale, ground: CastepLog, log: CastepLog, element: str, label: str) -> dict[str, float]:
    return {
        "ground": scale.ground_eV,
        "excited": scale.excited_eV,
        "atom_all_electron": ground.all_electron_eV[element],
        "atom_pseudo": ground.pseudo_eV[element],
        "hole_atom_all_electron": log.all_electron_eV[label],
        "hole_atom_pseudo": log.pseudo_eV[label],
        "core": scale.core_eV,
    }


def _provenance(
    outcome: Mapping[str, Any], directory: Path, log: CastepLog, extra: Mapping[str, Any]
) -> Provenance:
    version = log.version or "unknown"
    return provenance_of(
        outcome,
        directory,
        version=version,
        libraries={"castep": version},
        extra={
            "program": outcome["program"],
            "steps_s": outcome["steps_s"],
            "castep_s": log.total_s,
            "peak_MB": log.peak_MB,
            "scf_cycles": log.cycles,
            "pseudopotentials": dict(log.pseudopotentials),
            "energies_eV": {"final": log.final_eV, "free": log.free_eV, "zero_kelvin": log.zero_kelvin_eV},
            **{k: v for k, v in extra.items() if v is not None},
        },
    )
