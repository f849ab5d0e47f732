"""What is tried when OLCAO's potential does not converge, and why none of it is in the answer.

Its potential is relaxed towards self-consistency: the share of the new one and the number of steps decide only whether
it gets there. The criterion is in the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["ITERATIONS", "LADDER", "NUMERICS"]

ITERATIONS = 80
"""Most iterations of a first attempt; ``makeinput`` writes 50."""

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "relaxation": Numeric("share of the new potential; the fixed point stays", 0.005, 0.9),
        "iterations_factor": Numeric("times the limit of iterations; the criterion stays", 1.0, 10.0),
    }
)
"""Everything a retry may change; what it does not say is as ``makeinput`` writes it."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "more_iterations",
                "three times the iterations",
                {"iterations_factor": 3.0},
                walltime_factor=3.0,
            ),
            Correction(
                "slow_relaxation",
                "5 % of the new potential, eight times the iterations",
                {"relaxation": 0.05, "iterations_factor": 8.0},
                walltime_factor=8.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
