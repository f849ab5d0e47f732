"""A molecule drawn from its geometry, so that a curve can be matched with its atom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from htxas.domain.structure import Structure
from htxas.report.figure import BLACK, GREY
from htxas.store.records import MoleculeRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bonds", "draw_structure", "project"]

_BOND_FACTOR = 1.25  # a bond is shorter than this times the sum of covalent radii


def project(positions_A: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return positions in their principal frame, widest direction first, shape (n, 3).

    The signs of the axes are fixed, so the same molecule is always drawn the same way.
    """
    centred = positions_A - positions_A.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    rotated = centred @ axes.T
    for column in rotated.T:
        if len(column) and column[np.abs(column).argmax()] < 0:
            column *= -1
    padded = np.zeros((len(positions_A), 3))
    padded[:, : rotated.shape[1]] = rotated
    return padded


def bonds(structure: Structure) -> list[tuple[int, int]]:
    """Return pairs of atoms closer than 1.25 times the sum of their covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[list(structure.atomic_numbers)]
    delta = structure.positions_A[:, None] - structure.positions_A[None]
    near = np.sqrt((delta**2).sum(axis=-1)) < _BOND_FACTOR * (radii[:, None] + radii[None])
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(near, 1))]


def draw_structure(
    axes: Axes, structure: Structure, record: MoleculeRecord, colours: Mapping[str, Any]
) -> None:
    """Draw the molecule in its widest plane; atoms of a site have the colour of its curve and their file index.

    Parameters
    ----------
    axes
        Where to draw.
    structure, record
        The molecule.
    colours
        Calculation key -> colour; sites without one stay white.
    """
    xyz = project(structure.positions_A)
    box = axes.get_window_extent()
    if box.height > box.width:
        xyz = xyz[:, [1, 0, 2]]
    scale = _points_per_A(axes, xyz)
    inverse = np.argsort(record.file_order)
    site_colour: dict[int, Any] = {}
    for site in record.sites:
        for file_atom in site.equivalent_file_atoms:
            site_colour[int(inverse[file_atom])] = colours.get(site.key, "white")
    for i, j in bonds(structure):
        depth = float(min(xyz[i, 2], xyz[j, 2]))
        axes.plot(xyz[[i, j], 0], xyz[[i, j], 1], color=GREY, linewidth=1.3, zorder=_layer(depth) - 0.5)
    for i, symbol in enumerate(structure.symbols):
        _draw_atom(axes, xyz[i], symbol, site_colour.get(i), record.file_order[i], scale)
    axes.set_aspect("equal")
    axes.margins(0.12)
    axes.set_axis_off()


def _points_per_A(axes: Axes, xyz: npt.NDArray[np.float64]) -> float:
    """Points on paper per Angstrom, so that atoms of a large molecule are drawn small enough."""
    box = axes.get_window_extent()
    extent = np.ptp(xyz[:, :2], axis=0) + 1.0
    pixels = min(box.width / float(extent[0]), box.height / float(extent[1]))
    return float(pixels * 72.0 / axes.figure.dpi)


def _layer(depth: float) -> float:
    return 5.0 + depth


def _draw_atom(
    axes: Axes, position: npt.NDArray[np.float64], symbol: str, colour: Any, file_atom: int, scale: float
) -> None:
    x, y, depth = (float(v) for v in position)
    hydrogen = symbol == "H"
    face = ("#f4f4f4" if hydrogen else "white") if colour is None else colour
    diameter = min(12.0, 0.9 * scale) * (0.4 if hydrogen else 1.0)
    axes.scatter([x], [y], s=diameter**2, color=[face], edgecolors=GREY, linewidths=0.8, zorder=_layer(depth))
    if hydrogen and colour is None:
        return
    label = symbol if colour is None else str(file_atom)
    if colour == "white":  # a bare 0 on white would read as oxygen
        label = f"{symbol}{file_atom}"
    ink = BLACK if colour is None or colour == "white" else "white"
    axes.text(
        x,
        y,
        label,
        ha="center",
        va="center_baseline",
        fontsize=0.62 * diameter,
        color=ink,
        zorder=_layer(depth) + 0.1,
    )
