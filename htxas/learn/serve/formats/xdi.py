"""XDI, the XAFS Data Interchange format, version 1.0 (github.com/XraySpectroscopy/XAS-Data-Interchange)."""

from __future__ import annotations

import re
from pathlib import Path

from htxas.domain.elements import atomic_number
from htxas.errors import DatasetError
from htxas.learn.serve.formats.measured import (
    Columns,
    MeasuredSpectrum,
    absorption,
    chosen,
    energy_factor,
    numbers,
    spectrum,
    unit_in,
)

__all__ = ["is_xdi", "read_xdi"]

_FIELD = re.compile(r"([A-Za-z]\w*)\.([\w-]+)\s*:\s*(.*)")
_SHOWN = ("sample.name", "facility.name", "beamline.name", "scan.start_time", "mono.name")


def is_xdi(text: str) -> bool:
    """Tell whether the first line is XDI's."""
    return re.match(r"#\s*XDI/\d", text) is not None


def read_xdi(path: Path, text: str, *, column: str | None, energy_unit: str | None) -> MeasuredSpectrum:
    """Read an XDI file.

    Its absorption is ``normtrans``, ``normfluor``, ``mutrans``, ``mufluor``, or ``i0`` with ``itrans`` or ``ifluor``.

    Parameters
    ----------
    column
        Name of another column to take for the intensity.
    energy_unit
        ``eV`` or ``keV`` where ``Column.1`` does not say.

    Raises
    ------
    DatasetError
        With file and line.
    """
    fields, at, labels, columns = _parse(path, text)
    width = len(columns.rows[0])
    names = [fields.get(f"column.{i + 1}", "").split(maxsplit=1) for i in range(width)]
    if labels and len(labels[1]) != width:
        raise DatasetError(f"{len(labels[1])} column labels for {width} columns", where=f"{path}:{labels[0]}")
    named = tuple((n[0] if n else labels[1][i] if labels else "") for i, n in enumerate(names))
    where = f"{path}:{at.get('column.1', 1)}"
    if named[0].lower() != "energy":
        raise DatasetError(
            f"the first column is {named[0] or 'not named'}; energies are needed",
            where=where,
            hint="# Column.1: energy eV",
        )
    stated = unit_in(names[0][1]) if len(names[0]) == 2 else None
    if stated is None and len(names[0]) == 2:
        raise DatasetError(f"energies in {names[0][1]!r}; eV or keV are read", where=where)
    unit, factor = energy_factor(stated, energy_unit, where)
    columns = Columns(named, columns.rows, columns.lines)
    if column is not None:
        index = columns.index(column)
        if index in (None, 0):
            raise DatasetError(f"there is no column {column!r}, only {' '.join(named[1:])}", where=str(path))
        assert index is not None
        found = chosen(columns, index, path)
    else:
        known = absorption(columns, path)
        if known is None:
            raise DatasetError(
                f"no column is an absorption, only {' '.join(n or '?' for n in named)}",
                where=str(path),
                hint="--column NAME",
            )
        found = known
    intensity, scale, taken = found
    element, edge, edge_eV = _absorber(path, fields, at)
    return spectrum(
        path,
        "XDI",
        columns.column(0) * factor,
        intensity,
        columns.lines,
        scale=scale,
        column=taken,
        energy_unit=unit,
        element=element,
        edge=edge,
        edge_eV=edge_eV,
        told={name: fields[name] for name in _SHOWN if fields.get(name)},
    )


def _parse(
    path: Path, text: str
) -> tuple[dict[str, str], dict[str, int], tuple[int, list[str]] | None, Columns]:
    """Return header fields (lower-case names), their lines, column labels with their line, and the numbers."""
    fields: dict[str, str] = {}
    at: dict[str, int] = {}
    rows: list[tuple[float, ...]] = []
    lines: list[int] = []
    labels: tuple[int, list[str]] | None = None
    section = "fields"
    for number, line in enumerate(text.splitlines(), start=1):
        where, stripped = f"{path}:{number}", line.strip()
        if number == 1 or not stripped:
            continue
        if stripped.startswith("#"):
            if rows:
                raise DatasetError("a comment among the numbers", where=where)
            body = stripped[1:].strip()
            if re.fullmatch(r"/{3,}", body):
                section = "comments"
            elif re.fullmatch(r"-{3,}", body):
                section = "labels"
            elif section == "labels":
                labels = (number, body.split())
            elif section == "fields" and body:
                found = _FIELD.fullmatch(body)
                if found is None:
                    raise DatasetError(
                        f"{body[:40]!r} is not a field such as 'Element.symbol: C'", where=where
                    )
                name = f"{found[1]}.{found[2]}".lower()
                fields[name], at[name] = found[3].strip(), number
            continue
        row = numbers(stripped.split(), where)
        if rows and len(row) != len(rows[0]):
            raise DatasetError(f"{len(row)} columns, not {len(rows[0])}", where=where)
        rows.append(row)
        lines.append(number)
    if not rows:
        raise DatasetError("holds no points", where=str(path))
    return fields, at, labels, Columns((), rows, lines)


def _absorber(
    path: Path, fields: dict[str, str], at: dict[str, int]
) -> tuple[str | None, str | None, float | None]:
    symbol, edge = fields.get("element.symbol") or None, fields.get("element.edge") or None
    if symbol is not None:
        atomic_number(symbol, where=f"{path}:{at['element.symbol']}")
    stated = fields.get("scan.edge_energy", "").split()
    if not stated:
        return symbol, edge, None
    where = f"{path}:{at['scan.edge_energy']}"
    _, factor = energy_factor(unit_in(" ".join(stated[1:])) or "eV", None, where)
    return symbol, edge, numbers(stated[:1], where)[0] * factor
