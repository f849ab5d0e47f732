"""What a WIEN2k calculation's result depends on, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from htxas.domain.edges import BINDING_EV
from htxas.domain.elements import atomic_number
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import ResolvedParameters
from htxas.engines.cells import Mesh, Supercell
from htxas.engines.models import Strict, nearest, overridden, validated
from htxas.errors import StructureError, UserError

__all__ = ["FUNCTIONALS", "PRESETS", "RECIPE", "Wien2kParameters", "parameters_from", "resolve"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""

FUNCTIONALS: Mapping[str, int] = {"LDA": 5, "WC": 11, "PBE": 13, "PBEsol": 19}
"""WIEN2k's numbers of functionals (``init_lapw -vxc``)."""

_RYDBERG_EV = HARTREE_EV / 2


class Wien2kParameters(Strict):
    """All of a site. WIEN2k's own defaults (GMAX, linearisation energies, local orbitals) come from ``init_lapw``.

    Attributes
    ----------
    functional
        Exchange and correlation, of potential and energy.
    supercell
        Cells of the crystal around the hole. The ground state is of the crystal's own cell.
    kpoints
        Of the supercell, with the zone's centre among them; the ground state has the same ones, unfolded.
    rkmax
        Smallest sphere radius times the largest wave number of the basis.
    spheres_a0
        Sphere radii by element, bohr. Of elements left out WIEN2k's ``setrmt`` decides; then of all.
    sphere_reduction_percent
        How much smaller than touching ``setrmt`` makes the spheres.
    core_below_Ry
        States of the free atoms below this energy are core states (``-ecut``). The absorber's 1s must be one.
    electron
        ``kept``: the excited electron stays in the lowest empty band while the density becomes self-consistent, and is
        taken out before the spectrum is made. ``background``: it has gone, a uniform charge makes up for it; the energy
        scale is then that of a second calculation with the electron kept.
    energy_tolerance_Ry, charge_tolerance
        ``run_lapw -ec`` and ``-cc``, per cell: both must be met.
    window_eV, step_eV
        How far above the lowest empty level the spectrum reaches, and its step.
    """

    functional: Literal["LDA", "WC", "PBE", "PBEsol"] = "PBE"
    supercell: Supercell
    kpoints: Mesh
    rkmax: float = Field(7.0, ge=2, le=12)
    spheres_a0: dict[str, float] = Field(default_factory=dict)
    sphere_reduction_percent: int = Field(3, ge=0, le=20)
    core_below_Ry: float = Field(-6.0, ge=-20, le=-2)
    electron: Literal["kept", "background"] = "kept"
    energy_tolerance_Ry: float = Field(1e-5, gt=0, le=1e-3)
    charge_tolerance: float = Field(1e-4, gt=0, le=1e-2)
    window_eV: float = Field(30.0, ge=5, le=60)
    step_eV: float = Field(0.05, ge=0.01, le=0.2)

    @field_validator("kpoints")
    @classmethod
    def _with_the_centre(cls, value: Mesh) -> Mesh:
        if value.shifted:
            raise ValueError("WIEN2k's mesh has the zone's centre in it: not shifted")
        return value

    @field_validator("spheres_a0")
    @classmethod
    def _of_elements(cls, value: dict[str, float]) -> dict[str, float]:
        for element, radius in value.items():
            try:
                atomic_number(element)
            except StructureError:
                raise ValueError(f"there is no element {element!r}") from None
            if not 0.4 <= radius <= 4.0:
                raise ValueError(f"the radius of {element} lies within 0.4..4 bohr")
        return value


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "crystal": (
        "images of the hole 8 A apart, full core hole, excited electron kept, PBE",
        {"supercell": {"distance_A": 8.0}, "kpoints": {"spacing_invA": 0.4}},
    ),
    "background": (
        "as crystal, a uniform charge in place of the excited electron while the spectrum is made",
        {
            "supercell": {"distance_A": 8.0},
            "kpoints": {"spacing_invA": 0.4},
            "electron": "background",
        },
    ),
}


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides; sites have no shared ground state.

    Raises
    ------
    UserError
        Unknown preset, key or value; an edge other than K; an absorber whose 1s is no core state.
    """
    if preset not in PRESETS:
        raise UserError(f"wien2k has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(
            f"the wien2k engine makes holes in 1s only, not {element} {edge}", hint="feff has other edges"
        )
    (values,) = overridden("wien2k", overrides, (Wien2kParameters, PRESETS[preset][1]))
    found = validated("wien2k", Wien2kParameters, values)
    binding = BINDING_EV.get((element, "K"))
    if binding is None or binding < -found.core_below_Ry * _RYDBERG_EV:
        raise UserError(
            f"the 1s of {element} is a valence state above {found.core_below_Ry:g} Ry: it has no hole in its core",
            hint="core_below_Ry nearer to 0 makes it one, if its charge stays within the sphere",
        )
    site = {"recipe": RECIPE, **found.model_dump(mode="json", exclude_none=True)}
    return ResolvedParameters(site=site, ground=None)


def parameters_from(document: Mapping[str, Any]) -> Wien2kParameters:
    """Return the parameters of a calculation's document."""
    return validated("wien2k", Wien2kParameters, {k: v for k, v in document.items() if k != "recipe"})
