"""What a CP2K calculation's result depends on, and its presets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from htxas.engines.base import ResolvedParameters
from htxas.engines.cells import Box
from htxas.engines.cp2k.basis import OTHERS, Shell, content_hash, diffuse, shells
from htxas.engines.models import Strict, nearest, overridden
from htxas.errors import UserError

__all__ = [
    "ABSORBERS",
    "PRESETS",
    "RECIPE",
    "Ground",
    "Hole",
    "absorber_basis",
    "ground_of",
    "hole_of",
    "other_content",
    "resolve",
]

RECIPE = 1
"""Raised when the engine's own way to write or read changes a result; part of every identity."""

ABSORBERS: tuple[str, ...] = ("B", "C", "N", "O", "F")
"""Elements whose K edge is computed. Heavier ones need relativity, and CP2K's is no help here: see the engine."""


class Ground(Strict):
    """What the ground state depends on.

    Attributes
    ----------
    functional
        ``PBE``, or ``r2SCAN`` from libxc: its ionisation energies are better, its levels below them are not. C2H2 has
        its pi* 4.6 eV below the ionisation energy (PBE: 5.0, experiment: 5.3).
    valence_basis
        All-electron basis on all atoms but the absorber.
    box
        Cube around the molecule; nothing in it is periodic.
    cutoff_Ry, relative_cutoff_Ry
        Of the grid for the soft densities. CH4's 1s ionisation energy is 3 meV from its limit at 200 Ry, 20 to 30 meV
        at 150 (the least) and 0.3 eV at 120; levels and strengths below it have theirs at 150.
    angular_points, radial_points
        Of the grids around atoms for the hard densities.
    density_tolerance
        Largest change of the density matrix in a converged cycle.
    """

    functional: Literal["PBE", "r2SCAN"] = "PBE"
    valence_basis: str = "pcseg-1"
    box: Box = Box(vacuum_A=8.0)
    cutoff_Ry: float = Field(200.0, ge=150, le=2000)
    relative_cutoff_Ry: float = Field(40.0, ge=20, le=200)
    angular_points: int = Field(50, ge=26, le=974)
    radial_points: int = Field(50, ge=30, le=500)
    density_tolerance: float = Field(1e-5, gt=0, le=1e-4)


class Hole(Strict):
    """What only the core-hole part depends on.

    Attributes
    ----------
    core_basis
        Basis on the absorber: needs uncontracted core functions, or the core does not relax.
    diffuse_smallest, diffuse_ratio
        The absorber gets further s, p and d functions, each exponent so many times smaller than the last, down to this
        one (a0^-2). Rydberg states need them: with none below 0.1 CH4's 3p is 0.7 eV higher.
    scale
        How energies are made absolute. ``ion``: Delta-SCF ionisation energy plus levels of the transition potential.
        ``neutral``: the first final state is put at the Delta-SCF energy of the core-excited molecule, E_ex - E_gs.
    window_eV
        Final states are kept up to this far above the first, eV.
    """

    core_basis: str = "pcX-1"
    diffuse_smallest: float = Field(0.03, ge=0.02, le=10)
    diffuse_ratio: float = Field(2.2, ge=1.5, le=5)
    scale: Literal["ion", "neutral"] = "ion"
    window_eV: float = Field(40.0, ge=5, le=200)


PRESETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "standard": (
        "PBE, half a hole, ionisation energy by Delta-SCF: that is 1 eV low, first pi* peaks 0.2 to 1 eV",
        {},
        {},
    ),
    "quick": (
        "the same on a coarser grid: a third faster; energies of C within 0.04 eV of standard's",
        {"cutoff_Ry": 150.0},
        {},
    ),
    "ionisation": (
        "r2SCAN: ionisation energies within 0.3 eV, but first pi* peaks 0.7 to 0.9 eV high; twice as slow",
        {"functional": "r2SCAN"},
        {},
    ),
}


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides.

    Raises
    ------
    UserError
        Unknown preset, key or value; an element or edge the engine does not excite; an unknown basis.
    """
    if preset not in PRESETS:
        raise UserError(f"cp2k has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(f"the cp2k engine computes K edges, not {element} {edge}", hint="use edge: K")
    if element not in ABSORBERS:
        raise UserError(
            f"the cp2k engine does not excite {element} 1s: it is not relativistic",
            hint="one of " + " ".join(ABSORBERS),
        )
    _, ground_preset, hole_preset = PRESETS[preset]
    ground_values, hole_values = overridden("cp2k", overrides, (Ground, ground_preset), (Hole, hole_preset))
    try:
        ground_model = Ground.model_validate(ground_values)
        hole_model = Hole.model_validate(hole_values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"cp2k parameter {name} = {first['input']!r}: {said}") from None
    ground = {
        "recipe": RECIPE,
        **ground_model.model_dump(mode="json"),
        "valence_sha256": content_hash(ground_model.valence_basis, OTHERS),
    }
    hole = {
        **hole_model.model_dump(mode="json"),
        "core_sha256": content_hash(hole_model.core_basis, (element,)),
    }
    absorber_basis(hole_model, element)
    return ResolvedParameters(site={"ground": ground, "hole": hole}, ground=ground)


def ground_of(parameters: Mapping[str, Any]) -> Ground:
    """Return the ground state's part of a calculation's document, of a site's or of its own."""
    document = parameters.get("ground", parameters)
    return Ground.model_validate_json(
        json.dumps({k: v for k, v in document.items() if k in Ground.model_fields})
    )


def hole_of(parameters: Mapping[str, Any]) -> Hole:
    """Return the hole's part of a site's document."""
    document = parameters["hole"]
    return Hole.model_validate_json(json.dumps({k: v for k, v in document.items() if k in Hole.model_fields}))


def absorber_basis(hole: Hole, element: str) -> tuple[Shell, ...]:
    """Return the functions on the absorber.

    Raises
    ------
    UserError
        The basis has none for the element, or no s, p or d functions.
    """
    core = shells(hole.core_basis, element)
    if core is None:
        raise UserError(f"basis {hole.core_basis} has no functions for {element}", hint="try pcX-1")
    return core + diffuse(core, smallest=hole.diffuse_smallest, ratio=hole.diffuse_ratio)


def other_content(parameters: Mapping[str, Any], element: str | None) -> str | None:
    """Return what is not as it was when the identity was made, for people; None if all is.

    Where the calculation is written another htxas or another basis-set library may be installed, and its numbers would
    be stored under an identity that is not theirs.
    """
    ground = parameters.get("ground", parameters)
    if ground["recipe"] != RECIPE:
        return f"recipe {ground['recipe']}, and this htxas has recipe {RECIPE}"
    wanted = [(ground["valence_basis"], OTHERS, ground["valence_sha256"])]
    if element is not None:
        hole = parameters["hole"]
        wanted.append((hole["core_basis"], (element,), hole["core_sha256"]))
    for name, elements, content in wanted:
        here = content_hash(name, elements)
        if here != content:
            return f"basis {name} of content {content}, and basis-set-exchange here has {here}"
    return None
