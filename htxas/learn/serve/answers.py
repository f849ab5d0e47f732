"""What a model may say of one spectrum: numbers or a curve, how sure, and whether it may speak at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.learn.nets.intervals import LEVEL
from htxas.learn.serve.prepare import Prepared

__all__ = ["CurveEstimate", "Estimate", "Familiarity", "Prediction"]

FloatArray = npt.NDArray[np.float64]
_UNFAMILIAR = 99.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """One predicted number.

    Attributes
    ----------
    target, unit
        What it is.
    value
        Mean over the ensemble.
    low, high
        Calibrated 90% interval; None where too few molecules were at hand to calibrate it.
    test_mae
        Mean absolute error on the model's own test molecules.
    true
        Known value, where there is one.
    """

    target: str
    unit: str
    value: float
    low: float | None
    high: float | None
    test_mae: float
    true: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CurveEstimate:
    """A predicted curve.

    Attributes
    ----------
    target, unit, zero
        What it is, and what 0 eV is.
    energies_eV, value
        Shape (m,).
    low, high
        Calibrated 90% band, point by point, shape (m,); None as in :class:`Estimate`.
    true
        Known curve, shape (m,), where there is one.
    """

    target: str
    unit: str
    zero: str
    energies_eV: FloatArray
    value: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    true: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Familiarity:
    """How far an input lies from what the model was trained on.

    Attributes
    ----------
    percentile
        Percentage of training spectra that lie nearer to the others.
    rms_z, largest_rms_z
        Root mean square of the standardised spectrum, and the largest of a training spectrum.
    strange_elements
        Elements that no training molecule has.
    """

    percentile: float
    rms_z: float
    largest_rms_z: float
    strange_elements: tuple[str, ...] = ()

    @property
    def inside(self) -> bool:
        """Whether nothing speaks against it."""
        near = self.percentile <= _UNFAMILIAR and self.rms_z <= self.largest_rms_z
        return near and not self.strange_elements

    @property
    def verdict(self) -> str:
        """One line."""
        numbers = (
            f"farther from the training spectra than {self.percentile:.0f} % of them are from each other; "
            f"r.m.s. z-score {self.rms_z:.2f}, theirs at most {self.largest_rms_z:.2f}"
        )
        if self.inside:
            return f"inside the training domain: {numbers}"
        strange = " ".join(self.strange_elements)
        return f"OUTSIDE THE TRAINING DOMAIN: {numbers}" + (
            f"; no training molecule contains {strange}" if strange else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self) | {"inside": self.inside, "verdict": self.verdict}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a model says of one spectrum.

    Attributes
    ----------
    name
        Molecule, site or file.
    estimates
        One per target; empty of a curve.
    curve
        Of a model of curves.
    familiarity
        Whether it may speak of it at all.
    notes
        What else must be known.
    prepared
        How a measured spectrum became the input.
    if_onset
        Where the onset was found: the estimates at the ends of its range, by onset in eV.
    z
        The input as the net sees it, shape (d,).
    """

    name: str
    estimates: tuple[Estimate, ...]
    curve: CurveEstimate | None
    familiarity: Familiarity
    z: FloatArray
    notes: tuple[str, ...] = ()
    prepared: Prepared | None = None
    if_onset: Mapping[float, tuple[Estimate, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        curve = self.curve
        return {
            "name": self.name,
            "interval_level": LEVEL,
            "estimates": [asdict(e) for e in self.estimates],
            "curve": None
            if curve is None
            else {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(curve).items()},
            "domain": self.familiarity.to_dict(),
            "notes": list(self.notes),
            "preparation": None if self.prepared is None else [s.to_dict() for s in self.prepared.steps],
            "if_onset_eV": [
                {"onset_eV": onset, "estimates": [asdict(e) for e in estimates]}
                for onset, estimates in self.if_onset.items()
            ],
        }
