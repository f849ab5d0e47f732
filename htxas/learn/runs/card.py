"""The card of a run: what was asked, what came out beside the baselines, and how far it can be trusted.

``targets`` holds, by name of each target or of the curve: ``unit``, ``meaning``, ``train_min`` and ``train_max``,
``metrics`` by method (``net`` and the baselines), ``chosen`` settings of the baselines, ``interval`` and ``noisy``, the
same for each noise on the test spectra. ``test`` holds ids and molecules of the test rows and, for scalar targets, true
and predicted values by target and method and half the width of the net's interval; curves are in a file of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from htxas.learn.data.recipe import CurveRecipe, ModelKind, Part
from htxas.learn.data.targets import RATIOS, describe
from htxas.learn.nets.baselines import Baseline, fit_baselines
from htxas.learn.nets.device import device
from htxas.learn.nets.fit import Fitted, OnEpoch
from htxas.learn.nets.intervals import LEVEL
from htxas.learn.nets.metrics import Bootstrap, score, score_curve
from htxas.learn.runs.fitting import Task, draw_spectra, fit_net
from htxas.learn.runs.model import Predicted, TrainedNet
from htxas.learn.runs.sides import stopping
from htxas.learn.runs.spec import SCHEMA, code_versions

__all__ = ["train"]

FloatArray = npt.NDArray[np.float64]
Tensors = dict[str, torch.Tensor]


def train(task: Task, on_epoch: OnEpoch | None) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Train and test; return the card, the model's tensors and, of a curve, the test rows' tensors.

    Raises
    ------
    DatasetError
        If training diverges.
    """
    net, fitted, z, z_validation = fit_net(task, on_epoch)
    rows = task.rows
    columns = (
        {name: slice(i, i + 1) for i, name in enumerate(task.spec.targets)}
        if task.curve is None
        else {task.curve.name: slice(0, task.y.shape[1])}
    )
    baselines = {
        name: fit_baselines(z, task.y[rows.train, part], z_validation, task.y[rows.validation, part])
        for name, part in columns.items()
    }
    bootstrap = Bootstrap.of(task.kept_together(rows.test))
    clean, others = _test(task, net, baselines, None)
    targets = {}
    for name, part in columns.items():
        predicted = {"net": clean.value[:, part], **others[name]}
        targets[name] = {
            **_described(task, name),
            "train_min": float(task.y[rows.train, part].min()),
            "train_max": float(task.y[rows.train, part].max()),
            **_scored(task, part, predicted, clean, bootstrap),
            "chosen": {method: dict(b.chosen) for method, b in baselines[name].items() if b.chosen},
            "noisy": [],
        }
    for noise in task.spec.test_noise:
        seen, others_seen = _test(task, net, baselines, noise)
        for name, part in columns.items():
            predicted = {"net": seen.value[:, part], **others_seen[name]}
            scored = _scored(task, part, predicted, seen, bootstrap)
            targets[name]["noisy"].append({"noise": noise.to_dict(), "label": noise.label, **scored})
    test: dict[str, Any] = {
        "ids": [task.dataset.ids[i] for i in rows.test],
        "molecules": task.groups(rows.test),
        "percentile": np.round(clean.percentile, 2).tolist(),
    }
    arrays: Tensors = {}
    if task.curve is None:
        true = task.y[rows.test]
        finite = np.isfinite(clean.half_width).all()
        test |= {
            "true": {n: true[:, p].ravel().tolist() for n, p in columns.items()},
            "predicted": {
                n: {"net": clean.value[:, p].ravel().tolist()}
                | {m: v.ravel().tolist() for m, v in others[n].items()}
                for n, p in columns.items()
            },
            "half_width": {n: clean.half_width[:, p].ravel().tolist() for n, p in columns.items()}
            if finite
            else None,
        }
    else:
        named = {"true": task.y[rows.test], "predicted": clean.value, "half_width": clean.half_width}
        arrays = {n: torch.from_numpy(a.astype(np.float32)) for n, a in named.items()}
    return _card(task, net, fitted, z, targets, test), net.tensors(), arrays


def _test(
    task: Task, net: TrainedNet, baselines: Mapping[str, Mapping[str, Baseline]], noise: Any
) -> tuple[Predicted, dict[str, dict[str, FloatArray]]]:
    rows = task.rows.test
    spectra, log_dose = draw_spectra(task.dataset, rows, noise, "test")
    ratios = task.dataset.ratios[rows]
    z = net.standardised(spectra, ratios, log_dose=log_dose)
    others = {t: {m: b.predict(z) for m, b in methods.items()} for t, methods in baselines.items()}
    return net.predict(spectra, ratios, log_dose=log_dose), others


def _scored(
    task: Task,
    part: slice,
    predicted: Mapping[str, FloatArray],
    net: Predicted,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    true = task.y[task.rows.test, part]
    if task.curve is None:
        metrics = {m: score(true[:, 0], p[:, 0], bootstrap) for m, p in predicted.items()}
    else:
        how = {"step": task.curve.step_eV, "zero": _zero(task.curve)}
        metrics = {m: score_curve(true, p, bootstrap, **how) for m, p in predicted.items()}  # type: ignore[arg-type]
    half = net.half_width[:, part]
    validation = np.asarray(task.kept_together(task.rows.validation))
    calibrating = validation[~stopping(validation.tolist(), task.spec.network.members).all(axis=0)]
    interval: dict[str, Any] = {"level": LEVEL, "validation_molecules": len(set(calibrating.tolist()))}
    if np.isfinite(half).all():
        covered = (np.abs(true - predicted["net"]) <= half).mean(axis=1)
        coverage, low, high = bootstrap.mean(covered)
        interval |= {
            "coverage": coverage,
            "coverage_low": low,
            "coverage_high": high,
            "mean_width": float(2.0 * half.mean()),
        }
    else:
        interval |= {"coverage": None, "mean_width": None, "why": "too few validation molecules"}
    return {"metrics": metrics, "interval": interval}


def _zero(curve: CurveRecipe) -> int | None:
    """Return the first grid point from 0 eV up where the curve has both halves."""
    zero = int(np.ceil(-curve.start_eV / curve.step_eV - 1e-6))
    return zero if curve.part is Part.BOTH and 0 < zero < curve.points else None


def _described(task: Task, name: str) -> dict[str, Any]:
    if task.curve is not None:
        return {"kind": "curve", **task.dataset.card["curves"][name]}
    target = describe(name)
    return {"kind": "scalar", "unit": target.unit, "meaning": target.meaning}


def _card(
    task: Task,
    net: TrainedNet,
    fitted: Fitted,
    z: FloatArray,
    targets: dict[str, Any],
    test: dict[str, Any],
) -> dict[str, Any]:
    spec, dataset = task.spec, task.dataset
    window = dataset.recipe.window
    first, last = spec.columns or (0, window.points - 1)
    points = last - first + 1
    sides = {side: getattr(task.rows, side) for side in ("train", "validation", "test")}
    return {
        "schema": SCHEMA,
        "key": spec.key,
        "name": spec.name,
        "code": code_versions(),
        "device": device().type,
        "spec": spec.to_dict(),
        "targets": targets,
        "inputs": {
            "spectrum_points": points,
            "first_eV": window.start_eV + first * window.step_eV,
            "last_eV": window.start_eV + last * window.step_eV,
            "ratios": [f"{a}/{b}" for a, b in RATIOS] if spec.kind is ModelKind.B else [],
            **dataset.card["input"],
            "broadening_sigma_eV": dataset.card["broadening_sigma_eV"],
            "standardisation": "(x - mean) / scale per column over the training rows; a spectrum column's scale is "
            "its standard deviation, at least 1% of the largest; mean and scale are in the weights file (float64)",
        },
        "prediction": f"mean of {spec.network.members} nets that differ in random numbers and in the validation rows "
        "they stop by",
        "interval": f"prediction +- q (spread + floor): {LEVEL:.0%} of new molecules like the validation side's, "
        "by grouped conformal prediction from what members say of molecules they did not stop by"
        + (", at a random point within each 1 eV, not for the whole curve at once" if task.curve else ""),
        "dataset": {
            "key": dataset.key,
            "source": dataset.card["source"],
            "recipe": dataset.card["recipe"],
            "method": dataset.card["method"],
        },
        "counts": {side: len(rows) for side, rows in sides.items()},
        "molecules": {side: len(set(task.groups(rows))) for side, rows in sides.items()},
        "domain": {
            "elements": dataset.card["elements"],
            "largest_rms_z": float(np.sqrt((z[:, :points] ** 2).mean(axis=1)).max()),
            "components": int(net.domain.components.shape[1]),
            "test_beyond_99": float(np.mean(np.array(test["percentile"]) > 99.0)),
        },
        "best_epoch": list(fitted.best_epoch),
        "history": {"train": list(fitted.train_loss), "validation": list(fitted.validation_loss)},
        "test": test,
    }
