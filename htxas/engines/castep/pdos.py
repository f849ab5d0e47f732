"""From CASTEP's projections to densities of states on the atoms of a structure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from htxas.domain.dos import ANGULAR, Pdos
from htxas.engines.castep.bands import Bands, OutputError
from htxas.engines.castep.binary import Projections
from htxas.engines.cells import Cell

__all__ = ["pdos_of"]

_SAME_POINT = 1e-4
_BELOW_ZERO = 0.01


def pdos_of(
    bands: Bands, projections: Projections, cell: Cell, indices: Mapping[tuple[int, int], int]
) -> tuple[Pdos, float]:
    """Return levels and their weights, copies of an atom added up, and the least weight before it was made zero.

    CASTEP projects the bands on orbitals of pseudo-atoms (Segall et al., Phys. Rev. B 54, 16317 (1996)): they hold
    nearly all of an occupied level and little of a high one, so the weights do not add up to 1. The orbitals overlap,
    and a weight may come out a little below zero (1e-3 in high levels of silicon): that is zero, and how far below is
    told.

    Parameters
    ----------
    bands, projections
        Of one run.
    cell
        What was computed.
    indices
        (species, rank) -> index in the cell.

    Raises
    ------
    OutputError
        Levels and projections do not belong together, there are f states, or a weight is far below zero.
    """
    if projections.weights.shape[:2] != bands.levels_eV.shape:
        raise OutputError("projections and levels are of different k points or bands")
    apart = projections.kpoints - bands.kpoints
    if np.abs(apart).max() > _SAME_POINT:
        raise OutputError("projections and levels are of different k points")
    if projections.angular.min() < 0 or projections.angular.max() >= len(ANGULAR):
        raise OutputError("there are projections on f states; the densities of states know s, p and d")
    points, count = bands.levels_eV.shape
    weights = np.zeros((points, count, max(cell.origin) + 1, len(ANGULAR)))
    for orbital, place in enumerate(zip(projections.species, projections.rank, strict=True)):
        index = indices.get((int(place[0]), int(place[1])))
        if index is None:
            raise OutputError(f"there is no atom {place[1]} of species {place[0]}")
        weights[:, :, cell.origin[index], projections.angular[orbital]] += projections.weights[:, :, orbital]
    least = float(weights.min())
    if least < -_BELOW_ZERO:
        raise OutputError(f"a projection is {least:.3f}")
    filled = ~bands.final_states()
    levels = bands.levels_eV.ravel()
    order = np.argsort(levels, kind="stable")
    shares = np.repeat(bands.weights / cell.copies, count)
    pdos = Pdos(
        energies_eV=levels[order],
        occupations=np.where(filled.ravel(), 2.0, 0.0)[order],
        weights=np.maximum(weights, 0.0).reshape(points * count, -1, len(ANGULAR))[order],
        shares=None if points == cell.copies == 1 else shares[order],
        complete=False,
        complete_to_eV=float(bands.levels_eV.max(axis=1).min()),
    )
    return pdos, least
