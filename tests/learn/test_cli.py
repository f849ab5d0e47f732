from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from htxas.cli.main import _run


def test_train_then_predict(training_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["train", str(training_file), "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "R² (mean absolute error) on 24 test molecules" in shown
    assert "molecular_weight" in shown
    out = tmp_path / "home" / "models" / "synthetic"
    assert (out / "parity.png").is_file()

    assert _run(["train", str(training_file), "--workers", "0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["metrics"]["gap-A"]["net"]["r2"] > 0.8

    dataset = document["dataset"]["path"]
    assert _run(["predict", "synthetic/gap-A", "--dataset", dataset, "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert len(predictions) == 120
    assert predictions[0]["estimates"][0]["unit"] == "eV"
    assert predictions[0]["domain"]["inside"] is True
    assert _run(["predict", "synthetic/gap-A", "--dataset", dataset]) == 0
    assert "gap (eV)" in capsys.readouterr().out


def test_predict_from_a_measured_spectrum(
    training_file: Path, tmp_path: Path, synthetic: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["train", str(training_file), "--workers", "0"]) == 0
    assert "not registered: " in capsys.readouterr().out
    spectrum = synthetic.record(3).spectrum
    energies = np.arange(spectrum.energies_eV[0] - 15, spectrum.energies_eV[-1], 0.1)
    values = (
        1000 * np.interp(energies, spectrum.energies_eV, spectrum.total, left=0.0) + 2.0 - 0.001 * energies
    )
    file = tmp_path / "m3.csv"
    file.write_text(
        "energy_eV,counts\n" + "".join(f"{e:.4f},{v:.6f}\n" for e, v in zip(energies, values, strict=True))
    )
    command = [
        "predict",
        "synthetic/gap-B",
        str(file),
        "--formula",
        "C4H8",
        "--onset",
        "auto",
        "--normalise",
        "area",
    ]
    command += ["--background", "linear", "--pre-edge", "271", "281", "--instrument-sigma", "0.4"]
    assert _run(command) == 0
    shown = capsys.readouterr().out
    steps = (
        "CSV",
        "background  linear",
        "scale",
        "broadening  Gaussian of sigma 0.3",
        "onset",
        "cubic spline",
    )
    for words in (
        *steps,
        "90 % interval",
        "training spectra than",
        "nearest training spectra",
        "dataset",
    ):
        assert words in shown, words
    assert _run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (prediction,) = document["predictions"]
    assert document["spectrum"]["intensity"] == "counts"
    assert [s["step"] for s in prediction["preparation"]] == [
        "background", "scale", "broadening", "onset", "resampling",
    ]  # fmt: skip
    assert len(prediction["neighbours"]) == 3
    assert prediction["neighbours"][0]["molecule"]
    shutil.rmtree(tmp_path / "home" / "datasets")
    onset = str(prediction["preparation"][3]["onset_eV"])
    asked = ["predict", "synthetic/gap-A", str(file), "--normalise", "area", "--excitation-energy", onset]
    assert _run([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "no longer on this machine" in document["dataset"]["gone"]
    assert document["predictions"][0]["neighbours"] == []
    assert _run([*asked, "-o", "x.csv"]) == 1
    assert "are for models of curves" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "none.yaml"], "none.yaml: cannot be read"),
        (["predict", "x/gap-A"], "give one of SPECTRUM, --molecule NAME and --dataset DIR"),
        (["predict", "x/gap-A", "f.csv", "--molecule", "m"], "give one of"),
        (
            ["predict", "x/gap-A", "--molecule", "m", "--formula", "CH4"],
            "--formula belongs to a measured SPECTRUM",
        ),
        (
            ["predict", "x/gap-A", "--molecule", "m", "--pre-edge", "1", "2"],
            "--pre-edge belongs to a measured",
        ),
        (["predict", "x/gap-A", "f.csv", "--campaign", "c"], "--campaign belongs to --molecule"),
        (["predict", "x/gap-A", "f.csv"], "no model 'x/gap-A'"),
    ],
)
def test_user_errors_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(arguments) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
