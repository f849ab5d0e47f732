"""Parameters of the PySCF engine, their presets, and the content of their basis sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

from pydantic import Field, ValidationError

from htxas import __version__
from htxas.engines.base import ResolvedParameters
from htxas.engines.gaussians import contractions
from htxas.engines.models import Strict, nearest, overridden
from htxas.errors import UserError

__all__ = ["ABSORBERS", "OTHERS", "PRESETS", "RECIPE", "Ground", "Hole", "other_content", "resolve", "shells"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""

ABSORBERS: tuple[str, ...] = ("B", "C", "N", "O", "F", "Al", "Si", "P", "S", "Cl")
"""Elements whose K edge can be computed: those with core-valence functions in the default basis."""

OTHERS: tuple[str, ...] = ("H", "He", "Li", "Be", *ABSORBERS[:5], "Ne", "Na", "Mg", *ABSORBERS[5:], "Ar")


class Ground(Strict):
    """What the ground state depends on.

    Attributes
    ----------
    functional
        libxc name of a pure GGA or meta-GGA.
    core_basis
        Basis on every atom of the absorbing element (so that one ground state serves all its sites): needs
        uncontracted core functions, or the core does not relax.
    valence_basis
        Basis on all other atoms.
    auxiliary_basis
        Coulomb-fitting basis (PySCF name).
    grid_level
        PySCF integration grid level, 0 to 6.
    energy_tolerance_Ha, gradient_tolerance_Ha
        SCF convergence.
    max_cycles
        SCF cycle limit.
    """

    functional: Literal["PBE", "r2SCAN", "BLYP", "TPSS", "revPBE"] = "PBE"
    core_basis: str = "pcX-1"
    valence_basis: str = "pcseg-1"
    auxiliary_basis: str = "def2-universal-jfit"
    grid_level: int = Field(1, ge=0, le=6)
    energy_tolerance_Ha: float = Field(1e-6, gt=0, le=1e-4)
    gradient_tolerance_Ha: float = Field(5e-4, gt=0, le=1e-2)
    max_cycles: int = Field(60, ge=1, le=500)


class Hole(Strict):
    """What only the core-hole part depends on.

    Attributes
    ----------
    scale
        How energies are made absolute. ``ion``: Delta-KS ionisation energy plus transition-potential orbital energies.
        ``neutral``: Delta-KS energy of the lowest core-excited singlet, spin-purified ``2 E(mixed) - E(triplet)``, put
        on the transition-potential state that holds the excited electron; the ionisation energy is computed
        beside it.
    diffuse_smallest, diffuse_largest, diffuse_ratio
        Even-tempered exponents (a0^-2) of the s, p and d functions put on the absorber for the final states.
    window_eV
        Final states are kept up to this far above the first, eV.
    """

    scale: Literal["ion", "neutral"] = "ion"
    diffuse_smallest: float = Field(0.005, gt=0, lt=1)
    diffuse_largest: float = Field(2.6, gt=0, lt=50)
    diffuse_ratio: float = Field(1.5, ge=1.3, le=4)
    window_eV: float = Field(40.0, ge=5, le=200)


PRESETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "published": (
        "PBE as in the published campaign; fast; first pi* peaks 0.3 to 1 eV low, ionisation energies about 1 eV low",
        {"functional": "PBE", "grid_level": 1},
        {"scale": "ion"},
    ),
    "accurate": (
        "r2SCAN and the spin-purified core-excited neutral; absolute energies within about 0.3 eV; 4 to 7 times slower",
        {"functional": "r2SCAN", "core_basis": "aug-pcX-1", "grid_level": 2},
        {"scale": "neutral"},
    ),
}


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides.

    Raises
    ------
    UserError
        Unknown preset, key or value; an element or edge the engine cannot excite; an unknown basis.
    """
    if preset not in PRESETS:
        raise UserError(f"pyscf has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(f"the pyscf engine computes K edges, not {element} {edge}", hint="use edge: K")
    if element not in ABSORBERS:
        raise UserError(f"the pyscf engine cannot excite {element} 1s", hint="one of " + " ".join(ABSORBERS))
    _, ground_preset, hole_preset = PRESETS[preset]
    ground_values, hole_values = overridden("pyscf", overrides, (Ground, ground_preset), (Hole, hole_preset))
    try:
        ground_model, hole_model = Ground(**ground_values), Hole(**hole_values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        raise UserError(f"pyscf parameter {name} = {first['input']!r}: {first['msg']}") from None
    ground = {
        "recipe": RECIPE,
        "core_element": element,
        "relativity": "sf-X2C-1e",
        **ground_model.model_dump(),
        "basis_sha256": _content(
            element, ground_model.core_basis, ground_model.valence_basis, ground_model.auxiliary_basis
        ),
    }
    return ResolvedParameters(site={"ground": ground, "hole": hole_model.model_dump()}, ground=ground)


def other_content(ground: Mapping[str, Any]) -> str | None:
    """Return what is not as it was when the identity was made, for people; None if all is.

    Recipe and basis sets are part of the identity. Where the calculation runs, another htxas or another basis-set
    library may be installed, and its numbers would be stored under an identity that is not theirs.
    """
    if ground["recipe"] != RECIPE:
        return f"recipe {ground['recipe']}, and this htxas {__version__} computes by recipe {RECIPE}"
    element = ground["core_element"]
    try:
        here = _content(element, ground["core_basis"], ground["valence_basis"], ground["auxiliary_basis"])
    except UserError as error:
        return str(error)
    for role, wanted in ground["basis_sha256"].items():
        if here.get(role) != wanted:
            library = "pyscf" if role == "auxiliary" else "basis-set-exchange"
            name = ground[f"{role}_basis"]
            there = f"{library} {version(library)} here has {here.get(role)}"
            return f"{role} basis {name} of content {wanted}, and {there}"
    return None


def _content(element: str, core: str, valence: str, auxiliary: str) -> dict[str, str]:
    return {
        "core": _basis_hash(core, (element,)),
        "valence": _basis_hash(valence, tuple(e for e in OTHERS if e != element)),
        "auxiliary": _auxiliary_hash(auxiliary),
    }


@lru_cache(maxsize=64)
def shells(basis: str, element: str) -> tuple[tuple[Any, ...], ...] | None:
    """Return a basis of the Basis Set Exchange in PySCF's internal form, or None if it lacks the element.

    Raises
    ------
    UserError
        See :func:`htxas.engines.gaussians.contractions`.
    """
    found = contractions(basis, element, engine="pyscf")
    if found is None:
        return None
    out: list[tuple[Any, ...]] = []
    for c in found:
        if len(c.momenta) > 1:
            for momentum, column in zip(c.momenta, c.columns, strict=True):
                out.append((momentum, *([x, k] for x, k in zip(c.exponents, column, strict=True))))
        else:
            out.append((c.momenta[0], *([x, *(k[i] for k in c.columns)] for i, x in enumerate(c.exponents))))
    return tuple(out)


@lru_cache(maxsize=64)
def _basis_hash(basis: str, elements: tuple[str, ...]) -> str:
    content = {e: shells(basis, e) for e in elements}
    if len(elements) == 1 and content[elements[0]] is None:
        raise UserError(f"basis {basis} has no functions for {elements[0]}", hint="try pcX-1")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=16)
def _auxiliary_hash(name: str) -> str:
    from pyscf.gto import basis as library

    content: dict[str, Any] = {}
    for element in OTHERS:
        try:
            content[element] = library.load(name, element)
        except (KeyError, library.BasisNotFoundError):
            content[element] = None
    if all(v is None for v in content.values()):
        raise UserError(f"PySCF has no auxiliary basis {name!r}", hint="use def2-universal-jfit")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
