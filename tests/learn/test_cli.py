from __future__ import annotations

import json
from pathlib import Path

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
    assert predictions[0]["unit"] == "eV"
    assert _run(["predict", "synthetic/gap-A", "--dataset", dataset]) == 0
    assert "gap (eV)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "none.yaml"], "none.yaml: cannot be read"),
        (["predict", "x/gap-A"], "give one of --molecule NAME, FILE.csv and --dataset DIR"),
        (["predict", "x/gap-A", "f.csv", "--molecule", "m"], "give one of"),
        (["predict", "x/gap-A", "--molecule", "m", "--formula", "CH4"], "belong to a FILE.csv"),
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
