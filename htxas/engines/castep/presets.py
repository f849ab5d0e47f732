"""Presets of CASTEP's parameters, and what a user's own make of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from htxas.engines.base import ResolvedParameters
from htxas.engines.castep.parameters import RECIPE, CastepParameters, Ground, Hole, state_document
from htxas.engines.castep.pseudopotentials import holds_1s, hole_string, is_library
from htxas.engines.models import nearest
from htxas.errors import UserError

__all__ = ["PRESETS", "resolve"]

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "published": (
        "molecules as in the published campaign: PBE, 500 eV, a box of 15 A, full core hole, excited electron kept",
        {"box": {"side_A": 15.0}, "total_energy": "final"},
    ),
    "crystal": (
        "crystals: images of the hole 9 A apart, full core hole, excited electron kept",
        {
            "supercell": {"distance_A": 9.0},
            "kpoints": {"spacing_invA": 0.4},
            "total_energy": "zero_kelvin",
        },
    ),
}


_NO_CHARGE = (
    "the excited electron is always kept. With it gone, the difference of total energies is an ionisation energy that "
    "counts from the average potential of a charged cell, and CASTEP does not say how its levels count from there: no "
    "final state can be put on it"
)


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides.

    Raises
    ------
    UserError
        Unknown preset, key or value; an edge other than K; an absorber without a pseudopotential, or with 1s among
        its valence states.
    """
    if preset not in PRESETS:
        raise UserError(f"castep has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(f"the castep engine makes holes in 1s only, not {element} {edge}", hint="use edge: K")
    values = dict(PRESETS[preset][1])
    hole: dict[str, Any] = {}
    for key, value in overrides.items():
        if key == "electron":
            raise UserError(f"castep: electron: {_NO_CHARGE}")
        if key in Ground.model_fields:
            values[key] = value
        elif key in Hole.model_fields:
            hole[key] = value
        else:
            known = [*Ground.model_fields, *Hole.model_fields]
            raise UserError(f"castep has no parameter {key!r}", hint=nearest(key, known))
    for one, other in (("box", "supercell"), ("supercell", "box")):  # one of the user's replaces the preset's
        if one in overrides and other not in overrides:
            values.pop(other, None)
            if one == "box":
                values.pop("kpoints", None)
    try:
        ground = Ground.model_validate_json(_json(values))
        string = ground.string(element) or ""
        found = CastepParameters(
            ground=ground, hole=Hole.model_validate_json(_json(hole)), absorber=hole_string(string)
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"]) or "parameters"
        raise UserError(f"castep: {name}: {first['msg'].removeprefix('Value error, ')}") from None
    if not string or is_library(string):
        raise UserError(
            f"htxas knows no on-the-fly string of {element} to put a hole in",
            hint=f"give one in pseudopotentials: {{{element}: ...}}",
        )
    if holds_1s(string):
        raise UserError(f"1s is a valence state in {element} {string}: it has no hole in its core")
    document = {"recipe": RECIPE, **ground.model_dump(mode="json", exclude_none=True)}
    site = {
        "ground": state_document(document),
        "hole": found.hole.model_dump(mode="json", exclude_none=True),
        "absorber": found.absorber,
    }
    return ResolvedParameters(site=site, ground=document)


def _json(values: Mapping[str, Any]) -> str:
    try:
        return json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"castep: a parameter is no number, word, list or mapping: {error}") from None
