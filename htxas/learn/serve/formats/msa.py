"""EMSA/MAS spectral data, ISO 22029: energy-loss spectra of electron microscopes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from htxas.errors import DatasetError
from htxas.learn.serve.formats.measured import (
    Intensity,
    MeasuredSpectrum,
    energy_factor,
    numbers,
    spectrum,
    unit_in,
)

__all__ = ["is_msa", "read_msa"]

# "#BEAMKV   -kV: 120.0": the unit after the keyword is optional.
_KEYWORD = re.compile(r"#\s*(##?)?([A-Za-z0-9]+)\s*(?:-\s*\S*?)?\s*:(.*)")
_OTHERS = frozenset({"EDS", "WDS", "AES", "PES", "XRF", "CLS", "GAM"})
_SHOWN = ("TITLE", "DATE", "BEAMKV", "CONVANGLE", "COLLANGLE")


def is_msa(text: str) -> bool:
    """Tell whether the first line is that of the format."""
    return re.match(r"#\s*FORMAT\s*:\s*EMSA/MAS", text, re.IGNORECASE) is not None


def read_msa(path: Path, text: str, *, energy_unit: str | None) -> MeasuredSpectrum:
    """Read an EMSA/MAS file, data type Y or XY.

    Parameters
    ----------
    energy_unit
        ``eV`` or ``keV`` where ``#XUNITS`` does not say.

    Raises
    ------
    DatasetError
        With file and line.
    """
    keywords, at, values, lines = _parse(path, text)

    def need(name: str) -> str:
        if not keywords.get(name):
            raise DatasetError(f"#{name} is missing", where=str(path))
        return keywords[name]

    def number(name: str) -> float:
        return numbers(need(name).split()[:1], f"{path}:{at[name]}")[0]

    kind = keywords.get("SIGNALTYPE", "").upper()
    if kind in _OTHERS:
        raise DatasetError(
            f"#SIGNALTYPE {kind} is no energy-loss spectrum", where=f"{path}:{at['SIGNALTYPE']}"
        )
    data = need("DATATYPE").upper()
    if data not in ("Y", "XY"):
        raise DatasetError(f"#DATATYPE is Y or XY, not {data!r}", where=f"{path}:{at['DATATYPE']}")
    unit, factor = energy_factor(
        unit_in(keywords.get("XUNITS", "")), energy_unit, f"{path}:{at.get('XUNITS', 1)}"
    )
    per_point = 2 if data == "XY" else 1
    if len(values) % per_point:
        raise DatasetError("an energy without its intensity", where=f"{path}:{lines[-1]}")
    table = np.array(values).reshape(-1, per_point)
    told = int(number("NPOINTS"))
    if told != len(table):
        raise DatasetError(
            f"#NPOINTS says {told} points, the file has {len(table)}", where=f"{path}:{at['NPOINTS']}"
        )
    if data == "XY":
        energies = table[:, 0]
    else:
        energies = number("OFFSET") + number("XPERCHAN") * np.arange(len(table))
    return spectrum(
        path,
        "EMSA/MAS",
        energies * factor,
        table[:, -1],
        lines[::per_point],
        scale=Intensity.ARBITRARY,
        column=keywords.get("YLABEL") or keywords.get("YUNITS") or "intensity",
        energy_unit=unit,
        told={name.lower(): keywords[name] for name in _SHOWN if keywords.get(name)},
    )


def _parse(path: Path, text: str) -> tuple[dict[str, str], dict[str, int], list[float], list[int]]:
    """Return keywords, their lines, all numbers in their order, and the line of each."""
    keywords: dict[str, str] = {}
    at: dict[str, int] = {}
    values: list[float] = []
    lines: list[int] = []
    begun = False
    for number, line in enumerate(text.splitlines(), start=1):
        where, stripped = f"{path}:{number}", line.strip()
        if not stripped:
            continue
        if stripped.startswith("#"):
            found = _KEYWORD.match(stripped)
            if found is None:
                raise DatasetError(f"{stripped[:40]!r} is not a '#KEYWORD : value'", where=where)
            name = found[2].upper()
            if name == "ENDOFDATA":
                break
            if name == "SPECTRUM":
                begun = True
            elif begun:
                raise DatasetError(f"#{name} among the numbers", where=where)
            elif not found[1]:  # "##..." are the user's own
                keywords[name], at[name] = found[3].strip(), number
            continue
        if not begun:
            raise DatasetError("numbers before #SPECTRUM", where=where)
        row = numbers(stripped.replace(",", " ").split(), where)
        values += row
        lines += [number] * len(row)
    if not values:
        raise DatasetError("holds no points after #SPECTRUM", where=str(path))
    return keywords, at, values, lines
