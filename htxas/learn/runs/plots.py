"""Parity plots: predicted against true values of the test molecules, one panel per target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["parity_plot"]

_COLOURS = {"A": "#0072b2", "B": "#d55e00"}  # Okabe-Ito: told apart by colour-blind readers
_MARKERS = {"A": "o", "B": "^"}


def parity_plot(cards: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write one PNG with a panel per target; Model-A circles, Model-B triangles, the diagonal is perfect."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    targets = list(dict.fromkeys(t for c in cards.values() for t in c["test"].get("true", {})))
    if not targets:
        return  # curves only
    across = min(len(targets), 4)
    down = -(-len(targets) // across)
    figure = Figure(figsize=(3.1 * across, 3.2 * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for panel, target in zip(panels, targets, strict=False):
        shown = [c for c in cards.values() if target in c["targets"]]
        values = []
        for card in shown:
            kind = card["spec"]["kind"]
            true = np.array(card["test"]["true"][target])
            predicted = np.array(card["test"]["predicted"][target]["net"])
            values += [true, predicted]
            panel.plot(
                true,
                predicted,
                _MARKERS[kind],
                color=_COLOURS[kind],
                markersize=4,
                alpha=0.65,
                markeredgewidth=0,
                label=f"{kind}: R² {card['targets'][target]['metrics']['net']['r2']:.2f}",
            )
        low, high = np.concatenate(values).min(), np.concatenate(values).max()
        margin = 0.05 * (high - low)
        limits = (low - margin, high + margin)
        panel.plot(limits, limits, "-", color="0.6", linewidth=0.8, zorder=0)
        panel.set_xlim(limits)
        panel.set_ylim(limits)
        panel.set_aspect("equal")
        unit = shown[0]["targets"][target]["unit"]
        panel.set_title(target if unit == "1" else f"{target} ({unit})", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.legend(fontsize=8, loc="upper left", frameon=False, handletextpad=0.2)
    for panel in panels[len(targets) :]:
        panel.set_axis_off()
    n = next(iter(cards.values()))["counts"]["test"]
    figure.supxlabel(f"computed ({n} test molecules)", fontsize=10)
    figure.supylabel("predicted", fontsize=10)
    figure.savefig(path, dpi=130)
