"""Spectrum with a core hole to the density of states without one (Chen et al. 2023), by several nets and splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from htxas.campaign.yamlfile import Lines
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.baselines import BASELINES
from htxas.learn.nets.network import Network
from htxas.learn.runs.network_section import NetworkSection, network_of
from htxas.learn.runs.spec import RunSpec
from htxas.learn.studies.figures import COLOURS, OKABE_ITO, canvas, legend_below
from htxas.learn.studies.file import Names, StudyFile
from htxas.learn.studies.results import METHODS, NET, Cell, Results, best_baseline
from htxas.learn.studies.study import Planned, Report, Table, repeat
from htxas.learn.studies.words import found_in, listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PdosModel", "PdosModelFile"]

_SHOWN = (0.1, 0.5, 0.9)  # of the test rows, from the best predicted to the worst
_METRICS = ("mse", "mse_below", "mse_above", "wasserstein", "cosine", "r2")


class PdosModelFile(StudyFile):
    """``study: pdos_model``."""

    targets: list[str] = Field(default=["pdos"], min_length=1, max_length=1)
    networks: dict[str, NetworkSection] = Field(min_length=1)
    splits: Names = Field(default=["molecule", "size"])

    def build(self, lines: Lines) -> PdosModel:
        """Return the study."""
        if self.network.model_fields_set:
            raise lines.error(("network",), "this study compares several: write them under networks")
        nets = {name: network_of(n, lines, ("networks", name)) for name, n in self.networks.items()}
        if near := set(nets) & set(METHODS):
            raise lines.error(("networks",), f"{min(near)!r} is the name of a baseline")
        return PdosModel(self.targets[0], nets, tuple(self.splits), tuple(self.seeds))


@dataclass(frozen=True, slots=True)
class PdosModel:
    """One run per split, net and seed."""

    curve: str
    networks: Mapping[str, Network]
    splits: tuple[str, ...]
    seeds: tuple[int, ...]

    def plan(self, dataset: Dataset) -> list[Planned]:
        """Return the runs."""
        dataset.curve(self.curve)
        planned = []
        for split in self.splits:
            for name, network in self.networks.items():
                for seed in self.seeds:
                    spec = RunSpec(dataset.key, (self.curve,), ModelKind.A, network, seed, split=split)
                    planned.append(Planned(spec, {"split": split, "network": name, **repeat(spec)}))
        return planned

    def report(self, dataset: Dataset, results: Results) -> Report:
        """Return mean squared errors below and above the gap, and single curves."""
        rows: dict[str, dict[str, Cell]] = {}  # split -> net or baseline -> cell
        for split in self.splits:
            first = next(iter(self.networks))
            row = {b: results.cell(self.curve, b, split=split, network=first) for b in BASELINES}
            nets = {n: results.cell(self.curve, NET, split=split, network=n) for n in self.networks}
            rows[split] = row | nets
        best = {split: max(self.networks, key=lambda n: rows[split][n].r2) for split in self.splits}
        words = [found_in(dataset)]
        for split, row in rows.items():
            words += self._words(results, split, row, best[split])
        words.append(
            "The published mean squared errors (0.17 occupied, 0.03 unoccupied) depend on how the paper scaled its "
            "curves, which is not known here: compare ratios, not values."
        )
        return Report(
            tables=[self._table(results, rows)],
            figures={
                "mse": self._bars(rows),
                **{
                    f"curves-{split}": self._curves(dataset, results, split, best[split])
                    for split in self.splits
                },
            },
            words=words,
            cells=[cell for row in rows.values() for cell in row.values()],
        )

    def _words(self, results: Results, split: str, row: Mapping[str, Cell], name: str) -> list[str]:
        counts = results.cards_at(split=split)[0]["molecules"]
        net, mean = row[name].metrics, row["mean"].metrics
        said = [
            f"Split {split} ({counts['train']:,} molecules trained on, {counts['test']:,} tested): {name} is the best "
            f"net with a mean squared error of {net['mse']:.3g} eV⁻² ({_halves(net)}), "
            f"{net['mse'] / mean['mse']:.2f} of what the mean curve leaves ({_halves(mean)})."
        ]  # fmt: skip
        other = best_baseline(row)
        winners = [n for n in self.networks if row[n].r2 > other.r2]
        losers = [n for n in self.networks if n not in winners]
        if losers:
            said.append(
                f"The baseline {METHODS[other.method]} ({other.metrics['mse']:.3g}) beats {listed(losers)}."
            )
        else:
            said.append(
                f"No baseline beats them; the best is {METHODS[other.method]} ({other.metrics['mse']:.3g})."
            )
        covered = results.coverage(self.curve, split=split, network=name)
        if covered is not None:
            said.append(f"Its 90% intervals hold {covered:.0%} of the points.")
        return said

    def _table(self, results: Results, rows: Mapping[str, Mapping[str, Cell]]) -> Table:
        body = []
        for split, row in rows.items():
            least = min(c.metrics["mse"] for c in row.values())
            for name, cell in row.items():
                numbers = [f"{cell.metrics[m]:.3g}" if m in cell.metrics else "-" for m in _METRICS]
                if cell.metrics["mse"] == least:
                    numbers[0] = f"**{numbers[0]}**"
                covered = (
                    results.coverage(self.curve, split=split, network=name) if name in self.networks else None
                )
                text = "-" if covered is None else f"{covered:.0%}"
                body.append((split, METHODS.get(name, name), *numbers, text))
        return Table(
            f"{self.curve} of test rows: mean squared error (eV⁻²) of all points, below and above 0 eV; Wasserstein "
            "distance (eV); mean cosine; R² over all points; bold: least error of the split",
            (
                "split",
                "method",
                "MSE",
                "below 0",
                "above 0",
                "Wasserstein",
                "cosine",
                "R²",
                "90% interval holds",
            ),
            tuple(body),
        )

    def _bars(self, rows: Mapping[str, Mapping[str, Cell]]) -> Figure:
        figure, panels = canvas(1, len(rows), 3.9, 3.0)
        for panel, (split, row) in zip(panels[0], rows.items(), strict=True):
            parts = [m for m in ("mse_below", "mse_above") if all(m in c.metrics for c in row.values())]
            parts = parts or ["mse"]
            for i, part in enumerate(parts):
                place = np.arange(len(row)) + (i - (len(parts) - 1) / 2) * 0.4
                height = [1e3 * c.metrics[part] for c in row.values()]
                label = part.replace("mse_", "") + " 0 eV" if len(parts) > 1 else "all points"
                drawn = panel.bar(place, height, 0.38, color=OKABE_ITO[i], label=label)
                panel.bar_label(drawn, fmt="%.2g", fontsize=6, padding=1)
            panel.set_xticks(
                range(len(row)), [METHODS.get(n, n) for n in row], fontsize=8, rotation=35, ha="right"
            )
            panel.set_title(f"split by {split}", fontsize=9)
            panel.grid(axis="y", color="0.92")
            panel.set_axisbelow(True)
        panels[0, 0].set_ylabel(f"mean squared error\nof {self.curve} (10⁻³ eV⁻²)", fontsize=8)
        legend_below(figure, panels[0, 0], 2)
        return figure

    def _curves(self, dataset: Dataset, results: Results, split: str, name: str) -> Figure:
        card = results.cards_at(split=split, network=name)[0]
        arrays = results.curves(card)
        grid_card = dataset.card["curves"][self.curve]
        energy_eV = grid_card["start_eV"] + np.arange(grid_card["points"]) * grid_card["step_eV"]
        error = ((arrays["predicted"] - arrays["true"]) ** 2).mean(axis=1)
        order = np.argsort(error, kind="stable")
        figure, panels = canvas(len(_SHOWN), 1, 6.4, 1.5, sharex=True)
        for panel, share in zip(panels[:, 0], _SHOWN, strict=True):
            i = order[round(share * (len(order) - 1))]
            true, predicted, half = (arrays[k][i] for k in ("true", "predicted", "half_width"))
            panel.plot(energy_eV, true, color="black", linewidth=1.2, label="computed")
            panel.plot(energy_eV, predicted, color=COLOURS[NET], linewidth=1.2, label=f"predicted ({name})")
            if np.isfinite(half).all():
                panel.fill_between(
                    energy_eV, np.maximum(predicted - half, 0), predicted + half, color=COLOURS[NET], alpha=0.2,
                    linewidth=0, label="90% interval",
                )  # fmt: skip
            panel.axvline(0, color="0.6", linewidth=0.8, linestyle=":")
            smiles = card["test"]["molecules"][i]
            what = card["test"]["ids"][i] + (f"  {smiles}" if len(smiles) < 30 else "")
            panel.set_title(f"{what}: error larger than for {share:.0%} of test rows", fontsize=8, loc="left")
            panel.margins(x=0)
        panels[-1, 0].set_xlabel(f"energy (eV); {grid_card['zero']}", fontsize=9)
        figure.supylabel(f"{self.curve}, {grid_card['unit'].split(' (')[0]}", fontsize=9)
        legend_below(figure, panels[0, 0], 3)
        return figure


def _halves(metrics: Mapping[str, float]) -> str:
    if "mse_below" not in metrics:
        return f"R² {metrics['r2']:.2f}"
    return f"below 0 eV {metrics['mse_below']:.3g}, above {metrics['mse_above']:.3g}"
