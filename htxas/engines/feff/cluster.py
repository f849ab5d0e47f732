"""The atoms around an absorber as FEFF wants them: the absorber at the origin, one unique potential per element.

``pymatgen.io.feff`` cuts the same spheres, but counts atoms of the sphere where FEFF asks for those of the unit cell
or the molecule (``xnatph``, with which the Fermi level is found), and cannot cut by a number of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.elements import SYMBOLS
from htxas.domain.structure import Structure
from htxas.engines.feff.deck import Potential

__all__ = ["Cluster", "NEIGHBOURS_MOST", "cut", "radius_of"]

FloatArray = npt.NDArray[np.float64]

NEIGHBOURS_MOST = 3_900
"""FEFF10 has room for 4000 atoms (``natx``)."""

_SHELL_A = 0.01  # atoms this close in distance are one shell, and no sphere cuts it
_DILUTE = 0.01  # how FEFF is told that one absorber stands for a crystal's


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Atoms around an absorber, nearest first.

    Attributes
    ----------
    positions_A
        From the absorber, shape (n, 3); the first is the absorber.
    numbers
        Atomic numbers, shape (n,).
    distances_A
        Shape (n,), ascending.
    """

    positions_A: FloatArray
    numbers: npt.NDArray[np.int64]
    distances_A: FloatArray

    def __len__(self) -> int:
        return len(self.numbers)

    def within(self, radius_A: float) -> Cluster:
        """Return the atoms no farther away than ``radius_A``."""
        n = int(np.searchsorted(self.distances_A, radius_A, side="right"))
        return Cluster(self.positions_A[:n], self.numbers[:n], self.distances_A[:n])

    def kinds(self) -> npt.NDArray[np.int64]:
        """Return the unique potential of each atom, shape (n,): 0 is the absorber, then by atomic number."""
        others = np.unique(self.numbers[1:])
        kinds = np.searchsorted(others, self.numbers) + 1
        kinds[0] = 0
        return kinds

    def potentials(self, structure: Structure) -> tuple[Potential, ...]:
        """Return the unique potentials with their stoichiometry in ``structure``.

        In a molecule the absorber counts as one atom, and the others of its element are one fewer. In a crystal it is
        a vanishing share of them.
        """
        absorber = int(self.numbers[0])
        found = [
            Potential(0, absorber, SYMBOLS[absorber], stoichiometry=_DILUTE if structure.is_periodic else 1.0)
        ]
        for index, number in enumerate(np.unique(self.numbers[1:]).tolist(), 1):
            symbol = SYMBOLS[number]
            count = structure.composition[symbol]
            if not structure.is_periodic and number == absorber:
                count -= 1
            found.append(Potential(index, number, symbol, stoichiometry=float(count)))
        return tuple(found)


def cut(structure: Structure, atom: int, radius_A: float | None) -> Cluster:
    """Return the atoms within ``radius_A`` of an atom of a structure, or a molecule as it is (None).

    A molecule keeps its own axes. Atoms in one shell are ordered by position, so that the same structure always
    gives the same input.

    Raises
    ------
    ValueError
        A crystal without a radius.
    """
    center = structure.positions_A[atom]
    numbers = np.array(structure.atomic_numbers, dtype=np.int64)
    if structure.cell_A is None:
        delta, kinds = structure.positions_A - center, numbers
    elif radius_A is None:
        raise ValueError("a crystal is cut at a radius")
    else:
        delta, kinds = _images(structure, center, radius_A, numbers)
    distance = np.sqrt((delta**2).sum(axis=1))
    keep = np.flatnonzero(distance <= (np.inf if radius_A is None else radius_A))
    shell = np.rint(distance[keep] / 1e-4)
    rounded = np.round(delta[keep], 4) + 0.0
    order = keep[np.lexsort((*rounded.T[::-1], kinds[keep], shell))]
    return Cluster(delta[order], kinds[order], distance[order])


def _images(
    structure: Structure, center: FloatArray, radius_A: float, numbers: npt.NDArray[np.int64]
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return all periodic images within ``radius_A`` of ``center``, relative to it, and their atomic numbers."""
    cell = np.asarray(structure.cell_A, dtype=np.float64)
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.sqrt((inverse**2).sum(axis=0))  # between lattice planes
    fractional = (structure.positions_A - center) @ inverse
    fractional -= np.floor(fractional)
    most = np.ceil(radius_A / heights).astype(int)
    ranges = [np.arange(-m - 1, m + 1) for m in most]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    delta = (fractional[:, None] + shifts[None]) @ cell
    near = (delta**2).sum(axis=-1) <= (radius_A + 1e-6) ** 2
    found: FloatArray = delta[near]
    kinds = np.broadcast_to(numbers[:, None], near.shape)[near]
    return found, kinds


def radius_of(structure: Structure, atom: int, atoms: int) -> float:
    """Return the radius of the sphere of whole shells around an atom that comes nearest to holding ``atoms`` atoms.

    It lies half way to the next shell, at most 0.1 A beyond the last one.

    Raises
    ------
    ValueError
        If it would have to hold more than FEFF has room for.
    """
    radius_A = 3.0
    while True:
        cluster = cut(structure, atom, radius_A)
        distance = cluster.distances_A
        ends = np.flatnonzero(np.diff(distance) > _SHELL_A) + 1  # number of atoms up to each whole shell
        if not structure.is_periodic and atoms >= len(cluster):
            return float(distance[-1]) + 0.1
        if len(ends) and ends[-1] > atoms:
            best = int(min(ends, key=lambda n: (abs(n - atoms), n)))
            return float(distance[best - 1] + min(0.1, (distance[best] - distance[best - 1]) / 2))
        if len(cluster) > NEIGHBOURS_MOST:
            raise ValueError(f"more than {NEIGHBOURS_MOST} atoms")
        radius_A *= 1.3
