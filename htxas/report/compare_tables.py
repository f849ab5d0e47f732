"""Tables and documents of compared campaigns."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from htxas.report.compare import Compared

__all__ = ["compared_document", "compared_summary", "compared_table"]


def compared_document(found: Compared) -> dict[str, Any]:
    """Return everything as a JSON document."""
    return {
        "campaigns": list(found.campaigns),
        "summary": found.summary(),
        "missing": found.missing,
        "sites": [
            {
                "molecule": row.molecule,
                "site": row.site,
                "entries": {
                    name: asdict(entry) for name, entry in zip(found.campaigns, row.entries, strict=True)
                },
            }
            for row in found.rows
        ],
    }


def compared_table(found: Compared) -> Table:
    """Return a row per site: onset, shift and likeness in each campaign."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("site", style="bold")
    for i, (name, engine) in enumerate(zip(found.campaigns, found.engines, strict=True)):
        heading = name if engine in name else f"{name} ({engine})"
        table.add_column(f"{heading}\nonset (eV)", justify="right")
        table.add_column("\nshift", justify="right")
        if i:
            table.add_column("\nalike", justify="right")
        table.add_column("\ns", justify="right")
    for row, shifts in zip(found.rows, found.shifts_eV(), strict=True):
        cells = [f"{row.molecule}/{row.site}"]
        for i, (entry, shift) in enumerate(zip(row.entries, shifts, strict=True)):
            cells += [f"{entry.onset_eV:.2f}" + ("*" if entry.another_geometry else ""), f"{shift:+.2f}"]
            if i:
                cells.append("" if entry.similarity is None else f"{entry.similarity:.3f}")
            cells.append("-" if entry.wall_s is None else f"{entry.wall_s:.0f}")
        table.add_row(*cells)
    if any(entry.another_geometry for row in found.rows for entry in row.entries):
        table.caption = "* another geometry"
    return table


def compared_summary(found: Compared) -> Table:
    """Return a row per campaign, against the first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("against " + found.campaigns[0], style="bold")
    for heading in (
        "engine",
        "sites",
        "offset (eV)",
        "shifts: rms",
        "worst",
        "r",
        "alike, median",
        "s, median",
    ):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for i, told in enumerate(found.summary()):
        own = i == 0
        table.add_row(
            told["campaign"],
            told["engine"],
            str(told["sites"]),
            "" if own else f"{told['offset_eV']:+.2f}",
            "" if own else f"{told['shift_rms_eV']:.2f}",
            "" if own else f"{told['shift_worst_eV']:.2f}",
            "" if own or told["shift_correlation"] is None else f"{told['shift_correlation']:.3f}",
            "" if told["similarity_median"] is None else f"{told['similarity_median']:.3f}",
            "-" if told["seconds_median"] is None else f"{told['seconds_median']:.0f}",
        )
    return table
