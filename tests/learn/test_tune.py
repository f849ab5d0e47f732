from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.cli.main import _run
from htxas.errors import CampaignFileError
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.door import name_dataset, open_dataset
from htxas.learn.data.split import Split
from htxas.learn.nets.network import Network
from htxas.learn.runs import fitting, trials
from htxas.learn.runs.network_section import NetworkSection, network_of
from htxas.learn.runs.tune import JOURNAL, Tuned, tune
from htxas.learn.runs.tune_config import Pruning, TunePlan, read_tuning
from htxas.learn.runs.tune_report import write_tuning, yaml_text

TUNING = """\
name: small
dataset: {{source: {{file: {file}}}}}
targets: [gap, homo]
network: {{widths: [8], members: 1, epochs: 30, patience: 30, batch: 16}}
search:
  widths: [[4], [8], [8, 8]]
  batch: [16, 64]
  learning_rate: [1.0e-5, 1.0e-2]
trials: 8
"""


@pytest.fixture
def tuning_file(tmp_path: Path, dataset_file: Path) -> Path:
    path = tmp_path / "tune.yaml"
    path.write_text(TUNING.format(file=os.fspath(dataset_file)))
    return path


@pytest.fixture
def plan(tuning_file: Path) -> TunePlan:
    return read_tuning(tuning_file)


@pytest.fixture
def dataset(plan: TunePlan, tmp_path: Path) -> Dataset:
    return open_dataset(plan.dataset, tmp_path / "sets")


def test_a_frozen_dataset_may_be_searched_on(dataset: Dataset, tuning_file: Path, tmp_path: Path) -> None:
    name_dataset(dataset, "mine", tmp_path / "sets")
    text = tuning_file.read_text()
    tuning_file.write_text(text.replace(text.split("source: ")[1].split("}")[0], "{frozen: mine"))
    assert open_dataset(read_tuning(tuning_file).dataset, tmp_path / "sets").key == dataset.key


def seen(found: Tuned) -> list[Any]:
    return [(t.number, t.state, t.loss, t.network) for t in found.trials]


def test_a_search_interrupted_ends_as_one_that_was_not(
    plan: TunePlan, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(plan, dataset, tmp_path / "whole", workers=0)
    assert len(whole.trials) == 8
    assert whole.trials[0].network == plan.network
    assert {"pruned", "complete"} == {t.state for t in whole.trials}
    assert whole.best.loss == min(
        t.loss for t in whole.trials if t.loss is not None and t.state == "complete"
    )

    fit = fitting.fit_net
    calls: list[Any] = []

    def stopped(task: Any, on_epoch: Any) -> Any:
        def interrupt(epoch: int, loss: float) -> None:
            on_epoch(epoch, loss)
            if len(calls) == 4 and epoch == 12:
                raise KeyboardInterrupt

        calls.append(task)
        return fit(task, interrupt)

    monkeypatch.setattr(trials, "fit_net", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune(plan, dataset, tmp_path / "again", workers=0)
    monkeypatch.setattr(trials, "fit_net", fit)
    again = tune(plan, dataset, tmp_path / "again", workers=0)
    assert seen(again) == seen(whole)
    assert seen(tune(plan, dataset, tmp_path / "again", workers=0)) == seen(whole)
    more = tune(dataclasses.replace(plan, trials=10), dataset, tmp_path / "again", workers=0)
    assert seen(more)[:8] == seen(whole)
    assert len(more.trials) == 10


def test_the_test_side_is_never_looked_at(plan: TunePlan, dataset: Dataset, tmp_path: Path) -> None:
    plan = dataclasses.replace(plan, trials=3, pruning=Pruning.NONE)
    before = tune(plan, dataset, tmp_path / "a", workers=0)
    rows = dataset.rows(Split.TEST)
    for name in ("spectra", "targets"):
        array = np.load(dataset.path / f"{name}.npy")
        array[rows] = array[rows] * 3.0 + 100.0
        np.save(dataset.path / f"{name}.npy", array)
    assert seen(tune(plan, dataset, tmp_path / "b", workers=0)) == seen(before)


@pytest.mark.slow
def test_trials_on_dask(plan: TunePlan, dataset: Dataset, tmp_path: Path) -> None:
    here = tune(plan, dataset, tmp_path / "0", workers=0)
    assert seen(tune(plan, dataset, tmp_path / "1", workers=1)) == seen(here)
    both = tune(plan, dataset, tmp_path / "2", workers=2)
    assert len(both.trials) == 8
    assert (tmp_path / "2" / JOURNAL).is_file()


def test_the_report_and_the_best_net_to_paste(plan: TunePlan, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = tune(dataclasses.replace(plan, trials=5, pruning=Pruning.NONE), dataset, out, workers=0)
    document = write_tuning(plan, dataset, found, out)
    assert {p.name for p in out.iterdir()} == {JOURNAL, "trials.json", "table.md", "best.yaml", "trials.png"}
    assert json.loads((out / "trials.json").read_text()) == json.loads(json.dumps(document))
    assert document["best"] == found.best.number
    assert set(found.importance) == {"widths", "batch", "learning_rate"}
    assert "flatters" in (out / "table.md").read_text()


def test_a_net_as_yaml_is_the_same_net(tmp_path: Path) -> None:
    from htxas.campaign.yamlfile import load_yaml

    net = Network(widths=(8, 4), dropout=0.1, learning_rate=1e-5, weight_decay=2.5e-7, batch=16)
    path = tmp_path / "net.yaml"
    path.write_text(yaml_text(net))
    document, lines = load_yaml(path)
    assert network_of(NetworkSection.model_validate(document["network"]), lines, ("network",)) == net


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[8, 8]]", "[8]]", r":6: search.widths: names one thing twice"),
        (
            "[[4], [8],",
            "[[4], [9],",
            r":6: search.widths: the first trial's widths, \[8\], is not among these",
        ),
        ("1.0e-5, 1.0e-2", "1.0e-2, 1.0e-5", r":8: search.learning_rate: is not a range"),
        ("1.0e-5, 1.0e-2", "1.0e-5, 1.0e-4", r":8: .*the first trial's learning_rate, 0.002, is not between"),
        ("learning_rate", "dropout", r":8: .*dropout"),
        ("trials: 8", "pruning: medium", r":9: pruning: 'medium' is not one of median, hyperband, none"),
        ("search:", "serch:", r":5: serch: unknown key.*'search'"),
    ],
)
def test_each_mistake_is_one_line(tuning_file: Path, old: str, new: str, words: str) -> None:
    text = tuning_file.read_text()
    assert old in text
    tuning_file.write_text(text.replace(old, new, 1))
    with pytest.raises(CampaignFileError, match=words) as caught:
        read_tuning(tuning_file)
    assert "\n" not in str(caught.value)


def test_tuning_from_the_command_line(
    tuning_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning_file.write_text(tuning_file.read_text().replace("trials: 8", "trials: 2"))
    assert _run(["tune", os.fspath(tuning_file), "--dry-run"]) == 0
    assert capsys.readouterr().out == "small: 2 trials\n"
    assert _run(["tune", os.fspath(tuning_file), "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "lowest validation loss" in shown
    assert "network: {widths: [" in shown
    assert (tmp_path / "home" / "tuned" / "small" / "best.yaml").is_file()
