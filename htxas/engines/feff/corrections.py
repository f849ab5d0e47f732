"""What is tried when the potentials of FEFF do not converge, and why none of it is in the answer.

FEFF mixes the first densities by ``ca`` and goes on with Broyden's method after ``nmix`` iterations. Its authors advise
a smaller ``ca`` and a later Broyden where it fails ("the default is pretty aggressive",
github.com/times-software/feff10, issue 24; user's guide, card SCF). The fixed point is the same.

FEFF's users also change the radii, switch self-consistency off or the overlap of the muffin tins (``AFOLP``). All of
these give another answer, so no correction does: they are parameters, and make another calculation with another
identity (``cards: [AFOLP 1.0]`` in a new campaign).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["DEFAULTS", "LADDER", "NUMERICS"]

DEFAULTS: Mapping[str, float | int] = MappingProxyType({"ca": 0.1, "nmix": 3, "iterations": 100})
"""Of a first attempt; FEFF's own are 0.2, 1 and 100."""

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "ca": Numeric("share of the new density in the first mixtures; the fixed point stays", 0.001, 0.5),
        "nmix": Numeric("mixtures before Broyden's method; the fixed point stays", 1, 30, whole=True),
        "iterations": Numeric("most iterations; FEFF's criterion stays", 2, 100, whole=True),
    }
)
"""Everything a retry may change."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "gentle_mixing",
                "5 % of the new density at first, Broyden after 6 iterations",
                {"ca": 0.05, "nmix": 6},
            ),
            Correction(
                "slow_mixing",
                "2 % of the new density at first, Broyden after 20 iterations: as FEFF's guide does for f elements",
                {"ca": 0.02, "nmix": 20},
                walltime_factor=2.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
