"""A model as an ONNX file that takes spectra as they are, checked against torch before it is left behind."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from htxas import __version__
from htxas.errors import DatasetError, NotFound, UserError
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.models import build
from htxas.learn.nets.network import Head
from htxas.learn.runs.model import Predicted, TrainedNet
from htxas.learn.runs.sides import sides
from htxas.learn.serve.model import Model

__all__ = ["Exported", "export_onnx"]

FloatArray = npt.NDArray[np.float64]
Feed = dict[str, npt.NDArray[np.float32]]

TOLERANCE = 1e-5
_OPSET = 18
_RANDOM_ROWS, _REAL_ROWS = 64, 256
_OUTPUTS = ("value", "spread", "half_width")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how far it is from torch.

    Attributes
    ----------
    path
        The file.
    inputs, outputs
        Shapes by name; n is free.
    random_rows, training_rows
        How many of each were compared.
    largest_difference
        Over all outputs and rows, relative to the number itself or, if larger, the target's standard deviation in
        training (of a half width: times the quantile that multiplies the spread).
    note
        What could not be checked.
    """

    path: Path
    inputs: dict[str, str]
    outputs: dict[str, str]
    random_rows: int
    training_rows: int
    largest_difference: float
    note: str | None = None

    @property
    def text(self) -> str:
        """For people."""
        takes = ", ".join(f"{n} {s}" for n, s in self.inputs.items())
        gives = ", ".join(f"{n} {s}" for n, s in self.outputs.items())
        return (
            f"{self.path}: takes {takes}; gives {gives}\n"
            f"against torch, on {self.random_rows} random and {self.training_rows} training rows: "
            f"largest difference {self.largest_difference:.1e} (relative; at most {TOLERANCE:.0e} is accepted)"
            + (f"\n{self.note}" if self.note else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self) | {"path": str(self.path), "tolerance": TOLERANCE}


class _Graph(nn.Module):
    """From raw inputs to value, spread and half width: what :meth:`TrainedNet.predict` computes, in one module."""

    x_mean: Tensor
    x_scale: Tensor
    y_mean: Tensor
    y_scale: Tensor
    quantile: Tensor
    floor: Tensor

    def __init__(self, net: TrainedNet) -> None:
        super().__init__()
        spec = net.spec
        self.net = build(len(net.x.mean), spec.network, net.outputs, torch.Generator().manual_seed(0))
        self.net.load_state_dict(net.state)
        self.head, self.net.head = self.net.head, Head.LINEAR
        self.total = self.net.total
        self.separate, self.count = net.outputs.separate, net.outputs.count
        self.members = spec.network.members
        self.columns = spec.columns
        noise = spec.noise
        self.dose: tuple[float, float] | None = None
        if spec.network.noise_conditioned and noise is not None:
            assert noise.counts is not None
            assert noise.counts_to is not None
            self.dose = (float(np.log10(noise.counts)), float(np.log10(noise.counts_to)))
        for name, array in (
            ("x_mean", net.x.mean),
            ("x_scale", net.x.scale),
            ("y_mean", net.y.mean),
            ("y_scale", net.y.scale),
            ("quantile", net.intervals.quantile),
            ("floor", net.intervals.floor),
        ):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)))

    def forward(
        self, spectrum: Tensor, ratios: Tensor | None = None, log_dose: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return value, spread and half width, each (n, o), of spectra (n, points)."""
        first, last = self.columns or (0, spectrum.shape[1] - 1)
        parts = [spectrum[:, first : last + 1].double()]
        if ratios is not None:
            parts.append(ratios.double())
        if log_dose is not None:
            assert self.dose is not None
            low, high = self.dose
            parts.append((2.0 * (log_dose.double() - low) / (high - low) - 1.0).clamp(max=1.0)[:, None])
        z = ((torch.cat(parts, dim=1) - self.x_mean) / self.x_scale).float()
        out = self._headed(self.net(z).double())
        if self.separate:  # (outputs * members, n, 1) -> (members, n, outputs)
            out = out.reshape(self.count, self.members, -1).permute(1, 2, 0)
        mean = out.mean(dim=0)
        spread = ((out - mean) ** 2).mean(dim=0).sqrt() * self.y_scale
        return mean * self.y_scale + self.y_mean, spread, self.quantile * (spread + self.floor)

    def _headed(self, out: Tensor) -> Tensor:
        # In double precision: onnxruntime's softplus of single precision loses what is small.
        if self.head is Head.LINEAR:
            return out
        out = torch.relu(out) + torch.log(1.0 + torch.exp(-out.abs()))
        return out if self.head is Head.POSITIVE else out * (self.total / out.sum(dim=-1, keepdim=True))


def export_onnx(model: Model, path: Path) -> Exported:
    """Write a model as ONNX.

    Raises
    ------
    UserError
        Without onnx and onnxruntime; if the file cannot be written.
    DatasetError
        If the file would not repeat torch's numbers.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UserError(f"{error.name} is not installed", hint="pip install 'htxas[onnx]'") from None
    if not path.parent.is_dir():
        raise UserError("there is no such folder", where=str(path.parent))
    random, real, note = _rows(model)
    graph = _Graph(model.net).eval()
    handle, name = tempfile.mkstemp(suffix=".onnx", prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        _write(graph, random, scratch)
        document = onnx.load(str(scratch))
        onnx.helper.set_model_props(document, _properties(model))
        onnx.checker.check_model(document)
        onnx.save(document, str(scratch))
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(scratch), sess_options=settings, providers=["CPUExecutionProvider"]
        )
        worst = 0.0
        for feed in (random, real):
            if feed is not None:
                expected = _expected(model, feed)
                worst = max(worst, _difference(model, session.run(list(_OUTPUTS), feed), expected))
        if not worst <= TOLERANCE:
            raise DatasetError(
                f"the ONNX file differs from torch by {worst:.1e}, more than {TOLERANCE:.0e}; it is not kept",
                where=str(path),
            )
        scratch.chmod(0o644)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return Exported(
        path,
        {n: _shape(a) for n, a in random.items()},
        dict.fromkeys(_OUTPUTS, f"(n, {model.net.outputs.count}) float64"),
        len(random["spectrum"]),
        0 if real is None else len(real["spectrum"]),
        worst,
        note,
    )


def _shape(array: npt.NDArray[np.float32]) -> str:
    return "(" + ", ".join(["n", *map(str, array.shape[1:])]) + ("," if array.ndim == 1 else "") + ") float32"


def _rows(model: Model) -> tuple[Feed, Feed | None, str | None]:
    """Return random inputs, training inputs, and why there are none of the latter."""
    window, spec = model.recipe.window, model.net.spec
    rng = np.random.default_rng(0)
    points = int(model.card["inputs"]["spectrum_points"])
    spectra = np.zeros((_RANDOM_ROWS, window.points))
    spectra[:, model.columns] = (
        model.net.x.mean[:points] + rng.standard_normal((_RANDOM_ROWS, points)) * model.net.x.scale[:points]
    )
    random = _feed(model, spectra, rng.uniform(0.0, 1.0, (_RANDOM_ROWS, 3)))
    try:
        dataset = model.dataset()
    except NotFound as error:
        return random, None, f"training spectra were not compared: {error.message}"
    rows = sides(dataset, spec).train[:_REAL_ROWS]
    return random, _feed(model, dataset.spectra[rows], dataset.ratios[rows]), None


def _feed(model: Model, spectra: npt.ArrayLike, ratios: npt.ArrayLike) -> Feed:
    feed = {"spectrum": np.asarray(spectra, dtype=np.float32)}
    if model.kind is ModelKind.B:
        feed["ratios"] = np.asarray(ratios, dtype=np.float32)
    noise = model.net.spec.noise
    if model.net.spec.network.noise_conditioned and noise is not None:
        assert noise.counts is not None
        feed["log_dose"] = np.full(len(feed["spectrum"]), np.log10(noise.counts), dtype=np.float32)
    return feed


def _write(graph: _Graph, feed: Feed, path: Path) -> None:
    arguments = {n: torch.from_numpy(a[:2]) for n, a in feed.items()}
    with warnings.catch_warnings(), _silent("torch.onnx"):  # they are of the exporter, about itself
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (),
            str(path),
            kwargs=arguments,
            input_names=list(arguments),
            output_names=list(_OUTPUTS),
            opset_version=_OPSET,
            dynamo=True,
            dynamic_shapes={n: {0: torch.export.Dim("n")} for n in arguments},
            external_data=False,
            verbose=False,
        )


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _properties(model: Model) -> dict[str, str]:
    card = {
        k: model.card[k]
        for k in ("key", "name", "spec", "inputs", "prediction", "interval", "dataset", "code")
    }
    card["targets"] = {
        n: {k: v for k, v in t.items() if k not in ("metrics", "chosen", "noisy")}
        for n, t in model.targets.items()
    }
    return {
        "producer": f"htxas {__version__}",
        "name": model.name,
        "key": model.key,
        "card": json.dumps(card),
    }


def _expected(model: Model, feed: Feed) -> Predicted:
    n = len(feed["spectrum"])
    dose = feed["log_dose"].astype(np.float64) if "log_dose" in feed else None
    return model.net.predict(feed["spectrum"], feed.get("ratios", np.zeros((n, 3))), log_dose=dose)


def _difference(model: Model, found: list[FloatArray], expected: Predicted) -> float:
    """Return the largest relative difference; nan, which is no difference that can be accepted, stays nan."""
    worst = []
    for name, got in zip(_OUTPUTS, found, strict=True):
        wanted = getattr(expected, name)
        finite = np.isfinite(wanted)
        if not np.array_equal(finite, np.isfinite(got)):
            return float("nan")
        # Half a width is a multiple of the spread: its rounding is the spread's, as many times.
        times = model.net.intervals.quantile if name == "half_width" else 1.0
        unit = np.maximum(np.abs(wanted), times * model.net.y.scale)[finite]
        worst.append((np.abs(got[finite] - wanted[finite]) / unit).max(initial=0.0))
    return float(np.max(worst))
