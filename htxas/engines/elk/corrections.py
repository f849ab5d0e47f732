"""What is tried when Elk's self-consistency does not converge, and why none of it is in the answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["LADDER", "NUMERICS"]

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "mixing": Numeric("how potentials are mixed; the fixed point stays", choices=("broyden", "adaptive")),
        "mixing_beta": Numeric("share of the new potential at the start; the fixed point stays", 0.005, 0.9),
        "iterations_factor": Numeric("times the limit of iterations; the thresholds stay", 1.0, 10.0),
    }
)
"""Everything a retry may change."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "gentle_mixing",
                "Broyden mixing from 15 % of the new potential, twice the iterations",
                {"mixing_beta": 0.15, "iterations_factor": 2.0},
                walltime_factor=2.0,
            ),
            Correction(
                "adaptive_mixing",
                "each part of the potential with a share of its own, from 5 %: slow and sure",
                {"mixing": "adaptive", "mixing_beta": 0.05, "iterations_factor": 5.0},
                walltime_factor=5.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
