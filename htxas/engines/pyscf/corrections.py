"""What is tried when a self-consistency fails, and why none of it is in the answer.

Every state of an attempt is iterated plainly first, and if that converges it is the answer: aids
(:class:`htxas.engines.pyscf.scf.Aids`) are for the state that fails. They change the steps of its iteration.
Convergence is judged by the gradient of the bare Fock matrix, by the thresholds of the calculation's identity; then the
aids are taken away, and the plain iteration must meet the same thresholds from there.

Where the plain iteration does not converge, there may be more than one self-consistent state. Ions whose hole brings
lone pairs of several oxygens to one level have states 10 to 300 meV apart, and which one is found depends on the way.
So a result names the states that needed aids (``aided`` in its provenance) beside the last energies of their plain
iterations, and as ``another_state`` those that are more than 10 meV from all of them. The ladder starts with the very
same iteration, only longer.
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
        "cycles_factor": Numeric("times the limit of cycles; the thresholds stay", 1.0, 20.0),
        "level_shift_Ha": Numeric("raises empty levels on the way; zero at the end", 0.0, 2.0),
        "damping": Numeric("share of the last Fock matrix in the next, far from the goal only", 0.0, 0.95),
        "diis_space": Numeric("Fock matrices the extrapolation remembers", 2, 30, whole=True),
        "start": Numeric("first density of a ground state", choices=("minao", "huckel")),
        "hole": Numeric(
            "lowest: fill the lowest levels first, follow the starting orbitals if that fails; follow: at once",
            choices=("lowest", "follow"),
        ),
    }
)
"""Everything a retry may change."""

_GENTLE = {"level_shift_Ha": 0.3, "damping": 0.6, "cycles_factor": 5.0}

# Clock: the plain iterations are gone through once more before those with aids.
LADDER: Mapping[Cause, tuple[Correction, ...]] = MappingProxyType(
    {
        Cause.SCF_UNCONVERGED: (
            Correction(
                "more_cycles",
                "the same iteration, three times as many cycles: slow is not wrong",
                {"cycles_factor": 3.0},
                walltime_factor=3.0,
            ),
            Correction(
                "level_shift",
                "small steps: empty levels shifted by 0.3 Hartree and 60 % of the last Fock matrix kept; then without",
                _GENTLE,
                walltime_factor=2.0,
            ),
            Correction(
                "damped_follow",
                "another start (Hueckel), damping without shift, orbitals of a hole followed from the first cycle",
                {
                    "start": "huckel",
                    "hole": "follow",
                    "damping": 0.6,
                    "level_shift_Ha": None,
                    "cycles_factor": 3.0,
                },
            ),
        ),
        Cause.HOLE_LEFT_SITE: (
            Correction(
                "follow_hole",
                "all orbitals followed by overlap from the first cycle, damped: no step is long enough to lose it",
                {"hole": "follow", "damping": 0.6, "cycles_factor": 3.0},
                walltime_factor=3.0,
            ),
            Correction(
                "follow_hole_shifted",
                "as before, with empty levels shifted by 0.3 Hartree on the way",
                {"hole": "follow", **_GENTLE},
                walltime_factor=2.0,
            ),
        ),
    }
)
"""The rungs, in order. Memory, time and crashes have shared ones: see :mod:`htxas.launch.work.ladder`."""
