"""From a directory Elk has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.dos import Pdos
from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.domain.spectrum import Sticks
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.elk.judge import bad, judge_scf, judge_step
from htxas.engines.elk.levels import Levels, read_characters, read_core_level_Ha, read_equivalent, read_levels
from htxas.engines.elk.output import OutputError, Scf
from htxas.engines.elk.parameters import ground_from, hole_from
from htxas.engines.elk.process import BANDS, SPECTRUM, TRANSITIONS
from htxas.engines.elk.species import Role
from htxas.engines.elk.transitions import (
    check_potential,
    filling_Ha,
    final_states,
    lowest_Ha,
    read_rotations,
    read_transitions,
)
from htxas.engines.elk.write import Layout, lay_out, wanted_levels
from htxas.errors import Cause

__all__ = ["ground_result", "site_result"]

FloatArray = npt.NDArray[np.float64]
_REFERENCE = "Coulomb potential of Elk's smooth charge, whose average over the cell is zero"
_SCALE = {
    1: "all-electron total energies; spin-unpolarised hole, excited electron kept",
    0: "no hole: differences of Kohn-Sham levels, some 5 % low",
}
_SAME_BANDS_HA = 2e-5  # in the same potential with the same basis
_CORE_ELECTRONS = 2  # in the 1s shell before the excitation: both count, see htxas.domain.spectrum


def ground_result(job: Job, folder: Path, provenance: Provenance) -> GroundResult:
    """Return a ground state.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, BAD_INPUT, OUT_OF_MEMORY or BAD_OUTPUT.
    """
    ground = ground_from(job.calculation.parameters)
    layout = lay_out(job.structure, ground, None)
    scf = judge_scf(folder, layout)
    judge_step(folder / BANDS, 0)
    try:
        levels = read_levels(folder)
        kinds = [len(k.atoms) for k in layout.kinds]
        relative, charges = read_characters(folder / BANDS, kinds, len(levels.weights))
        groups = read_equivalent(folder, kinds)
        expected = layout.occupied + wanted_levels(layout, ground.pdos_window_eV) + 1
        if relative.shape[1] != expected:
            raise OutputError(f"there are {relative.shape[1]} levels in the spheres instead of {expected}")
        energies = _absolute(relative, levels)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    homo, lumo = energies[:, layout.occupied - 1].max(), energies[:, layout.occupied].min()
    return GroundResult(
        convergence=scf.convergence,
        total_energy_eV=scf.energy_Ha * HARTREE_EV,
        homo_eV=float(homo) * HARTREE_EV,
        lumo_eV=float(lumo) * HARTREE_EV,
        dipole_D=None,
        pdos=_pdos(energies, charges, groups, levels, layout),
        provenance=provenance,
        reference=_REFERENCE,
    )


def _absolute(relative: FloatArray, levels: Levels) -> FloatArray:
    """Return the levels of task 21 on the scale of self-consistency; they must be the same levels."""
    common = min(relative.shape[1], levels.energies_Ha.shape[1])
    shift = levels.energies_Ha[:, :common] - relative[:, :common]
    if np.ptp(shift) > _SAME_BANDS_HA:
        raise OutputError("the levels in the spheres are not those of self-consistency")
    return relative + float(shift.mean())


def _pdos(
    energies_Ha: FloatArray,
    charges: FloatArray,
    groups: list[list[int]],
    levels: Levels,
    layout: Layout,
) -> Pdos:
    points, count = energies_Ha.shape
    weights = np.zeros((points, count, len(layout.cell), 3))
    # A k point stands for its star: there equivalent atoms change places.
    shared = np.stack([charges[:, :, group].mean(axis=2) for group in groups], axis=2)
    for position, atom in enumerate(layout.order):
        weights[:, :, atom] = shared[:, :, position, :3]
    occupations = np.zeros((points, count))
    occupations[:, : layout.occupied] = 2.0
    energies = energies_Ha.ravel() * HARTREE_EV
    order = np.argsort(energies, kind="stable")
    share = np.repeat(levels.weights, count)
    return Pdos(
        energies[order],
        occupations.ravel()[order],
        weights.reshape(points * count, len(layout.cell), 3)[order],
        share[order],
        complete=False,
        complete_to_eV=float(energies_Ha.max(axis=1).min()) * HARTREE_EV,
        spheres=True,
    )


def site_result(job: Job, folder: Path, outcome: Mapping[str, Any], provenance: Provenance) -> SiteResult:
    """Return the spectrum of a site.

    With the hole, the excitation energy is the difference of total energies, as published: the first final state is put
    there (Mizoguchi, Tanaka, Gao and Pickard, J. Phys.: Condens. Matter 21, 104204 (2009), without their corrections
    for pseudopotentials). In a cell with several k points the excited electron fills the bottom of a band instead of
    one level; how far above the lowest it is on average is told in the provenance. Moving it there by its levels was
    tried: O K of MgO in 8 and 16 atoms then differs by 0.5 eV instead of 0.1 eV.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, BAD_INPUT, OUT_OF_MEMORY or BAD_OUTPUT.
    """
    parameters = job.calculation.parameters
    ground, hole = ground_from(parameters["ground"]), hole_from(parameters["hole"])
    role = Role.HOLE if hole.electrons else Role.PLAIN
    layout = lay_out(job.structure, ground, job.calculation.atom, role=role)
    scf = judge_scf(folder, layout)
    if "extraction" in outcome:
        raise bad(Cause.BAD_OUTPUT, str(outcome["extraction"]), folder / SPECTRUM)
    judge_step(folder / SPECTRUM, 1)
    try:
        core_Ha = read_core_level_Ha(folder)
        levels, all_levels = read_levels(folder), read_levels(folder / SPECTRUM)
        momenta, core = read_transitions(folder / TRANSITIONS, job.calculation.key, all_levels)
        check_potential(levels, all_levels, core, core_Ha, layout.occupied)
        if hole.electrons:
            filling_eV = filling_Ha(levels, layout.occupied) * HARTREE_EV
            provenance.extra["electron_above_lowest_eV"] = round(filling_eV, 4)
        rotations = read_rotations(folder / SPECTRUM, layout.cell.cell_A)
        energies = _energies(scf, outcome, layout, electrons=hole.electrons)
        above, squares, reach_eV = final_states(all_levels, momenta, core, rotations, layout.occupied)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    if hole.electrons:
        first_eV = energies["excited"] - energies["ground"]
    else:
        first_eV = float(lowest_Ha(all_levels, layout.occupied + 1) - core_Ha) * HARTREE_EV
    window_eV = min(hole.window_eV, reach_eV)
    kept = above <= window_eV
    energy = first_eV + above[kept]
    strengths = 2 * _CORE_ELECTRONS * energy[:, None] / HARTREE_EV * squares[kept]
    return SiteResult(
        convergence=scf.convergence,
        sticks=Sticks(energy, strengths),
        excitation_energy_eV=first_eV,
        ionization_eV=None,
        scale=_SCALE[hole.electrons],
        energies_eV=energies,
        hole_overlap=1.0,  # it is in the core of this very atom, by its species file
        window_eV=window_eV,
        provenance=provenance,
    )


def _energies(scf: Scf, outcome: Mapping[str, Any], layout: Layout, *, electrons: int) -> dict[str, float]:
    """Return the total energies of the supercell, eV."""
    own = scf.energy_Ha * HARTREE_EV
    if not electrons:
        return {"ground": own}
    ground = outcome.get("ground")
    if ground is None:
        raise OutputError("there is no energy of the ground state")
    of_cell = layout.copies * float(ground["energy_eV"])
    return {"ground": of_cell, "excited": own}
