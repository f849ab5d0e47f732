from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset, freeze
from htxas.learn.data.door import open_dataset
from htxas.learn.data.recipe import ModelKind, Recipe
from htxas.learn.data.source import FileSource
from htxas.learn.data.split import Split
from htxas.learn.nets.baselines import BASELINES, fit_baselines
from htxas.learn.nets.device import deterministic
from htxas.learn.nets.fit import fit_network, predict_network
from htxas.learn.nets.metrics import Bootstrap, score
from htxas.learn.nets.models import Outputs, StackedMlp
from htxas.learn.nets.network import Network
from htxas.learn.nets.noise import Noise
from htxas.learn.runs import parallel
from htxas.learn.runs.config import read_plan
from htxas.learn.runs.parallel import run_all
from htxas.learn.runs.run import WEIGHTS, RunSpec, execute
from htxas.learn.runs.training import plan_runs, train_plan

SMALL = Network(widths=(16,), members=2, epochs=60, patience=60, learning_rate=5e-3)


@pytest.fixture
def dataset(dataset_file: Path, tmp_path: Path) -> Dataset:
    return freeze(
        FileSource(dataset_file), Recipe(targets=("gap", "homo", "excitation_energy")), tmp_path / "sets"
    )


def _spec(dataset: Dataset, target: str = "gap", kind: ModelKind = ModelKind.A, seed: int = 0) -> RunSpec:
    return RunSpec(dataset.key, (target,), kind, SMALL, seed)


def test_a_real_relation_is_learned_and_beats_the_mean(dataset: Dataset, tmp_path: Path) -> None:
    card = execute(str(dataset.path), _spec(dataset), str(tmp_path / "runs"))
    metrics = card["targets"]["gap"]["metrics"]
    assert metrics["net"]["r2"] > 0.8
    assert metrics["ridge"]["r2"] > 0.8
    assert metrics["knn"]["r2"] > 0.8
    assert abs(metrics["mean"]["r2"]) < 0.3


def test_an_unrelated_target_is_not_learned_from_aligned_spectra(dataset: Dataset, tmp_path: Path) -> None:
    # the synthetic onset leaves no trace once spectra are aligned: a score here would be a leak
    card = execute(str(dataset.path), _spec(dataset, "excitation_energy"), str(tmp_path / "runs"))
    metrics = card["targets"]["excitation_energy"]["metrics"]
    assert metrics["net"]["r2"] < 0.3
    assert metrics["ridge"]["r2"] < 0.3


def test_test_rows_do_not_touch_the_model(
    dataset: Dataset, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    execute(str(dataset.path), _spec(dataset), str(tmp_path / "a"))
    spectra = np.load(dataset.path / "spectra.npy")
    targets = np.load(dataset.path / "targets.npy")
    spectra[dataset.rows(Split.TEST)] *= 7.0
    targets[dataset.rows(Split.TEST)] += 100.0
    np.save(dataset.path / "spectra.npy", spectra)
    np.save(dataset.path / "targets.npy", targets)
    execute(str(dataset.path), _spec(dataset), str(tmp_path / "b"))
    folder = _spec(dataset).folder
    assert (tmp_path / "a" / folder / WEIGHTS).read_bytes() == (
        tmp_path / "b" / folder / WEIGHTS
    ).read_bytes()


def test_members_are_independent_nets() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=40)
    net = dataclasses.replace(SMALL, members=3, dropout=0.0)
    one = Outputs(1, separate=True)
    with deterministic():
        fitted = fit_network(x[:30], y[:30, None], x[30:], y[30:, None], net, one, seed=1)
        out = predict_network(fitted.state, x, net, one)[..., 0]
    assert out.shape == (3, 40)
    assert len({round(float(v), 6) for v in out[:, 0]}) == 3
    model = StackedMlp(5, (16,), 3, dropout=0.0, generator=torch.Generator())
    model(torch.ones(4, 5))[1].sum().backward()
    gradient = model.weights[0].grad
    assert gradient is not None
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).any()


def test_early_stopping_keeps_the_best_state() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 20)), rng.normal(size=30)  # nothing to learn: overfits at once
    net = dataclasses.replace(SMALL, epochs=300, patience=10, dropout=0.0, learning_rate=0.05)
    one = Outputs(1, separate=True)
    with deterministic():
        fitted = fit_network(x[:20], y[:20, None], x[20:], y[20:, None], net, one, seed=1)
        out = predict_network(fitted.state, x[20:], net, one)[..., 0]
    assert len(fitted.validation_loss) < 300
    best = ((out - y[20:].astype(np.float32)) ** 2).mean()
    assert best <= min(fitted.validation_loss) + 1e-5


def test_torch_global_state_is_neither_used_nor_changed(dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    execute(str(dataset.path), _spec(dataset), str(tmp_path / "a"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
    torch.manual_seed(2)
    execute(str(dataset.path), _spec(dataset), str(tmp_path / "b"))
    folder = _spec(dataset).folder
    assert (tmp_path / "a" / folder / WEIGHTS).read_bytes() == (
        tmp_path / "b" / folder / WEIGHTS
    ).read_bytes()


def test_a_finished_run_is_not_repeated_but_a_torn_one_is(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [_spec(dataset), _spec(dataset, "homo")]
    out = tmp_path / "runs"
    first = run_all(dataset.path, specs, out, workers=0)
    (out / specs[1].folder / "card.json").write_text('{"key": ')
    trained = []

    def spy(path: str, spec: RunSpec, folder: str) -> dict[str, object]:
        trained.append(spec.name)
        return execute(path, spec, folder)

    monkeypatch.setattr(parallel, "execute", spy)
    again = run_all(dataset.path, specs, out, workers=0)
    assert trained == ["homo-A"]
    for name in first:
        assert {**first[name], "wall_s": 0} == {**again[name], "wall_s": 0}
    other = run_all(dataset.path, [_spec(dataset, seed=9)], out, workers=0)
    assert trained == ["homo-A", "gap-A"]
    (reseeded,) = other.values()
    assert reseeded["test"]["predicted"] != first[specs[0].key]["test"]["predicted"]
    assert len(list(out.iterdir())) == 3  # nothing overwritten, nothing left over


def test_one_failing_run_does_not_stop_the_others(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    records = [dataclasses.replace(r, ground={**r.ground, "dipole_D": 1.0}) for r in synthetic.records(60)]
    data = freeze(synthetic.source(records), Recipe(targets=("dipole", "gap")), tmp_path / "sets")
    specs = [_spec(data, "dipole"), _spec(data, "gap")]
    with pytest.raises(DatasetError, match=r"run dipole-A-[0-9a-f]{8} failed: .*same for all"):
        run_all(data.path, specs, tmp_path / "runs", workers=0)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [specs[1].folder]


@pytest.mark.slow
def test_one_worker_two_workers_and_this_process_agree_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    specs = [_spec(dataset, "gap", k) for k in ModelKind]
    both = dataclasses.replace(specs[0], targets=("gap", "homo"), noise=Noise(100), test_noise=(Noise(50),))
    specs.append(both)
    seen = []
    for workers in (0, 1, 2):
        run_all(
            dataset.path,
            specs,
            tmp_path / str(workers),
            workers=workers,
            on_done=lambda s, _: seen.append(s.name),
        )
    assert sorted(seen) == sorted([s.name for s in specs] * 3)
    for spec in specs:
        folders = [tmp_path / w / spec.folder for w in "012"]
        assert len({(f / WEIGHTS).read_bytes() for f in folders}) == 1
        cards = [json.loads((f / "card.json").read_text()) | {"wall_s": 0} for f in folders]
        assert cards[0] == cards[1] == cards[2]


def test_workers_get_threads_and_allocator_settings() -> None:
    assert parallel.WORKER_ENVIRONMENT["MALLOC_TRIM_THRESHOLD_"] == str(2**28)
    assert parallel.WORKER_ENVIRONMENT["OMP_NUM_THREADS"] == "1"


def test_an_absent_scheduler_is_one_clear_line(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_SCHEDULER_PATIENCE_S", 0.5)
    with pytest.raises(DatasetError, match="no Dask scheduler answers"):
        run_all(dataset.path, [_spec(dataset)], tmp_path, workers=1, scheduler="tcp://127.0.0.1:9")


def _each(n: int) -> Bootstrap:
    return Bootstrap.of([str(i) for i in range(n)])


def test_baselines_choose_by_validation_only() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6))
    y = x @ np.arange(6.0) + 0.01 * rng.normal(size=90)
    fitted = fit_baselines(x[:60], y[:60, None], x[60:75], y[60:75, None])
    for name in ("ridge", "pca_ridge"):
        assert score(y[75:], fitted[name].predict(x[75:])[:, 0], _each(15))["r2"] > 0.999
        assert fitted[name].chosen["alpha"] < 1
    assert np.allclose(fitted["mean"].predict(x[75:]), y[:60].mean())
    assert list(fitted) == list(BASELINES)


def test_score_knows_perfect_mean_and_worse() -> None:
    y = np.arange(20.0)
    each = _each(20)
    assert score(y, y, each)["r2"] == 1.0
    assert score(y, np.full(20, y.mean()), each)["r2"] == pytest.approx(0.0)
    assert score(y, -y, each)["r2"] < -1
    noisy = score(y, y + np.random.default_rng(0).normal(0, 3, 20), each)
    assert noisy["r2_low"] < noisy["r2"] < noisy["r2_high"]


def test_a_plan_leaves_a_whole_report_folder(training_file: Path, tmp_path: Path) -> None:
    plan = read_plan(training_file)
    data = open_dataset(plan.dataset, tmp_path / "sets")
    trained = train_plan(plan, data, tmp_path / "out", workers=0)
    assert set(trained.cards) == {f"{t}-{k}" for t in ("gap", "homo", "molecular_weight") for k in "AB"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.json",
        "models",
        "parity.png",
        "table.md",
    }
    assert (tmp_path / "out" / "parity.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| mean | ridge-A | kNN-A | ExtraTrees-A | PCA+ridge-A | Model-A | ridge-B |" in table
    assert "120 molecules = 78 train + 18 validation + 24 test" in table
    assert "a baseline wins for" in table or "no baseline" in table
    counts = trained.summary["dataset"]["counts"]
    assert counts["rows"] == 120
    assert os.fspath(data.path) in trained.summary["dataset"]["path"]


def test_a_plan_trains_curves_that_it_names_and_draws_them(training_file: Path, tmp_path: Path) -> None:
    text = (
        training_file.read_text()
        .replace("[gap, homo, molecular_weight]", "[gap, pdos]")
        .replace("[A, B]", "[A]")
    )
    curve = (
        "  curves: [{name: pdos, points: 60, step_eV: 0.5}, {name: spare, points: 60, step_eV: 0.5}]\ntargets"
    )
    training_file.write_text(text.replace("targets", curve, 1))
    plan = read_plan(training_file)
    assert plan.dataset.targets == ("gap", "pdos")
    assert plan.dataset.recipe is not None
    assert plan.dataset.recipe.targets == ("gap",)
    trained = train_plan(plan, open_dataset(plan.dataset, tmp_path / "sets"), tmp_path / "out", workers=0)
    assert set(trained.cards) == {"gap-A", "pdos-A"}
    for name in ("parity.png", "pdos-A.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert "| pdos | 1/eV" in (tmp_path / "out" / "table.md").read_text()


def test_model_b_is_never_asked_for_its_own_inputs(training_file: Path, tmp_path: Path) -> None:
    text = training_file.read_text().replace("[gap, homo, molecular_weight]", "[ratio_N_C, gap]")
    training_file.write_text(text)
    plan = read_plan(training_file)
    names = [s.name for s in plan_runs(plan, open_dataset(plan.dataset, tmp_path / "sets"))]
    assert names == ["ratio_N_C-A", "gap-A", "gap-B"]
