"""The one door for measured spectra."""

from __future__ import annotations

from pathlib import Path

from htxas.errors import DatasetError
from htxas.learn.serve.formats.corex import is_corex, read_corex
from htxas.learn.serve.formats.measured import MeasuredSpectrum, energy_factor
from htxas.learn.serve.formats.msa import is_msa, read_msa
from htxas.learn.serve.formats.table import read_table
from htxas.learn.serve.formats.xdi import is_xdi, read_xdi
from htxas.learn.serve.formats.xmu import is_xmu, read_feff

__all__ = ["read_spectrum"]

_FIRST_LINES = {
    ".xdi": "# XDI/1.0",
    ".msa": "#FORMAT : EMSA/MAS Spectral Data File",
    ".emsa": "#FORMAT : EMSA/MAS Spectral Data File",
}


def read_spectrum(
    path: Path, *, column: str | None = None, energy_unit: str | None = None
) -> MeasuredSpectrum:
    """Read a spectrum: XDI, EMSA/MAS, FEFF's xmu.dat, the core excitation database's by their first lines; or a table.

    Parameters
    ----------
    column
        Name of the intensity's column (in a table also its number from 1), where the file leaves a choice.
    energy_unit
        ``eV`` or ``keV``, where the file does not say.

    Raises
    ------
    DatasetError
        Missing, not text, malformed: one line with file and line number.
    """
    text = _text(path)
    if is_xdi(text):
        return read_xdi(path, text, column=column, energy_unit=energy_unit)
    one_column = "--column goes with tables and XDI; this file has one intensity"
    if is_msa(text):
        if column is not None:
            raise DatasetError(one_column, where=str(path))
        return read_msa(path, text, energy_unit=energy_unit)
    for known, read in ((is_xmu(path, text), read_feff), (is_corex(text), read_corex)):
        if known:
            if column is not None:
                raise DatasetError(one_column, where=str(path))
            energy_factor("eV", energy_unit, str(path))
            return read(path, text)
    first = _FIRST_LINES.get(path.suffix.lower())
    if first is not None:
        raise DatasetError(f"the first line must be {first!r}", where=f"{path}:1")
    return read_table(path, text, column=column, energy_unit=energy_unit)


def _text(path: Path) -> str:
    if not path.is_file():
        raise DatasetError("there is no such file", where=str(path))
    data = path.read_bytes()
    if b"\0" in data:
        raise DatasetError("is not a text file", where=str(path), hint="save it as plain text, UTF-8")
    # Names of people and places in headers may be in any encoding; numbers are ASCII.
    return data.decode("utf-8-sig", errors="replace")
