"""Physical constants, CODATA 2018. Every other module takes its conversions from here."""

from __future__ import annotations

__all__ = ["AU_DEBYE", "BOHR_A", "HARTREE_EV"]

HARTREE_EV = 27.211386245988
"""One Hartree in eV."""

BOHR_A = 0.529177210903
"""One Bohr radius in Angstrom."""

AU_DEBYE = 2.541746473
"""One atomic unit of dipole moment (e a0) in Debye."""
