"""One run: its net and its baselines; one folder; never repeated once it is whole."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from htxas.errors import DatasetError
from htxas.learn.data.dataset import CARD, load
from htxas.learn.nets.device import deterministic
from htxas.learn.nets.fit import OnEpoch
from htxas.learn.runs.card import train
from htxas.learn.runs.fitting import Task
from htxas.learn.runs.spec import RunSpec

__all__ = ["TEST", "WEIGHTS", "RunSpec", "execute", "finished"]

WEIGHTS = "model.safetensors"
TEST = "test.safetensors"
"""Of a curve, in the order of the card's test rows: ``true``, ``predicted`` and ``half_width``, shape (n, m)."""


def finished(spec: RunSpec, out_dir: Path) -> dict[str, Any] | None:
    """Return the card of a finished run, or None. A folder exists only when whole."""
    folder = out_dir / spec.folder
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError):
        return None
    whole = card.get("key") == spec.key and (folder / WEIGHTS).is_file()
    return dict(card) if whole else None


def execute(
    dataset_path: str, spec: RunSpec, out_dir: str, *, on_epoch: OnEpoch | None = None
) -> dict[str, Any]:
    """Train one model and its baselines, write ``out_dir/<folder>``, return its card.

    Runs in a Dask worker or in this process: it gets paths, not arrays.

    Parameters
    ----------
    on_epoch
        Called with epoch and mean validation loss; what it raises ends the run and leaves no folder.

    Raises
    ------
    DatasetError
        If the dataset is not the one asked for, a target does not vary, or training diverges.
    """
    done = finished(spec, Path(out_dir))
    if done is not None:
        return done
    dataset = load(Path(dataset_path))
    if dataset.key != spec.dataset_key:
        raise DatasetError(f"holds {dataset.key}, not {spec.dataset_key}", where=dataset_path)
    began = time.perf_counter()
    with deterministic():
        card, tensors, curves = train(Task.of(dataset, spec), on_epoch)
    card["wall_s"] = round(time.perf_counter() - began, 3)
    _write(Path(out_dir), spec, card, {WEIGHTS: tensors} | ({TEST: curves} if curves else {}))
    return card


def _write(
    out_dir: Path, spec: RunSpec, card: Mapping[str, Any], files: Mapping[str, dict[str, torch.Tensor]]
) -> None:
    final = out_dir / spec.folder
    out_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{spec.folder}-", dir=out_dir))
    try:
        for name, tensors in files.items():
            # One entry only: safetensors writes several in a random order, and equal runs must give equal files.
            save_file(tensors, str(scratch / name), metadata={"key": spec.key})
        (scratch / CARD).write_text(json.dumps(card, indent=1, allow_nan=False) + "\n")
        scratch.chmod(0o755)
        if final.exists():  # not whole, or finished() would have returned it
            shutil.rmtree(final)
        scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
