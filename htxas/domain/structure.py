"""A structure: atoms in space, in one canonical order, on one fixed grid of positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.elements import atomic_number
from htxas.domain.identity import content_key
from htxas.errors import StructureError

__all__ = ["MOMENT_DECIMALS", "POSITION_DECIMALS", "Structure"]

POSITION_DECIMALS = 6
"""Positions are kept to 1e-6 A; that grid is what is computed, so the identity is exact."""

MOMENT_DECIMALS = 3
"""Magnetic moments are kept to 1e-3 Bohr magnetons, as codes print them; what is smaller counts as zero."""

_GUARD_DECIMALS = 9  # round here first: a decimal half-way case then always falls the same way
_CLOSEST_A = 0.4  # below any bond (H2 is 0.74 A): two atoms in one place
FloatArray = npt.NDArray[np.float64]


def _on_grid(values: npt.ArrayLike, decimals: int = POSITION_DECIMALS) -> FloatArray:
    guarded: FloatArray = np.asarray(values, dtype=np.float64).round(_GUARD_DECIMALS)
    array: FloatArray = guarded.round(decimals) + 0.0  # + 0.0: -0.0 -> 0.0
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms in canonical order (atomic number, then x, y, z), positions on a 1e-6 A grid.

    Build one with :meth:`from_atoms`; the constructor trusts its caller.

    Attributes
    ----------
    symbols
        Element symbols, length n.
    positions_A
        Cartesian positions in Angstrom, shape (n, 3), read-only.
    cell_A
        Lattice vectors as rows in Angstrom, shape (3, 3), or None for a molecule in vacuum.
    moments_muB
        Collinear magnetic moments of the atoms in Bohr magnetons on a 1e-3 grid, length n, read-only; None if there are
        none, or all are zero. A part of the identity only where there are some.
    """

    symbols: tuple[str, ...]
    positions_A: FloatArray
    cell_A: FloatArray | None = field(default=None)
    moments_muB: FloatArray | None = field(default=None)

    @classmethod
    def from_atoms(
        cls,
        symbols: Sequence[str],
        positions_A: npt.ArrayLike,
        cell_A: npt.ArrayLike | None = None,
        *,
        moments_muB: npt.ArrayLike | None = None,
        where: str | None = None,
    ) -> tuple[Structure, tuple[int, ...]]:
        """Return the canonical structure and ``order``: canonical atom i is input atom ``order[i]``.

        Parameters
        ----------
        symbols, positions_A, cell_A
            As in the file; positions in Angstrom, shape (n, 3).
        moments_muB
            Collinear magnetic moments in Bohr magnetons, length n, in the order of the symbols.
        where
            Named in errors (file and record).

        Raises
        ------
        StructureError
            Empty, wrong shape, not finite, an unknown element, two atoms closer than 0.4 A, or moments that are
            not one finite number per atom.
        """
        if len(symbols) == 0:
            raise StructureError("the structure has no atoms", where=where)
        raw = np.asarray(positions_A, dtype=np.float64)
        if raw.shape != (len(symbols), 3):
            raise StructureError(f"{len(symbols)} symbols but positions of shape {raw.shape}", where=where)
        if not np.isfinite(raw).all():
            raise StructureError("a position is not a finite number", where=where)
        numbers = [atomic_number(s, where=where) for s in symbols]
        positions = _on_grid(raw)
        order = sorted(range(len(symbols)), key=lambda i: (numbers[i], *positions[i].tolist()))
        cell = None
        if cell_A is not None:
            cell = _on_grid(cell_A)
            if cell.shape != (3, 3) or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-3:
                raise StructureError("the cell is not three independent lattice vectors", where=where)
        ordered = positions[order]
        ordered.flags.writeable = False
        moments = _moments(moments_muB, len(symbols), where)
        if moments is not None:
            moments = moments[order]
            moments.flags.writeable = False
        structure = cls(tuple(symbols[i] for i in order), ordered, cell, moments)
        structure._refuse_overlap(order, where)
        return structure, tuple(order)

    def _refuse_overlap(self, order: Sequence[int], where: str | None) -> None:
        n = len(self)
        if n < 2:
            return
        delta = self.positions_A[:, None] - self.positions_A[None]
        if self.cell_A is not None:
            fractional = delta @ np.linalg.inv(self.cell_A)
            delta = (fractional - np.round(fractional)) @ self.cell_A
        distance = np.sqrt((delta**2).sum(axis=-1))
        distance[np.diag_indices(n)] = np.inf
        i, j = divmod(int(distance.argmin()), n)
        if distance[i, j] < _CLOSEST_A:
            raise StructureError(
                f"atoms {order[i]} ({self.symbols[i]}) and {order[j]} ({self.symbols[j]}) "
                f"are {distance[i, j]:.3f} A apart",
                where=where,
                hint="correct the geometry; atoms are counted from 0",
            )

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def is_periodic(self) -> bool:
        """Whether the structure is a crystal (has a cell)."""
        return self.cell_A is not None

    @cached_property
    def key(self) -> str:
        """Content hash over elements, grid positions, cell, and the moments if there are any."""
        scale = 10**POSITION_DECIMALS
        return content_key(
            {
                "symbols": list(self.symbols),
                "positions_1e-6A": np.rint(self.positions_A * scale).astype(np.int64).tolist(),
                "cell_1e-6A": None
                if self.cell_A is None
                else np.rint(self.cell_A * scale).astype(np.int64).tolist(),
                **(
                    {}
                    if self.moments_muB is None
                    else {
                        "moments_1e-3muB": np.rint(self.moments_muB * 10**MOMENT_DECIMALS)
                        .astype(np.int64)
                        .tolist()
                    }
                ),
            }
        )

    @cached_property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Atomic numbers, length n."""
        return tuple(atomic_number(s) for s in self.symbols)

    @cached_property
    def composition(self) -> dict[str, int]:
        """Atoms per element, sorted by symbol."""
        return dict(sorted(Counter(self.symbols).items()))

    @cached_property
    def formula(self) -> str:
        """Hill formula: carbon, hydrogen, then the rest by symbol."""
        counts = dict(self.composition)
        first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
        ordered = first + [s for s in counts if s not in first]
        return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in ordered)

    @property
    def n_heavy(self) -> int:
        """Atoms other than hydrogen."""
        return sum(s != "H" for s in self.symbols)

    def indices_of(self, element: str) -> tuple[int, ...]:
        """Canonical indices of the atoms of ``element``."""
        return tuple(i for i, s in enumerate(self.symbols) if s == element)

    def to_dict(self) -> dict[str, Any]:
        """Return symbols, positions (A), cell (A), and moments (Bohr magnetons) if there are any, as plain lists."""
        return {
            "symbols": list(self.symbols),
            "positions_A": self.positions_A.tolist(),
            "cell_A": None if self.cell_A is None else self.cell_A.tolist(),
            **({} if self.moments_muB is None else {"moments_muB": self.moments_muB.tolist()}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Structure:
        """Rebuild from :meth:`to_dict`."""
        return cls.from_atoms(
            data["symbols"], data["positions_A"], data["cell_A"], moments_muB=data.get("moments_muB")
        )[0]


def _moments(values: npt.ArrayLike | None, n: int, where: str | None) -> FloatArray | None:
    """Return moments on their grid, or None if there are none but zeros."""
    if values is None:
        return None
    raw = np.asarray(values, dtype=np.float64)
    if raw.shape != (n,):
        raise StructureError(f"{n} atoms but magnetic moments of shape {raw.shape}", where=where)
    if not np.isfinite(raw).all():
        raise StructureError("a magnetic moment is not a finite number", where=where)
    moments = _on_grid(raw, MOMENT_DECIMALS)
    return moments if moments.any() else None
