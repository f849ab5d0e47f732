"""What a card says of the input."""

from __future__ import annotations

from typing import Any

from htxas.domain.spectrum import Quantity
from htxas.learn.data.curve_window import METHOD
from htxas.learn.data.features import ENERGIES
from htxas.learn.data.recipe import Recipe, Rows, Scale

__all__ = ["UNITS", "describe_input"]

UNITS = {
    Quantity.OSCILLATOR_STRENGTH: "oscillator strength / eV / atom",
    Quantity.DSF: "A^2 / eV / atom: squared dipole matrix elements, both spins; not oscillator strengths",
    Quantity.ABSORPTION: "normalised absorption, 1 is the bare atom's",
}
"""What an input is in, in words, where its scale is absolute."""


def describe_input(recipe: Recipe, quantity: Quantity, continuum: tuple[float, str] | None) -> dict[str, Any]:
    """Return quantity, unit, energies and alignment of the input, in words.

    Parameters
    ----------
    quantity
        What the spectra are in.
    continuum
        Of continuous spectra: lifetime (eV) and scale of the energies.
    """
    window = recipe.window
    energies = f"{window.start_eV} to {window.stop_eV:.4g} eV in steps of {window.step_eV} eV, {ENERGIES[window.align]}"
    unit = UNITS[quantity] if window.scale is Scale.ABSOLUTE else "1/eV (area 1 in the window)"
    if continuum is None:
        what = (
            "a site's spectrum"
            if recipe.rows is Rows.SITE
            else "the multiplicity-weighted molecular spectrum"
        )
        return {
            "quantity": f"mean of x, y and z polarisation of {what}",
            "unit": unit,
            "energies": energies,
            "alignment": f"cubic spline through the {window.step_eV} eV grid, evaluated from the exact start; "
            "zero below the first grid point, where there are no transitions",
        }
    lifetime_eV, scale = continuum
    return {
        "quantity": "mean of x, y and z polarisation of a site's continuous spectrum",
        "unit": unit,
        "energies": energies,
        "energy_scale": scale,
        "lifetime_eV": lifetime_eV,
        "alignment": METHOD[recipe.sigma_eV is not None],
    }
