from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from htxas.cli.main import _run
from htxas.errors import CampaignFileError, DatasetError
from htxas.learn.data.door import open_dataset
from htxas.learn.studies.config import STUDIES, read_study
from htxas.learn.studies.run import RUNS, Studied, run_study
from htxas.settings import datasets_folder

NETWORK = "{widths: [8], members: 2, epochs: 6, patience: 6, learning_rate: 1.0e-2}"
OWN = {
    "property_models": "targets: [gap, ratio_N_C]\nfolds: 2",
    "pdos_model": "networks: {small: " + NETWORK + ", other: {preset: chen2023, epochs: 3}}",
    "noise_study": "targets: [gap, homo]\ntrain_counts: [30, 1000]\ntest_counts: [30, 1000]\nsmoothing_eV: [0.3]",
    "size_extrapolation": "targets: [gap]\ncount: heavy_atoms\nnearest: [1, 2]",
    "learning_curve": "targets: [gap, homo]\nfractions: [0.4, 1.0]\nseeds: [0, 1]\nmodels: [A, B]",
    "window_study": "targets: [gap, lumo]\nwidth_eV: 8.0\nstep_eV: 8.0",
}


def write_study(kind: str, folder: Path, source: Path, **changes: str) -> Path:
    curves = "\n  curves: [{start_eV: -2.0, points: 40, sigma_eV: 0.5}]" if kind == "pdos_model" else ""
    lines = [
        f"study: {kind}",
        "name: small",
        f"dataset:\n  source: {{file: {os.fspath(source)}}}{curves}",
        OWN[kind],
    ]
    if kind != "pdos_model":
        lines.append(f"network: {NETWORK}")
    path = folder / f"{kind}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_parts_of_spectra_of_area_1_are_not_compared(dataset_file: Path, tmp_path: Path) -> None:
    path = write_study("window_study", tmp_path, dataset_file)
    path.write_text(path.read_text().replace("}\n", "}\n  window: {scale: area}\n", 1))
    with pytest.raises(DatasetError, match="carry what lies outside a part of the window into it"):
        run(path, tmp_path / "out")


def run(path: Path, out: Path, workers: int = 0) -> Studied:
    plan = read_study(path)
    dataset = open_dataset(plan.dataset, datasets_folder())
    return run_study(plan, dataset, plan.study.plan(dataset), out, workers=workers)


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_ends_in_table_plots_numbers_and_words(kind: str, dataset_file: Path, tmp_path: Path) -> None:
    done = run(write_study(kind, tmp_path, dataset_file), tmp_path / "out")
    found = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"table.md", "summary.md", "results.json", RUNS} <= found
    assert set(found) - {"table.md", "summary.md", "results.json", RUNS} == {
        f"{n}.png" for n in done.report.figures
    }
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    folders = {p.name for p in (tmp_path / "out" / RUNS).iterdir()}
    assert {r["folder"] for r in document["runs"].values()} == {f"{RUNS}/{f}" for f in folders}
    for cell in document["cells"]:
        assert cell["runs"]
        assert set(cell["runs"]) <= set(document["runs"])
        assert isinstance(cell["r2"], float)
    words = (tmp_path / "out" / "summary.md").read_text()
    assert "baseline" in words
    assert words.count("\n") == 1
    for table in done.report.tables:
        assert all(len(row) == len(table.heads) for row in table.rows)


def test_nothing_is_run_twice_and_the_report_is_the_same(dataset_file: Path, tmp_path: Path) -> None:
    path, out = write_study("learning_curve", tmp_path, dataset_file), tmp_path / "out"
    run(path, out)
    stamps = {p: p.stat().st_mtime_ns for p in (out / RUNS).rglob("*")}
    files = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    path.write_text(path.read_text().replace("[0.4, 1.0]", "[0.4, 0.7, 1.0]"))
    run(path, out)
    assert len(list((out / RUNS).iterdir())) == 12
    path.write_text(path.read_text().replace("[0.4, 0.7, 1.0]", "[0.4, 1.0]"))
    run(path, out)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    assert files == {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}


def test_folds_test_every_molecule_once(dataset_file: Path, tmp_path: Path) -> None:
    done = run(write_study("property_models", tmp_path, dataset_file), tmp_path / "out")
    rows = [r["rows"]["test"] for r in done.document["runs"].values() if r["model"] == "A"]
    assert sum(rows) == 120
    cell = next(c for c in done.document["cells"] if c["target"] == "gap" and c["model"] == "A")
    assert len(cell["runs"]) == 2
    assert not [c for c in done.document["cells"] if c["target"] == "ratio_N_C" and c["model"] == "B"]


def test_large_molecules_are_never_trained_on(dataset_file: Path, tmp_path: Path) -> None:
    plan = read_study(write_study("size_extrapolation", tmp_path, dataset_file))
    dataset = open_dataset(plan.dataset, datasets_folder())
    planned = plan.study.plan(dataset)
    limits = {p.spec.test.heavy_atoms for p in planned if p.spec.test and p.spec.test.every_side}
    (only,) = limits
    assert only is not None
    smallest = only[0]
    assert all(
        p.spec.train and p.spec.train.heavy_atoms and p.spec.train.heavy_atoms[1] < smallest for p in planned
    )
    share = (dataset.heavy_atoms >= smallest).mean()
    assert 0.1 < share < 0.5
    labels = [p.axes["trained_on"] for p in planned]
    assert len(labels) == len(set(labels)) == 6
    path = write_study("size_extrapolation", tmp_path, dataset_file)
    path.write_text(path.read_text() + "test_from: 900\n")
    plan = read_study(path)
    with pytest.raises(DatasetError, match="none from 900 heavy_atoms up"):
        plan.study.plan(dataset)


@pytest.mark.parametrize(
    ("kind", "old", "new", "words"),
    [
        ("learning_curve", "learning_curve", "learning_kurve", r":1: study: .*did you mean 'learning_curve'"),
        ("learning_curve", "study: learning_curve\n", "", r": study: is missing"),
        ("learning_curve", "[0.4, 1.0]", "[1.0, 0.4]", r":6: fractions: must grow"),
        ("learning_curve", "seeds", "seed", r":7: seed: unknown key.*'seeds'"),
        ("learning_curve", "[0, 1]", "[1, 1]", r":7: seeds: names one thing twice"),
        ("learning_curve", "[gap, homo]", "[gap, hommo]", r":5: targets.1: no target is called 'hommo'"),
        ("learning_curve", "{file:", "{frozen: x, file:", r"give campaigns and files, or frozen"),
        ("noise_study", "0.3", "0.4", r":8: smoothing_eV.0: .*odd number of steps"),
        ("noise_study", "epochs: 6", "epocs: 6", r":9: network.epocs: unknown key.*'epochs'"),
        ("pdos_model", "chen2023", "chen2024", r":6: networks.other.preset: no preset .*'chen2023'"),
        ("pdos_model", "small:", "ridge:", r":6: networks: 'ridge' is the name of a baseline"),
        ("window_study", "width_eV: 8.0", "width_eV: 8 eV", r":6: width_eV: a number in eV is needed"),
        ("size_extrapolation", "heavy_atoms", "electrons", r":6: count: 'electrons' is not one of"),
    ],
)
def test_each_mistake_is_one_line(
    kind: str, old: str, new: str, words: str, dataset_file: Path, tmp_path: Path
) -> None:
    path = write_study(kind, tmp_path, dataset_file)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CampaignFileError, match=words) as caught:
        read_study(path)
    assert "\n" not in str(caught.value)


def test_a_frozen_dataset_is_taken_as_it_is(dataset_file: Path, tmp_path: Path) -> None:
    path = write_study("window_study", tmp_path, dataset_file)
    first = open_dataset(read_study(path).dataset, datasets_folder())
    text = path.read_text().replace(f"file: {dataset_file}", f"frozen: {first.key[:12]}")
    path.write_text(text)
    assert open_dataset(read_study(path).dataset, datasets_folder()).key == first.key
    path.write_text(text.replace("dataset:\n", "dataset:\n  rows: site\n"))
    with pytest.raises(CampaignFileError, match=r"dataset.rows: a frozen dataset says this itself"):
        read_study(path)


def test_windows_that_cannot_be_are_refused(dataset_file: Path, tmp_path: Path) -> None:
    path = write_study("window_study", tmp_path, dataset_file)
    path.write_text(path.read_text().replace("width_eV: 8.0", "width_eV: 80.0"))
    plan: Any = read_study(path)
    with pytest.raises(DatasetError, match="5 to 240 points are possible"):
        plan.study.plan(open_dataset(plan.dataset, datasets_folder()))


def test_a_study_from_the_command_line(
    dataset_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study("window_study", tmp_path, dataset_file)
    path.write_text(path.read_text() + "growing: false\n")
    assert _run(["study", os.fspath(path), "--dry-run"]) == 0
    assert "small: 4 runs, 0 done" in capsys.readouterr().out
    assert _run(["study", os.fspath(path), "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "whole window" in shown
    assert _run(["study", os.fspath(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["out_dir"] == os.fspath(tmp_path / "home" / "studies" / "small")
    assert len(document["runs"]) == 4
    assert _run(["study", os.fspath(path), "--workers", "1", "--cluster", "x"]) == 1
    assert "give one of --workers, --scheduler and --cluster" in capsys.readouterr().err
