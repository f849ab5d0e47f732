"""What the surroundings of a site say of it: by a model of other molecules, and by its nearest neighbours there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.learn.choose.kernel import kernel_regression
from htxas.learn.choose.sites import SiteTable

__all__ = ["Expected", "expect"]

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

_FOLDS = 5
_TREES = 60
_COMPONENTS = 10
_FEATURES = 0.3
_NEIGHBOURS = 10
_SPACE = 16
_ASK = 60  # neighbours asked for, so that enough of them belong to other molecules
_NORMAL = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Of each of n sites, without its own molecule.

    Attributes
    ----------
    energies_eV, spread_eV
        Name -> what the model says and how much its parts differ, shape (n,). Its parts are extremely randomised
        trees and a kernel regression; it was fitted to other molecules.
    distance, shape_spread
        Distance of the spectrum from the predicted one, and how much the model's parts differ, shape (n,), in units of
        the root mean square distance of all spectra from their mean.
    neighbours
        Rows with the most similar surroundings, nearest first, shape (n, 10).
    neighbour_eV, neighbour_spread_eV
        Name -> median and 1.4826 times the median absolute deviation over the neighbours, shape (n,).
    neighbour_distance, neighbour_shape_spread
        Distance of the spectrum from the neighbours' pointwise median, and their own median distance from it, shape
        (n,).
    """

    energies_eV: dict[str, FloatArray]
    spread_eV: dict[str, FloatArray]
    distance: FloatArray
    shape_spread: FloatArray
    neighbours: Rows
    neighbour_eV: dict[str, FloatArray]
    neighbour_spread_eV: dict[str, FloatArray]
    neighbour_distance: FloatArray
    neighbour_shape_spread: FloatArray


def expect(table: SiteTable, groups: Rows, *, seed: int) -> Expected:
    """Return what is expected of every site; ``groups`` (n,) numbers the molecules."""
    spectra = table.spectra.astype(np.float64)
    spectra /= float(np.sqrt(((spectra - spectra.mean(axis=0)) ** 2).sum(axis=1).mean())) or 1.0
    names = list(table.energies_eV)
    energies = np.column_stack([table.energies_eV[name] for name in names])
    said, spread, distance, shape_spread = _out_of_fold(table, spectra, energies, seed)
    neighbours = _neighbours(table.surroundings, groups)
    middle_eV = np.median(energies[neighbours], axis=1)
    width_eV = _NORMAL * np.median(np.abs(energies[neighbours] - middle_eV[:, None]), axis=1)
    middle, width = _middle(spectra, neighbours)
    return Expected(
        energies_eV=dict(zip(names, said.T, strict=True)),
        spread_eV=dict(zip(names, spread.T, strict=True)),
        distance=distance,
        shape_spread=shape_spread,
        neighbours=neighbours,
        neighbour_eV=dict(zip(names, middle_eV.T, strict=True)),
        neighbour_spread_eV=dict(zip(names, width_eV.T, strict=True)),
        neighbour_distance=np.linalg.norm(spectra - middle, axis=1),
        neighbour_shape_spread=width,
    )


def _out_of_fold(
    table: SiteTable, spectra: FloatArray, energies_eV: FloatArray, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return energies, their spread, distances of spectra and their spread: mean of trees and kernel regression."""
    x, e = np.hstack([table.surroundings, table.whole]), energies_eV.shape[1]
    said_eV, spread_eV = np.empty_like(energies_eV), np.empty_like(energies_eV)
    distance, spread = np.empty(len(table)), np.empty(len(table))
    centre_eV, width_eV = np.median(energies_eV, axis=0), energies_eV.std(axis=0)
    width_eV[width_eV == 0] = 1.0
    folds = _folds(table.groups)
    for fold in range(_FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        mean = spectra[train].mean(axis=0)
        _, vectors = np.linalg.eigh((spectra[train] - mean).T @ (spectra[train] - mean))
        components = vectors[:, ::-1][:, :_COMPONENTS].T
        outputs = np.hstack(
            [(spectra[train] - mean) @ components.T, (energies_eV[train] - centre_eV) / width_eV]
        )
        by_trees, variance = _trees(x[train], outputs, x[test], seed)
        by_kernel = kernel_regression(x[train], outputs, x[test], seed=seed)
        said = 0.5 * (by_trees + by_kernel)
        deviation = np.sqrt(variance + 0.25 * (by_trees - by_kernel) ** 2)
        said_eV[test] = said[:, -e:] * width_eV + centre_eV
        spread_eV[test] = deviation[:, -e:] * width_eV
        distance[test] = np.linalg.norm(spectra[test] - mean - said[:, :-e] @ components, axis=1)
        spread[test] = np.linalg.norm(deviation[:, :-e], axis=1)
    return said_eV, spread_eV, distance, spread


def _trees(
    x: npt.NDArray[np.float32], outputs: FloatArray, x_test: npt.NDArray[np.float32], seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance over extremely randomised trees, shape (n, outputs) each; one tree at a time."""
    from sklearn.tree import ExtraTreeRegressor

    total, squares = np.zeros((len(x_test), outputs.shape[1])), np.zeros((len(x_test), outputs.shape[1]))
    for i in range(_TREES):
        tree = ExtraTreeRegressor(max_features=_FEATURES, random_state=seed + i)
        one = tree.fit(x, outputs).predict(x_test)
        total += one
        squares += one**2
    said = total / _TREES
    return said, np.maximum(squares / _TREES - said**2, 0.0)


def _folds(groups: tuple[str, ...]) -> Rows:
    """Return the fold of each row: molecules ranked by a hash of their name take turns."""
    ranked = sorted(set(groups), key=lambda g: hashlib.sha256(g.encode()).digest())
    fold = {g: i % _FOLDS for i, g in enumerate(ranked)}
    return np.array([fold[g] for g in groups], dtype=np.intp)


def _neighbours(surroundings: npt.NDArray[np.float32], groups: Rows) -> Rows:
    """Return the nearest rows in other molecules, nearest first, shape (n, 10): in 16 principal components."""
    from sklearn.neighbors import NearestNeighbors

    x = surroundings.astype(np.float64)
    x -= x.mean(axis=0)
    _, vectors = np.linalg.eigh(x.T @ x)
    space = x @ vectors[:, ::-1][:, :_SPACE]
    ask = min(_ASK, len(x))
    found = NearestNeighbors(n_neighbors=ask).fit(space).kneighbors(space, return_distance=False)
    chosen = np.empty((len(x), _NEIGHBOURS), dtype=np.intp)
    for i, row in enumerate(found):
        others = row[groups[row] != groups[i]][:_NEIGHBOURS]
        if len(others) < _NEIGHBOURS:  # a molecule with more like sites than were asked for
            distance = np.linalg.norm(space - space[i], axis=1)
            distance[groups == groups[i]] = np.inf
            others = np.argsort(distance, kind="stable")[:_NEIGHBOURS]
        chosen[i] = others
    return chosen


def _middle(spectra: FloatArray, neighbours: Rows) -> tuple[FloatArray, FloatArray]:
    """Return the pointwise median of each row's neighbours (n, bins), and their median distance from it (n,)."""
    middle, width = np.empty_like(spectra), np.empty(len(spectra))
    for i, rows in enumerate(neighbours):
        middle[i] = np.median(spectra[rows], axis=0)
        width[i] = np.median(np.linalg.norm(spectra[rows] - middle[i], axis=1))
    return middle, width
