"""Architecture and schedule of a net: a plain frozen record, ready to be hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Network"]


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
        Nets that differ in their random numbers only; their mean is the prediction.
    epochs
        At most this many passes over the training split.
    patience
        A member stops after this many epochs without a better validation error, and keeps its best state.
    batch
        Rows per step.
    learning_rate, weight_decay
        Of Adam; the decay is decoupled (AdamW).
    """

    widths: tuple[int, ...] = (64, 64)
    dropout: float = 0.3
    members: int = 5
    epochs: int = 400
    patience: int = 60
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.3

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Network:
        """Rebuild from :meth:`to_dict`."""
        return cls(**{**data, "widths": tuple(data["widths"])})
