"""A spectrum as a file holds it, and the checks that every format shares."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError

__all__ = [
    "Columns",
    "Intensity",
    "MeasuredSpectrum",
    "absorption",
    "chosen",
    "energy_factor",
    "numbers",
    "spectrum",
    "unit_in",
]

FloatArray = npt.NDArray[np.float64]

_LEAST_POINTS = 10
_UNIT = re.compile(r"(?<![a-z])(k?ev)(?![a-z])", re.IGNORECASE)
_FACTORS = {"ev": 1.0, "kev": 1000.0}


class Intensity(StrEnum):
    """What the intensity of a file is in."""

    STRENGTH = "oscillator strength / eV / atom"  # as htxas computes it
    NORMALISED = "absorption, 1 is the bare atom's"  # background gone, edge step 1
    ARBITRARY = "arbitrary"  # counts, raw absorption


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredSpectrum:
    """A spectrum read from a file; nothing was subtracted, shifted or resampled.

    Attributes
    ----------
    path
        The file.
    format
        ``CSV``, ``XDI``, ``EMSA/MAS``, ``FEFF xmu.dat``, ``Core Excitation Database``.
    energies_eV
        Shape (n,), strictly ascending.
    intensity
        Shape (n,), finite.
    scale
        What the intensity is in.
    column
        What was taken for the intensity: ``mutrans``, ``ln(i0/itrans)``.
    energy_unit
        Unit of the energies in the file, ``eV`` or ``keV``.
    element, edge
        Absorber, as far as the file says.
    edge_eV
        Edge energy the file states, on its own axis, or None.
    told
        Other header entries worth showing, by name.
    """

    path: Path
    format: str
    energies_eV: FloatArray
    intensity: FloatArray
    scale: Intensity
    column: str
    energy_unit: str
    element: str | None = None
    edge: str | None = None
    edge_eV: float | None = None
    told: Mapping[str, str] = field(default_factory=dict)

    def contradicts(self, element: str | None, edge: str | None) -> bool:
        """Return whether the file says that it is of another absorber or edge."""
        said = ((self.element, element), (self.edge, edge))
        return any(a is not None and b is not None and a.lower() != b.lower() for a, b in said)

    @property
    def absorber(self) -> str:
        """What the file says it is of: ``C K``, ``C ?``."""
        return f"{self.element or '?'} {self.edge or '?'}"


def unit_in(text: str) -> str | None:
    """Return ``eV`` or ``keV`` if ``text`` names it: ``energy_eV``, ``Energy Loss (eV)``."""
    found = _UNIT.search(text)
    return None if found is None else {"ev": "eV", "kev": "keV"}[found[1].lower()]


def energy_factor(stated: str | None, given: str | None, where: str) -> tuple[str, float]:
    """Return the energy unit and how many eV it has.

    Parameters
    ----------
    stated
        By the file, or None.
    given
        By the user, or None.

    Raises
    ------
    DatasetError
        If neither says it, or they contradict each other.
    """
    if stated and given and stated.lower() != given.lower():
        raise DatasetError(f"energies are in {stated}, not {given}", where=where)
    unit = stated or given
    if unit is None:
        raise DatasetError("the unit of the energies is not stated", where=where, hint="--energy-unit eV")
    return unit, _FACTORS[unit.lower()]


@dataclass(frozen=True, slots=True)
class Columns:
    """Numbers of a file by column, each row with its line.

    Attributes
    ----------
    names
        Column names as written; empty if there are none.
    rows
        Numbers, one tuple per row.
    lines
        Line of each row, from 1.
    """

    names: tuple[str, ...]
    rows: Sequence[tuple[float, ...]]
    lines: Sequence[int]

    def index(self, name: str) -> int | None:
        """Return the place of a column by its name, whatever its case, or None."""
        lowered = [n.lower() for n in self.names]
        return lowered.index(name.lower()) if name.lower() in lowered else None

    def column(self, index: int) -> FloatArray:
        """Return a column, shape (n,)."""
        return np.array([row[index] for row in self.rows], dtype=np.float64)


def absorption(columns: Columns, path: Path) -> tuple[FloatArray, Intensity, str] | None:
    """Return intensity (n,), its scale and what it is, from columns named as the XDI dictionary names them, or None.

    Raises
    ------
    DatasetError
        If detector counts are not above zero.
    """
    for name, scale in (
        ("f_per_eV", Intensity.STRENGTH),
        ("normtrans", Intensity.NORMALISED),
        ("normfluor", Intensity.NORMALISED),
        ("norm", Intensity.NORMALISED),
        ("mutrans", Intensity.ARBITRARY),
        ("mufluor", Intensity.ARBITRARY),
    ):
        index = columns.index(name)
        if index is not None:
            return columns.column(index), scale, columns.names[index]
    monitor = columns.index("i0")
    for name in ("itrans", "ifluor"):
        index = columns.index(name)
        if monitor is None or index is None:
            continue
        i0, i = columns.column(monitor), columns.column(index)
        bad = np.flatnonzero((i0 <= 0) | (i <= 0 if name == "itrans" else np.zeros(len(i), dtype=bool)))
        if len(bad):
            raise DatasetError(
                "detector counts must be above zero", where=f"{path}:{columns.lines[int(bad[0])]}"
            )
        if name == "itrans":
            return np.log(i0 / i), Intensity.ARBITRARY, "ln(i0/itrans)"
        return i / i0, Intensity.ARBITRARY, "ifluor/i0"
    return None


def chosen(columns: Columns, index: int, path: Path) -> tuple[FloatArray, Intensity, str]:
    """Return the column that the user chose, as :func:`absorption` does; its name may say what it is in."""
    name = columns.names[index] if columns.names else f"column {index + 1}"
    only = Columns((name,), [(row[index],) for row in columns.rows], columns.lines)
    return absorption(only, path) or (columns.column(index), Intensity.ARBITRARY, name)


def numbers(words: Sequence[str], where: str) -> tuple[float, ...]:
    """Return the numbers of a line.

    Raises
    ------
    DatasetError
        If one is none, or not finite.
    """
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            comma = re.fullmatch(r"[-+]?\d+,\d+", word) is not None
            hint = "write decimals with a point" if comma else None
            raise DatasetError(f"{word!r} is not a number", where=where, hint=hint) from None
        if not math.isfinite(value):
            raise DatasetError(f"{word!r} is not a finite number", where=where)
        values.append(value)
    return tuple(values)


def spectrum(
    path: Path,
    format: str,  # noqa: A002  the field of the spectrum it becomes
    energies_eV: FloatArray,
    intensity: FloatArray,
    lines: Sequence[int],
    *,
    scale: Intensity,
    column: str,
    energy_unit: str,
    element: str | None = None,
    edge: str | None = None,
    edge_eV: float | None = None,
    told: Mapping[str, str] | None = None,
) -> MeasuredSpectrum:
    """Return a spectrum after the checks that every format shares.

    Parameters
    ----------
    lines
        Line of each point.

    Raises
    ------
    DatasetError
        Fewer than ten points, or energies that do not ascend: with the line.
    """
    if len(energies_eV) < _LEAST_POINTS:
        raise DatasetError(
            f"{len(energies_eV)} points; a spectrum needs at least {_LEAST_POINTS}", where=str(path)
        )
    wrong = np.flatnonzero(np.diff(energies_eV) <= 0)
    if len(wrong):
        at = int(wrong[0]) + 1
        raise DatasetError(
            f"energies must ascend: {energies_eV[at]:.9g} eV after {energies_eV[at - 1]:.9g} eV",
            where=f"{path}:{lines[at]}",
        )
    return MeasuredSpectrum(
        path, format, energies_eV, intensity, scale, column, energy_unit, element, edge, edge_eV, told or {}
    )
