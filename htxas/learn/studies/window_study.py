"""Which part of the spectrum carries what: nets that see a sliding or a growing window only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from htxas.campaign.yamlfile import Lines
from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import Align, ModelKind, Scale
from htxas.learn.nets.network import Network
from htxas.learn.runs.network_section import network_of
from htxas.learn.runs.spec import RunSpec
from htxas.learn.studies.figures import OKABE_ITO, canvas, legend_below
from htxas.learn.studies.file import Folds, StudyFile
from htxas.learn.studies.results import METHODS, NET, Cell, Results, best_baseline
from htxas.learn.studies.study import Planned, Report, Table, folds_of, repeat
from htxas.learn.studies.words import compared, found_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["WindowStudy", "WindowStudyFile"]

_SLIDING, _GROWING, _WHOLE = "sliding", "growing", "whole"
_FEWEST = 5
_ENOUGH = 0.02
Rows = dict[tuple[str, str, int, int], dict[str, Cell]]  # (target, how, first, last) -> method -> cell


class WindowStudyFile(StudyFile):
    """``study: window_study``."""

    folds: Folds = 0
    width_eV: float = Field(default=4.0, gt=0)
    step_eV: float = Field(default=2.0, gt=0)
    growing: bool = True

    def build(self, lines: Lines) -> WindowStudy:
        """Return the study."""
        network = network_of(self.network, lines, ("network",))
        return WindowStudy(
            tuple(self.targets),
            network,
            self.folds,
            tuple(self.seeds),
            self.width_eV,
            self.step_eV,
            self.growing,
        )


@dataclass(frozen=True, slots=True)
class WindowStudy:
    """One run per window, fold and seed, of Model-A.

    Attributes
    ----------
    width_eV, step_eV
        Of the sliding window.
    growing
        Add windows from the dataset's first point to the end of each sliding one.
    """

    targets: tuple[str, ...]
    network: Network
    folds: int
    seeds: tuple[int, ...]
    width_eV: float
    step_eV: float
    growing: bool

    def _windows(self, dataset: Dataset) -> list[tuple[str, int, int]]:
        """Return how, first and last point of every window.

        Raises
        ------
        DatasetError
            If a window would have fewer than five points, or more than there are.
        """
        window = dataset.recipe.window
        width, step = round(self.width_eV / window.step_eV), round(self.step_eV / window.step_eV)
        if width < _FEWEST or width > window.points or step < 1:
            raise DatasetError(
                f"windows of {self.width_eV} eV every {self.step_eV} eV are {width} points every {step}; {_FEWEST} to "
                f"{window.points} points are possible",
                where=str(dataset.path),
                hint="set width_eV and step_eV",
            )
        sliding = [
            (_SLIDING, first, first + width - 1) for first in range(0, window.points - width + 1, step)
        ]
        growing = [(_GROWING, 0, last) for _, _, last in sliding if last < window.points - 1]
        return [*sliding, *(growing if self.growing else []), (_WHOLE, 0, window.points - 1)]

    def plan(self, dataset: Dataset) -> list[Planned]:
        """Return the runs.

        Raises
        ------
        DatasetError
            If spectra have area 1 in the whole window: each part of it would tell what is in the others.
        """
        if dataset.recipe.window.scale is Scale.AREA:
            raise DatasetError(
                "spectra of area 1 carry what lies outside a part of the window into it",
                where=str(dataset.path),
                hint="dataset.window.scale: absolute",
            )
        planned: dict[str, Planned] = {}
        points = dataset.recipe.window.points
        for how, first, last in self._windows(dataset):
            for fold in folds_of(self.folds):
                for seed in self.seeds:
                    spec = RunSpec(
                        dataset.key, self.targets, ModelKind.A, self.network, seed, fold=fold,
                        columns=None if (first, last) == (0, points - 1) else (first, last),
                    )  # fmt: skip
                    axes = {"how": how, "first": first, "last": last, **repeat(spec)}
                    planned.setdefault(spec.key, Planned(spec, axes))
        return list(planned.values())

    def report(self, dataset: Dataset, results: Results) -> Report:
        """Return R^2 by window."""
        places = list(
            dict.fromkeys((p.axes["how"], p.axes["first"], p.axes["last"]) for p in results.planned)
        )
        rows: Rows = {
            (t, str(how), int(str(first)), int(str(last))): results.row(t, first=first, last=last)
            for t in self.targets
            for how, first, last in places
        }
        words = [found_in(dataset), self._who(dataset, results)]
        words += [self._words(dataset, rows, t) for t in self.targets]
        words.append(
            compared(
                {f"{t} at {self._label(dataset, a, b)}": row for (t, _, a, b), row in rows.items()}, most=4
            )
        )
        return Report(
            tables=[self._table(dataset, rows)],
            figures={"windows": self._figure(dataset, rows)},
            words=words,
            cells=[cell for row in rows.values() for cell in row.values()],
        )

    def _who(self, dataset: Dataset, results: Results) -> str:
        counts = results.cards[0]["molecules"]
        anchor = "the first state" if dataset.recipe.window.align is Align.EXCITATION_ENERGY else "zero"
        how = f"{self.folds} folds" if self.folds else f"{counts['test']:,} test molecules"
        return (
            f"Nets of the spectrum alone, trained on {counts['train']:,} molecules ({how}), see windows of "
            f"{self.width_eV:g} eV, counted from {anchor}."
        )

    def _words(self, dataset: Dataset, rows: Rows, target: str) -> str:
        whole = next(r for (t, _, a, b), r in rows.items() if t == target and self._is_whole(dataset, a, b))[
            NET
        ].r2
        sliding = {(a, b): r[NET].r2 for (t, how, a, b), r in rows.items() if t == target and how == _SLIDING}
        first, last = max(sliding, key=lambda w: sliding[w])
        text = (
            f"{target}: R² {whole:.2f} from the whole window, {sliding[first, last]:.2f} from "
            f"{self._label(dataset, first, last)} alone"
        )
        growing = {b: r[NET].r2 for (t, how, _, b), r in rows.items() if t == target and how == _GROWING}
        enough = [b for b, value in growing.items() if value >= whole - _ENOUGH]
        if self.growing and enough:
            text += f", and within {_ENOUGH} of the whole from all below {self._energy(dataset, min(enough)):.1f} eV"
        return text + "."

    def _is_whole(self, dataset: Dataset, first: int, last: int) -> bool:
        return (first, last) == (0, dataset.recipe.window.points - 1)

    def _energy(self, dataset: Dataset, point: int) -> float:
        window = dataset.recipe.window
        return window.start_eV + point * window.step_eV

    def _label(self, dataset: Dataset, first: int, last: int) -> str:
        return f"{self._energy(dataset, first):.1f} to {self._energy(dataset, last):.1f} eV"

    def _table(self, dataset: Dataset, rows: Rows) -> Table:
        places = list(dict.fromkeys((how, a, b) for _, how, a, b in rows))
        body = []
        for how, first, last in places:
            cells = []
            for target in self.targets:
                row = rows[target, how, first, last]
                other = best_baseline(row)
                net, base = f"{row[NET].r2:.2f}", f"{other.r2:.2f} {METHODS[other.method]}"
                net, base = (f"**{net}**", base) if row[NET].r2 >= other.r2 else (net, f"**{base}**")
                cells.append(f"{net} / {base}")
            body.append((how, self._label(dataset, first, last), *cells))
        return Table(
            "R² of test molecules of the net / the best baseline, by the window both see; bold: the better of the two",
            ("window", "energies", *self.targets),
            tuple(body),
        )

    def _figure(self, dataset: Dataset, rows: Rows) -> Figure:
        kinds = [_SLIDING, _GROWING] if self.growing else [_SLIDING]
        figure, panels = canvas(1, len(kinds), 4.0, 3.2, sharey=True)
        window = dataset.recipe.window
        grid_eV = window.start_eV + np.arange(window.points) * window.step_eV
        spectrum = np.asarray(dataset.spectra).mean(axis=0, dtype=np.float64)
        for panel, how in zip(panels[0], kinds, strict=True):
            panel.fill_between(
                grid_eV,
                0,
                0.9 * spectrum / spectrum.max(),
                color="0.9",
                linewidth=0,
                label="mean spectrum (scaled)",
            )
            for i, target in enumerate(self.targets):
                found = {
                    (a, b): r
                    for (t, h, a, b), r in rows.items()
                    if t == target and (h == how or (h == _WHOLE and how == _GROWING))
                }
                x = [self._energy(dataset, b if how == _GROWING else (a + b) // 2) for a, b in found]
                colour = OKABE_ITO[i % len(OKABE_ITO)]
                panel.plot(x, [r[NET].r2 for r in found.values()], "o-", color=colour, ms=3.5, label=target)
                panel.plot(
                    x, [best_baseline(r).r2 for r in found.values()], ":", color=colour, linewidth=1.3,
                    label="best baseline" if i == len(self.targets) - 1 else None,
                )  # fmt: skip
            low = min(r[NET].r2 for r in rows.values())
            panel.set_ylim(max(-0.4, min(0.0, low)) - 0.03, 1.02)
            panel.grid(color="0.93")
            panel.set_axisbelow(True)
            panel.set_xlim(grid_eV[0], grid_eV[-1])
            where = "relative to the first state " if window.align is Align.EXCITATION_ENERGY else ""
            panel.set_xlabel(
                f"{'end' if how == _GROWING else 'middle'} of the window, {where}(eV)", fontsize=8
            )
            title = (
                f"everything from {window.start_eV:g} eV to ..."
                if how == _GROWING
                else f"a window of {self.width_eV:g} eV"
            )
            panel.set_title(title, fontsize=9)
        panels[0, 0].set_ylabel("R² of test molecules", fontsize=8)
        legend_below(figure, panels[0, 0], 5)
        return figure
