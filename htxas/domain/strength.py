"""How much the K shell of a bare atom absorbs just above its edge: what a spectrum's strength is measured by.

The jump of the photoabsorption at the K edge, as an oscillator strength per eV of both electrons (109.76e-18 cm^2 eV
each, ``2 pi^2 alpha a_0^2`` times a Hartree), is ``(2.40 - 0.010 Z) / E_K`` with the edge E_K in eV. It was fitted to
the jumps of W. T. Elam, B. D. Ravel and J. R. Sieber, Radiat. Phys. Chem. 63, 121 (2002), as xraydb 4.5 (public domain)
tabulates them, and meets those of beryllium to uranium within 5 %. Lithium, which that table lacks, comes out 31 %
above what the tables of C. T. Chantler, J. Phys. Chem. Ref. Data 24, 71 (1995), extrapolate to. Above the edge it falls
with the power -2.6 of the energy, as Chantler's tables do (-2.3 for boron, -2.65 for most).
"""

from __future__ import annotations

from htxas.domain.edges import BINDING_EV
from htxas.domain.elements import atomic_number

__all__ = ["bare_atom_strength"]

_LIGHT, _PER_CHARGE = 2.40, 0.010
_FALL = 2.6


def bare_atom_strength(element: str | None, edge: str | None, window_eV: float) -> float | None:
    """Return the oscillator strength of a bare atom from its edge to ``window_eV`` above, both electrons of the shell.

    Parameters
    ----------
    element, edge
        Absorber; anything but a tabulated K edge (Li to U) gives None.
    window_eV
        Range above the edge, eV.
    """
    energy = BINDING_EV.get((element or "", edge or ""))
    if energy is None or element is None or edge != "K":
        return None
    jump_energy = _LIGHT - _PER_CHARGE * atomic_number(
        element
    )  # of the oscillator strength per eV, times the edge
    fall = _FALL - 1.0
    return jump_energy / fall * float(1.0 - (1.0 + window_eV / energy) ** -fall)
