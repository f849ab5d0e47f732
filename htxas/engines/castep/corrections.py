"""What is tried when CASTEP's density or its levels do not converge, and why none of it is in the answer.

Levels of a spectrum that do not converge in time ("Warning: band structure not converged") get more iterations and
more steps in each, as one of CASTEP's authors advises (P. Hasnip, asked about that warning). CASTEP mixes densities, by
default with a large share of the new one. A smaller share, another scheme (Pulay, Broyden) and more cycles lead to the
same density; ensemble DFT (``METALS_METHOD EDFT``) minimises the same free energy directly, slowly and surely. Smearing
width, bands of the density, cutoff and tolerances are in the identity: no correction touches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from htxas.engines.base import Correction
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["DEFAULTS", "LADDER", "NUMERICS"]

DEFAULTS: Mapping[str, float | int | str] = MappingProxyType(
    {
        "method": "dm",
        "mixing": "Broyden",
        "mix": 0.5,
        "cycles": 60,
        "spectral_iterations": 120,
        "spectral_steps": 5,
    }
)
"""Of a first attempt; CASTEP's own are dm, Broyden, 0.8, 30, 60 and 5."""

NUMERICS: Mapping[str, Numeric] = MappingProxyType(
    {
        "method": Numeric("dm: mix densities; edft: minimise; the density stays", choices=("dm", "edft")),
        "mixing": Numeric("how densities are mixed; the fixed point stays", choices=("Broyden", "Pulay")),
        "mix": Numeric("share of the new density; the fixed point stays", 0.01, 1.0),
        "cycles": Numeric("most cycles; the criterion stays", 5, 2000, whole=True),
        "spectral_iterations": Numeric(
            "most iterations of the spectrum's levels; the tolerance stays", 10, 5000, whole=True
        ),
        "spectral_steps": Numeric(
            "most steps in each before the search starts anew; the tolerance stays", 1, 100, whole=True
        ),
    }
)
"""Everything a retry may change."""

LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (  # of the density or the levels: one cause, so the first rung is for both
            Correction(
                "more_iterations",
                "120 cycles of the density, 500 iterations of 25 steps for the levels of the spectrum",
                {"cycles": 120, "spectral_iterations": 500, "spectral_steps": 25},
                walltime_factor=2.0,
            ),
            Correction(
                "gentle_mixing",
                "Pulay mixing with 20 % of the new density, 200 cycles",
                {"mixing": "Pulay", "mix": 0.2, "cycles": 200},
                walltime_factor=1.5,
            ),
            Correction(
                "edft",
                "ensemble DFT: the free energy is minimised, no density is mixed; several times slower",
                {"method": "edft", "cycles": 300},
                walltime_factor=2.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
