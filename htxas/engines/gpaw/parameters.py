"""Parameters of GPAW and their presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from htxas.engines.base import ResolvedParameters
from htxas.engines.gpaw.recipes import RECIPES
from htxas.engines.models import Strict, nearest, overridden, validated
from htxas.errors import UserError

__all__ = ["PRESETS", "RECIPE", "Ground", "Hole", "ground_from", "hole_from", "resolve"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""


class Ground(Strict):
    """What the ground state depends on; the states with a hole are computed with the same.

    Attributes
    ----------
    functional
        Of the data sets too.
    data_sets
        Set of recipes, see :mod:`htxas.engines.gpaw.recipes`.
    spacing_A
        Distance between points of the grid; at 0.3 A the recursion breaks down.
    margin_A
        Least distance from the outermost nuclei to the walls, where wave functions end.
    empty_bands
        Empty levels of the ground state that are computed, for its PDOS.
    energy_tolerance_eV
        Self-consistency: change of the total energy, per valence electron.
    density_tolerance
        Self-consistency: change of the density, electrons per valence electron.
    max_iterations
        Limit of self-consistency.
    """

    functional: Literal["PBE"] = "PBE"
    data_sets: str = "gpaw-pbe-1"
    spacing_A: float = Field(0.2, ge=0.1, le=0.26)
    margin_A: float = Field(4.0, ge=3, le=15)
    empty_bands: int = Field(8, ge=1, le=500)
    energy_tolerance_eV: float = Field(1e-5, gt=0, le=1e-3)
    density_tolerance: float = Field(1e-5, gt=0, le=1e-3)
    max_iterations: int = Field(150, ge=2, le=2000)


class Hole(Strict):
    """What only the core-hole part depends on.

    Attributes
    ----------
    window_eV
        Final states are kept up to this far above the first, eV.
    resolution_eV
        Gaussian sigma with which the spectrum has to be converged, eV.
    tolerance
        Change of that spectrum by 100 recursions more, relative to its area, at which the recursion ends.
    max_recursions
        Limit of the recursion.
    """

    window_eV: float = Field(40.0, ge=5, le=150)
    resolution_eV: float = Field(0.3, ge=0.05, le=2)
    tolerance: float = Field(1e-3, gt=0, le=0.01)
    max_recursions: int = Field(5000, ge=200, le=50000)


PRESETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "molecule": (
        "points 0.2 A apart, walls 5 A away: absolute energies within about 0.1 eV of other codes",
        {"spacing_A": 0.2, "margin_A": 5.0},
        {},
    ),
    "light": (
        "points 0.24 A apart, walls 3.5 A away: Rydberg states squeezed, absolute energies within about 0.2 eV of that",
        {"spacing_A": 0.24, "margin_A": 3.5},
        {"resolution_eV": 0.5, "tolerance": 2e-3},
    ),
}


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides.

    Raises
    ------
    UserError
        Unknown preset, key or value; an edge or element that has no recipe.
    """
    if preset not in PRESETS:
        raise UserError(f"gpaw has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(f"gpaw computes K edges, not {element} {edge}", hint="use feff for other edges")
    _, ground, hole = PRESETS[preset]
    ground_values, hole_values = overridden("gpaw", overrides, (Ground, ground), (Hole, hole))
    ground_model, hole_model = ground_from(ground_values), hole_from(hole_values)
    recipes = RECIPES.get(ground_model.data_sets)
    if recipes is None:
        raise UserError(
            f"gpaw has no data sets {ground_model.data_sets!r}",
            hint=nearest(ground_model.data_sets, RECIPES),
        )
    if element not in recipes or not recipes[element].spectral:
        able = " ".join(e for e, r in recipes.items() if r.spectral)
        raise UserError(f"{ground_model.data_sets} has no {element} with a core hole", hint=f"it has {able}")
    common = {"recipe": RECIPE, **ground_model.model_dump(mode="json")}
    return ResolvedParameters(
        site={
            "ground": common,
            "hole": hole_model.model_dump(mode="json"),
            "absorber": recipes[element].to_dict(),
        },
        ground=common,
    )


def ground_from(document: Mapping[str, Any]) -> Ground:
    """Return the model of a document."""
    return validated("gpaw", Ground, {k: v for k, v in document.items() if k != "recipe"})


def hole_from(document: Mapping[str, Any]) -> Hole:
    """Return the model of a document."""
    return validated("gpaw", Hole, document)
