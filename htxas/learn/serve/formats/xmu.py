"""FEFF's ``xmu.dat``: the header and columns as the FEFF engine reads them."""

from __future__ import annotations

from pathlib import Path

from htxas.domain.elements import SYMBOLS
from htxas.engines.feff.xmu import Xmu, XmuError, read_xmu
from htxas.errors import DatasetError
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum, numbers, spectrum

__all__ = ["is_xmu", "read_feff"]

_COLUMNS = 6


def is_xmu(path: Path, text: str) -> bool:
    """Tell whether it is FEFF's file, by its name or its header."""
    return path.name == "xmu.dat" or "xsedge+" in text[:4000]


def read_feff(path: Path, text: str) -> MeasuredSpectrum:
    """Read ``xmu.dat``; the intensity is ``mu``.

    Raises
    ------
    DatasetError
        With file and, where one line is to blame, its number.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != _COLUMNS:
            raise DatasetError(f"{len(words)} columns, not {_COLUMNS}", where=f"{path}:{number}")
        lines.append(number)
    try:
        xmu = read_xmu(text if text.endswith("\n") else text + "\n")
    except XmuError as error:
        for number, line in enumerate(text.splitlines(), start=1):
            if number in lines:
                numbers(line.split(), f"{path}:{number}")
        raise DatasetError(str(error), where=str(path)) from None
    return spectrum(
        path,
        "FEFF xmu.dat",
        xmu.energies_eV,
        xmu.mu,
        lines,
        scale=Intensity.NORMALISED,
        column="mu",
        energy_unit="eV",
        element=SYMBOLS[xmu.absorber] if xmu.absorber else None,
        edge=xmu.shell or None,
        edge_eV=xmu.edge_eV,
        told=_told(xmu),
    )


def _told(xmu: Xmu) -> dict[str, str]:
    told = {"version": f"FEFF {xmu.version}", "core-hole width": f"{xmu.lifetime_eV:.4g} eV (Lorentzian)"}
    if xmu.shift_eV or xmu.broadening_eV:
        told["corrections"] = f"shift {xmu.shift_eV:g} eV, broadening {xmu.broadening_eV:g} eV"
    return told
