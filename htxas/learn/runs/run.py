"""One run: one target, one model kind, its net and its baselines; one folder; never repeated once it is whole."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from htxas.errors import DatasetError
from htxas.learn.data.dataset import CARD, Dataset, load
from htxas.learn.data.features import Standardiser, inputs
from htxas.learn.data.recipe import ModelKind
from htxas.learn.data.split import Split
from htxas.learn.data.targets import RATIOS, describe
from htxas.learn.nets.baselines import fit_baselines
from htxas.learn.nets.fit import fit_network, predict_network, single_thread
from htxas.learn.nets.metrics import score
from htxas.learn.runs.spec import SCHEMA, RunSpec, code_versions

__all__ = ["WEIGHTS", "RunSpec", "execute", "finished"]

WEIGHTS = "model.safetensors"
FloatArray = npt.NDArray[np.float64]


def finished(spec: RunSpec, out_dir: Path) -> dict[str, Any] | None:
    """Return the card of a finished run, or None. A folder exists only when whole."""
    folder = out_dir / spec.folder
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError):
        return None
    whole = card.get("key") == spec.key and (folder / WEIGHTS).is_file()
    return dict(card) if whole else None


def execute(dataset_path: str, spec: RunSpec, out_dir: str) -> dict[str, Any]:
    """Train one model and its baselines, write ``out_dir/<folder>``, return its card.

    Runs in a Dask worker or in this process: it gets paths, not arrays.

    Raises
    ------
    DatasetError
        If the dataset is not the one asked for, the target does not vary, or training diverges.
    """
    done = finished(spec, Path(out_dir))
    if done is not None:
        return done
    dataset = load(Path(dataset_path))
    if dataset.key != spec.dataset_key:
        raise DatasetError(f"holds {dataset.key}, not {spec.dataset_key}", where=dataset_path)
    began = time.perf_counter()
    with single_thread():
        card, tensors = _train(dataset, spec)
    card["wall_s"] = round(time.perf_counter() - began, 3)
    _write(Path(out_dir), spec, card, tensors)
    return card


def _train(dataset: Dataset, spec: RunSpec) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    train, validation, test = (dataset.rows(side) for side in Split)
    x = inputs(spec.kind, dataset.spectra, dataset.ratios)
    y = dataset.target(spec.targets[0])
    for side, rows in zip(Split, (train, validation, test), strict=True):
        if np.ptp(y[rows]) == 0:
            raise DatasetError(
                f"target {spec.targets[0]} is the same for all {len(rows)} molecules of the {side.name.lower()} split",
                where=str(dataset.path),
                hint="leave the target out, or widen the dataset",
            )
    points = dataset.spectra.shape[1]
    x_scaler = Standardiser.fit(x[train], floor_columns=points)
    y_scaler = Standardiser.fit(y[train, None])
    z = x_scaler.apply(x)
    t = y_scaler.apply(y[:, None])[:, 0]
    fitted = fit_network(
        z[train], t[train], z[validation], t[validation], spec.network, seed=spec.generator_seed
    )
    members = y_scaler.invert(predict_network(fitted.state, z[test], spec.network)[..., None])[..., 0]
    baselines = fit_baselines(z[train], y[train], z[validation], y[validation], z[test])
    predicted = {name: b.predicted for name, b in baselines.items()} | {"net": members.mean(axis=0)}
    distance = np.sqrt((z[train, :points] ** 2).mean(axis=1))
    target = describe(spec.targets[0])
    card = {
        "schema": SCHEMA,
        "key": spec.key,
        "name": spec.name,
        "code": code_versions(),
        "spec": spec.to_dict(),
        "target": {"name": spec.targets[0], "unit": target.unit, "meaning": target.meaning},
        "inputs": {
            "spectrum_points": points,
            "ratios": [f"{a}/{b}" for a, b in RATIOS] if spec.kind is ModelKind.B else [],
            **dataset.card["input"],
            "broadening_sigma_eV": dataset.card["broadening_sigma_eV"],
            "standardisation": "(x - mean) / scale per column over the training split; a spectrum column's scale is "
            "its standard deviation, at least 1% of the largest; mean and scale are in the weights file (float64)",
        },
        "prediction": f"mean of {spec.network.members} nets that differ in random numbers only; "
        "their spread is not a calibrated uncertainty",
        "dataset": {
            "key": dataset.key,
            "source": dataset.card["source"],
            "recipe": dataset.card["recipe"],
            "method": dataset.card["method"],
        },
        "counts": {"train": len(train), "validation": len(validation), "test": len(test)},
        "domain": {
            "elements": dataset.card["elements"],
            "target_min": float(y[train].min()),
            "target_max": float(y[train].max()),
            "largest_rms_z": float(distance.max()),
        },
        "metrics": {name: dict(score(y[test], p)) for name, p in predicted.items()},
        "chosen": {name: dict(b.chosen) for name, b in baselines.items() if b.chosen},
        "best_epoch": list(fitted.best_epoch),
        "history": {"train": list(fitted.train_loss), "validation": list(fitted.validation_loss)},
        "test": {
            "ids": [dataset.ids[i] for i in test],
            "true": y[test].tolist(),
            "predicted": {name: p.tolist() for name, p in predicted.items()},
        },
    }
    tensors = {f"net.{name}": value.contiguous() for name, value in fitted.state.items()}
    for prefix, scaler in (("x", x_scaler), ("y", y_scaler)):
        tensors[f"{prefix}.mean"] = torch.from_numpy(scaler.mean)
        tensors[f"{prefix}.scale"] = torch.from_numpy(scaler.scale)
    return card, tensors


def _write(out_dir: Path, spec: RunSpec, card: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    final = out_dir / spec.folder
    out_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{spec.folder}-", dir=out_dir))
    try:
        # One entry only: safetensors writes several in a random order, and equal runs must give equal files.
        save_file(tensors, str(scratch / WEIGHTS), metadata={"key": spec.key})
        (scratch / CARD).write_text(json.dumps(card, indent=1) + "\n")
        scratch.chmod(0o755)
        if final.exists():  # not whole, or finished() would have returned it
            shutil.rmtree(final)
        scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
