"""``htxas train --cluster`` on a real Slurm: the same models to the byte as in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
REFERENCE = Path(__file__).resolve().parents[2] / "workflows/reference/reference.h5"
TRAIN = """name: short
dataset:
  source: {{file: {file}}}
targets: [gap, sp3_ratio]
models: [A]
network: {{members: 2, epochs: 20}}
"""
CONFIG = """clusters:
  mini:
    scheduler: slurm
    partitions:
      short: {walltime: 00:01:00, cores: 1}
    pilots: {workers: 1, margin_s: 10, signal_s: 10}
    dask: {most_jobs: 2, memory_per_worker_GB: 0.9, interface: lo, margin_s: 10, stagger_s: 5}
"""


def train(folder: Path, *options: str) -> dict[str, object]:
    command = [sys.executable, "-m", "htxas.cli.main", "train", "train.yaml", "--json", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_jobs_train_what_this_process_trains(
    slurm: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HTXAS_CONFIG", str(tmp_path / "htxas.yaml"))
    (tmp_path / "htxas.yaml").write_text(CONFIG)
    (tmp_path / "train.yaml").write_text(TRAIN.format(file=REFERENCE))
    train(tmp_path, "--cluster", "mini", "--out", "queue")
    train(tmp_path, "--workers", "0", "--out", "here")
    weights = sorted((tmp_path / "here/models").glob("*/model.safetensors"))
    assert len(weights) == 2
    for path in weights:
        assert (tmp_path / "queue/models" / path.parent.name / path.name).read_bytes() == path.read_bytes()
    logs = tmp_path / "queue/models/jobs"
    assert list(logs.glob("htxas-train-*.err"))
    assert not list(logs.glob(".dask-jobqueue*"))  # the keys are gone with the training


def test_jobs_that_the_scheduler_refuses_are_an_error_in_one_line(
    slurm: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HTXAS_CONFIG", str(tmp_path / "htxas.yaml"))
    (tmp_path / "htxas.yaml").write_text(CONFIG.replace("cores: 1}", "cores: 1, queue: nowhere}"))
    (tmp_path / "train.yaml").write_text(TRAIN.format(file=REFERENCE))
    command = [sys.executable, "-m", "htxas.cli.main", "train", "train.yaml", "--cluster", "mini"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert "slurm does not take the jobs" in said
    assert "invalid partition" in said.lower()
    assert "Traceback" not in done.stderr
