"""What may be asked of the preparation of a measured spectrum, what a model takes, and what a step reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from htxas.errors import DatasetError
from htxas.learn.data.recipe import Scale, Window
from htxas.learn.serve.background import Background
from htxas.learn.serve.formats.measured import Intensity

__all__ = ["Inputs", "Normalise", "Options", "Step"]


class Normalise(StrEnum):
    """How the intensity gets the scale of the training spectra."""

    NONE = "none"
    AREA = "area"  # the training spectra's mean area in the window
    EDGE_STEP = "edge-step"  # above the edge, the bare atom's absorption


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asks to be done. Energies are on the file's axis after ``shift_eV``.

    Attributes
    ----------
    shift_eV
        Added to the file's energies.
    background, pre_edge_eV
        Form, and the range it is fitted in.
    normalise, post_edge_eV
        Scale of the intensity, and the range in which an edge step is measured.
    instrument_sigma_eV
        The file's own Gaussian broadening; None: taken to be the model's.
    smooth_eV
        Width of a Savitzky-Golay filter, or None.
    excitation_energy_eV
        First final state, or None.
    auto_onset
        Find it.
    edge_eV
        Threshold, for models of continuous spectra; None: as the file says.
    """

    shift_eV: float = 0.0
    background: Background = Background.NONE
    pre_edge_eV: tuple[float, float] | None = None
    normalise: Normalise = Normalise.NONE
    post_edge_eV: tuple[float, float] | None = None
    instrument_sigma_eV: float | None = None
    smooth_eV: float | None = None
    excitation_energy_eV: float | None = None
    auto_onset: bool = False
    edge_eV: float | None = None

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises
        ------
        DatasetError
            Naming them.
        """
        if (self.background is not Background.NONE) != (self.pre_edge_eV is not None):
            raise DatasetError("--background and --pre-edge LOW HIGH go together")
        for name, span in (("--pre-edge", self.pre_edge_eV), ("--post-edge", self.post_edge_eV)):
            if span is not None and not span[0] < span[1]:
                raise DatasetError(f"{name} goes from {span[0]:g} to {span[1]:g} eV")
        if self.post_edge_eV is not None and self.normalise is not Normalise.EDGE_STEP:
            raise DatasetError("--post-edge goes with --normalise edge-step")
        if self.auto_onset and self.excitation_energy_eV is not None:
            raise DatasetError("give one of --excitation-energy and --onset auto")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model takes.

    Attributes
    ----------
    window
        Its dataset's.
    columns
        Points of the window that it sees.
    sigma_eV
        Broadening of its training spectra.
    element, edge
        Absorber of its training spectra.
    mean_area
        Mean area of its training spectra over those points.
    continuum
        Whether its training spectra are continuous: with straight lines between their points.
    unit
        What they are in, where the window's scale is absolute; None: nothing that a measurement tells.
    """

    window: Window
    columns: slice
    sigma_eV: float
    element: str
    edge: str
    mean_area: float
    continuum: bool = False
    unit: Intensity | None = Intensity.STRENGTH

    @property
    def needed(self) -> Window:
        """The part of the window that a spectrum must cover."""
        if self.window.scale is Scale.AREA:
            return self.window
        start = self.window.start_eV + self.columns.start * self.window.step_eV
        return replace(self.window, start_eV=start, points=self.columns.stop - self.columns.start)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done, or that was taken for granted.

    Attributes
    ----------
    name
        ``shift``, ``background``, ``scale``, ``broadening``, ``onset``, ``resampling``, ``smoothing``.
    text
        What, for people.
    numbers
        The same, for programs.
    """

    name: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return {"step": self.name, "text": self.text, **self.numbers}
