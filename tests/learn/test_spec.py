from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset, freeze
from htxas.learn.data.recipe import ModelKind, Recipe
from htxas.learn.data.source import FileSource
from htxas.learn.nets.network import PRESETS, Head, Loss, Network, Share
from htxas.learn.nets.noise import Noise
from htxas.learn.runs.sides import sides, stopping
from htxas.learn.runs.spec import Fold, RunSpec, Subset


@pytest.fixture(scope="module")
def dataset(dataset_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return freeze(FileSource(dataset_file), Recipe(targets=("gap",)), tmp_path_factory.mktemp("sets"))


def _spec(dataset: Dataset | None = None, **changes: object) -> RunSpec:
    key = "x" if dataset is None else dataset.key
    return dataclasses.replace(RunSpec(key, ("gap",), ModelKind.A, Network(), 0), **changes)  # type: ignore[arg-type]


def test_a_spec_is_what_its_json_says() -> None:
    full = _spec(
        targets=("gap", "homo"),
        network=Network(share=Share.TRUNK, noise_conditioned=True),
        fold=Fold(1, 5),
        train=Subset(0.5, atoms=(3, 12)),
        test=Subset(heavy_atoms=(7, 30), every_side=True),
        noise=Noise(10, 1000, 0.3),
        test_noise=(Noise(100), Noise(None, smoothing_eV=0.5)),
        columns=(20, 80),
    )
    for spec in (_spec(), full, _spec(network=Network(loss=Loss.SID, head=Head.DENSITY, mse_weight=0.5))):
        again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert again.key == spec.key
    assert full.name == "gap+homo-A"
    assert _spec(targets=tuple("abcd")).name == "a+3-A"


def test_everything_in_a_spec_changes_its_key() -> None:
    changes = [
        {"targets": ("homo",)},
        {"kind": ModelKind.B},
        {"network": PRESETS["chen2023"]},
        {"seed": 1},
        {"split": "size"},
        {"fold": Fold(0, 5)},
        {"train": Subset(0.5)},
        {"test": Subset(0.5)},
        {"noise": Noise(100)},
        {"test_noise": (Noise(100),)},
        {"columns": (0, 10)},
    ]
    assert len({_spec(**c).key for c in changes} | {_spec().key}) == len(changes) + 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Noise(None), "noise without counts"),
        (lambda: Noise(0), "positive number"),
        (lambda: Noise(100, 10), "not above"),
        (lambda: Fold(5, 5), "no fold 5 of 5"),
        (lambda: Subset(0.0), "fraction"),
        (lambda: Subset(atoms=(5, 3)), "atoms go from 5 to 3"),
        (lambda: _spec(targets=()), "distinct targets"),
        (lambda: _spec(targets=("gap", "gap")), "distinct targets"),
        (lambda: _spec(split="size", fold=Fold(0, 2)), "folds are made by molecule"),
        (lambda: _spec(columns=(5, 4)), "columns go"),
        (lambda: _spec(train=Subset(every_side=True)), "test rows only"),
        (lambda: _spec(network=Network(noise_conditioned=True), noise=Noise(10)), "range of doses"),
        (lambda: Network(mse_weight=1.0), "goes with loss"),
        (lambda: Network(loss=Loss.SID), "above zero"),
        (lambda: Network(loss=Loss.SID, head=Head.POSITIVE), "how large a curve is"),
    ],
)
def test_what_cannot_be_run_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        make()


def test_folds_test_every_molecule_once_and_never_divide_one(dataset: Dataset) -> None:
    groups = np.array(dataset.groups)
    tested: list[int] = []
    for number in range(4):
        got = sides(dataset, _spec(dataset, fold=Fold(number, 4)))
        parts = [set(groups[r]) for r in (got.train, got.validation, got.test)]
        assert parts[0].isdisjoint(parts[1] | parts[2])
        assert parts[1].isdisjoint(parts[2])
        assert len(got.train) + len(got.validation) + len(got.test) == len(dataset)
        assert 10 < len(got.validation) < 25
        tested += got.test.tolist()
    assert sorted(tested) == list(range(len(dataset)))


def test_a_smaller_fraction_is_contained_in_a_larger_one(dataset: Dataset) -> None:
    rows = [set(sides(dataset, _spec(dataset, train=Subset(f))).train.tolist()) for f in (0.1, 0.3, 0.8, 1.0)]
    assert rows[0] < rows[1] < rows[2] < rows[3]
    whole, part = (sides(dataset, _spec(dataset, train=Subset(f))) for f in (1.0, 0.1))
    assert (whole.validation == part.validation).all()
    assert (whole.test == part.test).all()


def test_sizes_limit_training_and_validation_and_every_large_molecule_is_tested(dataset: Dataset) -> None:
    small, large = Subset(heavy_atoms=(1, 7)), Subset(heavy_atoms=(8, 99), every_side=True)
    got = sides(dataset, _spec(dataset, train=small, test=large))
    assert max(dataset.heavy_atoms[got.train].max(), dataset.heavy_atoms[got.validation].max()) == 7
    assert got.test.tolist() == np.flatnonzero(dataset.heavy_atoms >= 8).tolist()
    with pytest.raises(DatasetError, match="also trained on"):
        sides(dataset, _spec(dataset, test=large))
    with pytest.raises(DatasetError, match="no row is left on the train side"):
        sides(dataset, _spec(dataset, train=Subset(atoms=(200, 300))))


def test_a_split_by_row_may_divide_a_molecule(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    # each molecule twice, as sites would be
    records = [dataclasses.replace(r, name=f"{r.name}{copy}") for r in synthetic.records(60) for copy in "ab"]
    data = freeze(synthetic.source(records), Recipe(targets=("gap",)), tmp_path)
    groups = np.array(data.groups)
    for split, divided in (("molecule", False), ("row", True)):
        got = sides(data, _spec(data, split=split))
        assert bool(set(groups[got.train]) & set(groups[got.test])) is divided


def test_members_stop_by_halves_of_the_molecules_and_leave_every_row_to_others() -> None:
    groups = ["a", "a", "b", "c", "c", "c", "d", "e"]
    three, one = stopping(groups, 3), stopping(groups, 1)
    assert three.shape == (3, 8)
    assert np.array_equal(three[0], three[2])
    assert np.array_equal(three[0], ~three[1])  # no row is judged by all, none by nobody
    assert np.array_equal(one[0], three[0])
    for name in set(groups):
        rows = [i for i, g in enumerate(groups) if g == name]
        assert len(set(three[0, rows])) == 1  # a molecule is never divided
    assert {g for g, first in zip(groups, three[0], strict=True) if first} != set(groups)
    again = stopping(groups[::-1], 3)
    assert np.array_equal(again[:, ::-1], three)
    assert stopping(["a", "a"], 2).all()
