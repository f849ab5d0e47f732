"""What a dataset is made of: plain frozen records, ready to be hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = ["MIN_MOLECULES", "Align", "ModelKind", "Recipe", "Scale", "Window"]

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
        Target names (:mod:`htxas.learn.data.targets`).
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
