"""Levels of Elk: at its k points, of the core, and their charges in the atoms' spheres.

Every reader refuses a file that is cut short. Energies of Elk are hartree, k points in units of reciprocal vectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.engines.elk.output import OutputError, read_text

__all__ = ["Levels", "read_characters", "read_core_level_Ha", "read_equivalent", "read_levels"]

FloatArray = npt.NDArray[np.float64]
_L_COLUMNS = 4  # s, p, d, f


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Levels at the k points Elk keeps.

    Attributes
    ----------
    points
        In units of the reciprocal vectors, shape (k, 3).
    weights
        Adding up to 1, shape (k,).
    energies_Ha, occupations
        Shape (k, levels); occupations from 0 to 2.
    """

    points: FloatArray
    weights: FloatArray
    energies_Ha: FloatArray
    occupations: FloatArray


def read_levels(folder: Path) -> Levels:
    """Return ``EIGVAL.OUT`` with the weights of ``KPOINTS.OUT``.

    Raises
    ------
    OutputError
        One of them is not there, cut short, or not of the other.
    """
    lines = read_text(folder / "EIGVAL.OUT").splitlines()
    try:
        points, levels = _count(lines[0], "nkpt"), _count(lines[1], "nstsv")
        rows = [line.split() for line in lines[2:] if line.strip() and not line.lstrip().startswith("(")]
        if len(rows) != points * (levels + 1):
            raise OutputError("EIGVAL.OUT is cut short")
        blocks = [rows[i * (levels + 1) : (i + 1) * (levels + 1)] for i in range(points)]
        vectors = np.array([[float(x) for x in block[0][1:4]] for block in blocks])
        values = np.array([[[float(x) for x in row[1:3]] for row in block[1:]] for block in blocks])
        table = [line.split() for line in read_text(folder / "KPOINTS.OUT").splitlines() if line.strip()]
        if len(table) != int(table[0][0]) + 1 or int(table[0][0]) != points:
            raise OutputError("KPOINTS.OUT has other k points than EIGVAL.OUT, or is cut short")
        kept = np.array([[float(x) for x in row[1:5]] for row in table[1:]])
    except (IndexError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"EIGVAL.OUT or KPOINTS.OUT: {error}") from None
    if not np.allclose(kept[:, :3], vectors, atol=1e-8) or abs(kept[:, 3].sum() - 1) > 1e-6:
        raise OutputError("KPOINTS.OUT has other k points than EIGVAL.OUT")
    return Levels(vectors, kept[:, 3] / kept[:, 3].sum(), values[..., 0], values[..., 1])


def _count(line: str, name: str) -> int:
    number, _, label = line.partition(":")
    if label.strip() != name:
        raise OutputError(f"there is no {name} where it should be")
    return int(number)


def read_core_level_Ha(folder: Path) -> float:
    """Return the 1s level of the first atom, from ``EVALCORE.OUT``.

    Raises
    ------
    OutputError
        It is not there.
    """
    text = read_text(folder / "EVALCORE.OUT")
    found = re.search(r"Species :\s+1 \(.*\), atom :\s+1\s*\n\s*n =\s+1, l =\s+0, k =\s+1 :\s+(-\S+)", text)
    if found is None:
        raise OutputError("EVALCORE.OUT has no 1s level of the first atom")
    return float(found[1])


def read_equivalent(folder: Path, kinds: list[int]) -> list[list[int]]:
    """Return for each atom those it is equivalent to by symmetry, itself included, from ``EQATOMS.OUT``.

    Parameters
    ----------
    folder
        Where it is.
    kinds
        Atoms of each kind; atoms are counted from 0 in Elk's order, over all kinds.

    Raises
    ------
    OutputError
        It is not there, cut short, or of other atoms.
    """
    text = read_text(folder / "EQATOMS.OUT")
    groups: list[list[int]] = []
    blocks = re.split(r"^Species :.*$", text, flags=re.MULTILINE)[1:]
    if len(blocks) != len(kinds):
        raise OutputError("EQATOMS.OUT has other kinds of atoms, or is cut short")
    for block, atoms in zip(blocks, kinds, strict=True):
        start = len(groups)
        entries = re.split(r"^ atom +\d+ is equivalent to atom\(s\)$", block, flags=re.MULTILINE)[1:]
        groups += [[start + int(x) - 1 for x in entry.split()] for entry in entries]
        members = groups[start:]
        if len(members) != atoms or any(start + i not in g for i, g in enumerate(members)):
            raise OutputError("EQATOMS.OUT has other atoms, or is cut short")
        if any(members[j - start] != g for g in members for j in g):
            raise OutputError("EQATOMS.OUT contradicts itself")
    return groups


def read_characters(folder: Path, kinds: list[int], points: int) -> tuple[FloatArray, FloatArray]:
    """Return levels and their charge in each sphere, from ``BAND_Sss_Aaaaa.OUT``.

    Parameters
    ----------
    folder
        Where task 21 ran.
    kinds
        Atoms of each kind, in Elk's order.
    points
        How many k points.

    Returns
    -------
    energies_Ha
        From the Fermi level, shape (k, levels).
    charges
        Shape (k, levels, atoms, 4) for s, p, d, f; atoms in Elk's order.

    Raises
    ------
    OutputError
        A file is not there, cut short, or of other levels.
    """
    tables: list[FloatArray] = []
    for kind, atoms in enumerate(kinds, start=1):
        for atom in range(1, atoms + 1):
            name = f"BAND_S{kind:02d}_A{atom:04d}.OUT"
            rows = [line.split() for line in read_text(folder / name).splitlines() if line.strip()]
            try:
                table = np.array(rows, dtype=np.float64).reshape(-1, points, 3 + _L_COLUMNS)
            except ValueError:
                raise OutputError(f"{name} is cut short, or no table") from None
            if tables and (
                table.shape != tables[0].shape or not np.array_equal(table[..., :2], tables[0][..., :2])
            ):
                raise OutputError(f"{name} has other levels than BAND_S01_A0001.OUT")
            if np.abs(table[..., 3:].sum(axis=-1) - table[..., 2]).max() > 1e-4:
                raise OutputError(f"{name}: charges by angular momentum are not those of the sphere")
            tables.append(table)
    stacked = np.array(tables)  # atoms, levels, k, columns
    return stacked[0, ..., 1].T, stacked[..., 3:].transpose(2, 1, 0, 3)
