"""``xmu.dat``: the spectrum, and what its header says of the run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Xmu", "XmuError", "read_columns", "read_xmu"]

FloatArray = npt.NDArray[np.float64]

_VERSION = re.compile(r"FEFF\s*([\d.]+)")
_MU = re.compile(r"Mu=\s*(\S+?)eV")
_GAMMA = re.compile(r"Gam_ch=\s*([-+.\dE]+)")
_NORMALISATION = re.compile(r"xsedge\+\s*50, used to normalize mu\s+(\S+)")
_SHIFT = re.compile(r"Energy zero shift, vr, vi\s+(\S+)\s+(\S+)")
_S02 = re.compile(r"S02=\s*(\S+)")
_SCF = re.compile(r"POT\s+SCF\s+\d+\s+([\d.]+)\s+(\d+),")
_HOLE = re.compile(r"POT\s.*?, (screened core-hole|core-hole|NO core-hole),")
_FMS = re.compile(r"FMS rfms=\s*([\d.]+)")
_EXCHANGE = re.compile(r"Gam_ch=\S+ (.{8}) Vi=")
_POTENTIAL = re.compile(r"Pot\s*(\d+) Z=\s*(\d+)")
_ABSORBER = re.compile(r"Abs\s+Z=\s*(\d+)")
_EDGE = re.compile(r"\bRnm=\s*\S+\s+([KLMNO]\d?)\s+shell")
_LOST_E = re.compile(r"(?<=\d)([-+]\d{3})(?=\s|$)")


class XmuError(ValueError):
    """A file that is no complete ``xmu.dat``."""


@dataclass(frozen=True, slots=True, eq=False)
class Xmu:
    """The columns of ``xmu.dat`` and the numbers of its header.

    Attributes
    ----------
    energies_eV
        ``omega``: photon energy, eV, shape (n,), ascending.
    from_edge_eV
        ``e`` minus the Fermi level: energy above the threshold, eV, shape (n,).
    mu, mu0
        Absorption and that of the embedded atom, shape (n,). 1 is the atom's 50 eV above the edge, unless the run was
        told otherwise (``ABSOLUTE``).
    version
        ``9.9.1``, ``10.0.0``.
    fermi_eV
        Fermi level on FEFF's own scale, eV.
    lifetime_eV
        Full width of the core-hole's Lorentzian, which the spectrum has, eV.
    normalisation
        What ``mu`` was divided by.
    shift_eV, broadening_eV
        Corrections the user asked for; 0 without.
    s02
        Amplitude factor.
    shell
        ``K``, ``L3``; empty if the header does not say.
    absorber
        Atomic number; 0 if the header does not say.
    told
        What else the header tells of the input, as far as it does: ``scf_A``, ``scf_mode``, ``fms_A``, ``exchange`` and
        ``hole`` in FEFF's words, ``potentials`` (atomic numbers by index).
    """

    energies_eV: FloatArray
    from_edge_eV: FloatArray
    mu: FloatArray
    mu0: FloatArray
    version: str
    fermi_eV: float
    lifetime_eV: float
    normalisation: float
    shift_eV: float
    broadening_eV: float
    s02: float
    shell: str
    absorber: int
    told: Mapping[str, Any]

    @property
    def edge_eV(self) -> float:
        """Photon energy of the threshold, eV: where the final state is the Fermi level."""
        return float(self.energies_eV[0] - self.from_edge_eV[0])


def read_columns(text: str, columns: int) -> FloatArray:
    """Return the numbers below the comments, shape (n, columns).

    Raises
    ------
    XmuError
        If there are none, a line is cut short, or something is no number: stars stand for a number that had no room.
    """
    start = text.rfind("\n#")
    start = text.find("\n", start + 1) if start >= 0 or text.startswith("#") else 0
    body = text[start:] if start >= 0 else ""
    if not body.strip():
        raise XmuError("it holds no points")
    if not body.endswith("\n"):
        raise XmuError("its last line is cut short")
    words = body.split()
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        values = _slowly(words)
    if values.size % columns:
        raise XmuError(f"its lines do not have {columns} columns")
    return values.reshape(-1, columns)


def _slowly(words: list[str]) -> FloatArray:
    """Read numbers whose exponent has three digits and no letter, as Fortran writes them."""
    try:
        return np.array([_LOST_E.sub(r"E\1", w) for w in words], dtype=np.float64)
    except ValueError as error:
        raise XmuError(f"something in it is no number: {error}") from None


def read_xmu(text: str) -> Xmu:
    """Return what ``xmu.dat`` holds.

    Raises
    ------
    XmuError
        Cut short, empty, no header, or columns that contradict each other.
    """
    table = read_columns(text, 6)
    header = text[: text.rfind("\n#") + 200] if "#" in text else ""
    energies, above = table[:, 0], table[:, 1]
    version, mu, gamma = _VERSION.search(header), _MU.search(header), _GAMMA.search(header)
    norm, shift, s02, shell = (p.search(header) for p in (_NORMALISATION, _SHIFT, _S02, _EDGE))
    absorber = _ABSORBER.search(header)
    if mu is None or norm is None or version is None or gamma is None:
        raise XmuError("its header is not FEFF's")
    fermi = float(mu[1])
    edge = energies - (above - fermi)
    if np.isfinite(edge).all() and np.ptp(edge) > 0.01:
        raise XmuError(f"its energy columns contradict each other by {np.ptp(edge):.3f} eV")
    return Xmu(
        energies_eV=energies,
        from_edge_eV=above - fermi,
        mu=table[:, 3],
        mu0=table[:, 4],
        version=version[1],
        fermi_eV=fermi,
        lifetime_eV=float(gamma[1]),
        normalisation=float(norm[1]),
        shift_eV=float(shift[1]) if shift else 0.0,
        broadening_eV=float(shift[2]) if shift else 0.0,
        s02=float(s02[1]) if s02 else 1.0,
        shell=shell[1] if shell else "",
        absorber=int(absorber[1]) if absorber else 0,
        told=_told(header),
    )


def _told(header: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if scf := _SCF.search(header):
        told |= {"scf_A": float(scf[1]), "scf_mode": int(scf[2])}
    elif "POT  Non-SCF" in header:
        told["scf_A"] = None
    if fms := _FMS.search(header):
        told["fms_A"] = float(fms[1])
    if exchange := _EXCHANGE.search(header):
        told["exchange"] = exchange[1].strip()
    if hole := _HOLE.search(header):
        told["hole"] = hole[1]
    told["potentials"] = {int(m[1]): int(m[2]) for m in _POTENTIAL.finditer(header)}
    return told
