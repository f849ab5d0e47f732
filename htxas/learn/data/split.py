"""Train, validation and test by molecule: what shares a molecule shares a side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError

__all__ = ["Split", "split_by_group"]


class Split(IntEnum):
    """Side of a row; the value is what the split array holds."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


def split_by_group(
    groups: Sequence[str], *, validation: float, test: float, seed: int
) -> npt.NDArray[np.int8]:
    """Return the :class:`Split` of every row, shape (n,).

    Groups are ranked by a hash of seed and group name, so the split depends neither on the order of the rows nor on
    a random generator's version, and changes little when molecules are added.

    Parameters
    ----------
    groups
        Molecule of each row: canonical SMILES, so that two conformers or two names of a molecule stay together.
    validation, test
        Fractions of the groups.

    Raises
    ------
    DatasetError
        If a side would be empty.
    """
    unique = sorted(set(groups), key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest())
    n_test, n_validation = round(test * len(unique)), round(validation * len(unique))
    if min(n_test, n_validation, len(unique) - n_test - n_validation) < 1:
        raise DatasetError(
            f"{len(unique)} molecules split into {len(unique) - n_test - n_validation} train, "
            f"{n_validation} validation, {n_test} test",
            hint="give more molecules or other fractions",
        )
    side = dict.fromkeys(unique, Split.TRAIN)
    side.update(dict.fromkeys(unique[:n_test], Split.TEST))
    side.update(dict.fromkeys(unique[n_test : n_test + n_validation], Split.VALIDATION))
    return np.array([side[g] for g in groups], dtype=np.int8)
