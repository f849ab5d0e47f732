"""What an OLCAO calculation's result depends on, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from htxas.engines.base import ResolvedParameters
from htxas.engines.cells import Mesh, Supercell
from htxas.engines.models import Strict, nearest, overridden, validated
from htxas.errors import UserError

__all__ = ["FUNCTIONALS", "PRESETS", "RECIPE", "OlcaoParameters", "parameters_from", "resolve"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""

FUNCTIONALS: Mapping[str, int] = {"Wigner": 100, "Ceperley-Alder": 101, "Hedin-Lundqvist": 102}
"""OLCAO's numbers of functionals (``makeinput -xccode``), not spin-polarised, not relativistic.

PBE (200) is not among them: OLCAO's total energies came out as NaN with it."""


class OlcaoParameters(Strict):
    """All of a site. Basis functions and starting potentials are those of the user's OLCAO.

    Attributes
    ----------
    functional
        Exchange and correlation, of the local density: OLCAO's own default is Wigner's interpolation.
    supercell, kpoints
        The crystal's cells around the hole, and their k points.
    basis, spectrum_basis
        Of self-consistency and of the spectrum: minimal (``mb``), full (``fb``) or extended (``eb``).
    sphere_A
        Atoms this near to the absorber have potentials of their own; farther ones share their crystal site's.
    states_per_electron
        Levels computed, over the number of electrons: the spectrum must not run out of them.
    convergence
        Of the potential, as OLCAO measures it.
    window_eV, step_eV, width_eV
        How far above the first final state the spectrum reaches, its step, and what OLCAO takes for the width (FWHM) of
        the Gaussian in it (its exponent makes it narrower by the square root of two).
    """

    functional: Literal["Wigner", "Ceperley-Alder", "Hedin-Lundqvist"] = "Wigner"
    supercell: Supercell
    kpoints: Mesh
    basis: Literal["mb", "fb", "eb"] = "fb"
    spectrum_basis: Literal["mb", "fb", "eb"] = "eb"
    sphere_A: float = Field(3.5, ge=0.5, le=20)
    states_per_electron: float = Field(2.5, ge=1, le=10)
    convergence: float = Field(1e-4, gt=0, le=1e-2)
    window_eV: float = Field(25.0, ge=5, le=100)
    step_eV: float = Field(0.05, ge=0.01, le=0.2)
    width_eV: float = Field(0.2, ge=0.05, le=2)


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "crystal": (
        "images of the hole 8 A apart, full core hole, excited electron kept, full and extended basis",
        {"supercell": {"distance_A": 8.0}, "kpoints": {"spacing_invA": 0.4}},
    ),
}


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides; sites have no shared ground state.

    Raises
    ------
    UserError
        Unknown preset, key or value; an edge other than K; an absorber without a core.
    """
    if preset not in PRESETS:
        raise UserError(f"olcao has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K" or element in ("H", "He"):
        raise UserError(
            f"the olcao engine makes holes in 1s cores only, not {element} {edge}",
            hint="feff has other edges",
        )
    (values,) = overridden("olcao", overrides, (OlcaoParameters, PRESETS[preset][1]))
    found = validated("olcao", OlcaoParameters, values)
    site = {"recipe": RECIPE, **found.model_dump(mode="json", exclude_none=True)}
    return ResolvedParameters(site=site, ground=None)


def parameters_from(document: Mapping[str, Any]) -> OlcaoParameters:
    """Return the parameters of a calculation's document."""
    return validated("olcao", OlcaoParameters, {k: v for k, v in document.items() if k != "recipe"})
