"""Periodic cells that codes with periodic boundaries compute: a molecule in a box, a crystal's supercell around a hole.

A hole must not see its own periodic images. How far they are is said by the user and checked here; the cell that was
taken is part of a calculation's identity through these parameters and the structure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from htxas.domain.structure import Structure
from htxas.engines.models import Strict
from htxas.errors import UnsupportedInput

__all__ = ["Box", "Cell", "Mesh", "Supercell", "nearest_image_A"]

FloatArray = npt.NDArray[np.float64]
_MOST_REPEATS = 12
_LEAST_GAP_A = 4.0  # between a molecule and its image: less is a crystal of them


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """What is computed in place of a structure.

    Attributes
    ----------
    symbols
        Element symbols, length n: the structure's own atoms first, in canonical order, then their copies cell by cell.
    positions_A
        Cartesian positions in Angstrom, shape (n, 3), in the structure's frame.
    cell_A
        Lattice vectors as rows, Angstrom, shape (3, 3).
    origin
        Canonical index of the atom that each is (a copy of), length n.
    """

    symbols: tuple[str, ...]
    positions_A: FloatArray
    cell_A: FloatArray
    origin: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def copies(self) -> int:
        """How many of the structure are in it."""
        return self.origin.count(0)


class Box(Strict):
    """A cubic box around a molecule.

    Attributes
    ----------
    side_A
        Its side; the published campaign took 15 A.
    vacuum_A
        Instead: least distance between the molecule and its periodic images; the side is the molecule's longest
        extent and this.
    """

    side_A: float | None = Field(None, gt=3, le=100)
    vacuum_A: float | None = Field(None, ge=_LEAST_GAP_A, le=50)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.side_A is None) == (self.vacuum_A is None):
            raise ValueError("say side_A or vacuum_A")
        return self

    def build(self, structure: Structure) -> Cell:
        """Return the box, the molecule in its middle.

        Raises
        ------
        UnsupportedInput
            A crystal, or a molecule that comes closer than 4 A to its own images.
        """
        if structure.is_periodic:
            raise UnsupportedInput(
                f"{structure.formula} is periodic; a box is for molecules", hint="say supercell: instead"
            )
        positions = structure.positions_A
        extent = float(np.ptp(positions, axis=0).max())
        side = self.side_A if self.side_A is not None else extent + (self.vacuum_A or 0.0)
        if side - extent < _LEAST_GAP_A:
            raise UnsupportedInput(
                f"{structure.formula} is {extent:.1f} A long: in a box of {side:g} A it touches its own images",
                hint="a larger side_A, or vacuum_A",
            )
        middle = (positions.max(axis=0) + positions.min(axis=0)) / 2
        return Cell(
            structure.symbols,
            positions - middle + side / 2,
            np.eye(3) * side,
            tuple(range(len(structure))),
        )


class Supercell(Strict):
    """Cells of a crystal side by side, one hole in all of them.

    Attributes
    ----------
    distance_A
        Least distance between periodic images of the hole: the fewest cells that have it are taken.
    repeats
        Instead: how often the cell is repeated along each of its vectors.
    """

    distance_A: float | None = Field(None, gt=2, le=60)
    repeats: tuple[int, int, int] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.distance_A is None) == (self.repeats is None):
            raise ValueError("say distance_A or repeats")
        if self.repeats is not None and not all(1 <= n <= _MOST_REPEATS for n in self.repeats):
            raise ValueError(f"repeats lie within 1..{_MOST_REPEATS}")
        return self

    def build(self, structure: Structure) -> Cell:
        """Return the supercell.

        Raises
        ------
        UnsupportedInput
            A molecule, or no supercell of up to 12 cells a side is large enough.
        """
        if structure.cell_A is None:
            raise UnsupportedInput(
                f"{structure.formula} is a molecule; a supercell is for crystals", hint="say box: instead"
            )
        repeats = self.repeats or self._fewest(structure.cell_A)
        shifts = np.array(list(product(*(range(n) for n in repeats))), dtype=np.float64) @ structure.cell_A
        positions = (shifts[:, None] + structure.positions_A[None]).reshape(-1, 3)
        copies = len(shifts)
        return Cell(
            structure.symbols * copies,
            positions,
            structure.cell_A * np.array(repeats)[:, None],
            tuple(range(len(structure))) * copies,
        )

    def _fewest(self, cell_A: FloatArray) -> tuple[int, int, int]:
        assert self.distance_A is not None
        wanted = self.distance_A - 1e-6
        most = [min(_MOST_REPEATS, math.ceil(wanted / h) + 1) for h in _heights_A(cell_A)]
        a, b, c = (range(1, n + 1) for n in most)
        sizes = sorted(product(a, b, c), key=lambda r: (math.prod(r), max(r), r))
        for repeats in sizes:
            if nearest_image_A(cell_A * np.array(repeats)[:, None]) >= wanted:
                return repeats
        raise UnsupportedInput(
            f"no supercell of up to {_MOST_REPEATS} cells a side keeps images {self.distance_A:g} A apart",
            hint="a smaller distance_A",
        )


class Mesh(Strict):
    """Points in the Brillouin zone.

    Attributes
    ----------
    spacing_invA
        Greatest distance between neighbours along each reciprocal vector, 1/A, with 2 pi in it.
    divisions
        Instead: how many along each.
    shifted
        Whether the mesh is moved by half a step off the zone's centre.
    """

    spacing_invA: float | None = Field(None, gt=0.01, le=5)
    divisions: tuple[int, int, int] | None = None
    shifted: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.spacing_invA is None) == (self.divisions is None):
            raise ValueError("say spacing_invA or divisions")
        if self.divisions is not None and not all(1 <= n <= 64 for n in self.divisions):
            raise ValueError("divisions lie within 1..64")
        return self

    def build(self, cell_A: FloatArray) -> tuple[int, int, int]:
        """Return how many points along each reciprocal vector of a cell."""
        if self.divisions is not None:
            return self.divisions
        assert self.spacing_invA is not None
        lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(cell_A), axis=0)
        first, second, third = (max(1, math.ceil(x / self.spacing_invA - 1e-6)) for x in lengths)
        return first, second, third


def _heights_A(cell_A: FloatArray) -> FloatArray:
    """Return the distance between opposite faces along each vector, A."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell_A), axis=0))


def nearest_image_A(cell_A: FloatArray) -> float:
    """Return the length of the shortest lattice vector, Angstrom."""
    reach = [math.ceil(np.linalg.norm(cell_A, axis=1).min() / h) for h in _heights_A(cell_A)]
    steps = np.array(list(product(*(range(-n, n + 1) for n in reach))), dtype=np.float64)
    lengths = np.linalg.norm(steps @ cell_A, axis=1)
    return float(lengths[lengths > 1e-9].min())
