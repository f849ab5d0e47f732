"""How figures of studies look: Okabe-Ito's colours, a marker for each method, units on every axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKERS", "OKABE_ITO", "canvas", "heat_map", "legend_below", "units"]

OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
COLOURS = {
    "net": "#d55e00",
    "ridge": "#0072b2",
    "knn": "#009e73",
    "trees": "#e69f00",
    "pca_ridge": "#cc79a7",
    "mean": "#888888",
}
"""Colour of each method, the same in all figures."""

MARKERS = {"net": "o", "ridge": "s", "knn": "^", "trees": "D", "pca_ridge": "v", "mean": "x"}


def canvas(down: int, across: int, width_in: float, height_in: float, **shared: Any) -> tuple[Figure, Any]:
    """Return a figure and its panels, an array (down, across); sizes are of one panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in * across, height_in * down), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False, **shared)
    for panel in panels.ravel():
        panel.tick_params(labelsize=8)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure, panels


def legend_below(figure: Figure, panel: Any, columns: int) -> None:
    """Write the legend of one panel below all of them."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(columns, len(labels)),
        fontsize=8,
        frameon=False,
    )


def units(name: str, unit: str) -> str:
    """Return ``gap (eV)``, or the name alone of a ratio."""
    return name if unit == "1" else f"{name} ({unit})"


def heat_map(
    panel: Any,
    values: npt.NDArray[np.float64],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
) -> Any:
    """Draw values (rows, columns) as colours with their numbers in them; the best of each column has a frame."""
    from matplotlib.patches import Rectangle

    image = panel.imshow(
        values, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto", origin="lower"
    )
    middle = (limits[0] + limits[1]) / 2
    for i, j in np.ndindex(values.shape):
        colour = "black" if values[i, j] > middle else "white"
        panel.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    for j, i in enumerate(np.argmax(values, axis=0)):
        panel.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=2))
    panel.set_xticks(range(len(columns)), columns, fontsize=8)
    panel.set_yticks(range(len(rows)), rows, fontsize=8)
    return image
