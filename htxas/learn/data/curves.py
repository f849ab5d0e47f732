"""Densities of states as something to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.data.recipe import CurveRecipe, Part, Scale, Zero
from htxas.learn.data.records import SpectrumRecord

__all__ = ["describe_curve", "pdos_row"]

_OCCUPIED = 1e-6  # electrons
_MEANING = {
    Part.BOTH: "all levels",
    Part.OCCUPIED: "occupied levels",
    Part.UNOCCUPIED: "unoccupied levels",
}
_ZERO = {Zero.HOMO: "the HOMO", Zero.MIDGAP: "the middle between HOMO and LUMO"}


def pdos_row(
    record: SpectrumRecord, atoms: Sequence[int], curve: CurveRecipe, where: str
) -> npt.NDArray[np.float32]:
    """Return the density of states on some atoms of a molecule's ground state, shape (points,).

    Parameters
    ----------
    atoms
        Canonical indices of the absorbing atoms of the row.

    Raises
    ------
    DatasetError
        Without projected levels, without any weight on the grid, or where the grid goes on beyond the levels.
    """
    if record.pdos is None or record.frontier_eV is None:
        raise DatasetError("has no density of states of a ground state", where=where)
    pdos = record.pdos
    if curve.part is not Part.BOTH:
        full = pdos.occupations > _OCCUPIED
        kept = full if curve.part is Part.OCCUPIED else ~full
        pdos = replace(
            pdos,
            energies_eV=pdos.energies_eV[kept],
            occupations=pdos.occupations[kept],
            weights=pdos.weights[kept],
            shares=None if pdos.shares is None else pdos.shares[kept],
            complete_to_eV=record.pdos.known_to_eV,
        )
    homo_eV, lumo_eV = record.frontier_eV
    zero_eV = homo_eV if curve.zero is Zero.HOMO else (homo_eV + lumo_eV) / 2
    grid_eV = curve.start_eV + np.arange(curve.points) * curve.step_eV
    values = pdos.curve(
        grid_eV, atoms=atoms, angular=curve.angular, sigma_eV=curve.sigma_eV, zero_eV=zero_eV, where=where
    )
    if curve.scale is Scale.AREA:
        area = float(values.sum() * curve.step_eV)
        if not area > 0:
            raise DatasetError(f"its {curve.name} has no area on the grid", where=where)
        return (values / area).astype(np.float32)
    return (values / len(atoms)).astype(np.float32)


def describe_curve(curve: CurveRecipe) -> dict[str, Any]:
    """Return what a card says of a curve: its grid, its unit, its meaning."""
    return {
        "start_eV": curve.start_eV,
        "step_eV": curve.step_eV,
        "points": curve.points,
        "zero": f"0 eV is {_ZERO[curve.zero]}",
        "unit": "1/eV (area 1 on the grid)"
        if curve.scale is Scale.AREA
        else "states / eV / atom (both spins)",
        "meaning": f"density of states of the ground state on the absorbing atoms, {'+'.join(curve.angular)}, "
        f"{_MEANING[curve.part]}, Gaussian sigma {curve.sigma_eV} eV",
    }
