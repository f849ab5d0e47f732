"""From a directory GPAW has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
from htxas.engines.external import exhausted, log_tail
from htxas.engines.gpaw.parameters import hole_from
from htxas.engines.gpaw.recipes import ATOM_TOLERANCE_HA, Recipe
from htxas.engines.gpaw.recursion import Poles, read_poles
from htxas.engines.gpaw.write import ground_of, lay_grid, recipes_of, valence_of
from htxas.errors import Cause, EngineFailure

__all__ = ["bad", "ground_result", "site_result"]

FloatArray = npt.NDArray[np.float64]
_SCALE = "spin-polarised ion + half-hole transition potential, counted from vacuum"
_CORE_ELECTRONS = 2  # in the 1s shell before the excitation: both count, see htxas.domain.spectrum
_SAME_LEVEL_EV = 0.03
_NO_LEVEL = 1e-3  # of the spectrum; as much as the recursion may still change it
_ROUNDING = 1e-12  # of all weight: poles that rounding doubled have less
_ENDINGS = {
    "no_gpaw": (Cause.BAD_INPUT, "there is no GPAW in this Python"),
    "refused": (Cause.BAD_INPUT, "GPAW cannot run so"),
    "unconverged": (Cause.SCF_UNCONVERGED, "self-consistency did not converge"),
}


def bad(cause: Cause, message: str, folder: Path, step: str = "", **evidence: Any) -> EngineFailure:
    """Return a failure with the ends of a step's logs, the last step's that has any."""
    steps = [step] if step else ["ground", "ion", "transition"]
    texts = [(folder / f"{s}.{kind}") for s in steps for kind in ("txt", "out")]
    tails = [log_tail(p.read_text(errors="replace")) for p in texts if p.is_file()]
    tail = next((t for t in tails if t), [])
    return EngineFailure(cause, message, evidence={"log_tail": tail, **evidence}, where=str(folder))


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """A self-consistent state: total energy (eV), levels (eV) and occupations, shape (spins, levels), and the rest."""

    energy_eV: float
    levels_eV: FloatArray
    occupations: FloatArray
    rest: Mapping[str, Any]


def _state(job: Job, folder: Path, step: str, *, hole: float) -> _State:
    """Return what a step found, or say why it found nothing."""
    path = folder / f"{step}.json"
    if not path.is_file():
        said = (
            (folder / f"{step}.out").read_text(errors="replace") if path.with_suffix(".out").is_file() else ""
        )
        cause = exhausted(said) or Cause.ENGINE_CRASH
        last = next(iter(reversed(log_tail(said))), "without a word")
        raise bad(cause, f"the step {step} ended before its end: {last}", folder, step)
    try:
        found = json.loads(path.read_text())
        if (found["key"], found["step"]) != (job.calculation.key, step):
            raise bad(Cause.BAD_OUTPUT, f"{path.name} belongs to another calculation", folder, step)
        if found["status"] != "done":
            cause, text = _ENDINGS[found["status"]]
            raise bad(cause, f"{text} ({step}): {found['message']}", folder, step)
        if found["converged"] is not True:
            raise bad(Cause.SCF_UNCONVERGED, f"self-consistency did not converge ({step})", folder, step)
        state = _State(
            float(found["energy_eV"]),
            np.array(found["levels_eV"], dtype=np.float64),
            np.array(found["occupations"], dtype=np.float64),
            found,
        )
        wrong = _wrong(job, state, hole)
    except (KeyError, TypeError, ValueError) as error:
        raise bad(Cause.BAD_OUTPUT, f"{path.name} cannot be read: {error!r}", folder, step) from None
    if wrong is not None:
        raise bad(Cause.BAD_OUTPUT, f"{step}: {wrong}", folder, step)
    return state


def _wrong(job: Job, state: _State, hole: float) -> str | None:
    """Return what of a state is not what was asked for, or None."""
    ground = ground_of(job)
    electrons = valence_of(job.structure, ground)
    if state.levels_eV.ndim != 2 or state.levels_eV.shape != state.occupations.shape:
        return "levels and occupations do not fit"
    if abs(float(state.occupations.sum()) - electrons) > 1e-6:
        return f"{state.occupations.sum():g} valence electrons, not {electrons}"
    full = 2.0 / len(state.occupations)
    if np.abs(state.occupations[:, : electrons // 2] - full).max() > 1e-6:
        return "the lowest levels are not full"
    if tuple(state.rest["gpts"]) != lay_grid(job.structure, ground).points:
        return f"the grid has {state.rest['gpts']} points"
    recipes = recipes_of(job.structure, ground)
    told = {e: (r, 0.0) for e, r in recipes.items()}
    if hole:
        told["hole"] = (recipes[str(job.calculation.element)], hole)
    for name, (recipe, taken) in told.items():
        wrong = _wrong_set(state.rest["data_sets"][name], recipe, taken)
        if wrong is not None:
            return f"this GPAW makes another data set of {name}: {wrong}"
    return None


def _wrong_set(found: Mapping[str, Any], recipe: Recipe, hole: float) -> str | None:
    expected = recipe.energies_Ha[hole]
    if abs(found["energy_Ha"] - expected) > ATOM_TOLERANCE_HA:
        return f"its atom has {found['energy_Ha']:.9f} Ha, not {expected:.9f}"
    return None if found["valence"] == recipe.valence else f"{found['valence']:g} valence electrons"


def ground_result(job: Job, folder: Path, provenance: Provenance) -> GroundResult:
    """Return a ground state.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, OUT_OF_MEMORY, BAD_INPUT or BAD_OUTPUT.
    """
    state = _state(job, folder, "ground", hole=0.0)
    ground = ground_of(job)
    occupied = valence_of(job.structure, ground) // 2
    bands = occupied + ground.empty_bands
    try:
        levels, occupations = state.levels_eV[0, :bands], state.occupations[0, :bands]
        shares = np.array(state.rest["shares"], dtype=np.float64)[:bands]
        dipole = np.array(state.rest["dipole_D"], dtype=np.float64)
        if shares.shape != (bands, len(job.structure), 3) or len(levels) != bands or dipole.shape != (3,):
            raise ValueError("levels, shares and dipole moment do not fit")
        _note(provenance, state)
    except (KeyError, TypeError, ValueError) as error:
        raise bad(Cause.BAD_OUTPUT, f"ground.json cannot be read: {error!r}", folder, "ground") from None
    return GroundResult(
        convergence=Convergence.CONVERGED,
        total_energy_eV=state.energy_eV,
        homo_eV=float(levels[occupied - 1]),
        lumo_eV=float(levels[occupied]),
        dipole_D=dipole,
        pdos=Pdos(levels, occupations, shares, complete=False, complete_to_eV=float(levels.max())),
        provenance=provenance,
    )


def site_result(job: Job, folder: Path, outcome: Mapping[str, Any], provenance: Provenance) -> SiteResult:
    """Return the spectrum of a site.

    The first final state lies at ``E(ion) - E(ground) + e``, with ``e`` the lowest empty level in the field of half a
    hole (L. Triguero, L. G. M. Pettersson, H. Agren, Phys. Rev. B 58, 8097 (1998)), counted from vacuum as all levels
    between walls are; total energies are those of all electrons.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH, OUT_OF_MEMORY, BAD_INPUT or BAD_OUTPUT.
    """
    half = _state(job, folder, "transition", hole=0.5)
    ion = _state(job, folder, "ion", hole=1.0)
    ground = outcome.get("ground")
    if ground is None:
        if (folder / "ground").is_dir():
            _state(job, folder / "ground", "ground", hole=0.0)  # says why
        raise bad(Cause.BAD_OUTPUT, "there is no energy of the ground state", folder)
    window_eV = hole_from(job.calculation.parameters["hole"]).window_eV
    occupied = valence_of(job.structure, ground_of(job)) // 2
    try:
        found = half.rest["recursion"]
        full_eV, lowest_eV = half.levels_eV[0, occupied - 1 : occupied + 1].tolist()
        ionization_eV = ion.energy_eV - float(ground["energy_eV"])
        first_eV = ionization_eV + lowest_eV
        sticks = _sticks(read_poles(found), full_eV, lowest_eV, first_eV, window_eV)
        converged = found["converged"] is True
        provenance.extra["recursions"] = len(found["diagonals_Ha"][0])
        provenance.extra["recursion_change"] = float(found["change"])
        _note(provenance, half)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise bad(Cause.BAD_OUTPUT, f"transition.json: {error!r}", folder, "transition") from None
    return SiteResult(
        convergence=Convergence.CONVERGED if converged else Convergence.UNCONVERGED,
        sticks=sticks,
        excitation_energy_eV=first_eV,
        ionization_eV=ionization_eV,
        scale=_SCALE,
        energies_eV={
            "ground": float(ground["energy_eV"]),
            "ion": ion.energy_eV,
            "transition_potential": half.energy_eV,
        },
        hole_overlap=1.0,  # frozen in the data set of this very atom
        window_eV=window_eV,
        provenance=provenance,
    )


def _note(provenance: Provenance, state: _State) -> None:
    provenance.extra["data_sets_sha256"] = {k: v["sha256"] for k, v in state.rest["data_sets"].items()}
    provenance.extra["iterations"] = int(state.rest["iterations"])


def _sticks(
    poles: list[Poles], full_eV: float, lowest_eV: float, first_eV: float, window_eV: float
) -> Sticks:
    """Return the transitions to all levels that are not full, the first of them at ``first_eV``."""
    if lowest_eV - full_eV < 2 * _SAME_LEVEL_EV:
        raise ValueError(f"full and empty levels beside half a hole are {lowest_eV - full_eV:.3f} eV apart")
    energies, strengths = [np.array([first_eV])], [np.zeros((1, 3))]
    for axis, found in enumerate(poles):
        above = found.energies_eV - lowest_eV
        above = np.where(np.abs(above) < _SAME_LEVEL_EV, 0.0, above)  # that level itself
        felt = found.squares_a02 > _ROUNDING * found.squares_a02.sum()
        kept = felt & (above >= 0.0) & (above <= window_eV)
        between = (above < 0.0) & (found.energies_eV > full_eV + _SAME_LEVEL_EV)
        if found.squares_a02[between].sum() > _NO_LEVEL * found.squares_a02[kept].sum():
            raise ValueError("the recursion found a level below the first final state")
        energy = first_eV + above[kept]
        strength = np.zeros((int(kept.sum()), 3))
        strength[:, axis] = 2 * _CORE_ELECTRONS * energy / HARTREE_EV * found.squares_a02[kept]
        energies.append(energy)
        strengths.append(strength)
    joined, values = np.concatenate(energies), np.concatenate(strengths)
    order = np.argsort(joined, kind="stable")
    return Sticks(joined[order], values[order])
