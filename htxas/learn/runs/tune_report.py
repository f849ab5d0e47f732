"""What a search says at its end: its trials, what mattered, and the best net as YAML to paste."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from htxas.learn.data.dataset import Dataset
from htxas.learn.nets.network import Network
from htxas.learn.runs.tune import Tuned
from htxas.learn.runs.tune_config import TunePlan

__all__ = ["setting", "verdict", "write_tuning", "yaml_text"]

_STATES = {"complete": ("#0072b2", "o"), "pruned": ("#e69f00", "x"), "fail": ("#d55e00", "v")}


def setting(network: Network, name: str) -> str:
    """Return a setting of a net for a table."""
    value = getattr(network, name)
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def yaml_text(network: Network) -> str:
    """Return the net as a line of YAML for a training or study file; what is the default is left out."""
    default = Network().to_dict()
    parts = [
        f"{name}: {_scalar(value)}" for name, value in network.to_dict().items() if value != default[name]
    ]
    return "network: {" + ", ".join(parts) + "}"


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:.6g}"
        return (
            text if "." in text or "e" not in text else text.replace("e", ".0e")
        )  # YAML 1.1 wants the point
    return json.dumps(value).replace('"', "")


def verdict(found: Tuned) -> list[str]:
    """Return sentences: what came of it, and what mattered."""
    count = {s: sum(t.state == s for t in found.trials) for s in _STATES}
    best = found.best
    lines = [
        f"{len(found.trials)} trials: {count['complete']} to their end, {count['pruned']} given up early, "
        f"{count['fail']} failed."
    ]
    first = found.trials[0]
    if first.loss is not None and first.state == "complete" and best.loss is not None:
        gain = 1 - best.loss / first.loss
        lines.append(
            f"Trial {best.number} has the lowest validation loss, {best.loss:.4f}"
            + (
                ": the file's own net; nothing better was found."
                if best.number == first.number
                else f", {gain:.1%} below the file's own net ({first.loss:.4f})."
            )
        )
    if found.importance:
        shares = ", ".join(f"{n} {v:.0%}" for n, v in sorted(found.importance.items(), key=lambda p: -p[1]))
        lines.append(f"Share of the loss's variance among complete trials (fANOVA): {shares}.")
    lines.append(
        "The lowest of many noisy numbers flatters: train the net and look at its test rows, not touched here."
    )
    return lines


def write_tuning(plan: TunePlan, dataset: Dataset, found: Tuned, out_dir: Path) -> dict[str, Any]:
    """Write ``trials.json``, ``table.md``, ``best.yaml`` and ``trials.png``; return the content of the first."""
    document = {
        "name": plan.name,
        "dataset": {"key": dataset.key, "source": dataset.card["source"]},
        "targets": list(plan.dataset.targets),
        "best": found.best.number,
        "importance": found.importance,
        "trials": [
            {
                "number": t.number, "state": t.state, "loss": t.loss, "epochs_reported": t.epochs,
                **{n: t.network.to_dict()[n] for n in (*plan.choices, *plan.ranges)},
            }
            for t in found.trials
        ],
        "verdict": verdict(found),
    }  # fmt: skip
    (out_dir / "trials.json").write_text(json.dumps(document, indent=1) + "\n")
    (out_dir / "best.yaml").write_text(yaml_text(found.best.network) + "\n")
    (out_dir / "table.md").write_text(_markdown(plan, found))
    _plot(plan, found, out_dir / "trials.png")
    return document


def _markdown(plan: TunePlan, found: Tuned) -> str:
    searched = [*plan.choices, *plan.ranges]
    lines = [
        " ".join(verdict(found)),
        "",
        "| trial | state | validation loss | " + " | ".join(searched) + " |",
        "|---|---|---|" + "---|" * len(searched),
    ]
    last = float("inf")
    for t in sorted(found.trials, key=lambda t: (t.state, last if t.loss is None else t.loss, t.number)):
        loss = "-" if t.loss is None else f"{t.loss:.4f}"
        loss = f"**{loss}**" if t.number == found.best.number else loss
        lines.append(
            f"| {t.number} | {t.state} | {loss} | "
            + " | ".join(setting(t.network, n) for n in searched)
            + " |"
        )
    return "\n".join([*lines, "", "```yaml", yaml_text(found.best.network), "```", ""])


def _plot(plan: TunePlan, found: Tuned, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    searched = [*plan.choices, *plan.ranges]
    across = min(3, 1 + len(searched))
    down = -(-(1 + len(searched)) // across)
    figure = Figure(figsize=(3.0 * across, 2.5 * down), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for panel in panels[1 + len(searched) :]:
        panel.set_axis_off()
    shown = [t for t in found.trials if t.loss is not None]
    for panel, name in zip(panels, ("trial", *searched), strict=False):
        for state, (colour, marker) in _STATES.items():
            part = [t for t in shown if t.state == state]
            x = [t.number if name == "trial" else _place(plan, t.network, name) for t in part]
            label = (
                {"complete": "to its end", "pruned": "given up", "fail": "failed"}[state] if part else None
            )
            panel.plot(x, [t.loss for t in part], marker, color=colour, ms=4, alpha=0.8, label=label)
        here = found.best.number if name == "trial" else _place(plan, found.best.network, name)
        panel.plot(here, found.best.loss, "o", mfc="none", mec="black", ms=9, label="best")
        if name in plan.choices:
            ticks = range(len(plan.choices[name]))
            names = ["-".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in plan.choices[name]]
            panel.set_xticks(ticks, names, rotation=40, ha="right", fontsize=8)
        elif name in plan.ranges and name != "dropout":
            low, high = plan.ranges[name]
            panel.set_xscale("log")
            panel.set_xlim(low / 1.1, high * 1.1)
            marks = (low, float(low * high) ** 0.5, high)
            panel.set_xticks(marks, [f"{v:.2g}" for v in marks])
            panel.minorticks_off()
        panel.set_xlabel(name.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(color="0.93")
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    losses = sorted(t.loss for t in shown if t.loss is not None)
    top = min(losses[-1], 3 * losses[0])
    panels[0].set_ylim(losses[0] - 0.05 * (top - losses[0] + 1e-12), top + 0.05 * (top - losses[0] + 1e-12))
    figure.supylabel("lowest validation loss", fontsize=9)
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, metadata={"Software": "htxas"})


def _place(plan: TunePlan, network: Network, name: str) -> float:
    value = getattr(network, name)
    return float(plan.choices[name].index(value)) if name in plan.choices else float(value)
