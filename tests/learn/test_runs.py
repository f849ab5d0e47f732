"""Runs of every kind: curves, several targets, noise, part of the window."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from htxas.errors import DatasetError
from htxas.learn.data.dataset import CARD, Dataset, freeze
from htxas.learn.data.recipe import CurveRecipe, ModelKind, Recipe, Scale
from htxas.learn.data.source import FileSource
from htxas.learn.data.split import Split
from htxas.learn.nets.network import Head, Loss, Network, Share
from htxas.learn.nets.noise import Noise
from htxas.learn.runs.fitting import draw_spectra
from htxas.learn.runs.model import TrainedNet
from htxas.learn.runs.run import TEST, WEIGHTS, execute
from htxas.learn.runs.spec import RunSpec

SMALL = Network(widths=(16,), members=2, epochs=60, patience=60, learning_rate=5e-3)
DENSITY = dataclasses.replace(SMALL, widths=(32,), head=Head.DENSITY, dropout=0.0, weight_decay=0.0)
CURVES = (CurveRecipe(points=200), CurveRecipe(name="states", points=200, scale=Scale.ABSOLUTE))


@pytest.fixture(scope="module")
def dataset(dataset_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    recipe = Recipe(targets=("gap", "homo", "lumo"), curves=CURVES)
    return freeze(FileSource(dataset_file), recipe, tmp_path_factory.mktemp("sets"))


def _spec(dataset: Dataset, *targets: str, **changes: Any) -> RunSpec:
    return dataclasses.replace(RunSpec(dataset.key, targets, ModelKind.A, SMALL, 0), **changes)


def _run(dataset: Dataset, spec: RunSpec, out: Path) -> tuple[dict[str, Any], TrainedNet]:
    card = execute(str(dataset.path), spec, str(out))
    assert json.loads((out / spec.folder / CARD).read_text()) == card
    asked = RunSpec.from_dict(card["spec"])
    assert asked == spec
    return card, TrainedNet.from_tensors(asked, load_file(out / spec.folder / WEIGHTS))


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.WASSERSTEIN])
def test_a_density_of_states_is_learned_with_a_band(dataset: Dataset, loss: Loss, tmp_path: Path) -> None:
    spec = _spec(dataset, "pdos", network=dataclasses.replace(DENSITY, loss=loss))
    card, net = _run(dataset, spec, tmp_path)
    result = card["targets"]["pdos"]
    metrics = result["metrics"]
    assert metrics["net"]["r2"] > 0.5
    assert metrics["net"]["wasserstein"] < metrics["mean"]["wasserstein"]
    # the HOMO is 0 eV for all: what is hard is where the LUMO lies
    assert metrics["net"]["mse_below"] < metrics["net"]["mse_above"]
    assert result["interval"]["coverage"] > 0.8
    arrays = {k: v.numpy() for k, v in load_file(tmp_path / spec.folder / TEST).items()}
    test = dataset.rows(Split.TEST)
    assert (arrays["true"] == dataset.curve("pdos")[test]).all()
    got = net.predict(dataset.spectra[test], dataset.ratios[test])
    assert np.allclose(got.value, arrays["predicted"], atol=1e-6)
    assert np.allclose(got.half_width, arrays["half_width"], atol=1e-6)
    assert np.allclose(got.value.sum(axis=1) * 0.1, 1.0, atol=1e-4)


@pytest.mark.parametrize("share", list(Share))
def test_several_targets_in_one_run(dataset: Dataset, share: Share, tmp_path: Path) -> None:
    spec = _spec(dataset, "gap", "homo", "lumo", network=dataclasses.replace(SMALL, share=share))
    card, net = _run(dataset, spec, tmp_path)
    assert list(card["targets"]) == ["gap", "homo", "lumo"]
    test = dataset.rows(Split.TEST)
    got = net.predict(dataset.spectra[test], dataset.ratios[test])
    for i, (name, result) in enumerate(card["targets"].items()):
        assert result["metrics"]["net"]["r2"] > 0.8
        assert card["test"]["true"][name] == dataset.target(name)[test].tolist()
        assert card["test"]["predicted"][name]["net"] == pytest.approx(got.value[:, i].tolist(), abs=1e-6)
        assert card["test"]["half_width"][name] == pytest.approx(got.half_width[:, i].tolist(), abs=1e-6)
        inside = np.abs(got.value[:, i] - dataset.target(name)[test]) <= got.half_width[:, i]
        assert result["interval"]["coverage"] == pytest.approx(inside.mean())
    assert card["test"]["percentile"] == pytest.approx(got.percentile.tolist(), abs=0.01)


def test_noise_costs_accuracy_and_training_with_it_wins_some_back(dataset: Dataset, tmp_path: Path) -> None:
    noisy = Noise(30)
    clean, _ = _run(dataset, _spec(dataset, "gap", test_noise=(noisy, Noise(1e6))), tmp_path)
    trained, _ = _run(dataset, _spec(dataset, "gap", noise=noisy, test_noise=(noisy,)), tmp_path)
    result = clean["targets"]["gap"]
    assert [n["label"] for n in result["noisy"]] == ["30 counts", "1e+06 counts"]
    at_30, at_million = (n["metrics"]["net"]["r2"] for n in result["noisy"])
    assert at_30 < at_million == pytest.approx(result["metrics"]["net"]["r2"], abs=0.01)
    assert trained["targets"]["gap"]["noisy"][0]["metrics"]["net"]["r2"] > at_30
    assert set(result["noisy"][0]["metrics"]) == set(result["metrics"])


def test_a_noise_conditioned_net_is_told_the_dose(dataset: Dataset, tmp_path: Path) -> None:
    network = dataclasses.replace(SMALL, noise_conditioned=True)
    spec = _spec(dataset, "gap", network=network, noise=Noise(10, 10000), test_noise=(Noise(30),))
    card, net = _run(dataset, spec, tmp_path)
    test = dataset.rows(Split.TEST)
    spectra, log_dose = draw_spectra(dataset, test, Noise(30), "test")
    assert log_dose is not None
    told = net.predict(spectra, dataset.ratios[test], log_dose=log_dose)
    truth = dataset.target("gap")[test]
    r2 = 1 - ((told.value[:, 0] - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert card["targets"]["gap"]["noisy"][0]["metrics"]["net"]["r2"] == pytest.approx(r2, abs=1e-6)
    untold = net.predict(spectra, dataset.ratios[test])
    assert not np.allclose(told.value, untold.value)
    top = net.predict(spectra, dataset.ratios[test], log_dose=np.full(len(test), 4.0))
    assert np.array_equal(top.value, untold.value)
    cleaner = net.predict(spectra, dataset.ratios[test], log_dose=np.full(len(test), 6.0))
    assert np.array_equal(cleaner.value, untold.value)  # nothing beyond what was trained on


def test_only_the_columns_asked_for_are_seen(dataset: Dataset, tmp_path: Path) -> None:
    # the first 3 eV of the window lie below the edge
    blind, net = _run(dataset, _spec(dataset, "gap", columns=(0, 20)), tmp_path)
    seeing, _ = _run(dataset, _spec(dataset, "gap", columns=(40, 110)), tmp_path)
    assert blind["targets"]["gap"]["metrics"]["net"]["r2"] < 0.3
    assert seeing["targets"]["gap"]["metrics"]["net"]["r2"] > 0.8
    assert (seeing["inputs"]["first_eV"], seeing["inputs"]["last_eV"]) == pytest.approx((0.0, 7.0))
    changed = np.array(dataset.spectra[:5])
    changed[:, 21:] += 1.0
    before, after = (net.predict(s, dataset.ratios[:5]).value for s in (dataset.spectra[:5], changed))
    assert np.array_equal(before, after)


def test_the_same_run_twice_is_the_same_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    for spec in (
        _spec(dataset, "gap", "homo", noise=Noise(100, smoothing_eV=0.5), kind=ModelKind.B),
        _spec(dataset, "pdos", network=DENSITY),
    ):
        for out in "ab":
            execute(str(dataset.path), spec, str(tmp_path / out))
        first, second = (tmp_path / out / spec.folder for out in "ab")
        for file in first.iterdir():
            if file.name != CARD:
                assert file.read_bytes() == (second / file.name).read_bytes()


def test_what_ends_a_run_leaves_no_folder(dataset: Dataset, tmp_path: Path) -> None:
    def prune(epoch: int, loss: float) -> None:
        if epoch == 3:
            raise KeyboardInterrupt(loss)

    with pytest.raises(KeyboardInterrupt):
        execute(str(dataset.path), _spec(dataset, "gap"), str(tmp_path / "runs"), on_epoch=prune)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("targets", "changes", "words"),
    [
        (("pdos", "gap"), {}, "learned by itself"),
        (("gap",), {"network": DENSITY}, "are for curves, not for gap"),
        (("gap",), {"columns": (0, 240)}, "the window has 240 points"),
        (("states",), {"network": DENSITY}, "needs curves of area 1"),
        (("gap",), {"split": "shape"}, "no split 'shape'"),
        (("dipole",), {}, "no target 'dipole'"),
        (("gap",), {"noise": Noise(100, smoothing_eV=0.4)}, "odd number of steps"),
    ],
)
def test_what_this_dataset_cannot_answer_is_refused(
    dataset: Dataset, targets: tuple[str, ...], changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=words):
        execute(str(dataset.path), _spec(dataset, *targets, **changes), str(tmp_path))
