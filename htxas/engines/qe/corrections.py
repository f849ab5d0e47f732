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
        "mixing_beta": Numeric("share of the new density in the next; the fixed point stays", 0.01, 0.9),
        "mixing_mode": Numeric(
            "how steps are screened; the fixed point stays", choices=("plain", "TF", "local-TF")
        ),
        "mixing_ndim": Numeric("densities the mixing remembers", 2, 20, whole=True),
        "diagonalization": Numeric("solver of the bands; the bands stay", choices=("david", "cg")),
        "iterations_factor": Numeric("times the limit of iterations; the threshold stays", 1.0, 10.0),
        "recursions_factor": Numeric("times the limit of the recursion; the tolerance stays", 1.0, 10.0),
    }
)
"""Everything a retry may change."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "gentle_mixing",
                "30 % of the new density, twice the iterations and recursions",
                {"mixing_beta": 0.3, "iterations_factor": 2.0, "recursions_factor": 2.0},
                walltime_factor=2.0,
            ),
            Correction(
                "slow_mixing",
                "10 % of the new density, screened locally, bands by conjugate gradients: slow and sure",
                {
                    "mixing_beta": 0.1,
                    "mixing_mode": "local-TF",
                    "mixing_ndim": 12,
                    "diagonalization": "cg",
                    "iterations_factor": 5.0,
                    "recursions_factor": 4.0,
                },
                walltime_factor=3.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
