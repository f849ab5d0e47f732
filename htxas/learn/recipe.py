"""What a dataset and a training are made of: plain frozen records, ready to be hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["MIN_MOLECULES", "Align", "ModelKind", "Network", "Recipe", "Scale", "TrainingPlan", "Window"]

MIN_MOLECULES = 50
"""Fewer molecules than this are refused: a test split of eight molecules already says next to nothing."""


class Align(StrEnum):
    """Where the energy window is anchored."""

    EXCITATION_ENERGY = "excitation_energy"  # energies relative to the molecule's first final state
    ABSOLUTE = "absolute"  # energies as computed; the position of the edge stays in the spectrum


class Scale(StrEnum):
    """What the intensity means."""

    ABSOLUTE = "absolute"  # oscillator strength per eV per absorbing atom, as computed
    AREA = "area"  # area 1 in the window: a spectrum in arbitrary units can be used later


class ModelKind(StrEnum):
    """The two published input sets (Kikumasa et al. 2022)."""

    A = "A"  # the spectrum alone
    B = "B"  # the spectrum and the ratios N/C, O/C, F/C


@dataclass(frozen=True, slots=True)
class Window:
    """Energy window of the input.

    Attributes
    ----------
    start_eV
        First point, relative to the anchor of ``align``.
    points
        Number of points.
    step_eV
        Step; must be the spectra's own.
    align
        The anchor.
    scale
        Meaning of the intensity.
    """

    start_eV: float = -4.0
    points: int = 240
    step_eV: float = 0.1
    align: Align = Align.EXCITATION_ENERGY
    scale: Scale = Scale.ABSOLUTE

    @property
    def stop_eV(self) -> float:
        """Last point, relative to the anchor."""
        return self.start_eV + (self.points - 1) * self.step_eV


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a source becomes a dataset.

    Attributes
    ----------
    window
        The input.
    targets
        Target names (:mod:`htxas.learn.targets`).
    validation, test
        Fractions of molecules.
    seed
        Of the split.
    drop_uncovered
        Leave out (and count) molecules whose spectrum ends below the window instead of refusing.
    """

    targets: tuple[str, ...]
    window: Window = Window()
    validation: float = 0.15
    test: float = 0.15
    seed: int = 0
    drop_uncovered: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self) | {"targets": list(self.targets)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild from :meth:`to_dict`."""
        window = dict(data["window"])
        window |= {"align": Align(window["align"]), "scale": Scale(window["scale"])}
        return cls(**{**data, "targets": tuple(data["targets"]), "window": Window(**window)})


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


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A training file after validation.

    Attributes
    ----------
    name
        Names the output folder.
    campaign, file
        The source: exactly one is given.
    recipe
        How the dataset is made.
    models
        Model kinds to train for every target.
    network
        The net.
    seed
        Of initial weights, dropout and batches.
    qm9_properties, qm9_molecules
        CSV files of QM9 properties (``gdb_id, mu, ...``) and SMILES (``gdb_id, smiles``) to join, or None.
    """

    name: str
    recipe: Recipe
    campaign: str | None = None
    file: Path | None = None
    models: tuple[ModelKind, ...] = (ModelKind.A, ModelKind.B)
    network: Network = Network()
    seed: int = 0
    qm9_properties: Path | None = None
    qm9_molecules: Path | None = None
