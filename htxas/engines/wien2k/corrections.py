"""What is tried when WIEN2k's self-consistency does not converge, and why none of it is in the answer.

The mixer finds a fixed point of the density; which scheme it uses and how far it goes in a step decide only whether it
gets there. Basis, spheres, k points and the criteria are in the identity: no correction touches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["ITERATIONS", "LADDER", "NUMERICS"]

ITERATIONS = 60
"""Most cycles of a first attempt; ``run_lapw`` takes 40 of its own accord."""

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "mixing": Numeric(
            "how densities are mixed; the fixed point stays", choices=("MSR1", "MSEC3", "PRATT")
        ),
        "mixing_factor": Numeric("share of the new density; the fixed point stays", 0.005, 0.5),
        "iterations_factor": Numeric("times the limit of cycles; the criteria stay", 1.0, 10.0),
    }
)
"""Everything a retry may change; what it does not say is as ``init_lapw`` leaves it."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "gentle_mixing",
                "MSEC3 with 10 % of the new density, twice the cycles",
                {"mixing": "MSEC3", "mixing_factor": 0.1, "iterations_factor": 2.0},
                walltime_factor=2.0,
            ),
            Correction(
                "slow_mixing",
                "5 % of the new density, nothing else (PRATT): slow and sure",
                {"mixing": "PRATT", "mixing_factor": 0.05, "iterations_factor": 8.0},
                walltime_factor=4.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
