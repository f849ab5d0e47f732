"""Architecture and schedule of a net: a plain frozen record, ready to be hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from htxas.errors import DatasetError

__all__ = ["PRESETS", "Head", "Loss", "Network", "Share"]


class Share(StrEnum):
    """What several scalar targets have in common."""

    NONE = "none"  # a net per target, all of them in one batched product
    TRUNK = "trunk"  # one net, shared hidden layers, an output per target


class Loss(StrEnum):
    """What training makes small. The last two are shape distances of curves (:mod:`htxas.learn.nets.losses`)."""

    MSE = "mse"
    WASSERSTEIN = "wasserstein"
    SID = "sid"


class Head(StrEnum):
    """What the last layer may say."""

    LINEAR = "linear"
    POSITIVE = "positive"  # softplus: never below zero; curves only
    DENSITY = "density"  # softplus, then divided by its area: curves of area 1


@dataclass(frozen=True, slots=True)
class Network:
    """A feed-forward net and how it is trained.

    Attributes
    ----------
    widths
        Hidden layer widths.
    dropout
        Dropout probability after each hidden layer.
    members
        Nets that differ in their random numbers, and in which half of the validation molecules they stop by; their mean
        is the prediction.
    epochs
        At most this many passes over the training split.
    patience
        A member stops after this many epochs without a better validation error, and keeps its best state.
    batch
        Rows per step.
    learning_rate, weight_decay
        Of Adam; the decay is decoupled (AdamW).
    share
        What several targets share.
    loss
        Mean squared error, or a shape distance of curves.
    mse_weight
        With a shape distance: this times the mean squared error of the standardised curve is added.
    head
        Output of curves.
    noise_conditioned
        The log10 of each spectrum's dose is one more input; needs a run that trains over a range of doses.
    """

    widths: tuple[int, ...] = (64, 64)
    dropout: float = 0.3
    members: int = 5
    epochs: int = 400
    patience: int = 60
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    share: Share = Share.NONE
    loss: Loss = Loss.MSE
    mse_weight: float = 0.0
    head: Head = Head.LINEAR
    noise_conditioned: bool = False

    def __post_init__(self) -> None:
        """Refuse a combination that means nothing.

        Raises
        ------
        DatasetError
            ``mse_weight`` with the mean squared error itself; ``sid`` of curves that may fall below zero, or by
            itself of curves whose area is free.
        """
        if self.loss is Loss.MSE and self.mse_weight:
            raise DatasetError("network.mse_weight goes with loss wasserstein or sid")
        if self.loss is Loss.SID and self.head is Head.LINEAR:
            raise DatasetError(
                "loss sid needs curves above zero", hint="network.head: density for area 1, or positive"
            )
        if self.loss is Loss.SID and self.head is Head.POSITIVE and not self.mse_weight:
            raise DatasetError(
                "loss sid says nothing of how large a curve is",
                hint="network.mse_weight, or head: density for area 1",
            )

    @property
    def for_curves(self) -> bool:
        """Whether it says something of a curve only."""
        return self.loss is not Loss.MSE or self.head is not Head.LINEAR

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Network:
        """Rebuild from :meth:`to_dict`."""
        made: dict[str, Any] = {"widths": tuple(data["widths"])}
        for name, kind in (("share", Share), ("loss", Loss), ("head", Head)):
            if name in data:
                made[name] = kind(data[name])
        return cls(**{**data, **made})


PRESETS: dict[str, Network] = {
    "chen2023": Network(
        widths=(160, 160, 120),
        dropout=0.27,
        members=1,
        epochs=5000,
        patience=500,
        learning_rate=1e-4,
        weight_decay=0.0,
    ),
    "curve": Network(
        widths=(256, 256, 256),
        dropout=0.2,
        epochs=300,
        patience=40,
        batch=64,
        learning_rate=3e-3,
        weight_decay=0.3,
        loss=Loss.WASSERSTEIN,
        mse_weight=1.0,
        head=Head.DENSITY,
    ),
}
"""Nets by name. ``chen2023``: Chen et al., J. Phys. Chem. Lett. 14, 4858 (2023), whose batch size and largest number of
epochs are not known here (32 and 5000). ``curve``: ours for curves of area 1. Of ten
tried on 2,266 sites it had the smallest Wasserstein distance on the validation side (0.65 eV; ExtraTrees 0.68), not the
largest R^2 (0.41; 0.42 with a linear head and the squared error, and by ExtraTrees).
"""
