"""Presets of Quantum ESPRESSO, and from a preset and the user's words to full parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from htxas.engines.base import ResolvedParameters
from htxas.engines.models import nearest, one_cell, overridden
from htxas.engines.qe.parameters import RECIPE, Ground, Hole, ground_from, hole_from, of_site
from htxas.engines.qe.recipes import RECIPES, Recipe
from htxas.engines.qe.upf import core_orbital, find, wave_misfits
from htxas.errors import UserError

__all__ = ["PRESETS", "resolve"]

PRESETS: dict[str, tuple[str, float, dict[str, Any], dict[str, Any]]] = {
    "molecule": (
        "a molecule in a cubic box of 15 A as published, transition energies within 0.01 eV in the cutoff",
        1.0,
        {"box": {"side_A": 15.0}},
        {},
    ),
    "light": (
        "a molecule with 6 A between its images, a low cutoff: energies up to 0.2 eV higher, "
        "Rydberg states squeezed",
        0.75,
        {"box": {"vacuum_A": 6.0}},
        {"resolution_eV": 0.5, "tolerance": 2e-3},
    ),
    "crystal": (
        "a crystal's supercell with holes 8 A apart",
        1.0,
        {"supercell": {"distance_A": 8.0}, "kpoints": {"spacing_invA": 0.4}},
        {"resolution_eV": 0.5, "tolerance": 2e-3},
    ),
}
"""Line for people, share of the absorber's cutoff, ground state, hole."""

_MISFIT = 0.05


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides.

    Raises
    ------
    UserError
        Unknown preset, key or value; an edge or element that has no recipe; a pseudopotential that is not there or
        does not serve.
    """
    if preset not in PRESETS:
        raise UserError(f"qe has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(f"qe computes K edges, not {element} {edge}", hint="use feff for other edges")
    _, share, ground_preset, hole_preset = PRESETS[preset]
    ground, hole = overridden("qe", overrides, (Ground, ground_preset), (Hole, hole_preset))
    one_cell(ground, overrides)
    if "upf" in ground:
        ground["upf"] = _user_files(ground["upf"], dense="density_cutoff_Ry" in ground)
    if hole.get("hole_upf") is not None:
        hole["hole_upf"] = _user_hole(hole["hole_upf"], element)
    name = ground.get("pseudopotentials", Ground.model_fields["pseudopotentials"].default)
    recipes = RECIPES.get(name) if isinstance(name, str) else None
    if recipes is None:
        raise UserError(f"qe has no set of pseudopotentials {name!r}", hint=nearest(str(name), RECIPES))
    own = element in ground.get("upf", {})
    recipe = None if own else recipes.get(element)
    if recipe is not None:
        ground.setdefault("cutoff_Ry", share * recipe.cutoff_Ry)
    elif own and "cutoff_Ry" not in ground:
        raise UserError(
            f"qe: what cutoff your pseudopotential of {element} needs, only you know", hint="cutoff_Ry: ..."
        )
    elif not own:
        raise _no_recipe(element, name, recipes)
    ground_model = ground_from(ground)
    hole_model = hole_from(hole)
    _check_absorber(element, ground_model, hole_model, recipe, recipes)
    common = {"recipe": RECIPE, **ground_model.model_dump(mode="json", exclude_none=True)}
    site: dict[str, Any] = {
        "ground": of_site(common),
        "hole": hole_model.model_dump(mode="json", exclude_none=True),
    }
    if recipe is not None:
        site["absorber"] = recipe.to_dict()
    return ResolvedParameters(site=site, ground=common)


def _check_absorber(
    element: str, ground: Ground, hole: Hole, recipe: Recipe | None, recipes: Mapping[str, Recipe]
) -> None:
    """Raise UserError unless the absorber has what its spectrum is made of."""
    if element in ground.upf:
        if hole.hole_upf is None:
            raise UserError(
                f"qe: {element} has a pseudopotential of yours, but none with a core hole", hint="hole_upf"
            )
        if hole.electrons != 1.0:
            raise UserError(
                "qe: your files are for a full hole; half of one, or none, needs recipes", hint="electrons: 1"
            )
        expected = ground.upf[element].electrons
        if not math.isclose(hole.hole_upf.electrons, expected + 1, abs_tol=1e-6):
            raise UserError(
                f"qe: {hole.hole_upf.file} has {hole.hole_upf.electrons:g} valence electrons, one more than "
                f"{ground.upf[element].file} has would be {expected + 1:g}"
            )
    elif hole.hole_upf is not None:
        raise UserError(
            f"qe: hole_upf needs a file of {element} without a hole, too",
            hint=f"upf: {{{element}: ...}}",
        )
    elif recipe is None or not recipe.spectral:
        raise _no_recipe(element, ground.pseudopotentials, recipes)


def _no_recipe(element: str, name: str, recipes: Mapping[str, Recipe]) -> UserError:
    able = " ".join(e for e, r in recipes.items() if r.spectral)
    return UserError(
        f"the set {name} has no {element} with a core hole",
        hint=f"it has {able}; or name files of your own: upf, hole_upf",
    )


def _user_files(names: Any, *, dense: bool) -> dict[str, Any]:
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in names.values()):
        raise UserError("qe: upf: element: name of a file")
    found = {}
    for element, name in names.items():
        content, upf = find(name, element)
        if upf.kind not in ("NC", "SL") and not dense:
            raise UserError(
                f"qe: {name} is not norm-conserving ({upf.kind}): four times the cutoff does not hold its density",
                hint="density_cutoff_Ry: ...",
            )
        found[element] = {"file": name, "sha256": sha256(content).hexdigest(), "electrons": upf.electrons}
    return found


def _user_hole(value: Any, element: str) -> dict[str, Any]:
    """Return a file with a hole as the identity has it, after a look at what spectra are made of."""
    if not isinstance(value, Mapping) or set(value) != {"file", "atom_eV", "radius_a0"}:
        raise UserError(
            "qe: hole_upf: file, atom_eV and radius_a0 (see htxas.engines.qe.parameters.UserHole)"
        )
    content, upf = find(str(value["file"]), element)
    text = content.decode(errors="replace")
    try:
        core_orbital(text)
        misfits = wave_misfits(text, float(value["radius_a0"]))
    except (TypeError, ValueError) as error:
        raise UserError(f"qe: {value['file']}: {error}") from None
    worst = max(misfits, key=lambda label: misfits[label], default=None)
    if worst is None or misfits[worst] > _MISFIT:
        raise UserError(
            f"qe: {value['file']}: no partial waves"
            if worst is None
            else f"qe: {value['file']}: the pseudo wave {worst} is up to {misfits[worst]:.0%} off the all-electron one "
            f"beyond {value['radius_a0']} bohr; spectra would be wrong",
            hint="is radius_a0 right? ld1.x puts waves with a node there out of scale: take another energy or radius",
        )
    digest = sha256(content).hexdigest()
    return {**value, "sha256": digest, "electrons": upf.electrons}
