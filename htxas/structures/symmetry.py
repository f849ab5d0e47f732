"""Which atoms of a structure are equivalent by symmetry in three dimensions.

A molecule's symmetry is looked for among permutations of its atoms. For a permutation P that keeps elements,

    d(P) = max_i | Q x_i - x_P(i) |,

with x from the centroid and Q the rotation or rotoreflection that fits best in the least-squares sense (Kabsch,
Acta Cryst. A 32, 922 (1976), without the restriction to det Q = +1). The symmetry group at tolerance t is the
largest set {P : d(P) <= t'}, t' <= t, that is closed under multiplication. Its orbits are the sites. So

* the relation is an equivalence by construction, and every two atoms of a site are related by one operation
  that displaces no atom by more than the tolerance: no chaining from one nearly equivalent atom to the next;
* improper operations count: mirror images have the same isotropic spectrum, and polarisations that are
  reflected into each other;
* distances alone decide nothing. They only rule pairs out: d(P) <= t implies |D_ij - D_P(i)P(j)| <= 2t.

Atoms of one element with different magnetic moments count as different elements: up and down are never one site.

The search is complete: every P that obeys those bounds is visited, so the outcome does not depend on the order
of the atoms. Crystals go to spglib with the same number as its distance tolerance.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.site import Site
from htxas.domain.structure import Structure
from htxas.errors import StructureError, UserError

__all__ = ["DEFAULT_TOLERANCE_A", "LARGEST_TOLERANCE_A", "symmetry_permutations", "unique_sites"]

DEFAULT_TOLERANCE_A = 0.05
"""Greatest displacement of any atom under a symmetry operation."""

LARGEST_TOLERANCE_A = 0.2
"""Half of the closest approach a structure may have: up to here an image meets one atom at most."""

_FRAME = 4  # four atoms off a plane fix a point in space
_MOST_PARTIAL_MAPS = 100_000  # icosahedral C60 needs 180; beyond this the tolerance blurs the molecule
_NOISE_A = 1e-9  # of the arithmetic, so that a bound met exactly is met
_TIE_A = 2e-6  # operations this close in displacement differ by the position grid only

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]


def unique_sites(
    structure: Structure, element: str, tolerance_A: float = DEFAULT_TOLERANCE_A
) -> tuple[Site, ...]:
    """Return one site per set of equivalent ``element`` atoms, by ascending representative.

    Parameters
    ----------
    structure
        Molecule (all point-group operations) or crystal (its space group, through spglib).
    element
        Symbol of the absorber.
    tolerance_A
        Greatest displacement of any atom under an operation, in Angstrom; for crystals spglib's ``symprec``.

    Raises
    ------
    StructureError
        The element is not in the structure, or no symmetry can be determined at this tolerance.
    UserError
        The tolerance is not between 0 and 0.2 A.
    """
    _check_tolerance(tolerance_A)
    atoms = structure.indices_of(element)
    if not atoms:
        raise StructureError(
            f"there is no {element} in {structure.formula}",
            hint="name an element of the structure as the absorber",
        )
    if structure.is_periodic:
        labels = _crystal_classes(structure, tolerance_A)
    elif len(atoms) == 1:
        return (Site(atoms[0], element, atoms),)
    else:
        labels = _molecule_classes(structure, atoms, tolerance_A)
    classes: dict[int, list[int]] = {}
    for atom in atoms:
        classes.setdefault(labels[atom], []).append(atom)
    return tuple(Site(members[0], element, tuple(members)) for members in classes.values())


def symmetry_permutations(structure: Structure, tolerance_A: float = DEFAULT_TOLERANCE_A) -> Ints:
    """Return the symmetry group of a molecule as permutations, shape (operations, atoms), identity first.

    A row maps atom i onto atom ``row[i]``. Operations that exchange no atoms (the mirror plane of a planar
    molecule) are the identity here.

    Raises
    ------
    StructureError
        A crystal, or a tolerance that blurs the molecule.
    UserError
        The tolerance is not between 0 and 0.2 A.
    """
    _check_tolerance(tolerance_A)
    if structure.is_periodic:
        raise StructureError("a crystal has no finite group of atom permutations")
    return _group(_Geometry(structure), tolerance_A)


def _check_tolerance(tolerance_A: float) -> None:
    if not 0 < tolerance_A <= LARGEST_TOLERANCE_A:
        raise UserError(
            f"symmetry tolerance of {tolerance_A} A", hint=f"above 0 and at most {LARGEST_TOLERANCE_A} A"
        )


def _crystal_classes(structure: Structure, tolerance_A: float) -> list[int]:
    import spglib

    lattice = np.asarray(structure.cell_A, dtype=np.float64)
    fractional = structure.positions_A @ np.linalg.inv(lattice)
    cell: Any = (lattice, fractional, _kinds(structure))
    with warnings.catch_warnings():
        # spglib 2.x announces with a warning that a failure, None today, will raise one day: both are handled
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            dataset = spglib.get_symmetry_dataset(cell, symprec=tolerance_A)
        except spglib.error.SpglibError:
            dataset = None
    if dataset is None:
        raise StructureError(
            f"spglib finds no space group for {structure.formula} at {tolerance_A} A",
            hint="lower the symmetry tolerance",
        )
    return [int(label) for label in dataset.equivalent_atoms]


def _kinds(structure: Structure) -> tuple[int, ...]:
    """Return what an operation must keep of each atom, length n: its atomic number; with moments, a label of both."""
    numbers, moments = structure.atomic_numbers, structure.moments_muB
    if moments is None:
        return numbers
    both = list(zip(numbers, moments.tolist(), strict=True))
    label = {kind: i for i, kind in enumerate(sorted(set(both)), start=1)}
    return tuple(label[kind] for kind in both)


def _molecule_classes(structure: Structure, atoms: tuple[int, ...], tolerance_A: float) -> list[int]:
    geometry = _Geometry(structure)
    block = slice(atoms[0], atoms[-1] + 1)  # canonical order keeps an element together
    if np.count_nonzero(geometry.alike(block, tolerance_A)) == len(atoms):
        return list(range(len(structure)))  # each is like itself only: no operation can move it
    orbits: list[int] = _group(geometry, tolerance_A).min(axis=0).tolist()
    return orbits


class _Geometry:
    """What bounds the search: centred positions (n, 3), distances and distance fingerprints (n, n)."""

    __slots__ = ("distance", "fingerprint", "kind", "position", "radius")

    def __init__(self, structure: Structure) -> None:
        x = structure.positions_A
        self.kind: Floats = np.array(_kinds(structure), dtype=np.float64)
        self.position: Floats = x - x.mean(axis=0)
        self.radius: Floats = np.sqrt((self.position**2).sum(axis=1))
        delta = x[:, None] - x[None]
        self.distance: Floats = np.sqrt((delta**2).sum(axis=-1))
        # An offset per kind beyond any distance: one sort orders each atom's distances within kinds.
        offset = self.kind * (2.0 * self.radius.max() + 1.0)
        self.fingerprint: Floats = np.sort(self.distance + offset, axis=1)

    def alike(self, atoms: slice, tolerance_A: float) -> Bools:
        """Which pairs among ``atoms`` an operation within the tolerance could exchange, shape (m, m)."""
        f, r, z = self.fingerprint[atoms], self.radius[atoms], self.kind[atoms]
        pairs: Bools = (np.abs(r[:, None] - r) <= tolerance_A + _NOISE_A) & (z[:, None] == z)
        for row, mates in zip(f, pairs, strict=True):
            mates[mates] = np.abs(f[mates] - row).max(axis=1) <= 2 * tolerance_A + _NOISE_A
        return pairs

    def frame(self, alike: Bools) -> list[int]:
        """Return up to four atoms that span the molecule, preferring those with few possible images."""
        choices = alike.sum(axis=1)
        chosen = [int(np.lexsort((-self.radius, choices))[0])]
        off_span = self.position - self.position[chosen[0]]
        while len(chosen) < _FRAME:
            height = np.sqrt((off_span**2).sum(axis=1))
            best = int(np.argmax(height / choices))
            if height[best] < LARGEST_TOLERANCE_A:  # what is left is flat: another atom would tell nothing
                break
            chosen.append(best)
            axis = off_span[best] / height[best]
            off_span = off_span - np.outer(off_span @ axis, axis)
        return chosen


def _group(geometry: _Geometry, tolerance_A: float) -> Ints:
    """Largest closed set of permutations within the tolerance, shape (operations, atoms), identity first."""
    alike = geometry.alike(slice(None), tolerance_A)
    if np.count_nonzero(alike) == len(alike):
        return np.arange(len(alike))[None]
    found = _permutations(geometry.distance, alike, geometry.frame(alike), 2 * tolerance_A + _NOISE_A)
    displacement = _displacements(geometry.position, found)
    order = np.argsort(displacement, kind="stable")
    order = order[displacement[order] <= tolerance_A + _NOISE_A]
    found, displacement = found[order], displacement[order]
    while not _is_closed(found):
        found = found[displacement < displacement[-1] - _TIE_A]
        displacement = displacement[: len(found)]
    return found


def _permutations(distance: Floats, alike: Bools, frame: list[int], slack_A: float) -> Ints:
    """Every permutation that keeps ``alike`` and all distances within ``slack_A``, shape (m, n)."""
    images: Ints = np.flatnonzero(alike[frame[0]])[:, None]
    for k in range(1, len(frame)):
        images = _extend(images, frame[:k], frame[k], distance, alike, slack_A)
    finished: list[Ints] = []
    for image in images:
        kept = np.abs(distance[frame][:, :, None] - distance[image][:, None, :]).max(axis=0) <= slack_A
        kept &= alike
        choices = kept.sum(axis=1)
        if (choices == 0).any():
            continue
        if (choices == 1).all():
            finished.append(kept.argmax(axis=1)[None])
            continue
        # The frame leaves a choice (a flat molecule, a large tolerance): branch on the atoms that have one.
        rest = [i for i in np.argsort(choices, kind="stable").tolist() if i not in frame]
        partial = image[None]
        for k, atom in enumerate(rest):
            partial = _extend(partial, frame + rest[:k], atom, distance, kept, slack_A)
        columns = np.argsort(np.array(frame + rest))
        finished.append(partial[:, columns])
    maps: Ints = np.concatenate(finished)  # the identity at least
    one_to_one: Bools = (np.sort(maps, axis=1) == np.arange(len(alike))).all(axis=1)
    return maps[one_to_one]


def _extend(
    images: Ints, mapped: list[int], atom: int, distance: Floats, allowed: Bools, slack_A: float
) -> Ints:
    """Add every image of ``atom`` to the partial maps: (m, k) to (m', k + 1)."""
    options = np.flatnonzero(allowed[atom])
    misfit = np.abs(distance[images[:, :, None], options] - distance[atom, mapped][None, :, None])
    which, option = np.nonzero(misfit.max(axis=1) <= slack_A)
    if len(which) > _MOST_PARTIAL_MAPS:
        raise StructureError(
            "too many atoms are nearly equivalent to enumerate the symmetry",
            hint="lower the symmetry tolerance",
        )
    return np.concatenate([images[which], options[option][:, None]], axis=1)


def _displacements(position: Floats, permutations: Ints) -> Floats:
    """d(P) of each permutation in Angstrom, shape (m,): largest residual of the least-squares isometry."""
    target = position[permutations]
    u, _, vt = np.linalg.svd(np.einsum("ia,mib->mab", position, target))
    residual = position @ (u @ vt) - target
    worst: Floats = np.sqrt((residual**2).sum(axis=-1)).max(axis=-1)
    return worst


def _is_closed(permutations: Ints) -> bool:
    members = {p.tobytes() for p in permutations}
    return all(p[q].tobytes() in members for p in permutations for q in permutations)
