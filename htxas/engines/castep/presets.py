"""Presets of CASTEP's parameters, and what a user's own make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from htxas.engines.base import ResolvedParameters
from htxas.engines.castep.parameters import RECIPE, CastepParameters, Ground, Hole, state_document
from htxas.engines.castep.pseudopotentials import holds_1s, hole_string, is_library
from htxas.engines.models import nearest, one_cell, overridden, validated
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
    if "electron" in overrides:
        raise UserError(f"castep: electron: {_NO_CHARGE}")
    ground_values, hole_values = overridden("castep", overrides, (Ground, PRESETS[preset][1]), (Hole, {}))
    one_cell(ground_values, overrides)
    ground = validated("castep", Ground, ground_values)
    string = ground.string(element) or ""
    state = ground.model_dump(mode="json", exclude_none=True)
    hole = validated("castep", Hole, hole_values).model_dump(mode="json", exclude_none=True)
    parts = {"ground": state_document(state), "hole": hole, "absorber": hole_string(string)}
    validated("castep", CastepParameters, parts)
    if not string or is_library(string):
        raise UserError(
            f"htxas knows no on-the-fly string of {element} to put a hole in",
            hint=f"give one in pseudopotentials: {{{element}: ...}}",
        )
    if holds_1s(string):
        raise UserError(f"1s is a valence state in {element} {string}: it has no hole in its core")
    document = {"recipe": RECIPE, **state}
    return ResolvedParameters(site={**parts, "ground": state_document(document)}, ground=document)
