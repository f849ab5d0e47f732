"""What calculations are expected to cost, in seconds on one core.

The engine has a prior. Once enough calculations with the very same parameters are finished, their times decide: the
prior is multiplied by the median of measured over expected seconds, for ground states and sites apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from htxas.domain.calculation import Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, ResolvedParameters

__all__ = ["Calibration", "CostModel", "Ratio", "ratio"]

_ENOUGH = 12  # finished calculations of a kind before their times are believed more than the engine's prior


@dataclass(frozen=True, slots=True)
class Ratio:
    """Measured seconds over those the prior expects.

    Attributes
    ----------
    factor
        Their median.
    samples
        Finished calculations it rests on; 0 means the prior is taken as it is.
    """

    factor: float = 1.0
    samples: int = 0


def ratio(times: Iterable[tuple[float, float]]) -> Ratio:
    """Return the ratio of pairs (expected, measured) of seconds; fewer than 12 pairs change nothing."""
    ratios = [measured / expected for expected, measured in times if expected > 0 and measured > 0]
    return Ratio(median(ratios), len(ratios)) if len(ratios) >= _ENOUGH else Ratio()


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the machines that computed so far compare with the engine's prior."""

    ground: Ratio = field(default_factory=Ratio)
    site: Ratio = field(default_factory=Ratio)

    def seconds(self, kind: Kind, prior_s: float) -> float:
        """Return the expected seconds of a calculation from those of the prior."""
        return prior_s * (self.ground if kind is Kind.GROUND else self.site).factor

    def total_s(self, ground_s: float, sites_s: float) -> float:
        """Return the expected seconds of ground states and sites together from those of the prior."""
        return self.seconds(Kind.GROUND, ground_s) + self.seconds(Kind.SITE, sites_s)

    def __str__(self) -> str:
        if not self.ground.samples and not self.site.samples:
            return "by the engine's prior; too few finished with these parameters to measure"
        return f"ground states {_said(self.ground)}; sites {_said(self.site)}"


def _said(found: Ratio) -> str:
    if not found.samples:
        return "by the engine's prior"
    return f"measured on {found.samples}, {found.factor:.2f} x the prior"


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
