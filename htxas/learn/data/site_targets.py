"""What the surroundings of an absorbing atom are: numbers from its structure.

Which atoms are its neighbours follows one rule for molecules and another for crystals. Both are simple, neither is the
truth: of alloys and of bonds to large cations, other rules count other neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from htxas.domain.structure import Structure
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import bonded

__all__ = ["SITE_TARGETS", "Shell", "shell", "site_value"]

SITE_TARGETS: dict[str, tuple[str, str]] = {
    "coordination_number": ("1", "number of neighbours"),
    "mean_bond_length": ("A", "mean distance to the neighbours"),
    "nearest_neighbour_distance": ("A", "distance to the nearest atom, neighbour by the rule or not"),
    "bond_length_deviation": (
        "A",
        "standard deviation (of n, not n - 1) of the distances to the neighbours",
    ),
    "mean_neighbour_number": ("1", "mean atomic number of the neighbours"),
}
"""Unit and meaning by name."""

_FARTHEST_A = 12.0
_ITSELF_A = 0.1  # no structure has two atoms that close


@dataclass(frozen=True, slots=True, eq=False)
class Shell:
    """The neighbours of an atom.

    Attributes
    ----------
    distances_A, numbers
        Of each neighbour: its distance, shape (n,), and its atomic number, shape (n,).
    nearest_A
        Distance to the nearest atom.
    rule
        Who is a neighbour, in words.
    """

    distances_A: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    nearest_A: float
    rule: str


@lru_cache(maxsize=64)
def shell(structure: Structure, atom: int) -> Shell:
    """Return the neighbours of an atom.

    In a molecule: atoms closer than 1.25 times the sum of RDKit's covalent radii. In a crystal: CrystalNN as pymatgen
    sets it by default, without oxidation states (Zimmermann, Jain, RSC Adv. 10, 6063 (2020)): Voronoi neighbours
    weighted by solid angle, distance and electronegativity, and the most likely number of them.

    Raises
    ------
    DatasetError
        If there is no other atom.
    """
    return _crystal(structure, atom) if structure.is_periodic else _molecule(structure, atom)


def site_value(name: str, structure: Structure, atom: int, where: str) -> tuple[float, str]:
    """Return one of :data:`SITE_TARGETS` of an atom, and the rule it follows.

    Raises
    ------
    DatasetError
        If the atom has no neighbours and the number is one of theirs.
    """
    try:
        found = shell(structure, atom)
    except DatasetError as error:
        raise DatasetError(error.message, where=where) from None
    if name == "coordination_number":
        return float(len(found.distances_A)), found.rule
    if name == "nearest_neighbour_distance":
        return found.nearest_A, "structure"
    if not len(found.distances_A):
        raise DatasetError(f"has no neighbours, and no {name}", where=where)
    values: dict[str, Callable[[], Any]] = {
        "mean_bond_length": found.distances_A.mean,
        "bond_length_deviation": found.distances_A.std,
        "mean_neighbour_number": found.numbers.mean,
    }
    return float(values[name]()), found.rule


def _molecule(structure: Structure, atom: int) -> Shell:
    if len(structure) < 2:
        raise DatasetError("is an atom by itself")
    distance_A = np.linalg.norm(structure.positions_A - structure.positions_A[atom], axis=1)
    others = np.delete(np.arange(len(structure)), atom)
    near = np.flatnonzero(bonded(structure)[atom])
    return Shell(
        distance_A[near],
        np.array(structure.atomic_numbers)[near],
        float(distance_A[others].min()),
        "1.25 covalent radii",
    )


def _crystal(structure: Structure, atom: int) -> Shell:
    from pymatgen.analysis.local_env import CrystalNN

    crystal, rule = _pymatgen(structure), cast(Any, CrystalNN)()  # its constructor carries no types
    with warnings.catch_warnings():  # that without oxidation states it takes atomic radii: the card says so
        warnings.filterwarnings("ignore", message="No oxidation states specified|CrystalNN: cannot locate")
        found = rule.get_nn_info(crystal, atom)
    at = crystal[atom]
    distances = [at.distance(n["site"], jimage=np.zeros(3)) for n in found]
    return Shell(
        np.array(distances, dtype=np.float64),
        np.array([n["site"].specie.Z for n in found], dtype=np.int64),
        _nearest_A(crystal, atom),
        f"CrystalNN (pymatgen-core {version('pymatgen-core')})",
    )


@lru_cache(maxsize=8)
def _pymatgen(structure: Structure) -> Any:
    from pymatgen.core.structure import Structure as Crystal

    return Crystal(
        structure.cell_A,  # type: ignore[arg-type]  # a crystal has one
        structure.symbols,
        structure.positions_A,
        coords_are_cartesian=True,
    )


def _nearest_A(crystal: Any, atom: int) -> float:
    radius_A = 3.0
    while radius_A <= _FARTHEST_A:
        found = crystal.lattice.get_points_in_sphere(
            crystal.frac_coords, crystal[atom].coords, radius_A, zip_results=False
        )
        others = found[1][found[1] > _ITSELF_A]
        if len(others):
            return float(others.min())
        radius_A *= 2
    raise DatasetError(f"has no other atom within {_FARTHEST_A:g} A")
