"""``case.struct``: written from a cell, and read back to see what ``init_lapw`` has made of it.

Columns are those of the WIEN2k user's guide (section "The case.struct file") and of genuine files. ASE 3.29 writes the
same columns but knows no labels, and the label is what splits the absorber off: a digit in the third place of the name
makes an atom inequivalent to its likes. Its reader is used in tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.elements import SYMBOLS
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A
from htxas.engines.cells import Cell, Mesh, Supercell, nearest_image_A
from htxas.errors import UnsupportedInput

__all__ = [
    "Layout",
    "StructError",
    "StructFile",
    "guess_spheres",
    "lay_out",
    "misfit",
    "read_struct",
    "write_struct",
]

FloatArray = npt.NDArray[np.float64]
_POINTS = 781  # radial; WIEN2k's usual number
_FIRST_POINTS_A0 = ((18, 1e-4), (36, 5e-5), (71, 1e-5), (120, 5e-6))  # by atomic number, as in its own files
_GUESS_SHARE, _GUESS_MOST_A0 = 0.47, 2.0  # spheres before setrmt: must not overlap
_SAME_DEGREES, _SAME_A = 1e-3, 1e-5
_NICE, _NICE_WITHIN = 24, 1e-6  # a third must be 0.33333333: symmetry is looked for to many digits
_ATOM = re.compile(
    r"^(?:ATOM|    )\s*-?\s*\d+: X=\s*([\d.]+)\s+Y=\s*([\d.]+)\s+Z=\s*([\d.]+)\s*$", re.MULTILINE
)


class StructError(ValueError):
    """A file is no ``case.struct``, or not the one that was written."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What is computed: the crystal's own cell without a hole, and the supercell with one.

    Attributes
    ----------
    unit, hole
        The cells; the absorber is the first atom of the second.
    unit_mesh, hole_mesh
        Divisions of the mesh of k points: the first is the second, unfolded.
    split
        Whether the first atom of ``unit`` is to be told from its likes: if the cell is not primitive. WIEN2k runs no
        cell that a translation maps onto itself.
    """

    unit: Cell
    hole: Cell
    unit_mesh: tuple[int, int, int]
    hole_mesh: tuple[int, int, int]
    split: bool


@dataclass(frozen=True, slots=True, eq=False)
class StructFile:
    """A ``case.struct``.

    Attributes
    ----------
    title
        Its first line.
    lengths_a0, angles_degrees
        Of the cell.
    lattice
        ``P``, ``H``, ``F``, ...
    names, numbers, spheres_a0
        Of each inequivalent atom.
    positions
        Fractions of the atoms of each inequivalent one.
    """

    title: str
    lattice: str
    lengths_a0: FloatArray
    angles_degrees: FloatArray
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    spheres_a0: tuple[float, ...]
    positions: tuple[FloatArray, ...]

    def __len__(self) -> int:
        return sum(len(p) for p in self.positions)


def lay_out(structure: Structure, atom: int, supercell: Supercell, mesh: Mesh) -> Layout:
    """Return both cells, with ``atom`` (canonical index) as the absorber.

    Raises
    ------
    UnsupportedInput
        As :meth:`Supercell.build`; a hexagonal lattice with its axes in another order than WIEN2k's.
    """
    cell = supercell.build(structure)
    assert structure.cell_A is not None
    order = [atom, *(i for i in range(len(cell)) if i != atom)]
    hole = Cell(
        tuple(cell.symbols[i] for i in order),
        cell.positions_A[order],
        cell.cell_A,
        tuple(cell.origin[i] for i in order),
    )
    unit = Cell(structure.symbols, structure.positions_A, structure.cell_A, tuple(range(len(structure))))
    _refuse_hexagonal(unit.cell_A)
    divisions = mesh.build(cell.cell_A)
    a, b, c = (n * r for n, r in zip(divisions, _repeats(unit, hole), strict=True))
    return Layout(unit, hole, (a, b, c), divisions, _is_repeated(unit))


def _repeats(unit: Cell, hole: Cell) -> tuple[int, ...]:
    ratio = np.linalg.norm(hole.cell_A, axis=1) / np.linalg.norm(unit.cell_A, axis=1)
    return tuple(int(n) for n in np.rint(ratio))


def _is_repeated(cell: Cell) -> bool:
    """Return whether a translation shorter than the lattice's maps the cell onto itself."""
    fractions = cell.positions_A @ np.linalg.inv(cell.cell_A)
    kinds = np.array(cell.symbols)
    return any(
        _is_same(fractions + fractions[j] - fractions[0], fractions, kinds, cell.cell_A)
        for j in range(1, len(cell))
        if kinds[j] == kinds[0]
    )


def _is_same(moved: FloatArray, fractions: FloatArray, kinds: npt.NDArray[np.str_], cell: FloatArray) -> bool:
    delta = moved[:, None] - fractions[None]
    distances = np.linalg.norm((delta - np.round(delta)) @ cell, axis=2)
    distances[kinds[:, None] != kinds[None]] = np.inf
    return bool((distances.min(axis=1) < 1e-3).all())


def _shape(cell_A: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return lengths (A) and angles (degrees), those that agree within rounding made equal."""
    lengths = np.linalg.norm(cell_A, axis=1)
    for i in (1, 2):
        for j in range(i):
            if abs(lengths[i] - lengths[j]) < _SAME_A * max(1, lengths[j] / 10):
                lengths[i] = lengths[j]
    units = cell_A / np.linalg.norm(cell_A, axis=1)[:, None]
    cosines = np.clip([units[1] @ units[2], units[0] @ units[2], units[0] @ units[1]], -1, 1)
    return lengths, np.degrees(np.arccos(cosines)).round(3)


def _is_hexagonal(lengths: FloatArray, angles: FloatArray) -> bool:
    return bool(np.allclose(angles, [90, 90, 120], atol=_SAME_DEGREES) and lengths[0] == lengths[1])


def _refuse_hexagonal(cell_A: FloatArray) -> None:
    lengths, angles = _shape(cell_A)
    if _is_hexagonal(lengths, angles):
        return
    for i, angle in enumerate(angles):
        j, k = (n for n in range(3) if n != i)
        right = all(abs(angles[n] - 90) < _SAME_DEGREES for n in (j, k))
        if right and lengths[j] == lengths[k] and min(abs(angle - 60), abs(angle - 120)) < _SAME_DEGREES:
            raise UnsupportedInput(
                "WIEN2k takes a hexagonal lattice with 120 degrees between its first two vectors",
                hint="give the structure in its standard setting",
            )


def write_struct(title: str, cell: Cell, *, split: bool, spheres_a0: Mapping[str, float]) -> str:
    """Return the file, each atom by itself: ``init_lapw`` finds which are equivalent, and the symmetry.

    Parameters
    ----------
    title
        First line.
    cell
        The cell.
    split
        Whether the first atom is another than its likes.
    spheres_a0
        Radii by element.
    """
    lengths, angles = _shape(cell.cell_A)
    lattice = "H" if _is_hexagonal(lengths, angles) else "P"
    lines = [
        f"{title:<80}",
        f"{lattice:<4}LATTICE,NONEQUIV.ATOMS:{len(cell):3d}",
        "MODE OF CALC=RELA",
        "".join(f"{x:10.6f}" for x in (*(lengths / BOHR_A), *angles)),
    ]
    fractions = _tidy(cell.positions_A @ np.linalg.inv(cell.cell_A))
    for index, (symbol, position) in enumerate(zip(cell.symbols, fractions, strict=True)):
        label = ("1" if index == 0 else "2") if split and symbol == cell.symbols[0] else ""
        number = SYMBOLS.index(symbol)
        first = next(r for z, r in _FIRST_POINTS_A0 if number <= z)
        x, y, z = position
        lines += [
            f"ATOM{-index - 1:4d}: X={x:10.8f} Y={y:10.8f} Z={z:10.8f}",
            "          MULT= 1          ISPLIT= 8",
            f"{f'{symbol:<2}{label}':<10} NPT={_POINTS:5d}  R0={first:10.8f} "
            f"RMT={spheres_a0[symbol]:10.5f}   Z:{number:10.5f}",
            "LOCAL ROT MATRIX:    1.0000000 0.0000000 0.0000000",
            "                     0.0000000 1.0000000 0.0000000",
            "                     0.0000000 0.0000000 1.0000000",
        ]
    lines.append("   0      NUMBER OF SYMMETRY OPERATIONS")
    return "\n".join(lines) + "\n"


def _tidy(fractions: FloatArray) -> FloatArray:
    """Return fractions within [0, 1), those that are simple ones within rounding made so."""
    nice = np.round(fractions * _NICE) / _NICE
    tidied = np.where(np.abs(fractions - nice) < _NICE_WITHIN, nice, fractions) % 1.0
    return np.asarray(tidied.round(8) % 1.0)


def _distances_a0(cell: Cell) -> FloatArray:
    """Return how far each atom is from the nearest image of each, itself included, bohr."""
    from ase.geometry import get_distances

    _, apart_A = get_distances(cell.positions_A, cell=cell.cell_A, pbc=True)  # type: ignore[no-untyped-call]
    apart_A[np.diag_indices(len(cell))] = nearest_image_A(cell.cell_A)
    return np.asarray(apart_A / BOHR_A)


def guess_spheres(cell: Cell) -> dict[str, float]:
    """Return a radius (bohr) of each element so that no spheres overlap: where ``setrmt`` begins."""
    nearest = _distances_a0(cell).min(axis=1)
    kinds = np.array(cell.symbols)
    return {
        e: round(min(_GUESS_MOST_A0, _GUESS_SHARE * float(nearest[kinds == e].min())), 2)
        for e in dict.fromkeys(cell.symbols)
    }


def overlap(cell: Cell, spheres_a0: Mapping[str, float]) -> str:
    """Return two elements whose spheres overlap, or nothing."""
    radii = np.array([spheres_a0[s] for s in cell.symbols])
    close = np.argwhere(_distances_a0(cell) < radii[:, None] + radii[None])
    return "" if not len(close) else " and ".join(cell.symbols[i] for i in close[0])


def read_struct(text: str) -> StructFile:
    """Return what a file says.

    Raises
    ------
    StructError
        It is none, or cut short.
    """
    lines = text.splitlines()
    try:
        kinds = int(lines[1][27:30])
        shape = [float(lines[3][10 * i : 10 * i + 10]) for i in range(6)]
        names, numbers, spheres, positions = [], [], [], []
        at = 4
        for _ in range(kinds):
            places = [_place(lines[at])]
            multiplicity = int(re.split("MULT=", lines[at + 1])[1][:3])
            places += [_place(line) for line in lines[at + 2 : at + 1 + multiplicity]]
            at += 1 + multiplicity
            line = lines[at]
            names.append(line[:10].rstrip())
            spheres.append(float(re.split("RMT=", line)[1][:10]))
            numbers.append(round(float(re.split("Z:", line)[1][:10])))
            if len(places) != multiplicity or not lines[at + 3]:
                raise StructError("case.struct is cut short")
            positions.append(np.array(places))
            at += 4
        int(lines[at][:4])
    except (IndexError, ValueError) as error:
        raise StructError(f"case.struct cannot be read: {error}") from None
    return StructFile(
        lines[0].strip(),
        lines[1][:4].strip(),
        np.array(shape[:3]),
        np.array(shape[3:]),
        tuple(names),
        tuple(numbers),
        tuple(spheres),
        tuple(positions),
    )


def _place(line: str) -> list[float]:
    found = _ATOM.match(line)
    if found is None:
        raise StructError(f"no position in {line.strip()!r}")
    return [float(x) for x in found.groups()]


def misfit(found: StructFile, cell: Cell, *, split: bool) -> str | None:
    """Return in what a file differs from the cell that was written, or None.

    Parameters
    ----------
    found
        As ``init_lapw`` left it: equivalent atoms together.
    cell, split
        As written; ``split``: the first atom is one by itself.
    """
    lengths, _ = _shape(cell.cell_A)
    if found.lattice not in ("P", "H") or np.abs(found.lengths_a0 - lengths / BOHR_A).max() > 1e-4:
        return f"its lattice is {found.lattice} {found.lengths_a0.tolist()}"
    numbers = sorted(z for z, p in zip(found.numbers, found.positions, strict=True) for _ in p)
    if numbers != sorted(SYMBOLS.index(s) for s in cell.symbols):
        return f"it has {len(numbers)} atoms, not the {len(cell)} that were written"
    if not split:
        return None
    first = cell.positions_A[0] @ np.linalg.inv(cell.cell_A)
    delta = found.positions[0][0] - first
    if len(found.positions[0]) != 1 or found.numbers[0] != SYMBOLS.index(cell.symbols[0]):
        return "its first atom is not the absorber alone"
    if np.abs(delta - np.round(delta)).max() > 1e-5:
        return "its first atom is not where the absorber is"
    return None
