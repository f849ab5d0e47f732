"""Parameters of Quantum ESPRESSO, their presets, and what pseudopotentials they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from htxas.engines.base import ResolvedParameters
from htxas.engines.cells import Box, Mesh, Supercell
from htxas.engines.qe.recipes import RECIPES
from htxas.errors import UserError

__all__ = ["PRESETS", "RECIPE", "Ground", "Hole", "ground_from", "hole_from", "resolve"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=_Strict)


class Ground(_Strict):
    """What the ground state depends on; the core-hole state is computed with the same.

    Attributes
    ----------
    functional
        Of the pseudopotentials too.
    pseudopotentials
        Set of recipes, see :mod:`htxas.engines.qe.recipes`.
    cutoff_Ry
        Of the wave functions; the density's is four times that.
    box, supercell
        One of them: a molecule's box, or the crystal's supercell around the hole (the ground state is of the same one).
    kpoints
        Of a crystal; a molecule has one.
    empty_bands
        Empty levels of the ground state that are computed, for its PDOS.
    energy_tolerance_Ry
        Self-consistency: estimated error of the total energy.
    max_iterations
        Limit of self-consistency.
    """

    functional: Literal["PBE"] = "PBE"
    pseudopotentials: str = "tm-pbe-1"
    cutoff_Ry: float = Field(60.0, ge=20, le=400)
    box: Box | None = None
    supercell: Supercell | None = None
    kpoints: Mesh | None = None
    empty_bands: int = Field(12, ge=1, le=2000)
    energy_tolerance_Ry: float = Field(1e-8, gt=0, le=1e-5)
    max_iterations: int = Field(100, ge=2, le=1000)

    @model_validator(mode="after")
    def _one_cell(self) -> Self:
        if (self.box is None) == (self.supercell is None):
            raise ValueError("say box (a molecule) or supercell (a crystal)")
        if (self.supercell is None) != (self.kpoints is None):
            raise ValueError("kpoints go with a supercell")
        return self


class Hole(_Strict):
    """What only the core-hole part depends on.

    Attributes
    ----------
    electrons
        Taken out of the 1s shell: 1, as published, kept in the lowest empty level, so that the cell is neutral; or 0,
        the ground state's own empty levels, to see what the hole does.
    paw_radius
        Radius of the reconstruction, in cutoff radii of the absorber's pseudopotential.
    window_eV
        Final states are kept up to this far above the first, eV.
    resolution_eV
        Half width to which the spectrum has to be converged, eV.
    tolerance
        Relative change of the spectrum at that width, at which the recursion ends.
    max_recursions
        Limit of the recursion, for each polarisation.
    """

    electrons: Literal[0, 1] = 1
    paw_radius: float = Field(1.5, ge=1, le=3)
    window_eV: float = Field(40.0, ge=5, le=200)
    resolution_eV: float = Field(0.3, ge=0.05, le=2)
    tolerance: float = Field(1e-3, gt=0, le=0.01)
    max_recursions: int = Field(4000, ge=50, le=20000)


PRESETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "molecule": (
        "a molecule in a cubic box of 15 A as published, 60 Ry",
        {"box": {"side_A": 15.0}},
        {},
    ),
    "light": (
        "a molecule with 6 A between its images, 45 Ry: shifts within about 0.1 eV, Rydberg states squeezed",
        {"box": {"vacuum_A": 6.0}, "cutoff_Ry": 45.0},
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
        raise UserError(f"qe has no preset {preset!r}", hint=_nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(f"qe computes K edges, not {element} {edge}", hint="use feff for other edges")
    _, ground, hole = PRESETS[preset]
    values = {"ground": dict(ground), "hole": dict(hole)}
    for key, value in overrides.items():
        part = "ground" if key in Ground.model_fields else "hole" if key in Hole.model_fields else None
        if part is None:
            known = [*Ground.model_fields, *Hole.model_fields]
            raise UserError(f"qe has no parameter {key!r}", hint=_nearest(key, known))
        if key in ("box", "supercell"):  # one takes the place of the other
            values["ground"] = {k: v for k, v in values["ground"].items() if k not in ("box", "supercell")}
        values[part][key] = value
    ground_model = ground_from(values["ground"])
    hole_model = _validated(Hole, values["hole"])
    recipes = RECIPES.get(ground_model.pseudopotentials)
    if recipes is None:
        raise UserError(
            f"qe has no set of pseudopotentials {ground_model.pseudopotentials!r}",
            hint=_nearest(ground_model.pseudopotentials, RECIPES),
        )
    if element not in recipes or not recipes[element].spectral:
        able = " ".join(e for e, r in recipes.items() if r.spectral)
        raise UserError(
            f"the set {ground_model.pseudopotentials} has no {element} with a core hole",
            hint=f"it has {able}",
        )
    document = ground_model.model_dump(mode="json", exclude_none=True)
    common = {"recipe": RECIPE, **document}
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
    return _validated(Ground, {k: v for k, v in document.items() if k != "recipe"})


def hole_from(document: Mapping[str, Any]) -> Hole:
    """Return the model of a document."""
    return _validated(Hole, document)


def _validated(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate_json(json.dumps(dict(values), allow_nan=False))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"]) or "parameters"
        raise UserError(f"qe: {name}: {first['msg'].removeprefix('Value error, ')}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"qe: a parameter is no number, word, list or mapping: {error}") from None


def _nearest(word: str, known: Any) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "one of " + " ".join(known)
