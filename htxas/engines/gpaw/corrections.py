"""What is tried when self-consistency or the recursion does not converge, and why none of it is in the answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["LADDER", "NUMERICS"]

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "mixing_beta": Numeric("share of the new density in the next; the fixed point stays", 0.005, 0.9),
        "mixing_ndim": Numeric("densities the mixing remembers", 2, 20, whole=True),
        "mixing_weight": Numeric(
            "how much long waves count in the mixing; the fixed point stays", 1.0, 200.0
        ),
        "eigensolver": Numeric("solver of the levels; they stay", choices=("davidson", "rmm-diis", "cg")),
        "iterations_factor": Numeric("times the limit of iterations; the thresholds stay", 1.0, 10.0),
        "recursions_factor": Numeric("times the limit of the recursion; the tolerance stays", 1.0, 10.0),
    }
)
"""Everything a retry may change."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "gentle_mixing",
                "10 % of the new density, twice the iterations and recursions",
                {"mixing_beta": 0.1, "iterations_factor": 2.0, "recursions_factor": 2.0},
                walltime_factor=2.0,
            ),
            Correction(
                "slow_mixing",
                "3 % of the new density, levels by conjugate gradients: slow and sure",
                {
                    "mixing_beta": 0.03,
                    "mixing_ndim": 8,
                    "eigensolver": "cg",
                    "iterations_factor": 6.0,
                    "recursions_factor": 4.0,
                },
                walltime_factor=4.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
