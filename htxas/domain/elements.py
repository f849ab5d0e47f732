"""Element symbols and the edges htxas knows by name."""

from __future__ import annotations

from htxas.domain.edges import BINDING_EV
from htxas.errors import StructureError, UserError

__all__ = ["EDGES", "SYMBOLS", "atomic_number", "check_edge", "edge_range_eV"]

SYMBOLS: tuple[str, ...] = tuple(
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr".split()
)
"""Symbols by atomic number; index 0 is a placeholder."""

EDGES: tuple[str, ...] = ("K", "L1", "L2", "L3", "L2,3", "M1", "M2", "M3", "M4", "M5", "M2,3", "M4,5")

_CHEMISTRY = 0.08
"""Shifts and relaxation stay well inside: C 1s runs from 290 (alkanes) to 302 eV (CF4) in the gas."""
_LEAST_EV = 15.0  # of a shallow shell: codes place an edge within a few eV

_NUMBER = {s: z for z, s in enumerate(SYMBOLS) if z}


def atomic_number(symbol: str, *, where: str | None = None) -> int:
    """Return the atomic number of ``symbol``.

    Raises
    ------
    StructureError
        If there is no such element.
    """
    try:
        return _NUMBER[symbol]
    except KeyError:
        raise StructureError(f"no element is called {symbol!r}", where=where) from None


def check_edge(edge: str) -> str:
    """Return ``edge`` if it is one of :data:`EDGES`.

    Raises
    ------
    UserError
        Otherwise; no edge is ever assumed.
    """
    if edge not in EDGES:
        raise UserError(f"unknown edge {edge!r}", hint="one of " + " ".join(EDGES))
    return edge


def edge_range_eV(element: str | None, edge: str | None) -> tuple[float, float] | None:
    """Return the range in which an excitation energy of this absorber must lie, or None where no table helps."""
    shells = _shells(edge or "")
    energies = [BINDING_EV.get((element or "", shell)) for shell in shells]
    known = [e for e in energies if e is not None]
    if not known or len(known) < len(energies):
        return None
    low, high = min(known), max(known)
    return low - max(_LEAST_EV, low * _CHEMISTRY), high + max(_LEAST_EV, high * _CHEMISTRY)


def _shells(edge: str) -> tuple[str, ...]:
    """Return the shells of an edge: ``L2,3`` is two."""
    first, _, second = edge.partition(",")
    return (first, first[:1] + second) if second else (first,)
