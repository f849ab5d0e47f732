"""How good the estimates are: a table for the terminal, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from htxas.campaign.comparison import Comparison
from htxas.errors import UserError
from htxas.report.figure import BLACK, COLOURS, GREY, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["estimates_table", "plot_estimates"]

_MOST_PANELS = 8
_COLUMNS = 4


def estimates_table(found: Sequence[Comparison]) -> Table:
    """Return a row for each engine, kind, machine and set of parameters."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("calculations")
    table.add_column("campaigns", overflow="fold")
    for heading in ("finished", "median time", "actual / prior", "10-90 %", "actual / learned", "10-90 %"):
        table.add_column(heading, justify="right")
    table.add_column("reserved", justify="right")
    table.add_column("ended within", justify="right")
    for c in found:
        prior, learned = c.ratios(c.prior_s), c.ratios(c.learned_s)
        table.add_row(
            c.label,
            ", ".join(c.campaigns),
            f"{len(c.timings):,}",
            f"{float(np.median(c.actual_s)):.3g} s",
            f"{prior[1]:.2f}",
            f"{prior[0]:.2f}-{prior[2]:.2f}",
            f"{learned[1]:.2f}",
            f"{learned[0]:.2f}-{learned[2]:.2f}",
            f"x {c.safety:.2f}",
            f"{c.within_safety:.1%}",
        )
    return table


def plot_estimates(found: Sequence[Comparison], path: Path) -> Path:
    """Draw predicted against actual seconds, by the prior and by what was learned; a panel for each comparison.

    Parameters
    ----------
    found
        With finished calculations in them; the eight with most are drawn.
    path
        ``.png``, ``.svg`` or ``.pdf``.

    Raises
    ------
    UserError
        If there is nothing to draw, or the file cannot be written.
    """
    shown = sorted(found, key=lambda c: -len(c.timings))[:_MOST_PANELS]
    if not shown:
        raise UserError("nothing to draw: no calculation has finished", hint="htxas run")
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    with style():
        figure = new_figure(max(4.0, 3.1 * columns), 3.2 * rows + 0.35)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, comparison in zip(grid.flat, shown, strict=False):
            _panel(axes, comparison)
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("actual (s)")
        figure.supxlabel("predicted (s)", fontsize=9.5)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
        return save(figure, path)


def _panel(axes: Axes, comparison: Comparison) -> None:
    actual, prior, learned = (
        np.array(values) for values in (comparison.actual_s, comparison.prior_s, comparison.learned_s)
    )
    everything = np.concatenate([actual, prior, learned])
    low, high = float(everything.min()) / 1.3, float(everything.max()) * 1.3
    line = np.array([low, high])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(line, line, color=BLACK, linewidth=0.8, label="equal")
    axes.plot(
        line, line * comparison.safety, color=BLACK, linewidth=0.8, linestyle=(0, (4, 3)), label="reserved"
    )
    for predicted, colour, label in (
        (prior, GREY, "the engine's prior"),
        (learned, COLOURS[0], "learned, from the others"),
    ):
        axes.scatter(predicted, actual, s=9, linewidths=0, alpha=0.55, color=colour, label=label)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{comparison.label}\n{len(actual):,} finished", fontsize=8.5)
