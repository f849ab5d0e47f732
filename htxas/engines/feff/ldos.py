"""``ldosNN.dat``: the local density of states of a unique potential.

FEFF makes the potentials of a structure with its hydrogens moved outwards (CH4: from 1.09 to 1.59 A, ``moveh``) and the
density of states with the hydrogens where they are. The two do not fit: C of CH4 held 13.1 s, p and d electrons up to
the Fermi level where the header counts 4.2 (FEFF 10). Without hydrogen both agree: 3.6 of 3.65 for C of CO2, 10.8 of
11.0 for Cu.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from htxas.domain.dos import LocalDos
from htxas.engines.feff.xmu import FloatArray, XmuError, read_columns

__all__ = ["Ldos", "combine_ldos", "read_ldos"]

_FERMI = re.compile(r"Fermi level \(eV\):\s*(\S+)")
_CHARGE = re.compile(r"Charge transfer\s*:\s*(\S+)")
_WIDTH = re.compile(r"HWHH\s+(\S+)\s*eV")
_COUNT = re.compile(r"^#\s+([0-3])\s+(-?\d+\.\d+)\s*$", re.MULTILINE)
_TOO_MANY, _TOO_MANY_SHARE = 0.5, 0.2  # electrons, and of the count: tails of the broadening are less
_FILE = re.compile(r"ldos(\d+)\.dat$")


@dataclass(frozen=True, slots=True, eq=False)
class Ldos:
    """One file: energies on FEFF's own scale (eV), s, p, d, f states per eV (m, 4), and its header.

    ``counts`` are the electrons of s, p, d, f by which FEFF made its potentials.
    """

    energies_eV: FloatArray
    density: FloatArray
    fermi_eV: float
    charge: float
    broadening_eV: float
    counts: tuple[float, ...]

    def electrons(self) -> float:
        """Return how many s, p and d electrons it holds up to the Fermi level."""
        below = self.energies_eV <= self.fermi_eV
        return float(np.trapezoid(self.density[below, :3].sum(axis=1), self.energies_eV[below]))


def read_ldos(text: str) -> Ldos:
    """Return what a file holds.

    Raises
    ------
    XmuError
        Cut short, or no header of FEFF's.
    """
    table = read_columns(text, 5)
    fermi, charge, width = (p.search(text) for p in (_FERMI, _CHARGE, _WIDTH))
    if fermi is None or charge is None or width is None:
        raise XmuError("its header is not FEFF's")
    counts = tuple(float(number) for _, number in _COUNT.findall(text))
    if len(counts) < 3:
        raise XmuError("its header counts no electrons")
    return Ldos(table[:, 0], table[:, 1:], float(fermi[1]), float(charge[1]), float(width[1]), counts)


def _doubt(found: Iterable[tuple[str, Ldos]]) -> str | None:
    """Return which density holds more electrons than FEFF counts: fewer it may hold, if it begins within a band."""
    for kind, one in found:
        held, counted = one.electrons(), sum(one.counts[:3])
        if held > counted + max(_TOO_MANY, _TOO_MANY_SHARE * counted):
            return f"the density of states of {kind} holds {held:.1f} electrons, FEFF counts {counted:.1f}"
    return None


def combine_ldos(
    texts: Mapping[str, str], tags: Mapping[int, str]
) -> tuple[LocalDos, float, str | None] | None:
    """Return the DOS of all kinds of atoms, the Fermi level (eV) and what is wrong with it, or None without any.

    Parameters
    ----------
    texts
        Of ``ldosNN.dat``, by file name.
    tags
        Element of each unique potential.

    Raises
    ------
    XmuError
        One is damaged or missing, or they do not belong together.
    """
    found: dict[int, Ldos] = {}
    for name, text in texts.items():
        match = _FILE.search(name)
        if match is None:
            continue
        try:
            found[int(match[1])] = read_ldos(text)
        except XmuError as error:
            raise XmuError(f"{name}: {error}") from None
    if not found:
        return None
    if found.keys() != tags.keys():
        lacking = sorted(tags.keys() ^ found.keys())[0]
        raise XmuError(f"ldos{lacking:02d}.dat: not there, or of no potential in the input")
    first = found[0]
    for index, one in found.items():
        if not np.array_equal(one.energies_eV, first.energies_eV) or one.fermi_eV != first.fermi_eV:
            raise XmuError(f"ldos{index:02d}.dat: of another run than ldos00.dat")
    order = sorted(found)
    dos = LocalDos(
        energies_eV=first.energies_eV - first.fermi_eV,
        density=np.stack([found[i].density for i in order]),
        kinds=tuple(tags[i] + ("*" if i == 0 else "") for i in order),
        charges=np.array([found[i].charge for i in order]),
        broadening_eV=first.broadening_eV,
    )
    return dos, first.fermi_eV, _doubt((dos.kinds[k], found[i]) for k, i in enumerate(order))
