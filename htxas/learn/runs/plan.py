"""A training file after validation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from htxas.learn.data.config import Qm9Files
from htxas.learn.data.recipe import ModelKind, Recipe
from htxas.learn.nets.network import Network

__all__ = ["TrainingPlan"]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A training file after validation.

    Attributes
    ----------
    name
        Names the output folder.
    targets
        What is learned, by name: targets and curves of the dataset.
    recipe
        How the dataset is made; None where it is frozen.
    campaign, file, frozen
        The source: exactly one is given. ``frozen`` is the name, key or folder of a dataset.
    models
        Model kinds to train for every target.
    network
        The net.
    seed
        Of initial weights, dropout and batches.
    qm9
        Files of QM9 properties to join, or None.
    """

    name: str
    targets: tuple[str, ...]
    recipe: Recipe | None = None
    campaign: str | None = None
    file: Path | None = None
    frozen: str | None = None
    models: tuple[ModelKind, ...] = (ModelKind.A, ModelKind.B)
    network: Network = field(default_factory=Network)
    seed: int = 0
    qm9: Qm9Files | None = None
