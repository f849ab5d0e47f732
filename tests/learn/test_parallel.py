"""Workers and whole processes are killed in the middle: what is finished stays, and the end is the same to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset, freeze
from htxas.learn.data.recipe import ModelKind, Recipe
from htxas.learn.data.source import FileSource
from htxas.learn.nets.network import Network
from htxas.learn.runs import parallel
from htxas.learn.runs.parallel import run_all
from htxas.learn.runs.run import WEIGHTS, RunSpec

pytestmark = pytest.mark.slow

SMALL = Network(widths=(8,), members=2, epochs=20, patience=20, learning_rate=5e-3)
STUDY = """\
study: learning_curve
name: killed
dataset: {{source: {{file: {file}}}}}
targets: [gap, homo]
fractions: [0.4, 0.6, 0.8, 1.0]
seeds: [0, 1]
network: {{widths: [8], members: 2, epochs: 20, patience: 20}}
"""


@pytest.fixture
def dataset(dataset_file: Path, tmp_path: Path) -> Dataset:
    return freeze(FileSource(dataset_file), Recipe(targets=("gap", "homo")), tmp_path / "sets")


@pytest.fixture
def specs(dataset: Dataset) -> list[RunSpec]:
    return [RunSpec(dataset.key, ("gap",), kind, SMALL, seed) for seed in range(3) for kind in ModelKind]


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the Dask workers that a process has started."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "multiprocessing.spawn" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def outcome(folder: Path, specs: list[RunSpec]) -> list[tuple[bytes, dict[str, Any]]]:
    cards = [json.loads((folder / s.folder / "card.json").read_text()) | {"wall_s": 0} for s in specs]
    return [((folder / s.folder / WEIGHTS).read_bytes(), c) for s, c in zip(specs, cards, strict=True)]


def test_a_killed_worker_costs_its_run_only(dataset: Dataset, specs: list[RunSpec], tmp_path: Path) -> None:
    killed: list[int] = []
    done: list[str] = []

    def kill_one(spec: RunSpec, _card: dict[str, Any]) -> None:
        done.append(spec.key)
        if len(done) in (1, 3):
            worker = workers_of(os.getpid())[0]
            killed.append(worker.pid)
            worker.kill()

    run_all(dataset.path, specs, tmp_path / "disturbed", workers=2, on_done=kill_one)
    assert len(set(killed)) == 2
    assert sorted(done) == sorted(s.key for s in specs)
    run_all(dataset.path, specs, tmp_path / "calm", workers=0)
    assert outcome(tmp_path / "disturbed", specs) == outcome(tmp_path / "calm", specs)
    assert not [p for p in (tmp_path / "disturbed").iterdir() if not p.name.startswith(("gap", "."))]


def test_a_run_that_kills_every_worker_is_given_up_by_name(
    dataset: Dataset, specs: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = specs[1].folder

    def lethal(path: str, spec: RunSpec, out: str) -> dict[str, Any]:
        import os
        import signal

        from htxas.learn.runs.run import execute

        if spec.folder == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(path, spec, out)

    monkeypatch.setattr(parallel, "execute", lethal)
    with pytest.raises(DatasetError, match=f"run {deadly} failed: its worker died again and again"):
        run_all(dataset.path, specs, tmp_path / "runs", workers=2)
    whole = {p.name for p in (tmp_path / "runs").iterdir() if not p.name.startswith(".")}
    assert whole == {s.folder for s in specs} - {deadly}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_was_killed_goes_on(how: signal.Signals, dataset_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.yaml"
    path.write_text(STUDY.format(file=os.fspath(dataset_file)))
    out = tmp_path / "out"
    code = "from htxas.cli.main import main; main()"
    command = [sys.executable, "-c", code, "study", os.fspath(path)]
    first = subprocess.Popen([*command, "--workers", "2", "--out", os.fspath(out)], start_new_session=True)

    def cards() -> list[Path]:
        return sorted((out / "runs").glob("[!.]*/card.json"))

    deadline = time.monotonic() + 300
    while len(cards()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = workers_of(first.pid)
    if how is signal.SIGINT:
        os.killpg(first.pid, how)  # as a terminal does
    else:
        first.send_signal(how)
    assert first.wait(120) == (130 if how is signal.SIGINT else -how)
    kept = {p: p.stat().st_mtime_ns for p in cards()}
    assert 2 <= len(kept) < 8
    psutil.wait_procs(workers, timeout=60)
    assert not [w for w in workers if w.is_running()]
    if how is signal.SIGINT:
        return
    subprocess.run([*command, "--workers", "1", "--out", os.fspath(out)], check=True, timeout=300)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())
    calm = tmp_path / "calm"
    subprocess.run([*command, "--workers", "0", "--out", os.fspath(calm)], check=True, timeout=300)
    for name in ("results.json", "table.md", "summary.md"):
        assert (out / name).read_bytes() == (calm / name).read_bytes()
    weights = sorted(p.relative_to(calm) for p in calm.rglob(WEIGHTS))
    assert len(weights) == 8
    assert all((out / p).read_bytes() == (calm / p).read_bytes() for p in weights)
