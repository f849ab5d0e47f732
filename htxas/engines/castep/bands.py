"""CASTEP's ``.bands``: levels at the k points, their weights, and the Fermi level.

A run on several processors writes its k points in the order it holds them, each with its number. The other files of the
run have the same order (OptaDOS, ``elec_read_band_energy``), so it is kept here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.units import BOHR_A, HARTREE_EV

__all__ = ["Bands", "OutputError", "read_bands"]

FloatArray = npt.NDArray[np.float64]
_KPOINT = re.compile(r"^K-point\s+(\d+)\s+(.*)$")


class OutputError(ValueError):
    """A file of CASTEP's is not whole, or not what it should be."""


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """Levels of a calculation that is not spin-polarised.

    Attributes
    ----------
    kpoints
        In fractions of the reciprocal vectors, shape (k, 3).
    weights
        Of the k points, shape (k,); they add up to 1.
    levels_eV
        Shape (k, bands), ascending; counted from the cell's own zero.
    electrons
        Valence electrons of the cell.
    fermi_eV
        Fermi level of self-consistency.
    cell_A
        Lattice vectors as rows, Angstrom.
    """

    kpoints: FloatArray
    weights: FloatArray
    levels_eV: FloatArray
    electrons: float
    fermi_eV: float
    cell_A: FloatArray

    @property
    def first_empty(self) -> int:
        """Index of the first band that is not full: half full with an odd number of electrons.

        The published ``ev[(n_electron - 1) // 2]``, where their number is odd.
        """
        return round(self.electrons) // 2

    @property
    def gap_eV(self) -> float:
        """Least level of the first band that is not full minus the greatest below; negative if they overlap."""
        n = self.first_empty
        return float(self.levels_eV[:, n].min() - self.levels_eV[:, n - 1].max())

    def final_states(self) -> npt.NDArray[np.bool_]:
        """Return which levels are final states, shape (k, bands).

        Those of bands that are not full, where a gap sets them apart; the level that holds the excited electron is
        among them. Where bands overlap, those above the Fermi level (as in OptaDOS).
        """
        mask = np.zeros(self.levels_eV.shape, dtype=bool)
        if self.gap_eV >= 0:
            mask[:, self.first_empty :] = True
        else:
            mask[:] = self.levels_eV > self.fermi_eV
        return mask


def read_bands(text: str) -> Bands:
    """Return the levels in a ``.bands``.

    Raises
    ------
    OutputError
        Cut short, spin-polarised, or numbers that do not fit together.
    """
    lines = text.splitlines()
    try:
        count, spins = (int(lines[i].split()[-1]) for i in (0, 1))
        electrons, bands = float(lines[2].split()[-1]), int(lines[3].split()[-1])
        fermi = float(lines[4].split()[-1])
        cell = np.array([[float(x) for x in lines[i].split()] for i in (6, 7, 8)])
        if spins != 1:
            raise OutputError("is spin-polarised, which was not asked for")
        if len(lines) != 9 + count * (bands + 2):
            raise OutputError(f"has {len(lines)} lines, {9 + count * (bands + 2)} make it whole")
        numbers, points, levels = [], [], []
        for k in range(count):
            at = 9 + k * (bands + 2)
            found = _KPOINT.match(lines[at])
            if found is None:
                raise OutputError(f"has no k point in line {at + 1}")
            numbers.append(int(found[1]))
            points.append([float(x) for x in found[2].split()])
            levels.append([float(x) for x in lines[at + 2 : at + 2 + bands]])
        point, level = np.array(points), np.array(levels)
        if cell.shape != (3, 3) or point.shape != (count, 4):
            raise OutputError("has no lattice vectors or k points")
    except OutputError as error:
        raise OutputError(f".bands {error}") from None
    except (ValueError, IndexError) as error:
        raise OutputError(f".bands cannot be read: {error}") from None
    if sorted(numbers) != list(range(1, count + 1)) or abs(point[:, 3].sum() - 1) > 1e-4:
        raise OutputError(".bands lacks k points")
    if not 1 <= round(electrons) // 2 < bands or abs(electrons - round(electrons)) > 1e-3:
        raise OutputError(f".bands has {bands} bands for {electrons:g} electrons")
    if (np.diff(level, axis=1) < -1e-6).any():
        raise OutputError(".bands has levels out of order")
    return Bands(
        kpoints=point[:, :3],
        weights=point[:, 3] / point[:, 3].sum(),
        levels_eV=level * HARTREE_EV,
        electrons=electrons,
        fermi_eV=fermi * HARTREE_EV,
        cell_A=cell * BOHR_A,
    )
