"""What is tried when a self-consistency fails, and why none of it is in the answer.

CP2K mixes density matrices until their change is small enough for DIIS, and judges by that change in both. A smaller
share and a later DIIS lead to the same fixed point by the same criterion: the three rungs' spectra of CO agree within
3 meV. Smearing and other occupations would lead to another, so no correction has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["DEFAULTS", "LADDER", "NUMERICS"]

DEFAULTS: Mapping[str, float | int] = MappingProxyType(
    {"mixing": 0.3, "eps_diis": 1.0, "max_diis": 8, "iterations": 60}
)
"""Of a first attempt. With CP2K's own (0.4, 0.1, 4, 50) the ion of CO with a hole on C swings for ever."""

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "mixing": Numeric("share of the new density matrix in the next; the fixed point stays", 0.01, 1.0),
        "eps_diis": Numeric("DIIS begins when the density changes less; the criterion stays", 1e-5, 1.0),
        "max_diis": Numeric("matrices that DIIS remembers", 2, 30, whole=True),
        "iterations": Numeric("most iterations; the criterion stays", 2, 1000, whole=True),
    }
)
"""Everything a retry may change."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "more_iterations",
                "the same iteration, 200 times: slow is not wrong",
                {"iterations": 200},
                walltime_factor=3.0,
            ),
            Correction(
                "gentle_mixing",
                "10 % of the new density at first, DIIS only near the end",
                {"mixing": 0.1, "eps_diis": 0.05, "iterations": 300},
                walltime_factor=2.0,
            ),
            Correction(
                "slow_mixing",
                "5 % of the new density, DIIS at the very end",
                {"mixing": 0.05, "eps_diis": 5e-3, "iterations": 600},
                walltime_factor=2.0,
            ),
        ),
        Cause.HOLE_LEFT_SITE: (
            Correction(
                "small_steps",
                "10 % of the new density, DIIS only near the end: no step is long enough to lose the hole",
                {"mixing": 0.1, "eps_diis": 0.01, "iterations": 300},
                walltime_factor=3.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
