"""CP2K's tables: absorption spectra of the transition potential, and projected densities of states.

``*.spectrum``, with ``DIPOLE_FORM LENGTH`` (``xas_write`` in CP2K's ``src/xas_methods.F``): index of the level; its
distance E from the hole's level in eV; ``E^2 <f|r_a|1s>`` for x, y, z with E in Hartree and r in a0 - amplitudes with
their signs, not squares; ``E^2 |<f|r|1s>|^2``; occupation. The last but one is what the others are checked by.

``*.pdos``: Loewdin populations of each level, per kind of atom or for a list of atoms, by angular momentum.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.units import HARTREE_EV

__all__ = ["PdosTable", "SpectrumTable", "TableError", "read_pdos", "read_spectrum"]

FloatArray = npt.NDArray[np.float64]
_HEAD = re.compile(
    r"^ Absorption spectrum for atom\s+(\d+), index of excited core MO is\s+(\d+), # of lines\s+(\d+)$"
)
_OF = re.compile(
    r"^# Projected DOS for (?:atomic kind (\S+)|list\s+(\d+) of\s+\d+ atoms),? at iteration step"
)
_SQUARES = 2e-3  # of the largest: eight digits are written


class TableError(Exception):
    """A table is cut short, not of this run, or not what this module reads."""


@dataclass(frozen=True, slots=True, eq=False)
class SpectrumTable:
    """A spectrum.

    Attributes
    ----------
    atom
        Counted from 0.
    hole
        Index of the hole's level, counted from 0.
    first
        Index of the first level, counted from 0; the others follow one by one.
    distances_eV
        Of each empty level from the hole's, shape (n,).
    dipoles_a0
        Matrix elements of the position with the hole's orbital, shape (n, 3).
    """

    atom: int
    hole: int
    first: int
    distances_eV: FloatArray
    dipoles_a0: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class PdosTable:
    """Projected levels.

    Attributes
    ----------
    of
        Kind of atom, or the number of a list, counted from 1.
    levels_Ha, occupations
        Shape (n,).
    weights
        Shape (n, 3) for s, p, d.
    """

    of: str
    levels_Ha: FloatArray
    occupations: FloatArray
    weights: FloatArray


def read_spectrum(text: str) -> SpectrumTable:
    """Read a spectrum.

    Raises
    ------
    TableError
        See there.
    """
    first, *lines = text.splitlines() or [""]
    head = _HEAD.match(first)
    if head is None:
        raise TableError("it does not begin as a spectrum of CP2K's does")
    table = _numbers(lines, 7)
    if len(table) != int(head[3]):
        raise TableError(f"it has {len(table)} lines and says it has {head[3]}")
    if not len(table):
        raise TableError("it has no empty levels")
    first_level = int(table[0, 0])
    if not np.array_equal(table[:, 0], np.arange(first_level, first_level + len(table))):
        raise TableError("a level is missing")
    distances_eV = table[:, 1]
    squared = (distances_eV / HARTREE_EV)[:, None] ** 2
    if (distances_eV <= 0).any():
        raise TableError("an empty level lies below the hole")
    dipoles = table[:, 2:5] / squared
    sums = (dipoles**2).sum(axis=1) * squared[:, 0]
    if np.abs(sums - table[:, 5]).max() > _SQUARES * table[:, 5].max() + 1e-7:
        raise TableError("its fourth strength is not the sum of the squares of the other three")
    return SpectrumTable(int(head[1]) - 1, int(head[2]) - 1, first_level - 1, distances_eV, dipoles)


def read_pdos(text: str) -> PdosTable:
    """Read projected levels.

    Raises
    ------
    TableError
        See there; also if there are f functions.
    """
    first, second, *lines = [*text.splitlines(), "", ""]
    head = _OF.match(first)
    if head is None or "Eigenvalue [a.u.]" not in second:
        raise TableError("it does not begin as a PDOS of CP2K's does")
    momenta = second.split("Occupation")[1].split()
    if momenta != list("spd")[: len(momenta)] or not momenta:
        raise TableError(f"it has columns {' '.join(momenta)}, not s, p and d")
    table = _numbers([line for line in lines if line.strip()], 3 + len(momenta))
    if not np.array_equal(table[:, 0], np.arange(1, len(table) + 1)):
        raise TableError("its levels are not counted from 1")
    weights = np.zeros((len(table), 3))
    weights[:, : len(momenta)] = table[:, 3:]
    return PdosTable(head[1] or head[2], table[:, 1], table[:, 2], weights)


def _numbers(lines: list[str], columns: int) -> FloatArray:
    try:
        table = np.array([[float(x) for x in line.split()] for line in lines], dtype=np.float64)
    except ValueError:
        raise TableError("a line of it is cut short, or no numbers") from None
    if table.ndim != 2 or table.shape[1] != columns:
        raise TableError(f"it does not have {columns} columns")
    if not np.isfinite(table).all():
        raise TableError("a number of it is not finite")
    return table
