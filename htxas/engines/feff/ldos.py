"""``ldosNN.dat``: the local density of states of a unique potential."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from htxas.domain.dos import LocalDos
from htxas.engines.feff.xmu import FloatArray, XmuError, read_columns

__all__ = ["Ldos", "combine_ldos", "read_ldos"]

_FERMI = re.compile(r"Fermi level \(eV\):\s*(\S+)")
_CHARGE = re.compile(r"Charge transfer\s*:\s*(\S+)")
_WIDTH = re.compile(r"HWHH\s+(\S+)\s*eV")
_FILE = re.compile(r"ldos(\d+)\.dat$")


@dataclass(frozen=True, slots=True, eq=False)
class Ldos:
    """One file: energies on FEFF's own scale (eV), s, p, d, f states per eV (m, 4), and its header."""

    energies_eV: FloatArray
    density: FloatArray
    fermi_eV: float
    charge: float
    broadening_eV: float


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
    return Ldos(table[:, 0], table[:, 1:], float(fermi[1]), float(charge[1]), float(width[1]))


def combine_ldos(texts: Mapping[str, str], tags: Mapping[int, str]) -> tuple[LocalDos, float] | None:
    """Return the DOS of all kinds of atoms and the Fermi level (eV), from ``ldosNN.dat`` by name; None without any.

    Parameters
    ----------
    texts
        By file name.
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
    return dos, first.fermi_eV
