"""The surroundings of an atom as numbers, from the structure: what its spectrum should follow from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from htxas.domain.structure import Structure

__all__ = ["Environment", "environment", "table_of"]

FloatArray = npt.NDArray[np.float64]
Environment = Mapping[tuple[str, ...], npt.NDArray[np.float32]]
"""Channel -> values: ``(element,)`` radial, ``(element, element)`` angular. Channels of absent elements are absent."""

_RADIAL_A = np.arange(1.0, 6.01, 0.5)
_RADIAL_WIDTH_A = 0.35
_RADIAL_REACH_A = 6.0
_COSINES = np.linspace(-1.0, 1.0, 6)
_COSINE_WIDTH = 0.25
_ANGULAR_REACH_A = 3.2
_SELF_A = 1e-3


def environment(structure: Structure, atom: int) -> Environment:
    """Return element-resolved radial and angular histograms around an atom.

    Gaussians of width 0.35 A at 1.0, 1.5 ... 6.0 A for each element, and of width 0.25 at six cosines of the angle
    between two neighbours within 3.2 A for each pair of elements, weighted by cosine cutoffs: the symmetry functions G2
    and G4 of Behler, J. Chem. Phys. 134, 074106 (2011), on a grid. They do not change when the molecule is turned,
    mirrored or renumbered. In a crystal, images of the cell count.
    """
    symbols, vectors_A = _neighbours(structure, atom)
    distance_A = np.linalg.norm(vectors_A, axis=1)
    found: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}
    gauss = np.exp(-0.5 * ((distance_A[:, None] - _RADIAL_A) / _RADIAL_WIDTH_A) ** 2)
    gauss *= _cutoff(distance_A, _RADIAL_REACH_A)[:, None]
    for element in sorted(set(symbols)):
        found[(element,)] = gauss[symbols == element].sum(axis=0).astype(np.float32)
    near = distance_A < _ANGULAR_REACH_A
    unit = vectors_A[near] / distance_A[near, None]
    weight = _cutoff(distance_A[near], _ANGULAR_REACH_A)
    names = symbols[near]
    i, j = np.triu_indices(len(names), k=1)
    cosine = np.einsum("px,px->p", unit[i], unit[j])
    gauss = (
        np.exp(-0.5 * ((cosine[:, None] - _COSINES) / _COSINE_WIDTH) ** 2) * (weight[i] * weight[j])[:, None]
    )
    ordered = names[i] <= names[j]
    first, second = np.where(ordered, names[i], names[j]), np.where(ordered, names[j], names[i])
    for a in sorted(set(names)):
        for b in sorted(set(names)):
            pairs = (first == a) & (second == b)
            if pairs.any():
                found[(a, b)] = gauss[pairs].sum(axis=0).astype(np.float32)
    return found


def table_of(environments: Sequence[Environment]) -> npt.NDArray[np.float32]:
    """Return environments as rows over the channels that any of them has, shape (n, d)."""
    channels = sorted({c for e in environments for c in e}, key=lambda c: (len(c), c))
    width = {c: len(_RADIAL_A) if len(c) == 1 else len(_COSINES) for c in channels}
    begin, end = {}, 0
    for c in channels:
        begin[c] = end
        end += width[c]
    rows = np.zeros((len(environments), end), dtype=np.float32)
    for row, one in zip(rows, environments, strict=True):
        for c, values in one.items():
            row[begin[c] : begin[c] + width[c]] = values
    return rows


def _cutoff(distance_A: FloatArray, reach_A: float) -> FloatArray:
    return np.where(distance_A < reach_A, 0.5 * (1.0 + np.cos(np.pi * distance_A / reach_A)), 0.0)


def _neighbours(structure: Structure, atom: int) -> tuple[npt.NDArray[np.str_], FloatArray]:
    """Return symbols (n,) and vectors (n, 3) from the atom to all others within reach, images included."""
    symbols = np.array(structure.symbols)
    vectors = structure.positions_A - structure.positions_A[atom]
    if structure.cell_A is not None:
        heights = 1.0 / np.linalg.norm(np.linalg.inv(structure.cell_A), axis=0)
        # atoms of the cell lie up to a cell away from the absorber
        reach = np.ceil(_RADIAL_REACH_A / heights).astype(int) + 1
        steps = [np.arange(-r, r + 1) for r in reach]
        shifts = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3) @ structure.cell_A
        vectors = (vectors[None] + shifts[:, None]).reshape(-1, 3)
        symbols = np.tile(symbols, len(shifts))
    distance_A = np.linalg.norm(vectors, axis=1)
    within = (distance_A > _SELF_A) & (distance_A < _RADIAL_REACH_A)
    return symbols[within], vectors[within]
