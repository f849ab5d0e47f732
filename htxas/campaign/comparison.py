"""Predicted against actual: how good the estimates of finished calculations were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from htxas.campaign.cost import Timing, fit, left_out
from htxas.domain.calculation import Kind

__all__ = ["FITS", "Comparison"]

FITS = 0.95
"""Share of calculations that should end within the seconds reserved for them."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of finished calculations of one engine, kind and set of parameters, on one class of machines.

    Attributes
    ----------
    engine, kind, parameters_key, machine
        Which calculations; the class of the machine they ran on.
    campaigns
        Names of campaigns with these parameters.
    timings
        What they took and what the engine's prior says.
    learned_s
        By fits to the other calculations: five parts, each predicted by the rest.
    safety
        Factor on the learned seconds within which 95 of 100 are expected to end.
    """

    engine: str
    kind: Kind
    parameters_key: str
    machine: str
    campaigns: tuple[str, ...]
    timings: tuple[Timing, ...]
    learned_s: tuple[float, ...]
    safety: float

    @classmethod
    def of(
        cls,
        timings: Sequence[Timing],
        *,
        engine: str,
        kind: Kind,
        parameters_key: str,
        machine: str,
        campaigns: Sequence[str],
    ) -> Comparison:
        """Return the comparison of some timings."""
        return cls(
            engine,
            kind,
            parameters_key,
            machine,
            tuple(campaigns),
            tuple(timings),
            tuple(left_out(timings)),
            fit(timings).safety(FITS),
        )

    @property
    def label(self) -> str:
        """Engine, kind and machine, for people."""
        return f"{self.engine} {self.kind.value} on {self.machine or 'an unknown host'}"

    @property
    def actual_s(self) -> tuple[float, ...]:
        """What they took."""
        return tuple(t.measured_s for t in self.timings)

    @property
    def prior_s(self) -> tuple[float, ...]:
        """What the engine's prior says."""
        return tuple(t.prior_s for t in self.timings)

    def ratios(self, predicted_s: Sequence[float]) -> tuple[float, float, float]:
        """Return the 10 % quantile, median and 90 % quantile of actual over predicted."""
        ratios = np.array(self.actual_s) / np.array(predicted_s)
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
        return float(low), float(middle), float(high)

    @property
    def within_safety(self) -> float:
        """Share of calculations that ended within the learned seconds times the safety factor."""
        return float(np.mean(np.array(self.actual_s) <= np.array(self.learned_s) * self.safety))

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, without the single calculations."""
        names = ("p10", "median", "p90")
        return {
            "engine": self.engine,
            "kind": self.kind.value,
            "parameters_key": self.parameters_key,
            "machine": self.machine,
            "campaigns": list(self.campaigns),
            "samples": len(self.timings),
            "actual_s": dict(
                zip(names, map(float, np.quantile(self.actual_s, (0.1, 0.5, 0.9))), strict=True)
            ),
            "actual_over_prior": dict(zip(names, self.ratios(self.prior_s), strict=True)),
            "actual_over_learned": dict(zip(names, self.ratios(self.learned_s), strict=True)),
            "safety": self.safety,
            "within_safety": self.within_safety,
        }
