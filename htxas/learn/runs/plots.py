"""What was predicted for test rows beside what was computed: parity plots of numbers, curves with their bands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["curve_plot", "parity_plot"]

_COLOURS = {"A": "#0072b2", "B": "#d55e00"}  # Okabe-Ito: told apart by colour-blind readers
_MARKERS = {"A": "o", "B": "^"}
_SHOWN = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the test rows in the order of their error


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


def curve_plot(card: Mapping[str, Any], test: Mapping[str, npt.NDArray[np.float32]], path: Path) -> None:
    """Write one PNG of computed and predicted curves of test rows that stand for all, from well to badly predicted.

    Parameters
    ----------
    card
        Of a model of a curve.
    test
        Its ``true``, ``predicted`` and ``half_width``, shape (n, m), in the order of the card's test rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    (name, result), ids = next(iter(card["targets"].items())), card["test"]["ids"]
    error = ((test["predicted"] - test["true"]) ** 2).mean(axis=1)
    order = np.argsort(error, kind="stable")
    energies = result["start_eV"] + result["step_eV"] * np.arange(result["points"])
    colour = _COLOURS[card["spec"]["kind"]]
    figure = Figure(figsize=(3.1 * len(_SHOWN), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(_SHOWN), sharex=True, sharey=True)
    for panel, part in zip(panels, _SHOWN, strict=True):
        row = int(order[round(part * (len(order) - 1))])
        predicted, half = test["predicted"][row], test["half_width"][row]
        if np.isfinite(half).all():
            low, high = predicted - half, predicted + half
            panel.fill_between(
                energies, low, high, color=colour, alpha=0.2, linewidth=0, label="90 % interval"
            )
        panel.plot(energies, test["true"][row], color="black", linewidth=1.2, label="computed")
        panel.plot(energies, predicted, color=colour, linewidth=1.2, label="predicted")
        panel.axvline(0.0, color="0.6", linewidth=0.8, linestyle=":")
        panel.set_title(f"{ids[row]}: better than {1 - part:.0%}", fontsize=9)
        panel.tick_params(labelsize=8)
    if result["train_min"] >= 0:
        panels[0].set_ylim(bottom=0.0)  # what cannot be negative: that part of a band means nothing
    panels[0].legend(fontsize=8, frameon=False, loc="upper left")
    figure.supxlabel(f"energy (eV; {result['zero']})", fontsize=10)
    figure.supylabel(f"{name} ({result['unit'].split(' (')[0]})", fontsize=10)
    figure.suptitle(
        f"R² {result['metrics']['net']['r2']:.2f} on {len(ids)} test rows; five of them in the order of their error",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)
