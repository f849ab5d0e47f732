"""Spectrum to properties, one net per property, by cross-validation (Kikumasa et al. 2022: Model-A and Model-B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from htxas.campaign.yamlfile import Lines
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.network import Network
from htxas.learn.runs.network_section import network_of
from htxas.learn.runs.spec import RunSpec
from htxas.learn.studies.figures import COLOURS, MARKERS, canvas, legend_below, units
from htxas.learn.studies.file import Folds, StudyFile, kinds_of
from htxas.learn.studies.results import METHODS, NET, Cell, Results
from htxas.learn.studies.study import Planned, Report, Table, askable, folds_of, repeat
from htxas.learn.studies.words import compared, found_in, listed, ranged, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PropertyModels", "PropertyModelsFile"]

Rows = dict[tuple[str, str], dict[str, Cell]]  # (target, kind) -> method -> cell
_GOOD = 0.7


class PropertyModelsFile(StudyFile):
    """``study: property_models``."""

    models: list[str] = Field(default=[k.value for k in ModelKind], min_length=1)
    folds: Folds = 5

    def build(self, lines: Lines) -> PropertyModels:
        """Return the study."""
        network = network_of(self.network, lines, ("network",))
        kinds = kinds_of(self.models, lines)
        return PropertyModels(tuple(self.targets), kinds, network, self.folds, tuple(self.seeds))


@dataclass(frozen=True, slots=True)
class PropertyModels:
    """One run per model kind, fold and seed; the nets of all its properties are computed in one batched product."""

    targets: tuple[str, ...]
    kinds: tuple[ModelKind, ...]
    network: Network
    folds: int
    seeds: tuple[int, ...]

    def plan(self, dataset: Dataset) -> list[Planned]:
        """Return the runs."""
        planned = []
        for kind in self.kinds:
            if not (targets := askable(self.targets, kind)):
                continue
            for fold in folds_of(self.folds):
                for seed in self.seeds:
                    spec = RunSpec(dataset.key, targets, kind, self.network, seed, fold=fold)
                    planned.append(Planned(spec, {"model": kind.value, **repeat(spec)}))
        return planned

    def report(self, dataset: Dataset, results: Results) -> Report:
        """Return the table of R^2, parity plots and what beats what."""
        kinds = results.values("model")
        rows: Rows = {
            (t, k): results.row(t, model=k)
            for t in self.targets
            for k in kinds
            if t in askable(self.targets, ModelKind(k))
        }
        unit = {t["name"]: str(t["unit"]) for t in dataset.card["targets"]}
        words = [found_in(dataset), self._tested(results)]
        for kind in kinds:
            nets = {t: r[NET] for (t, k), r in rows.items() if k == kind}
            good = [f"{t} ({c.r2:.2f})" for t, c in nets.items() if c.r2 >= _GOOD]
            words.append(f"Model-{kind} reaches R² {_GOOD} for {listed(good) if good else 'nothing'}.")
        words.append(compared({f"{t} with Model-{k}'s inputs": r for (t, k), r in rows.items()}))
        if (covered := self._coverage(results, rows)) is not None:
            words.append(
                f"Intervals meant to hold 90% of test rows hold {covered.min():.0%} to {covered.max():.0%}, "
                f"{covered.mean():.0%} on average."
            )
        return Report(
            tables=[self._table(results, rows, unit)],
            figures={"r2": _r2_figure(rows, kinds), "parity": self._parity(results, rows, unit)},
            words=words,
            cells=[cell for row in rows.values() for cell in row.values()],
        )

    def _tested(self, results: Results) -> str:
        counts = results.cards[0]["molecules"]
        if self.folds:
            return (
                f"{self.folds}-fold cross-validation by molecule: every molecule is tested once by nets that have not "
                f"seen it, trained on about {counts['train']:,}."
            )
        return f"Trained on {counts['train']:,} molecules, tested on {counts['test']:,} others."

    def _coverage(self, results: Results, rows: Rows) -> npt.NDArray[np.float64] | None:
        found = [results.coverage(t, model=k) for t, k in rows]
        return None if None in found else np.array(found, dtype=np.float64)

    def _table(self, results: Results, rows: Rows, unit: Mapping[str, str]) -> Table:
        methods = [m for m in METHODS if m != "mean"]
        body = []
        for (target, kind), row in rows.items():
            covered = results.coverage(target, model=kind)
            body.append(
                (
                    target, unit[target], kind, *(shown(row[m], row) for m in methods), ranged(row[NET]),
                    "-" if covered is None else f"{covered:.0%}",
                )
            )  # fmt: skip
        return Table(
            "R² (mean absolute error) of test molecules; range of the net's R² from a bootstrap over molecules; "
            "bold: best of the row. A: the spectrum alone; B: with N/C, O/C, F/C",
            ("target", "unit", "inputs", *(METHODS[m] for m in methods), "net 5-95%", "90% interval holds"),
            tuple(body),
        )

    def _parity(self, results: Results, rows: Rows, unit: Mapping[str, str]) -> Figure:
        targets = list(dict.fromkeys(t for t, _ in rows))
        across = min(4, len(targets))
        figure, panels = canvas(-(-len(targets) // across), across, 2.5, 2.6)
        for panel, target in zip(panels.ravel(), targets, strict=False):
            low, high = np.inf, -np.inf
            for kind, colour, marker in (("A", "#0072b2", "o"), ("B", "#d55e00", "^")):
                if (target, kind) not in rows:
                    continue
                true, predicted = results.scatter(target, NET, model=kind)
                low = min(low, true.min(), predicted.min())
                high = max(high, true.max(), predicted.max())
                label = f"{kind}: R² {rows[target, kind][NET].r2:.2f}"
                panel.plot(
                    true, predicted, marker, color=colour, ms=2.2, alpha=0.45, mew=0, label=label, rasterized=True
                )  # fmt: skip
            edge = 0.04 * (high - low)
            limits = (low - edge, high + edge)
            panel.plot(limits, limits, "-", color="0.5", linewidth=0.8, zorder=0)
            panel.set(xlim=limits, ylim=limits, aspect="equal")
            panel.set_title(units(target, unit[target]), fontsize=9)
            panel.legend(fontsize=7, loc="upper left", frameon=False, handletextpad=0.1, borderpad=0.1)
        for panel in panels.ravel()[len(targets) :]:
            panel.set_axis_off()
        figure.supxlabel("computed", fontsize=9)
        figure.supylabel("predicted for molecules not trained on", fontsize=9)
        return figure


def _r2_figure(rows: Rows, kinds: list[str]) -> Figure:
    targets = list(dict.fromkeys(t for t, _ in rows))
    figure, panels = canvas(1, len(kinds), 3.8, 0.32 * len(targets) + 1.3, sharey=True)
    for panel, kind in zip(panels[0], kinds, strict=True):
        for place, target in enumerate(targets):
            if (target, kind) not in rows:
                continue
            row = rows[target, kind]
            net = row[NET].metrics
            panel.plot(
                [net["r2_low"], net["r2_high"]],
                [place, place],
                "-",
                color=COLOURS[NET],
                linewidth=3,
                alpha=0.35,
            )
            for method, cell in row.items():
                panel.plot(
                    max(cell.r2, -0.3), place, MARKERS[method], color=COLOURS[method], ms=6 if method == NET else 5,
                    mfc=COLOURS[method] if method in (NET, "mean") else "none",
                    label=METHODS[method] if place == 0 else None,
                )  # fmt: skip
        panel.set_xlim(-0.35, 1.02)
        panel.grid(axis="x", color="0.9")
        panel.set_title(
            f"Model-{kind}: spectrum" + (" alone" if kind == "A" else " and N/C, O/C, F/C"), fontsize=9
        )
        panel.set_xlabel("R² of test molecules (below -0.3 drawn there)", fontsize=8)
    panels[0, 0].set_yticks(range(len(targets)), targets, fontsize=8)
    panels[0, 0].invert_yaxis()
    legend_below(figure, panels[0, 0], 6)
    return figure
