"""A training file after validation."""

from __future__ import annotations

from dataclasses import dataclass, field

from htxas.learn.data.config import Wanted
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.network import Network

__all__ = ["TrainingPlan"]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A training file after validation.

    Attributes
    ----------
    name
        Names the output folder.
    dataset
        What is learned from what.
    models
        Model kinds to train for every target.
    network
        The net.
    seed
        Of initial weights, dropout and batches.
    """

    name: str
    dataset: Wanted
    models: tuple[ModelKind, ...] = (ModelKind.A, ModelKind.B)
    network: Network = field(default_factory=Network)
    seed: int = 0
