"""Lists of SMILES: ``SMILES name`` per line, or a CSV with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from htxas.errors import StructureError
from htxas.structures.source import Origin, Record

__all__ = ["read_smiles_csv", "read_smiles_lines"]

_NAME_COLUMNS = ("name", "id", "gdb_id")


def read_smiles_lines(lines: Iterator[str], _origin: Origin) -> Iterator[Record]:
    """Yield a record without positions per line: the SMILES, and what follows it as the name.

    Empty lines and lines that begin with ``#`` (no SMILES can) are passed over.
    """
    index = 0
    for number, text in enumerate(lines, start=1):
        words = text.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        yield Record(index, number, "smiles", words[1].strip() if len(words) == 2 else None, words[0])
        index += 1


def read_smiles_csv(lines: Iterator[str], origin: Origin) -> Iterator[Record]:
    """Yield a record without positions per row of a CSV with a ``smiles`` column.

    The name is column ``name`` or ``id``; a ``gdb_id`` of 7 gives ``gdb_7``.

    Raises
    ------
    StructureError
        No ``smiles`` column, or not a CSV. A row with too few or too many fields becomes a record with a problem.
    """
    rows = csv.reader(lines, strict=True)
    try:
        header = [h.strip().lower() for h in next(rows, [])]
        if "smiles" not in header:
            raise StructureError(
                "the first line names no column 'smiles'",
                where=origin.where(line=1),
                hint="a CSV needs a header such as: name,smiles",
            )
        name_column = next((c for c in _NAME_COLUMNS if c in header), None)
        index = 0
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                problem = StructureError(
                    f"{len(row)} fields, the header has {len(header)}",
                    where=origin.where(index, rows.line_num),
                    hint="mend the line",
                )
                yield Record(index, rows.line_num, "smiles", None, problem=problem)
                index += 1
                continue
            fields = dict(zip(header, (v.strip() for v in row), strict=True))
            name = fields[name_column] if name_column else ""
            if name_column == "gdb_id" and name:
                name = f"gdb_{name}"
            yield Record(index, rows.line_num, "smiles", name or None, fields["smiles"])
            index += 1
    except csv.Error as error:
        raise StructureError(
            f"not a CSV: {error}", where=origin.where(line=rows.line_num), hint="mend the line"
        ) from None
