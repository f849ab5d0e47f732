"""Element symbols and the edges htxas knows by name."""

from __future__ import annotations

from htxas.errors import StructureError, UserError

__all__ = ["EDGES", "SYMBOLS", "atomic_number", "check_edge", "edge_range_eV"]

SYMBOLS: tuple[str, ...] = tuple(
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr".split()
)
"""Symbols by atomic number; index 0 is a placeholder."""

EDGES: tuple[str, ...] = ("K", "L1", "L2", "L3", "L2,3", "M1", "M2", "M3", "M4", "M5", "M2,3", "M4,5")

_K_EDGE_EV = dict(
    zip(
        "Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca".split(),
        (54.7, 111.5, 188.0, 284.2, 409.9, 543.1, 696.7, 870.2, 1070.8, 1303.0, 1559.6, 1839.0, 2145.5, 2472.0,
         2822.4, 3205.9, 3608.4, 4038.5),
        strict=True,
    )
)  # fmt: skip
"""1s binding energies of the elements, X-ray Data Booklet (LBNL, 2009), table 1-1."""

_CHEMISTRY = (
    0.08  # shifts and relaxation stay well inside: C 1s runs from 290 (alkanes) to 302 eV (CF4) in the gas
)

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
    if element not in _K_EDGE_EV or edge != "K":
        return None
    energy = _K_EDGE_EV[element]
    return energy * (1 - _CHEMISTRY), energy * (1 + _CHEMISTRY)
