"""Parameters of Elk, their presets, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from htxas.engines.base import ResolvedParameters
from htxas.engines.cells import Mesh, Supercell
from htxas.engines.elk.species import SPECIES
from htxas.engines.models import Strict, nearest, overridden, validated
from htxas.errors import UserError

__all__ = ["PRESETS", "RECIPE", "Ground", "Hole", "ground_from", "hole_from", "resolve"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""


class Ground(Strict):
    """What the ground state depends on; the core-hole state is computed with the same.

    Attributes
    ----------
    functional
        Of exchange and correlation.
    species
        Set of species, see :mod:`htxas.engines.elk.species`.
    supercell
        Around the hole; the ground state is of the same one.
    kpoints
        Of self-consistency and of the spectrum.
    rgkmax
        Radius of the smallest sphere times the largest wave number of the basis; Elk's own default is 7.
    smearing_Ha
        Fermi-Dirac temperature of the occupations; its entropy is taken off the energies.
    pdos_window_eV
        How far above the lowest empty level the levels of the ground state reach.
    energy_tolerance_Ha, potential_tolerance_Ha
        Self-consistency: last changes of the total energy and of the potential (RMS).
    max_iterations
        Limit of self-consistency.
    """

    functional: Literal["PBE", "LDA"] = "PBE"
    species: str = "lapw-1"
    supercell: Supercell = Supercell(distance_A=8.0, repeats=None)
    kpoints: Mesh = Mesh(spacing_invA=0.4, divisions=None)
    rgkmax: float = Field(7.0, ge=3, le=12)
    smearing_Ha: float = Field(0.001, gt=0, le=0.02)
    pdos_window_eV: float = Field(15.0, ge=2, le=60)
    energy_tolerance_Ha: float = Field(1e-6, gt=0, le=1e-4)
    potential_tolerance_Ha: float = Field(1e-6, gt=0, le=1e-4)
    max_iterations: int = Field(100, ge=2, le=1000)


class Hole(Strict):
    """What only the core-hole part depends on.

    Attributes
    ----------
    electrons
        Taken out of the 1s shell: 1, kept in the lowest empty levels, so that the cell is neutral; or 0, the ground
        state's own empty levels, to see what the hole does.
    window_eV
        Final states are kept up to this far above the first, eV.
    """

    electrons: Literal[0, 1] = 1
    window_eV: float = Field(40.0, ge=5, le=120)


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "crystal": ("images of the hole at least 8 A apart, 50 to 130 atoms: hours to a day", {}),
    "light": (
        "images of the hole at least 4 A apart, 8 to 16 atoms: minutes, but the hole feels its images",
        {"supercell": {"distance_A": 4.0}, "kpoints": {"spacing_invA": 0.8}, "rgkmax": 6.5},
    ),
}


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides.

    Raises
    ------
    UserError
        Unknown preset, key or value; an edge or element that cannot have the hole.
    """
    if preset not in PRESETS:
        raise UserError(f"elk has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(f"elk computes K edges, not {element} {edge}", hint="use feff for other edges")
    ground_values, hole_values = overridden("elk", overrides, (Ground, PRESETS[preset][1]), (Hole, {}))
    ground, hole = ground_from(ground_values), hole_from(hole_values)
    known_species = SPECIES.get(ground.species)
    if known_species is None:
        raise UserError(
            f"elk has no set of species {ground.species!r}", hint=nearest(ground.species, SPECIES)
        )
    if element not in known_species or not known_species[element].can_have_hole:
        able = " ".join(e for e, s in known_species.items() if s.can_have_hole)
        raise UserError(f"the set {ground.species} has no {element} with a core hole", hint=f"it has {able}")
    common = {"recipe": RECIPE, **ground.model_dump(mode="json", exclude_none=True)}
    return ResolvedParameters(
        site={
            "ground": common,
            "hole": hole.model_dump(mode="json"),
            "absorber": known_species[element].to_dict(),
        },
        ground=common,
    )


def ground_from(document: Mapping[str, Any]) -> Ground:
    """Return the model of a document."""
    return validated("elk", Ground, {k: v for k, v in document.items() if k != "recipe"})


def hole_from(document: Mapping[str, Any]) -> Hole:
    """Return the model of a document."""
    return validated("elk", Hole, document)
