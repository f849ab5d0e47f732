"""The structure that explains a FEFF deck which exists, and the atom of it that absorbs.

It is, in this order, a POSCAR beside or above the folder, the crystal in the header that pymatgen writes, or the
cluster itself. It is only believed if cutting it as htxas would gives the very atoms of the deck.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.elements import SYMBOLS
from htxas.domain.structure import Structure
from htxas.engines.adoption import NotAdopted, Why
from htxas.engines.feff.cluster import Cluster, cut
from htxas.engines.feff.deck import Deck
from htxas.engines.feff.parameters import FeffParameters
from htxas.errors import StructureError

__all__ = ["Found", "structure_of"]

_LONGEST_NAME = 200
_SAME_A = 2e-3  # between a deck's rounded positions and the structure's
_INDEX = re.compile(r"^0*(\d+)_[A-Z][a-z]?$")
_HEADER_ATOM = re.compile(r"^\*\s+\d+\s+([A-Z][a-z]?)\S*\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s*$")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A structure that explains a deck, and the canonical atom that absorbs."""

    structure: Structure
    order: tuple[int, ...]
    atom: int
    radius_A: float | None
    cluster: Cluster
    name: str
    origin: Mapping[str, Any]


def structure_of(folder: Path, root: Path, deck: Deck, parameters: FeffParameters) -> Found:
    """Return the structure of a deck in ``folder``; POSCARs are looked for up to the folder ``root``.

    Raises
    ------
    NotAdopted
        UNSUPPORTED: not even the cluster itself is a structure.
    """
    numbers = np.array([deck.potentials[k].number for k in deck.atom_potentials.tolist()])
    wanted = _sorted(deck.positions_A - deck.positions_A[deck.atom_potentials == 0], numbers)
    for look in (partial(_poscar, folder, root), partial(_header, folder, root, deck)):
        candidate = look()
        if candidate is None:
            continue
        structure, order, name, origin = candidate
        found = _absorber(folder, structure, order, wanted, parameters, exact=origin["structure"] == "POSCAR")
        if found is not None:
            atom, radius, cluster = found
            return Found(structure, order, atom, radius, cluster, name, origin)
    return _as_it_is(folder, root, wanted)


def _sorted(delta: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]) -> Cluster:
    distance = np.sqrt((delta**2).sum(axis=1))
    order = np.argsort(distance, kind="stable")
    return Cluster(delta[order], numbers[order], distance[order])


def _poscar(folder: Path, root: Path) -> tuple[Structure, tuple[int, ...], str, Mapping[str, Any]] | None:
    here = folder
    while True:
        for name in ("POSCAR", "CONTCAR"):
            path = here / name
            if path.is_file():
                found = _read_poscar(path, path.stat().st_mtime_ns)
                return None if found is None else (*found[:2], _name(here, root), found[2])
        if here in (root, here.parent):
            return None
        here = here.parent


def _name(folder: Path, root: Path) -> str:
    """Return a folder's path below what the user named, as a structure's name: two of them never share it."""
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    return ".".join(parts)[-_LONGEST_NAME:] or folder.name


@lru_cache(maxsize=64)
def _read_poscar(path: Path, _mtime_ns: int) -> tuple[Structure, tuple[int, ...], Mapping[str, Any]] | None:
    from ase.io import read

    try:
        atoms: Any = read(path, format="vasp")
        structure, order = Structure.from_atoms(
            atoms.get_chemical_symbols(), atoms.get_positions(), atoms.get_cell()[:], where=str(path)
        )
    except (StructureError, ValueError, LookupError, TypeError, RuntimeError, OSError):  # as many as ASE has
        return None
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    origin = {"structure": "POSCAR", "file": str(path), "file_sha256": checksum}
    return structure, order, origin


def _header(
    folder: Path, root: Path, deck: Deck
) -> tuple[Structure, tuple[int, ...], str, Mapping[str, Any]] | None:
    """Return the crystal of pymatgen's header: cell edges and angles, fractional coordinates to six decimals."""
    facts = dict(t.split(":", 1) for t in deck.titles if ":" in t)
    if "abc" not in facts or "angles" not in facts:
        return None
    from ase.cell import Cell

    try:
        new: Any = Cell.new
        cell = new([float(w) for w in (facts["abc"] + " " + facts["angles"]).split()])[:]
        atoms = [m.groups() for line in deck.comments if (m := _HEADER_ATOM.match(line))]
        fractional = np.array([a[1:] for a in atoms], dtype=np.float64)
        structure, order = Structure.from_atoms([a[0] for a in atoms], fractional @ cell, cell)
    except (StructureError, ValueError, IndexError):
        return None
    return structure, order, _name(folder, root), {"structure": "header"}


def _absorber(
    folder: Path,
    structure: Structure,
    order: tuple[int, ...],
    wanted: Cluster,
    parameters: FeffParameters,
    *,
    exact: bool,
) -> tuple[int, float, Cluster] | None:
    """Return the atom around which the structure has the deck's atoms, the radius they lie within, and the atoms."""
    symbol = SYMBOLS[int(wanted.numbers[0])]
    radius = _radius(wanted, parameters)
    for atom in _guesses(folder, order, structure.indices_of(symbol)):
        cluster = cut(structure, atom, radius)
        if len(cluster) == len(wanted) and _agree(cluster, wanted, exact=exact):
            return atom, radius, cluster
    return None


def _radius(wanted: Cluster, parameters: FeffParameters) -> float:
    """Return the radius of a sphere with the deck's atoms: that of FMS or SCF if the last atom lies just within it."""
    last = float(wanted.distances_A[-1])
    for sphere in (parameters.fms, parameters.scf):
        if sphere is not None and sphere.radius_A is not None and last <= sphere.radius_A < last + 2.0:
            return sphere.radius_A
    return round(last + 0.01, 2)


def _guesses(folder: Path, order: tuple[int, ...], atoms: tuple[int, ...]) -> Iterator[int]:
    """Yield the atoms that may absorb, first the one the folder's name counts (``001_Cu``)."""
    match = _INDEX.match(folder.name)
    first = order.index(int(match[1])) if match and int(match[1]) < len(order) else None
    if first in atoms:
        yield first
    yield from (a for a in atoms if a != first)


def _agree(ours: Cluster, theirs: Cluster, *, exact: bool) -> bool:
    """Whether two clusters of as many atoms are the same; if not ``exact``, theirs may be turned."""
    if np.abs(ours.distances_A - theirs.distances_A).max() > _SAME_A:
        return False
    if not exact:
        shells = [np.lexsort((c.distances_A, c.numbers)) for c in (ours, theirs)]
        same = (ours.numbers[shells[0]] == theirs.numbers[shells[1]]).all()
        apart = np.abs(ours.distances_A[shells[0]] - theirs.distances_A[shells[1]]).max()
        return bool(same and apart <= _SAME_A)
    keys = [np.lexsort((*np.rint(c.positions_A.T / 0.02), c.numbers)) for c in (ours, theirs)]
    delta = ours.positions_A[keys[0]] - theirs.positions_A[keys[1]]
    if (ours.numbers[keys[0]] == theirs.numbers[keys[1]]).all() and np.abs(delta).max() <= _SAME_A:
        return True
    # Rounding may have put a pair in another order: look for each atom's nearest.
    apart = np.abs(ours.positions_A[:, None] - theirs.positions_A[None]).max(axis=-1)
    nearest = apart.argmin(axis=1)
    return bool(
        len(set(nearest.tolist())) == len(ours)
        and apart[np.arange(len(ours)), nearest].max() <= _SAME_A
        and (ours.numbers == theirs.numbers[nearest]).all()
    )


def _as_it_is(folder: Path, root: Path, wanted: Cluster) -> Found:
    """Return the cluster itself as a molecule."""
    symbols = [SYMBOLS[n] for n in wanted.numbers.tolist()]
    try:
        structure, order = Structure.from_atoms(symbols, wanted.positions_A)
    except StructureError as error:
        raise NotAdopted(
            Why.UNSUPPORTED, f"the atoms of feff.inp are no structure: {error.message}"
        ) from None
    atom = order.index(0)
    return Found(
        structure,
        order,
        atom,
        None,
        cut(structure, atom, None),
        _name(folder, root),
        {"structure": "cluster"},
    )
