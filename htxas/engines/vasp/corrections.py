"""What is tried when self-consistency does not converge, and why none of it is in the answer.

Another ``ALGO`` is not: all but ``Normal`` may leave empty bands unfound, see :mod:`htxas.engines.vasp.vasprun`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["LADDER", "NUMERICS"]

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "amix": Numeric("share of the new density in the next; the fixed point stays", 0.01, 0.8),
        "bmix": Numeric("wave number below which mixing is damped; the fixed point stays", 1e-4, 3.0),
        "iterations_factor": Numeric("times the limit of iterations; the threshold stays", 1.0, 10.0),
    }
)
"""Everything a retry may change."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "gentle_mixing",
                "10 % of the new density at all wavelengths alike, twice the iterations",
                {"amix": 0.1, "bmix": 1e-4, "iterations_factor": 2.0},
                walltime_factor=2.0,
            ),
            Correction(
                "slow_mixing",
                "2 % of the new density, five times the iterations: slow and sure",
                {"amix": 0.02, "bmix": 1e-4, "iterations_factor": 5.0},
                walltime_factor=4.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
