"""A trained net with all it needs to speak of a new spectrum: scales, weights, intervals, its domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from htxas.learn.data.features import Standardiser, inputs
from htxas.learn.nets.device import deterministic
from htxas.learn.nets.domain import Domain
from htxas.learn.nets.fit import predict_network
from htxas.learn.nets.intervals import Intervals
from htxas.learn.nets.models import Outputs
from htxas.learn.runs.spec import RunSpec

__all__ = ["Predicted", "TrainedNet", "ensemble", "input_rows"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What a net says of n spectra.

    Attributes
    ----------
    value, spread, half_width
        Mean and standard deviation over members and half the width of the calibrated 90% interval, shape (n, o): a
        column per target, or per point of a curve.
    percentile
        Percentage of training spectra that lie nearer to the other ones, shape (n,): near 100 the spectrum is unlike
        what was trained on.
    """

    value: FloatArray
    spread: FloatArray
    half_width: FloatArray
    percentile: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNet:
    """A trained net.

    Attributes
    ----------
    spec
        Its run.
    outputs
        What its last layer stands for.
    x, y
        Scales of inputs and outputs.
    state
        Weights.
    intervals
        Calibrated on the validation rows.
    domain
        The training rows' place.
    """

    spec: RunSpec
    outputs: Outputs
    x: Standardiser
    y: Standardiser
    state: dict[str, Tensor]
    intervals: Intervals
    domain: Domain

    def predict(
        self, spectra: npt.ArrayLike, ratios: npt.ArrayLike, *, log_dose: FloatArray | None = None
    ) -> Predicted:
        """Return predictions.

        Parameters
        ----------
        spectra
            Over the dataset's whole window, shape (n, points).
        ratios
            N/C, O/C, F/C, shape (n, 3); ignored by Model-A.
        log_dose
            log10 of the counts at each spectrum's maximum, shape (n,), for a noise-conditioned net; None: no noise.
        """
        z = self.standardised(spectra, ratios, log_dose=log_dose)
        with deterministic():
            value, spread = ensemble(self.state, z, self.spec, self.outputs, self.y)
            percentile = self.domain.percentile(z)
        return Predicted(value, spread, self.intervals.half_width(spread), percentile)

    def standardised(
        self, spectra: npt.ArrayLike, ratios: npt.ArrayLike, *, log_dose: FloatArray | None = None
    ) -> FloatArray:
        """Return the net's own inputs, shape (n, d)."""
        return self.x.apply(input_rows(self.spec, spectra, ratios, log_dose))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything but the spec as named tensors."""
        found = {f"net.{name}": value.contiguous() for name, value in self.state.items()}
        arrays = {
            "x.mean": self.x.mean,
            "x.scale": self.x.scale,
            "y.mean": self.y.mean,
            "y.scale": self.y.scale,
            "interval.quantile": self.intervals.quantile,
            "interval.floor": self.intervals.floor,
            "domain.mean": self.domain.mean,
            "domain.components": self.domain.components,
            "domain.scores": self.domain.scores,
            "domain.own": self.domain.own,
            "output.total": np.array([self.outputs.total]),
        }
        return found | {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}

    @classmethod
    def from_tensors(cls, spec: RunSpec, tensors: Mapping[str, Tensor]) -> TrainedNet:
        """Rebuild from :meth:`tensors`.

        Raises
        ------
        KeyError
            If one is missing.
        """
        a = {name: value.numpy() for name, value in tensors.items() if not name.startswith("net.")}
        return cls(
            spec,
            Outputs(
                count=len(a["y.mean"]),
                separate=len(tensors["net.biases.0"]) != spec.network.members,
                total=float(a["output.total"][0]),
            ),
            Standardiser(a["x.mean"], a["x.scale"]),
            Standardiser(a["y.mean"], a["y.scale"]),
            {n.removeprefix("net."): v for n, v in tensors.items() if n.startswith("net.")},
            Intervals(a["interval.quantile"], a["interval.floor"]),
            Domain(a["domain.mean"], a["domain.components"], a["domain.scores"], a["domain.own"]),
        )


def ensemble(
    state: dict[str, Tensor], z: FloatArray, spec: RunSpec, outputs: Outputs, y: Standardiser
) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation over members, in the outputs' own units, shapes (n, o)."""
    members = predict_network(state, z, spec.network, outputs)
    return y.invert(members.mean(axis=0)), np.asarray(members.std(axis=0) * y.scale)


def input_rows(
    spec: RunSpec, spectra: npt.ArrayLike, ratios: npt.ArrayLike, log_dose: FloatArray | None
) -> FloatArray:
    """Return inputs before standardisation, shape (n, d): spectrum, ratios of Model-B, dose of a conditioned net.

    The dose counts from -1 to 1 over the range that was trained on; a spectrum with less noise, or none, has 1.
    """
    first, last = (0, None) if spec.columns is None else (spec.columns[0], spec.columns[1] + 1)
    rows = inputs(spec.kind, np.asarray(spectra)[:, first:last], ratios)
    if not spec.network.noise_conditioned:
        return rows
    assert spec.noise is not None
    assert spec.noise.counts is not None
    assert spec.noise.counts_to is not None
    low, high = np.log10([spec.noise.counts, spec.noise.counts_to])
    log_dose = np.full(len(rows), np.inf) if log_dose is None else log_dose
    dose = np.minimum(2.0 * (log_dose - low) / (high - low) - 1.0, 1.0)
    return np.hstack([rows, dose[:, None]])
