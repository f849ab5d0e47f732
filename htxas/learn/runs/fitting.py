"""From a dataset's rows to a trained net: outputs and inputs made, noise drawn, nets fitted, intervals calibrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from htxas.domain.identity import content_key
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import elements_of
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.features import Standardiser
from htxas.learn.data.recipe import CurveRecipe, ModelKind, Scale
from htxas.learn.data.together import formula_in
from htxas.learn.nets.device import device
from htxas.learn.nets.domain import Domain
from htxas.learn.nets.fit import Fitted, OnEpoch, fit_network, predict_network
from htxas.learn.nets.intervals import Intervals
from htxas.learn.nets.losses import Criterion
from htxas.learn.nets.models import Outputs
from htxas.learn.nets.network import Head, Share
from htxas.learn.nets.noise import Distortion, Noise
from htxas.learn.runs.model import TrainedNet, ensemble, input_rows
from htxas.learn.runs.sides import Sides, sides, stopping
from htxas.learn.runs.spec import RunSpec

__all__ = ["Task", "draw_spectra", "fit_net"]

FloatArray = npt.NDArray[np.float64]
_AREA_TOLERANCE = 1e-3
_BLOCK_eV = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a run learns.

    Attributes
    ----------
    dataset, spec
        The question.
    rows
        Its sides.
    y
        Outputs of every row of the dataset, shape (n, o).
    curve
        The curve, or None where scalars are learned.
    """

    dataset: Dataset
    spec: RunSpec
    rows: Sides
    y: FloatArray
    curve: CurveRecipe | None

    @classmethod
    def of(cls, dataset: Dataset, spec: RunSpec) -> Task:
        """Read targets and sides.

        Raises
        ------
        DatasetError
            A target is unknown, does not vary, or is a curve beside others; a net for curves asked for numbers.
        """
        where = str(dataset.path)
        curves = {c.name: c for c in dataset.recipe.curves}
        named = [t for t in spec.targets if t in curves]
        if named and len(spec.targets) > 1:
            raise DatasetError(f"the curve {named[0]} is learned by itself, not with other targets")
        if not named and spec.network.for_curves:
            raise DatasetError(
                f"network.loss and network.head are for curves, not for {spec.targets[0]}", where=where
            )
        points = dataset.spectra.shape[1]
        if spec.columns is not None and spec.columns[1] >= points:
            raise DatasetError(
                f"columns end at {spec.columns[1]}, the window has {points} points", where=where
            )
        y = (
            np.asarray(dataset.curve(named[0]), dtype=np.float64)
            if named
            else np.column_stack([dataset.target(t) for t in spec.targets])
        )
        task = cls(dataset, spec, sides(dataset, spec), y, curves[named[0]] if named else None)
        task._refuse_constant()
        return task

    def _refuse_constant(self) -> None:
        for side in ("train", "validation", "test"):
            rows = getattr(self.rows, side)
            spread = np.ptp(self.y[rows], axis=0)
            still = [spread.max()] if self.curve is not None else spread
            for name, value in zip(self.spec.targets, still, strict=True):
                if value == 0:
                    raise DatasetError(
                        f"target {name} is the same for all {len(rows)} rows of the {side} side",
                        where=str(self.dataset.path),
                        hint="leave the target out, or widen the dataset",
                    )

    def groups(self, rows: npt.NDArray[np.intp]) -> list[str]:
        """Return the molecules of rows."""
        names = self.dataset.groups
        return [names[i] for i in rows]

    def kept_together(self, rows: npt.NDArray[np.intp]) -> list[str]:
        """Return what the split keeps on one side, for rows: molecules, or formulas or elements of crystals."""
        groups = self.groups(rows)
        if self.spec.split not in ("formula", "elements"):
            return groups
        formulas = [formula_in(group) for group in groups]
        return formulas if self.spec.split == "formula" else [elements_of(f) for f in formulas]

    def inputs(self, rows: npt.NDArray[np.intp], noise: Noise | None, salt: str) -> FloatArray:
        """Return inputs of rows before standardisation; noise comes from a generator of its own, seeded by ``salt``."""
        spectra, log_dose = draw_spectra(self.dataset, rows, noise, salt)
        return input_rows(self.spec, spectra, self.dataset.ratios[rows], log_dose)


def draw_spectra(
    dataset: Dataset, rows: npt.NDArray[np.intp], noise: Noise | None, salt: str
) -> tuple[npt.NDArray[np.float32], FloatArray | None]:
    """Return spectra (n, points), and the log10 of their doses (n,) where there is noise.

    The same rows, noise and salt give the same spectra in every run.
    """
    spectra = np.array(dataset.spectra[rows])
    if noise is None:
        return spectra, None
    seed = int(content_key({"salt": salt, "noise": noise.to_dict()})[:15], 16)
    out, log_dose = _distortion(dataset, noise).draw(
        torch.from_numpy(spectra), torch.Generator().manual_seed(seed)
    )
    return out.numpy(), log_dose.numpy().astype(np.float64)


def _distortion(dataset: Dataset, noise: Noise) -> Distortion:
    window = dataset.recipe.window
    return Distortion(noise, window.step_eV, window.points, unit_area=window.scale is Scale.AREA)


def fit_net(task: Task, on_epoch: OnEpoch | None) -> tuple[TrainedNet, Fitted, FloatArray, FloatArray]:
    """Train, calibrate, and return the net, its history and the standardised training and validation inputs.

    Raises
    ------
    DatasetError
        If training diverges, or a density is asked of curves whose area is not 1.
    """
    spec, train, validation = task.spec, task.rows.train, task.rows.validation
    raw = task.inputs(train, spec.noise, f"train {spec.seed}")
    points = raw.shape[1] - (3 if spec.kind is ModelKind.B else 0) - spec.network.noise_conditioned
    x_scaler = Standardiser.fit(raw, floor_columns=points)
    z = x_scaler.apply(raw)
    z_validation = x_scaler.apply(task.inputs(validation, spec.noise, f"validation {spec.seed}"))
    y_scaler, outputs, criterion = _outputs(task)
    t = y_scaler.apply(task.y)
    stop_by = stopping(task.kept_together(validation), spec.network.members)
    fitted = fit_network(
        z if spec.noise is None else _fresh(task, spec.noise, x_scaler),
        t[train],
        z_validation,
        t[validation],
        spec.network,
        outputs,
        seed=spec.generator_seed,
        stop_by=stop_by,
        criterion=criterion,
        on_epoch=on_epoch,
    )
    _, spread = ensemble(fitted.state, z, spec, outputs, y_scaler)
    floor = np.median(spread, axis=0) if spec.network.members > 1 else task.y[train].std(axis=0)
    members = predict_network(fitted.state, z_validation, spec.network, outputs)
    left = ~stop_by
    used = left.any(axis=0)
    # Of each row, the mean of the members that did not stop by it, and the spread of all.
    share = left[:, used] / left[:, used].sum(axis=0)
    intervals = Intervals.calibrate(
        task.y[validation[used]],
        y_scaler.invert(np.einsum("mk,mko->ko", share, members[:, used])),
        members[:, used].std(axis=0) * y_scaler.scale,
        task.kept_together(validation[used]),
        floor=floor,
        block=1 if task.curve is None else max(1, round(_BLOCK_eV / task.curve.step_eV)),
    )
    domain = Domain.fit(z, task.groups(train))
    net = TrainedNet(spec, outputs, x_scaler, y_scaler, fitted.state, intervals, domain)
    return net, fitted, z, z_validation


def _outputs(task: Task) -> tuple[Standardiser, Outputs, Criterion]:
    y, network, count = task.y[task.rows.train], task.spec.network, task.y.shape[1]
    if task.curve is None:
        separate = network.share is Share.NONE
        return Standardiser.fit(y), Outputs(count, separate), Criterion(network)
    step_eV = task.curve.step_eV
    # One scale for all points: a standardised squared error is then the curve's own, but for a factor.
    scale = float(np.sqrt(y.var(axis=0).mean()))
    criterion = Criterion(network, step=step_eV, scale=scale)
    if network.head is Head.LINEAR:
        return Standardiser(y.mean(axis=0), np.full(count, scale)), Outputs(count, separate=False), criterion
    area = y.sum(axis=1) * step_eV
    if network.head is Head.DENSITY and np.abs(area - 1.0).max() > _AREA_TOLERANCE:
        raise DatasetError(
            f"network.head density needs curves of area 1, {task.curve.name} has {area.min():.3g} to {area.max():.3g}",
            hint="network.head: positive, or freeze the curve with scale: area",
        )
    outputs = Outputs(
        count, separate=False, total=1.0 / (step_eV * scale), start=tuple((y.mean(axis=0) / scale).tolist())
    )
    return Standardiser(np.zeros(count), np.full(count, scale)), outputs, criterion


def _fresh(task: Task, noise: Noise, scaler: Standardiser) -> Callable[[torch.Generator], Tensor]:
    """Return a function that draws the training inputs of an epoch, on the device of the nets."""
    spec, rows, at = task.spec, task.rows.train, device()
    distortion = _distortion(task.dataset, noise)
    spectra = torch.from_numpy(np.array(task.dataset.spectra[rows])).to(at)
    first, last = spec.columns or (0, spectra.shape[1] - 1)
    mean, scale = (_on(a, at) for a in (scaler.mean, scaler.scale))
    fixed = [_on(task.dataset.ratios[rows], at)] if spec.kind is ModelKind.B else []

    def draw(generator: torch.Generator) -> Tensor:
        drawn, log_dose = distortion.draw(spectra, generator)
        parts = [drawn[:, first : last + 1], *fixed]
        if spec.network.noise_conditioned:
            assert noise.counts is not None
            assert noise.counts_to is not None
            low, high = np.log10([noise.counts, noise.counts_to])
            parts.append((2.0 * (log_dose - low) / (high - low) - 1.0)[:, None])
        return (torch.cat(parts, dim=1) - mean) / scale

    return draw


def _on(a: npt.ArrayLike, at: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)).to(at)
