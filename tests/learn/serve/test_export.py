"""ONNX files repeat torch's numbers, or are not there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.cli.main import _run
from htxas.errors import DatasetError, UserError
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.network import Head, Network, Share
from htxas.learn.nets.noise import Noise
from htxas.learn.runs.run import execute
from htxas.learn.runs.spec import RunSpec
from htxas.learn.runs.training import Trained
from htxas.learn.serve import export
from htxas.learn.serve.export import export_onnx
from htxas.learn.serve.model import Model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

NETWORK = Network(widths=(8,), members=2, epochs=3, patience=3)
NOISE = Noise(counts=30.0, counts_to=3000.0)


def _answers(path: Path, feed: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(["value", "spread", "half_width"], feed))


@pytest.mark.parametrize("name", ["gap-B", "pdos-A"])
def test_a_file_takes_raw_spectra_and_says_what_torch_says(
    trained: Trained, model_of: Callable[[str], Model], name: str, tmp_path: Path
) -> None:
    model, dataset = model_of(name), trained.dataset
    report = export_onnx(model, tmp_path / "m.onnx")
    assert report.largest_difference <= 1e-5
    assert (report.random_rows, report.training_rows, report.note) == (
        64,
        model.card["counts"]["train"],
        None,
    )
    feed = {"spectrum": np.array(dataset.spectra[:5])}
    if name.endswith("B"):
        feed["ratios"] = np.array(dataset.ratios[:5])
    expected = model.net.predict(dataset.spectra[:5], dataset.ratios[:5])
    value, spread, half = _answers(tmp_path / "m.onnx", feed)
    assert value == pytest.approx(expected.value, rel=1e-5, abs=1e-5)
    assert spread == pytest.approx(expected.spread, rel=1e-3, abs=1e-5)
    assert half == pytest.approx(expected.half_width, rel=1e-3, abs=1e-4)
    properties = {p.key: p.value for p in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    assert properties["key"] == model.key
    assert json.loads(properties["card"])["dataset"]["key"] == dataset.key


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": ("gap", "homo"), "columns": (10, 150)},
        {"targets": ("gap", "homo"), "network": dataclasses.replace(NETWORK, share=Share.TRUNK)},
        {
            "noise": NOISE,
            "network": dataclasses.replace(NETWORK, noise_conditioned=True),
            "kind": ModelKind.B,
        },
        {"targets": ("pdos",), "network": dataclasses.replace(NETWORK, head=Head.DENSITY)},
    ],
)
def test_every_kind_of_net_can_be_written(
    dataset_file: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    from htxas.learn.data.dataset import freeze
    from htxas.learn.data.recipe import CurveRecipe, Recipe
    from htxas.learn.data.source import FileSource

    recipe = Recipe(targets=("gap", "homo"), curves=(CurveRecipe(points=200),))
    dataset = freeze(FileSource(dataset_file), recipe, tmp_path)
    asked = {"targets": ("gap",), "kind": ModelKind.A, "network": NETWORK, "seed": 0} | changes
    spec = RunSpec(dataset_key=dataset.key, **asked)
    execute(str(dataset.path), spec, str(tmp_path / "models"))
    report = export_onnx(Model.load(tmp_path / "models" / spec.folder), tmp_path / "m.onnx")
    assert report.largest_difference <= 1e-5
    assert report.training_rows == 0  # the dataset is neither beside the model nor in the usual place
    assert "training spectra were not compared" in report.text
    assert set(report.inputs) == {"spectrum"} | (
        {"ratios", "log_dose"} if spec.network.noise_conditioned else set()
    )


def test_a_file_that_differs_is_not_left_behind(
    model_of: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 1e-12)
    with pytest.raises(DatasetError, match=r"differs from torch by .*it is not kept"):
        export_onnx(model_of("gap-A"), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == [tmp_path / "home"] or list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no such folder"):
        export_onnx(model_of("gap-A"), tmp_path / "none" / "m.onnx")


def test_without_the_extra_one_line_says_so(
    model_of: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'htxas\[onnx\]'"):
        export_onnx(model_of("gap-A"), tmp_path / "m.onnx")


def test_the_command(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gap.onnx"
    assert _run(["model", "export", str(trained.out_dir / "gap-A"), "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "takes spectrum (n, 240) float32" in shown
    assert "largest difference" in shown
