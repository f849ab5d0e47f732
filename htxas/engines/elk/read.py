"""From a directory Elk has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence
from htxas.domain.dos import Pdos
from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.domain.spectrum import Sticks
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.elk.output import (
    Levels,
    OutputError,
    Scf,
    read_characters,
    read_core_level_Ha,
    read_equivalent,
    read_levels,
    read_rotations,
    read_scf,
    refusal,
    trouble,
)
from htxas.engines.elk.parameters import ground_from, hole_from
from htxas.engines.elk.process import BANDS, LOG, SPECTRUM, TRANSITIONS
from htxas.engines.elk.species import Role
from htxas.engines.elk.write import Layout, lay_out, wanted_levels
from htxas.engines.external import log_tail
from htxas.errors import Cause, EngineFailure

__all__ = ["bad", "ground_result", "site_result"]

FloatArray = npt.NDArray[np.float64]
_REFERENCE = "Coulomb potential of Elk's smooth charge, whose average over the cell is zero"
_SCALE = {
    1: "all-electron total energies; spin-unpolarised hole, excited electron kept, in the lowest empty level",
    0: "no hole: differences of Kohn-Sham levels, some 5 % low",
}
_ENOUGH_CHARGE = (
    1e-3  # of all electrons that the density may lack before Elk normalises it; it warns at the same
)
_SAME_BANDS_HA = 2e-5  # in the same potential with the same basis
_SAME_LEVEL_HA = 1e-3  # by self-consistency and beside a 1s orbital, which moves 2s levels by up to 3e-4
_SAME_CORE = 5e-4  # of the 1s level: by the Dirac equation and by a local orbital; 1e-4 in MgO's oxygen
_FULL = 0.02  # electrons that may lack in the levels below the excited electron's
_CORE_ELECTRONS = 2  # in the 1s shell before the excitation: both count, see htxas.domain.spectrum
_INPUT_ROUTINES = frozenset(
    "readinput readspecies init0 init1 checkmt findsymlat findsymcrys reciplat getxcdata xcifc genppts".split()
)


def bad(cause: Cause, message: str, folder: Path, **evidence: Any) -> EngineFailure:
    """Return a failure with the end of the log, or of ``INFO.OUT`` if that says nothing."""
    tail: list[str] = []
    for name in (LOG, "INFO.OUT"):
        path = folder / name
        tail = tail or (log_tail(path.read_text(errors="replace")) if path.is_file() else [])
    return EngineFailure(cause, message, evidence={"log_tail": tail, **evidence}, where=str(folder))


def _judge(folder: Path) -> str:
    """Return what Elk printed in a folder, unless it says of an error."""
    path = folder / LOG
    output = path.read_text(errors="replace") if path.is_file() else ""
    said = refusal(output)
    if said is not None:
        routine, words = said
        if "Error allocating" in words or "memory" in words.lower():
            raise bad(Cause.OUT_OF_MEMORY, f"Elk stopped: {words}", folder)
        if routine in _INPUT_ROUTINES:
            raise bad(Cause.BAD_INPUT, f"Elk refuses the input: {routine}: {words}", folder)
        raise bad(Cause.ENGINE_CRASH, f"Elk stopped: {routine}: {words}".replace(": :", ":"), folder)
    if "Elk code stopped" not in output:
        raise bad(Cause.ENGINE_CRASH, "Elk ended before its end", folder)
    return output


def _scf(folder: Path, layout: Layout) -> Scf:
    """Return the self-consistent state, or say why there is none."""
    output = _judge(folder)
    try:
        scf = read_scf(folder)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    if scf.convergence is Convergence.UNCONVERGED:
        raise bad(
            Cause.SCF_UNCONVERGED, f"self-consistency did not converge in {scf.loops} iterations", folder
        )
    told = (-scf.nuclear_charge, scf.core_charge, scf.core_charge + scf.valence_charge, scf.atoms)
    ours = (layout.electrons, layout.core_electrons, layout.electrons, len(layout.cell))
    if not np.allclose(told, ours, atol=1e-4):
        raise bad(
            Cause.BAD_OUTPUT,
            "Elk had {:g} protons, {:g} core electrons, {:g} electrons and {:g} atoms, ".format(*told)
            + "the calculation has {:g}, {:g}, {:g} and {:g}".format(*ours),
            folder,
        )
    if scf.charge_error > _ENOUGH_CHARGE:
        raise bad(
            Cause.BAD_OUTPUT,
            f"{scf.charge_error:.1%} of the electrons are in no sphere and not between: the basis is too small",
            folder,
        )
    _obeyed(output, scf.loops, folder)
    return scf


def _obeyed(output: str, loops: int, folder: Path) -> None:
    said = trouble(output, loops)
    if said is not None:
        raise bad(Cause.BAD_OUTPUT, f"Elk did not do as it was told: {said}", folder)


def ground_result(job: Job, folder: Path, provenance: Provenance) -> GroundResult:
    """Return a ground state.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, BAD_INPUT, OUT_OF_MEMORY or BAD_OUTPUT.
    """
    ground = ground_from(job.calculation.parameters)
    layout = lay_out(job.structure, ground, None)
    scf = _scf(folder, layout)
    _obeyed(_judge(folder / BANDS), 0, folder / BANDS)
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
        spheres=True,
    )


def site_result(job: Job, folder: Path, outcome: Mapping[str, Any], provenance: Provenance) -> SiteResult:
    """Return the spectrum of a site.

    With the hole, the excitation energy is the difference of total energies, the excited electron moved to the lowest
    level by the theorem of Janak, Phys. Rev. B 18, 7165 (1978): in a cell with several k points it fills the bottom of
    a band, in the crystal one level of it.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, BAD_INPUT, OUT_OF_MEMORY or BAD_OUTPUT.
    """
    parameters = job.calculation.parameters
    ground, hole = ground_from(parameters["ground"]), hole_from(parameters["hole"])
    role = Role.HOLE if hole.electrons else Role.PLAIN
    layout = lay_out(job.structure, ground, job.calculation.atom, role=role)
    scf = _scf(folder, layout)
    if "extraction" in outcome:
        raise bad(Cause.BAD_OUTPUT, str(outcome["extraction"]), folder / SPECTRUM)
    _obeyed(_judge(folder / SPECTRUM), 1, folder / SPECTRUM)
    try:
        core_Ha = read_core_level_Ha(folder)
        levels, all_levels = read_levels(folder), read_levels(folder / SPECTRUM)
        momenta, core = _transitions(folder / TRANSITIONS, job.calculation.key, all_levels)
        _same_potential(levels, all_levels, core, core_Ha)
        filling_Ha = _filling_Ha(levels, layout.occupied) if hole.electrons else 0.0
        rotations = read_rotations(folder / SPECTRUM, layout.cell.cell_A)
        energies = _energies(scf, outcome, layout, filling_Ha * HARTREE_EV, electrons=hole.electrons)
        above, squares, reach_eV = _final_states(all_levels, momenta, core, rotations, layout.occupied)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    if hole.electrons:
        first_eV = energies["excited"] - energies["ground"] - energies["filling"]
    else:
        first_eV = float(_lowest(all_levels, layout.occupied + 1) - core_Ha) * HARTREE_EV
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


def _transitions(
    path: Path, key: str, levels: Levels
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.int_]]:
    """Return ``<f|p|1s>`` (k, levels, 3) and the index of 1s at each k point."""
    try:
        document = json.loads(path.read_text())
        if document["key"] != key:
            raise OutputError(f"{path.name} belongs to calculation {document['key']}")
        momenta = np.array(document["real"]) + 1j * np.array(document["imaginary"])
        core, points = np.array(document["core"]), np.array(document["points"])
    except FileNotFoundError:
        raise OutputError(f"there is no {path.name}") from None
    except (KeyError, TypeError) as error:
        raise OutputError(f"{path.name} lacks something: {error}") from None
    except ValueError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path.name} cannot be read: {error}") from None
    if momenta.shape != (*levels.energies_Ha.shape, 3) or not np.allclose(points, levels.points, atol=1e-8):
        raise OutputError(f"{path.name} has other levels or k points than EIGVAL.OUT")
    return momenta, core


def _same_potential(levels: Levels, all_levels: Levels, core: npt.NDArray[np.int_], core_Ha: float) -> None:
    """Refuse levels for the spectrum that are not those of self-consistency, with 1s beside them."""
    if not np.allclose(levels.points, all_levels.points, atol=1e-8):
        raise OutputError("the spectrum has other k points than self-consistency")
    points = np.arange(len(core))
    found = all_levels.energies_Ha[points, core]
    if np.abs(found - core_Ha).max() > _SAME_CORE * abs(core_Ha):
        raise OutputError(
            f"the 1s level is at {found[0]:.4f} Ha in the spectrum, at {core_Ha:.4f} Ha in the core"
        )
    others = np.array([np.delete(e, c) for e, c in zip(all_levels.energies_Ha, core, strict=True)])
    common = min(others.shape[1], levels.energies_Ha.shape[1])
    worst = float(np.abs(others[:, :common] - levels.energies_Ha[:, :common]).max())
    if worst > _SAME_LEVEL_HA:
        raise OutputError(f"levels in the spectrum are {worst:.1e} Ha off those of self-consistency")


def _lowest(levels: Levels, first: int) -> float:
    return float(levels.energies_Ha[:, first].min())


def _filling_Ha(levels: Levels, occupied: int) -> float:
    """Return how far above the lowest of its levels the excited electron is on average."""
    below, above = levels.occupations[:, :occupied], levels.occupations[:, occupied:]
    lacking = float(levels.weights @ (2.0 - below).sum(axis=1))
    if lacking > _FULL:
        raise OutputError(f"{lacking:.2f} electrons lack in the levels below the excited electron's: a metal")
    electrons = levels.weights[:, None] * above
    mean = float((electrons * levels.energies_Ha[:, occupied:]).sum() / electrons.sum())
    return mean - _lowest(levels, occupied)


def _energies(
    scf: Scf, outcome: Mapping[str, Any], layout: Layout, filling_eV: float, *, electrons: int
) -> dict[str, float]:
    """Return the total energies of the supercell, eV, and how high above its lowest level the electron is."""
    own = scf.energy_Ha * HARTREE_EV
    if not electrons:
        return {"ground": own}
    ground = outcome.get("ground")
    if ground is None:
        raise OutputError("there is no energy of the ground state")
    of_cell = layout.copies * float(ground["energy_eV"])
    return {"ground": of_cell, "excited": own, "filling": filling_eV}


def _final_states(
    levels: Levels,
    momenta: npt.NDArray[np.complex128],
    core: npt.NDArray[np.int_],
    rotations: FloatArray,
    occupied: int,
) -> tuple[FloatArray, FloatArray, float]:
    """Return energies above the first final state (eV), squared dipole elements (bohr^2) and how far they are complete.

    In a local potential ``<f|r|i> = -i <f|p|i> / (E_f - E_i)`` with Kohn-Sham energies, atomic units. A k point stands
    for its star: the tensor of each level is averaged over the crystal's rotations.
    """
    first = occupied + 1  # 1s is one of the levels here, below them
    energies = levels.energies_Ha[:, first:]
    own = levels.energies_Ha[np.arange(len(core)), core]
    dipoles = momenta[:, first:] / (energies - own[:, None])[..., None]
    tensors = (
        np.real(dipoles[..., :, None].conj() * dipoles[..., None, :]) * levels.weights[:, None, None, None]
    )
    squares = np.einsum("rai,knij,raj->kna", rotations, tensors, rotations, optimize=True) / len(rotations)
    above = (energies - energies.min()) * HARTREE_EV
    order = np.argsort(above.ravel(), kind="stable")
    return above.ravel()[order], squares.reshape(-1, 3)[order], float(above.max(axis=1).min())
