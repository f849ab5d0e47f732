"""What more molecules would bring: training on growing parts of the same molecules, each part inside the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from htxas.campaign.yamlfile import Lines
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.network import Network
from htxas.learn.runs.network_section import network_of
from htxas.learn.runs.spec import RunSpec, Subset
from htxas.learn.studies.figures import COLOURS, MARKERS, canvas, legend_below
from htxas.learn.studies.file import Folds, Fraction, StudyFile, kinds_of
from htxas.learn.studies.results import METHODS, NET, Cell, Results, best_baseline
from htxas.learn.studies.study import Planned, Report, Table, askable, folds_of, repeat
from htxas.learn.studies.words import compared, found_in, listed, shown, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LearningCurve", "LearningCurveFile"]

Rows = dict[tuple[str, str, float], dict[str, Cell]]  # (target, kind, fraction) -> method -> cell
_STILL = 0.02


class LearningCurveFile(StudyFile):
    """``study: learning_curve``."""

    models: list[str] = Field(default=[ModelKind.A.value], min_length=1)
    folds: Folds = 0
    fractions: list[Fraction] = Field(default=[0.1, 0.2, 0.4, 0.7, 1.0], min_length=2)

    def build(self, lines: Lines) -> LearningCurve:
        """Return the study."""
        if sorted(set(self.fractions)) != self.fractions:
            raise lines.error(("fractions",), "must grow")
        network = network_of(self.network, lines, ("network",))
        kinds = kinds_of(self.models, lines)
        return LearningCurve(
            tuple(self.targets), kinds, network, self.folds, tuple(self.seeds), tuple(self.fractions)
        )


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """One run per model kind, fraction of the training molecules, fold and seed."""

    targets: tuple[str, ...]
    kinds: tuple[ModelKind, ...]
    network: Network
    folds: int
    seeds: tuple[int, ...]
    fractions: tuple[float, ...]

    def plan(self, dataset: Dataset) -> list[Planned]:
        """Return the runs."""
        planned = []
        for kind in self.kinds:
            if not (targets := askable(self.targets, kind)):
                continue
            for fraction in self.fractions:
                part = None if fraction == 1.0 else Subset(fraction)
                for fold in folds_of(self.folds):
                    for seed in self.seeds:
                        spec = RunSpec(dataset.key, targets, kind, self.network, seed, fold=fold, train=part)
                        axes = {"model": kind.value, "fraction": fraction, **repeat(spec)}
                        planned.append(Planned(spec, axes))
        return planned

    def report(self, dataset: Dataset, results: Results) -> Report:
        """Return R^2 by number of training molecules, and whether it still grows."""
        kinds = results.values("model")
        rows: Rows = {
            (t, k, f): results.row(t, model=k, fraction=f)
            for t in self.targets
            for k in kinds
            if t in askable(self.targets, ModelKind(k))
            for f in self.fractions
        }
        counts = {
            f: float(np.mean([c["molecules"]["train"] for c in results.cards_at(fraction=f)]))
            for f in self.fractions
        }
        first, last = self.fractions[0], self.fractions[-1]
        before = self.fractions[-2]
        words = [found_in(dataset), self._repeats(results)]
        for kind in kinds:
            names = [t for t, k, f in rows if k == kind and f == last]
            grown = [
                f"{t} {rows[t, kind, first][NET].r2:.2f} to {rows[t, kind, last][NET].r2:.2f}" for t in names
            ]
            words.append(
                f"From {counts[first]:.0f} to {counts[last]:.0f} training molecules the R² of Model-{kind} goes: "
                + "; ".join(grown)
                + "."
            )
            rising = [
                t for t in names if rows[t, kind, last][NET].r2 - rows[t, kind, before][NET].r2 > _STILL
            ]
            words.append(
                f"Between {counts[before]:.0f} and {counts[last]:.0f} it still grows by more than {_STILL} for "
                + (f"{listed(rising)}." if rising else "none of them.")
            )
        words.append(
            f"With {counts[last]:.0f} molecules: "
            + within(compared({f"{t}, inputs {k}": row for (t, k, f), row in rows.items() if f == last}))
        )
        behind = sum(not _ahead(row) for row in rows.values())
        words.append(f"Over all sizes a baseline is ahead in {behind} of {len(rows)} comparisons.")
        words.append(self._crossings(rows, kinds, counts))
        return Report(
            tables=[self._table(results, rows, counts)],
            figures={"learning_curve": self._figure(results, rows, counts)},
            words=[w for w in words if w],
            cells=[cell for row in rows.values() for cell in row.values()],
        )

    def _repeats(self, results: Results) -> str:
        how = f"{self.folds} folds by molecule" if self.folds else "the dataset's own split by molecule"
        seeds = f", {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        tested = sum(c["molecules"]["test"] for c in results.cards_at(
            model=results.values("model")[0], fraction=self.fractions[-1], seed=self.seeds[0]
        ))  # fmt: skip
        return f"Tested on {tested:,} molecules ({how}{seeds}); the validation molecules are the same at every size."

    def _crossings(self, rows: Rows, kinds: list[str], counts: dict[float, float]) -> str:
        found = []
        for kind in kinds:
            for target in dict.fromkeys(t for t, k, _ in rows if k == kind):
                ahead = [f for f in self.fractions if _ahead(rows[target, kind, f])]
                if ahead and ahead != list(self.fractions) and ahead == list(self.fractions)[-len(ahead) :]:
                    found.append(f"{target} ({kind}) from {counts[ahead[0]]:.0f} molecules on")
        return f"The net overtakes every baseline for {listed(found)}." if found else ""

    def _table(self, results: Results, rows: Rows, counts: dict[float, float]) -> Table:
        body = []
        for (target, kind, fraction), row in rows.items():
            low, high = results.spread(target, NET, model=kind, fraction=fraction)
            repeats = f"{low:.2f} to {high:.2f}" if low != high else "-"
            cells = (shown(row[m], row) for m in METHODS)
            body.append((target, kind, f"{counts[fraction]:.0f}", *cells, repeats))
        return Table(
            "R² (mean absolute error) of test molecules by number of training molecules; bold: best of the row",
            ("target", "inputs", "molecules", *METHODS.values(), "net, single repeats"),
            tuple(body),
        )

    def _figure(self, results: Results, rows: Rows, counts: dict[float, float]) -> Figure:
        pairs = list(dict.fromkeys((t, k) for t, k, _ in rows))
        across = min(3, len(pairs))
        figure, panels = canvas(-(-len(pairs) // across), across, 2.8, 2.3)
        x = [counts[f] for f in self.fractions]
        for panel, (target, kind) in zip(panels.ravel(), pairs, strict=False):
            lowest = 0.0
            for method, label in METHODS.items():
                y = [rows[target, kind, f][method].r2 for f in self.fractions]
                strong = method == NET
                panel.plot(
                    x, y, MARKERS[method] + "-", color=COLOURS[method], label=label, ms=4.5 if strong else 3.5,
                    linewidth=1.8 if strong else 1.0, zorder=3 if strong else 2,
                )  # fmt: skip
                if strong:
                    spread = [results.spread(target, NET, model=kind, fraction=f) for f in self.fractions]
                    low, high = np.array(spread).T
                    panel.fill_between(x, low, high, color=COLOURS[NET], alpha=0.15, linewidth=0)
                lowest = min(lowest, *y)
            panel.set_ylim(max(lowest, -0.5) - 0.05, 1.02)
            panel.set_title(f"{target}, inputs {kind}", fontsize=9)
            panel.grid(color="0.92")
            panel.set_xscale("log")
            panel.set_xticks(x, [f"{v:.0f}" for v in x], minor=False)
            panel.minorticks_off()
        for panel in panels.ravel()[len(pairs) :]:
            panel.set_axis_off()
        for panel in panels.ravel()[max(0, len(pairs) - across) : len(pairs)]:
            panel.set_xlabel("training molecules", fontsize=9)
        figure.supylabel("R² of test molecules", fontsize=9)
        legend_below(figure, panels[0, 0], 6)
        return figure


def _ahead(row: dict[str, Cell]) -> bool:
    return row[NET].r2 >= best_baseline(row).r2
