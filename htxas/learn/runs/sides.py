"""Which rows a run trains on, stops by and is tested on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.split import Split, split_by_group
from htxas.learn.runs.spec import Fold, RunSpec, Subset

__all__ = ["BY_ROW", "Sides", "sides", "stopping"]

BY_ROW = "row"
"""Name of the split that divides rows whatever their molecule."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Row numbers of a dataset, each shape (k,)."""

    train: Rows
    validation: Rows
    test: Rows


def sides(dataset: Dataset, spec: RunSpec) -> Sides:
    """Return the rows of a run.

    Raises
    ------
    DatasetError
        If a side is empty, or molecules asked for by ``every_side`` are trained on.
    """
    groups = np.asarray(dataset.groups)
    side = _sides(dataset, spec, groups)
    by_side = {s: np.flatnonzero(side == s) for s in Split}
    sizes_only = None if spec.train is None else Subset(1.0, spec.train.atoms, spec.train.heavy_atoms)
    train = _part(dataset, groups, by_side[Split.TRAIN], spec.train)
    validation = _part(dataset, groups, by_side[Split.VALIDATION], sizes_only)
    whole = spec.test is not None and spec.test.every_side
    test = _part(dataset, groups, np.arange(len(dataset)) if whole else by_side[Split.TEST], spec.test)
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        if len(rows) == 0:
            raise DatasetError(f"no row is left on the {name} side", where=str(dataset.path))
    if whole and (seen := set(groups[test]) & set(groups[np.concatenate([train, validation])])):
        raise DatasetError(
            f"{len(seen)} of {len(set(groups[test]))} molecules of the test subset are also trained on",
            where=str(dataset.path),
            hint="limit the training subset to other sizes, or leave every_side out",
        )
    return Sides(train, validation, test)


def stopping(groups: Sequence[str], members: int) -> npt.NDArray[np.bool_]:
    """Return by which validation rows each member of an ensemble stops, shape (members, k).

    Members take turns between two halves of the molecules, so that every row is left over by some members: what these
    say of it calibrates intervals, for an error on rows that a net stopped by is too small. One member alone leaves
    one half over. Of fewer than two molecules there are no halves: every member stops by all.

    Parameters
    ----------
    groups
        Molecule of each validation row, length k.
    members
        Of the ensemble.
    """
    ranked = _ranked("stop", np.asarray(groups))
    if len(ranked) < 2:
        return np.ones((members, len(groups)), dtype=np.bool_)
    first = np.isin(groups, ranked[: len(ranked) // 2])
    return np.array([first if member % 2 == 0 else ~first for member in range(members)])


def _sides(dataset: Dataset, spec: RunSpec, groups: npt.NDArray[np.str_]) -> npt.NDArray[np.int8]:
    recipe = dataset.recipe
    if spec.fold is not None:
        return _folded(groups, spec.fold, recipe.validation / (1.0 - recipe.test))
    if spec.split == BY_ROW:
        return split_by_group(dataset.ids, validation=recipe.validation, test=recipe.test, seed=recipe.seed)
    side = np.empty(len(dataset), dtype=np.int8)
    for s in Split:
        side[dataset.rows(s, spec.split)] = s
    return side


def _folded(groups: npt.NDArray[np.str_], fold: Fold, validation: float) -> npt.NDArray[np.int8]:
    ranked = _ranked("fold", groups)
    n = len(ranked)
    begin, end = (round(k * n / fold.of) for k in (fold.number, fold.number + 1))
    rest = _ranked(f"validation {fold.number}", np.array(ranked[:begin] + ranked[end:]))
    side = dict.fromkeys(ranked[begin:end], Split.TEST)
    side |= dict.fromkeys(rest[: max(1, round(validation * len(rest)))], Split.VALIDATION)
    return np.array([side.get(g, Split.TRAIN) for g in groups.tolist()], dtype=np.int8)


def _part(dataset: Dataset, groups: npt.NDArray[np.str_], rows: Rows, subset: Subset | None) -> Rows:
    if subset is None:
        return rows
    for sizes, limits in ((dataset.atoms, subset.atoms), (dataset.heavy_atoms, subset.heavy_atoms)):
        if limits is not None:
            rows = rows[(sizes[rows] >= limits[0]) & (sizes[rows] <= limits[1])]
    if subset.fraction == 1.0:
        return rows
    ranked = _ranked("subset", groups[rows])
    return rows[np.isin(groups[rows], ranked[: math.ceil(subset.fraction * len(ranked))])]


def _ranked(salt: str, groups: npt.NDArray[np.str_]) -> list[str]:
    return sorted(set(groups.tolist()), key=lambda g: hashlib.sha256(f"{salt}:{g}".encode()).digest())
