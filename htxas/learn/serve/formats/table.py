"""Plain tables: comma, semicolon, tab or blanks between columns, with names or without."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.serve.formats.measured import (
    Columns,
    Intensity,
    MeasuredSpectrum,
    absorption,
    chosen,
    energy_factor,
    numbers,
    spectrum,
    unit_in,
)

__all__ = ["read_table"]

_ENERGY = re.compile(
    r"(photon[ _]?)?(energy|e|omega|loss)([ _]?loss)?([ _]?\(?\[?k?ev\]?\)?)?|k?ev", re.IGNORECASE
)
_BLANKS_IN_UNIT = re.compile(r"\s+(?=[(\[])")


def read_table(path: Path, text: str, *, column: str | None, energy_unit: str | None) -> MeasuredSpectrum:
    """Read a table of energies and intensities.

    Parameters
    ----------
    column
        Name or number (from 1) of the intensity's column, or None: ``f_per_eV``, ``norm``, ``mutrans`` and so on, or
        the only one beside the energy.
    energy_unit
        ``eV`` or ``keV`` where the file does not say.

    Raises
    ------
    DatasetError
        With file and line.
    """
    columns, header = _columns(path, text)
    width = len(columns.rows[0])
    names = columns.names
    energy = next((i for i, n in enumerate(names) if _ENERGY.fullmatch(n)), None if names else 0)
    where = f"{path}:{header}" if names else str(path)
    if energy is None:
        raise DatasetError(
            f"no column is an energy, only {' '.join(names)}", where=where, hint="call it energy_eV"
        )
    unit, factor = energy_factor(unit_in(names[energy]) if names else None, energy_unit, where)
    intensity, scale, taken = _intensity(path, columns, energy, width, column, where)
    return spectrum(
        path,
        "CSV",
        columns.column(energy) * factor,
        intensity,
        columns.lines,
        scale=scale,
        column=taken,
        energy_unit=unit,
    )


def _intensity(
    path: Path, columns: Columns, energy: int, width: int, column: str | None, where: str
) -> tuple[npt.NDArray[np.float64], Intensity, str]:
    if column is not None:
        index = columns.index(column)
        if index is None and column.isdigit() and 1 <= int(column) <= width:
            index = int(column) - 1
        if index is None:
            has = " ".join(columns.names) or f"{width} columns without names"
            raise DatasetError(f"there is no column {column!r}, only {has}", where=where)
        if index == energy:
            raise DatasetError(f"column {column!r} is the energy", where=where)
        return chosen(columns, index, path)
    if columns.names and (found := absorption(columns, path)) is not None:
        return found
    if width != 2:
        has = " ".join(columns.names) or f"{width} columns without names"
        raise DatasetError(f"which column is the intensity? {has}", where=where, hint="--column NAME")
    other = 1 - energy
    return (
        columns.column(other),
        Intensity.ARBITRARY,
        columns.names[other] if columns.names else f"column {other + 1}",
    )


def _columns(path: Path, text: str) -> tuple[Columns, int]:
    """Return the columns and the line of their names."""
    rows: list[tuple[float, ...]] = []
    lines: list[int] = []
    names: tuple[str, ...] = ()
    header = 0
    comment: tuple[int, str] | None = None
    split = _splitter(text)
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        if line.lstrip().startswith("#"):
            if not rows:
                comment = (number, line.lstrip(" #"))
            continue
        words = split(line)
        if not rows and not names and not _numeric(words[0]):
            names, header = tuple(words), number
            continue
        row = numbers(words, where)
        expected = len(rows[0]) if rows else len(names) or len(row)
        if len(row) != expected:
            raise DatasetError(f"{len(row)} columns, not {expected}", where=where)
        rows.append(row)
        lines.append(number)
    if not rows:
        raise DatasetError("holds no points", where=str(path))
    if not names and comment is not None:  # "# energy_eV mu" just above the numbers
        for words in (split(comment[1]), _blanks(comment[1])):
            if len(words) == len(rows[0]) and not _numeric(words[0]):
                names, header = tuple(words), comment[0]
    if len(rows[0]) < 2:
        raise DatasetError("one column; energy and intensity are needed", where=f"{path}:{lines[0]}")
    if len({n.lower() for n in names}) != len(names):
        raise DatasetError("two columns have one name", where=f"{path}:{header}")
    return Columns(names, rows, lines), header


class _splitter:  # noqa: N801  a function with a setting
    """Splits lines at the separator that the file uses."""

    def __init__(self, text: str) -> None:
        first = next((s for s in text.splitlines() if s.strip() and not s.lstrip().startswith("#")), "")
        self.separator = next((c for c in ";\t," if c in first), None)

    def __call__(self, line: str) -> list[str]:
        if self.separator is None:
            return _blanks(line)
        cells = next(csv.reader([line], delimiter=self.separator, skipinitialspace=True))
        cells = [c.strip() for c in cells]
        return cells[:-1] if len(cells) > 1 and not cells[-1] else cells


def _blanks(line: str) -> list[str]:
    return _BLANKS_IN_UNIT.sub("", line).split()


def _numeric(word: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.].*", word) is not None
