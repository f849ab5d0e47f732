"""What calculations are expected to cost, in seconds on one core."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from htxas.domain.calculation import Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, ResolvedParameters

__all__ = ["Calibration", "CostModel", "calibrate"]

_ENOUGH = 12  # finished calculations before their times are believed more than the engine's prior


@dataclass(frozen=True, slots=True)
class Calibration:
    """How this machine compares with the engine's prior.

    Attributes
    ----------
    factor
        Measured seconds over expected seconds (median).
    samples
        Finished calculations it rests on; 0 means the prior is taken as it is.
    """

    factor: float = 1.0
    samples: int = 0

    def __str__(self) -> str:
        if not self.samples:
            return "the engine's prior; nothing measured yet"
        return f"the engine's prior x {self.factor:.2f}, from {self.samples} finished calculations"


def calibrate(times: Iterable[tuple[float, float]]) -> Calibration:
    """Return the calibration from pairs (expected, measured) of seconds; fewer than 12 pairs change nothing."""
    ratios = [measured / expected for expected, measured in times if expected > 0 and measured > 0]
    return Calibration(median(ratios), len(ratios)) if len(ratios) >= _ENOUGH else Calibration()


@dataclass(frozen=True, slots=True)
class CostModel:
    """The engine's prior for one set of parameters."""

    engine: Engine
    parameters: ResolvedParameters

    def ground_s(self, structure: Structure) -> float:
        """Return the expected seconds of the ground state."""
        return self.engine.estimate_s(structure, Kind.GROUND, self.parameters.ground)

    def site_s(self, structure: Structure) -> float:
        """Return the expected seconds of one site, its ground state not included."""
        return self.engine.estimate_s(structure, Kind.SITE, self.parameters.site)
