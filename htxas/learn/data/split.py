"""Train, validation and test: what shares a molecule shares a side, however the molecules are divided."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.data.chemistry import elements_of

__all__ = ["CLASSES", "Split", "frozen_splits", "split_by_group"]

Sides = npt.NDArray[np.int8]
CLASSES: tuple[str, ...] = ("plain", "pi", "ring", "pi_ring")
"""Chemical classes: neither pi bond nor ring, pi bonds only, rings only, both."""


class Split(IntEnum):
    """Side of a row; the value is what a split array holds."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


def _ranked(groups: Sequence[str], seed: int) -> list[str]:
    """Return distinct groups by a hash of seed and name.

    It depends neither on the order of the rows nor on a random generator's version, and changes little when molecules
    are added.
    """
    return sorted(set(groups), key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest())


def split_by_group(groups: Sequence[str], *, validation: float, test: float, seed: int) -> Sides:
    """Return the :class:`Split` of every row, shape (n,): at random by group.

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
    unique = _ranked(groups, seed)
    n_test, n_validation = round(test * len(unique)), round(validation * len(unique))
    return _sides(groups, unique[:n_test], unique[n_test : n_test + n_validation])


def _sides(groups: Sequence[str], test: Sequence[str], validation: Sequence[str]) -> Sides:
    total = len(set(groups))
    train = total - len(test) - len(validation)
    if min(len(test), len(validation), train) < 1:
        raise DatasetError(
            f"{total} molecules split into {train} train, {len(validation)} validation, {len(test)} test",
            hint="give more molecules or other fractions",
        )
    side = dict.fromkeys(test, Split.TEST) | dict.fromkeys(validation, Split.VALIDATION)
    return np.array([side.get(g, Split.TRAIN) for g in groups], dtype=np.int8)


def frozen_splits(
    groups: Sequence[str],
    sizes: Sequence[int] | None,
    smiles: Mapping[str, str] | None,
    *,
    formulas: Mapping[str, str] | None = None,
    sites: Sequence[str] | None = None,
    validation: float,
    test: float,
    seed: int,
) -> tuple[dict[str, Sides], dict[str, str]]:
    """Return all splits that these molecules or crystals allow, by name, and why there are no others.

    ``molecule``
        At random.
    ``size``
        The largest molecules are the test; molecules of one size are not separated, so it may be larger than asked for.
    ``scaffold``
        By Bemis-Murcko scaffold: the rarest scaffolds are the test; what has no ring is one scaffold.
    ``class-plain``, ``class-pi``, ``class-ring``, ``class-pi_ring``
        One of :data:`CLASSES` is the test.

    ``formula``, ``elements``
        Of crystals, at random: what shares a reduced formula (polymorphs), or its elements, is not separated.
    ``row``
        Of sites, at random whatever their molecule. It leaks: sites of one molecule are on several sides. It is there
        to show how much better that looks, not to judge a model by.

    Of ``size``, ``scaffold`` and ``class`` the validation side is taken at random from the rest: it is like the
    training side.

    Parameters
    ----------
    groups
        Molecule of each row.
    sizes
        Heavy atoms of each row's molecule; None if they are not known.
    smiles
        SMILES of each group; None if some molecule has none.
    formulas
        Reduced formula of each group if they are crystals.
    sites
        Names of the rows if they are sites.
    validation, test, seed
        As in :func:`split_by_group`.

    Raises
    ------
    DatasetError
        If a side of the first would be empty.
    """
    splits = {"molecule": split_by_group(groups, validation=validation, test=test, seed=seed)}
    total = len(set(groups))
    tests: dict[str, set[str]] = {}
    lacking: dict[str, str] = {}
    kept: dict[str, Sequence[str]] = {}
    if formulas is not None:
        kept["formula"] = [formulas[g] for g in groups]
        kept["elements"] = [elements_of(f) for f in kept["formula"]]
    if sites is not None:
        kept["row"] = sites
    for name, together in kept.items():
        try:
            splits[name] = split_by_group(together, validation=validation, test=test, seed=seed)
        except DatasetError as error:
            lacking[name] = error.message
    if formulas is not None:
        lacking["size"] = "the cell of a crystal says nothing of its size"
    elif sizes is None:
        lacking["size"] = "the source does not tell compositions"
    else:
        tests["size"] = _largest(dict(zip(groups, sizes, strict=True)), test)
    if smiles is None:
        why = "a molecule has no SMILES" if formulas is None else "crystals have no SMILES"
        lacking |= dict.fromkeys(("scaffold", *(f"class-{c}" for c in CLASSES)), why)
    else:
        tests["scaffold"] = _rarest(smiles, test, seed)
        classes = {g: chemical_class(s) for g, s in smiles.items()}
        for kind in CLASSES:
            tests[f"class-{kind}"] = {g for g, c in classes.items() if c == kind}
    ranked = _ranked(groups, seed)
    for name, chosen in tests.items():
        rest = [g for g in ranked if g not in chosen]
        few = round(validation * total)
        try:
            splits[name] = _sides(groups, sorted(chosen), rest[:few])
        except DatasetError as error:
            lacking[name] = error.message
    return splits, lacking


def _largest(size_of: Mapping[str, int], fraction: float) -> set[str]:
    alike: dict[int, list[str]] = {}
    for group, size in size_of.items():
        alike.setdefault(size, []).append(group)
    return _first(fraction * len(size_of), (alike[size] for size in sorted(alike, reverse=True)))


def _rarest(smiles: Mapping[str, str], fraction: float, seed: int) -> set[str]:
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    murcko: Any = MurckoScaffold  # its functions carry no types
    alike: dict[str, list[str]] = {}
    for group, text in smiles.items():
        scaffold = str(murcko.MurckoScaffoldSmiles(mol=Chem.MolFromSmiles(text)))
        alike.setdefault(scaffold, []).append(group)
    ranked = sorted(_ranked(list(alike), seed), key=lambda s: len(alike[s]))
    return _first(fraction * len(smiles), (alike[scaffold] for scaffold in ranked))


def _first(wanted: float, sets: Iterable[list[str]]) -> set[str]:
    """Return whole sets, in their order, until there is enough."""
    chosen: set[str] = set()
    for members in sets:
        if len(chosen) >= round(wanted):
            break
        chosen.update(members)
    return chosen


def chemical_class(smiles: str) -> str:
    """Return which of :data:`CLASSES` a molecule is: multiple or aromatic bonds are pi bonds."""
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(smiles)
    pi = any(bond.GetBondTypeAsDouble() > 1 for bond in molecule.GetBonds())
    ring = molecule.GetRingInfo().NumRings() > 0
    return CLASSES[pi + 2 * ring]
