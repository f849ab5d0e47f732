"""What a card says of the input."""

from __future__ import annotations

from typing import Any

from htxas.learn.data.curve_window import METHOD
from htxas.learn.data.features import ENERGIES
from htxas.learn.data.recipe import Recipe, Rows, Scale

__all__ = ["describe_input"]


def describe_input(recipe: Recipe, continuum: tuple[float, str] | None) -> dict[str, Any]:
    """Return quantity, unit, energies and alignment of the input, in words.

    Parameters
    ----------
    continuum
        Of continuous spectra: lifetime (eV) and scale of the energies.
    """
    window = recipe.window
    energies = f"{window.start_eV} to {window.stop_eV:.4g} eV in steps of {window.step_eV} eV, {ENERGIES[window.align]}"
    of_area = "1/eV (area 1 in the window)"
    if continuum is None:
        what = (
            "a site's spectrum"
            if recipe.rows is Rows.SITE
            else "the multiplicity-weighted molecular spectrum"
        )
        return {
            "quantity": f"mean of x, y and z polarisation of {what}",
            "unit": "oscillator strength / eV / atom" if window.scale is Scale.ABSOLUTE else of_area,
            "energies": energies,
            "alignment": f"cubic spline through the {window.step_eV} eV grid, evaluated from the exact start; "
            "zero below the first grid point, where there are no transitions",
        }
    lifetime_eV, scale = continuum
    return {
        "quantity": "mean of x, y and z polarisation of a site's continuous spectrum",
        "unit": "normalised absorption (1: the bare atom's, as the code normalises it)"
        if window.scale is Scale.ABSOLUTE
        else of_area,
        "energies": energies,
        "energy_scale": scale,
        "lifetime_eV": lifetime_eV,
        "alignment": METHOD[recipe.sigma_eV is not None],
    }
