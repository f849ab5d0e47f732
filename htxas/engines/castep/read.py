"""From a folder CASTEP has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.engines.base import Job
from htxas.engines.castep.agreement import (
    refuse_narrow,
    refuse_other_atoms,
    refuse_other_ground,
    refuse_other_hole,
    refuse_other_settings,
)
from htxas.engines.castep.bands import Bands, OutputError, read_bands
from htxas.engines.castep.binary import CoreElements, parse_elnes_fmt, read_core_elements, read_projections
from htxas.engines.castep.judge import refuse_other_cell, sound_log
from htxas.engines.castep.log import CastepLog
from htxas.engines.castep.parameters import State, ground_of, site_of
from htxas.engines.castep.pdos import pdos_of
from htxas.engines.castep.process import state_key
from htxas.engines.castep.pseudopotentials import site_label
from htxas.engines.castep.spectrum import Scale, transition_energy, transitions
from htxas.engines.castep.write import GROUND, SITE, Layout, lay_out
from htxas.engines.external import provenance_of
from htxas.errors import Cause, EngineFailure

__all__ = ["read_ground", "read_site"]

T = TypeVar("T")
_SAME_CELL_A = 1e-4
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
        refuse_other_settings(log, ground)
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
        refuse_other_settings(ground_log, ground)
        refuse_other_settings(log, ground)
        refuse_other_hole(ground_log, log, label)
        scale = transition_energy(
            ground_log, log, ground_label=c.element or "", excited_label=label, which=ground.total_energy
        )
        refuse_other_ground(job, scale.ground_eV / layout.cell.copies, directory)
        bands = _bands(directory, SITE, log, layout)
        indices = refuse_other_cell(log, layout, directory)
        species, rank = next(place for place, index in indices.items() if index == c.atom)
        elements = _core_elements(directory)
        refuse_other_atoms(elements, indices)
        squared = elements.squared_1s(species, rank)
        sticks, window = transitions(bands, squared, scale.transition_eV)
        refuse_narrow(parameters, layout, window, directory)
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
