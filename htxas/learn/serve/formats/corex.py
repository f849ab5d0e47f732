"""Files of the Gas Phase Core Excitation Database (Hitchcock, Mancini, J. Electron Spectrosc. 67, 1 (1994)).

Inner-shell electron energy loss of molecules, put on an absolute scale by its authors: the last column, ``Osc. Str. per
atom (E-2)``, is the oscillator strength per eV and absorbing atom in units of 1e-2. Before it stand the raw data with
their energies, and sometimes the energies once more.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from htxas.domain.elements import SYMBOLS
from htxas.errors import DatasetError
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum, numbers, spectrum

__all__ = ["is_corex", "read_corex"]

_TITLE, _COLUMN = "core excitation data", "Osc. Str. per atom (E-2)"
_UNIT = 1e-2
_ENTRY = re.compile(r"\*?\s*([A-Z][A-Za-z .]*?)\s*:\s*(.*)")
_SHELL = re.compile(r"([A-Z][a-z]?)\s*(\d[spdf])")
_SHOWN = {"Name": "name", "Formula": "formula", "Acquisition Mode": "mode", "Reference": "reference"}


def is_corex(text: str) -> bool:
    """Tell whether the first line is that of the format."""
    return _TITLE in text.lstrip().split("\n", 1)[0].lower()


def read_corex(path: Path, text: str) -> MeasuredSpectrum:
    """Read a file of the database; the intensity is the oscillator strength of its last column.

    Raises
    ------
    DatasetError
        With file and, where one line is to blame, its number.
    """
    entries: dict[str, str] = {}
    rows: list[tuple[float, ...]] = []
    lines: list[int] = []
    named = False
    for number, line in enumerate(text.splitlines(), start=1):
        where, stripped = f"{path}:{number}", line.strip()
        if named and stripped and not stripped.startswith("*"):
            if not rows and stripped[0].isalpha():  # some name their columns once more
                continue
            row = numbers(stripped.replace(",", " ").split(), where)
            if len(row) not in (3, 4) or (rows and len(row) != len(rows[0])):
                raise DatasetError(
                    f"{len(row)} columns, not {len(rows[0]) if rows else '3 or 4'}", where=where
                )
            rows.append(row)
            lines.append(number)
        elif _COLUMN.lower() in stripped.lower():
            named = True
        elif not named and (entry := _ENTRY.fullmatch(stripped)):
            entries[entry[1]] = entry[2].strip()
    if not named:
        raise DatasetError(f"has no column {_COLUMN!r}", where=str(path))
    if not rows:
        raise DatasetError(f"holds no points after {_COLUMN!r}", where=str(path))
    table = np.array(rows)
    shell = _SHELL.fullmatch(entries.get("Edge", ""))
    element = shell[1] if shell and shell[1] in SYMBOLS else None
    return spectrum(
        path,
        "Core Excitation Database",
        table[:, -2] if table.shape[1] == 4 else table[:, 0],
        table[:, -1] * _UNIT,
        lines,
        scale=Intensity.STRENGTH,
        column=_COLUMN,
        energy_unit="eV",
        element=element,
        edge=None if shell is None else {"1s": "K"}.get(shell[2], shell[2]),
        told={shown: entries[name] for name, shown in _SHOWN.items() if entries.get(name)},
    )
