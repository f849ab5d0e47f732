"""A predicted curve as a table and as a picture with its band."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from htxas.errors import UserError
from htxas.learn.nets.intervals import LEVEL

if TYPE_CHECKING:
    from htxas.learn.serve.answers import CurveEstimate

__all__ = ["plot_curve", "write_curve"]

_LINE, _TRUE = "#0072b2", "#d55e00"  # Okabe-Ito


def write_curve(curve: CurveEstimate, path: Path) -> None:
    """Write a CSV with energy, value and, where there is one, the band; and the known curve.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    columns = {"energy_eV": curve.energies_eV, curve.target: curve.value}
    if curve.low is not None and curve.high is not None:
        columns |= {"low": curve.low, "high": curve.high}
    if curve.true is not None:
        columns["computed"] = curve.true
    try:
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            for e, *values in zip(*columns.values(), strict=True):
                writer.writerow([f"{e:.4f}", *(f"{v:.6g}" for v in values)])
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", where=str(path)) from error


def plot_curve(curve: CurveEstimate, path: Path, *, title: str) -> None:
    """Draw the curve with its calibrated band, and the known one where there is one, as PNG, SVG or PDF.

    Raises
    ------
    UserError
        For another suffix, or if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError("cannot draw this kind of file", where=str(path), hint="use .png, .svg or .pdf")
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if curve.low is not None and curve.high is not None:
        axes.fill_between(
            curve.energies_eV,
            curve.low,
            curve.high,
            color=_LINE,
            alpha=0.22,
            linewidth=0,
            label=f"{LEVEL:.0%} interval, point by point",
        )
    axes.plot(curve.energies_eV, curve.value, color=_LINE, linewidth=1.4, label="predicted")
    if curve.true is not None:
        axes.plot(curve.energies_eV, curve.true, color=_TRUE, linewidth=1.1, linestyle="--", label="computed")
    axes.axvline(0.0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xlabel(f"energy (eV); {curve.zero}")
    axes.set_ylabel(curve.unit)
    axes.set_title(title, fontsize=10)
    axes.margins(x=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", where=str(path)) from error
