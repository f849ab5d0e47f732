"""From small molecules to larger ones: whether all smaller ones or those nearest in size are better to train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from htxas.campaign.yamlfile import Lines
from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.network import Network
from htxas.learn.runs.network_section import network_of
from htxas.learn.runs.spec import RunSpec, Subset
from htxas.learn.studies.figures import COLOURS, MARKERS, canvas, legend_below
from htxas.learn.studies.file import StudyFile, kinds_of
from htxas.learn.studies.results import METHODS, NET, Cell, Results, best_baseline
from htxas.learn.studies.study import Planned, Report, Table, askable, repeat
from htxas.learn.studies.words import compared, found_in, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SizeExtrapolation", "SizeExtrapolationFile"]

_LARGE = 10_000  # more atoms than any molecule here has
_INSIDE = "same sizes"
Rows = dict[tuple[str, str, str], dict[str, Cell]]  # (target, kind, training set) -> method -> cell


class SizeExtrapolationFile(StudyFile):
    """``study: size_extrapolation``."""

    models: list[str] = Field(default=[ModelKind.A.value], min_length=1)
    count: str = "atoms"
    test_from: int | None = Field(default=None, ge=2)
    test_share: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    nearest: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 3])

    def build(self, lines: Lines) -> SizeExtrapolation:
        """Return the study."""
        if self.count not in ("atoms", "heavy_atoms"):
            raise lines.error(("count",), f"{self.count!r} is not one of atoms, heavy_atoms")
        if sorted(set(self.nearest)) != self.nearest:
            raise lines.error(("nearest",), "must grow")
        return SizeExtrapolation(
            tuple(self.targets), kinds_of(self.models, lines), network_of(self.network, lines, ("network",)),
            tuple(self.seeds), self.count, self.test_from, self.test_share, tuple(self.nearest),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Sizes:
    """A training set: molecules of ``low`` to ``high`` atoms, or a part of them."""

    label: str
    low: int
    high: int
    fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class SizeExtrapolation:
    """One run per training set, model kind and seed, all tested on all molecules of ``test_from`` atoms or more.

    Training sets: all smaller molecules; those of the ``nearest`` sizes below; and, for each of these, as many drawn
    from all smaller ones, which tells nearness from number. Chen et al. (2023) found the nearest three sizes best.

    Attributes
    ----------
    count
        ``atoms`` or ``heavy_atoms``.
    test_from
        None: so that about ``test_share`` of the molecules are that large.
    nearest
        Numbers of sizes.
    """

    targets: tuple[str, ...]
    kinds: tuple[ModelKind, ...]
    network: Network
    seeds: tuple[int, ...]
    count: str
    test_from: int | None
    test_share: float
    nearest: tuple[int, ...]

    def _limit(self, dataset: Dataset) -> int:
        """Return the smallest size that is tested."""
        if self.test_from is not None:
            return self.test_from
        size_of = dict(zip(dataset.groups, self._sizes(dataset).tolist(), strict=True))
        sizes = np.array(list(size_of.values()))
        return max(int(n) for n in np.unique(sizes) if (sizes >= n).mean() >= self.test_share)

    @property
    def _unit(self) -> str:
        """What is counted, in words."""
        return self.count.replace("_", " ")

    def _sizes(self, dataset: Dataset) -> npt.NDArray[np.int16]:
        return np.asarray(getattr(dataset, self.count))

    def _subset(self, low: int, high: int, *, fraction: float = 1.0, every_side: bool = False) -> Subset:
        limits = (low, high)
        if self.count == "atoms":
            return Subset(fraction, atoms=limits, every_side=every_side)
        return Subset(fraction, heavy_atoms=limits, every_side=every_side)

    def _training_sets(self, dataset: Dataset) -> list[_Sizes]:
        limit = self._limit(dataset)
        size_of = dict(zip(dataset.groups, self._sizes(dataset).tolist(), strict=True))
        sizes = np.array(list(size_of.values()))
        below = sizes[sizes < limit]
        if not len(below) or not (sizes >= limit).any():
            raise DatasetError(
                f"there are no molecules below or none from {limit} {self.count} up", where=str(dataset.path),
                hint=f"sizes go from {sizes.min()} to {sizes.max()}: set test_from",
            )  # fmt: skip
        smallest, largest = int(below.min()), int(below.max())
        whole = f"{smallest} to {largest}"
        sets = [_Sizes(whole, smallest, largest)]
        for width in self.nearest:
            low = largest + 1 - width
            share = float((below >= low).mean())
            if low <= smallest or share == 0:
                continue
            label = f"{low} to {largest}" if width > 1 else f"{low}"
            sets.append(_Sizes(label, low, largest))
            sets.append(_Sizes(_as_many(whole, label), smallest, largest, round(share, 4)))
        return sets

    def plan(self, dataset: Dataset) -> list[Planned]:
        """Return the runs."""
        large = self._subset(self._limit(dataset), _LARGE, every_side=True)
        sets = self._training_sets(dataset)
        whole = sets[0]
        planned = []
        for kind in self.kinds:
            if not (targets := askable(self.targets, kind)):
                continue
            for seed in self.seeds:
                for s in sets:
                    train = self._subset(s.low, s.high, fraction=s.fraction)
                    spec = RunSpec(
                        dataset.key, targets, kind, self.network, seed, train=train,
                        test=large,
                    )  # fmt: skip
                    planned.append(
                        Planned(spec, {"model": kind.value, "trained_on": s.label, **repeat(spec)})
                    )
                inside = self._subset(whole.low, whole.high)
                spec = RunSpec(dataset.key, targets, kind, self.network, seed, train=inside, test=inside)
                planned.append(Planned(spec, {"model": kind.value, "trained_on": _INSIDE, **repeat(spec)}))
        return planned

    def report(self, dataset: Dataset, results: Results) -> Report:
        """Return the error on larger molecules by training set."""
        sets = [v for v in results.values("trained_on") if v != _INSIDE]
        kinds = results.values("model")
        rows: Rows = {
            (t, k, s): results.row(t, model=k, trained_on=s)
            for k in kinds
            for t in askable(self.targets, ModelKind(k))
            for s in (*sets, _INSIDE)
        }
        limit = self._limit(dataset)
        tested = results.cards_at(trained_on=sets[0])[0]["molecules"]["test"]
        unit = self._unit
        words = [
            found_in(dataset),
            f"Tested on all {tested:,} molecules of {limit} to {self._sizes(dataset).max()} {unit}, none of that size "
            "trained on.",
        ]
        pairs = list(dict.fromkeys((t, k) for t, k, _ in rows))
        for target, kind in pairs:
            words.append(self._verdict(results, rows, target, kind, sets))
        outside = {f"{t}, inputs {k}, trained on {s}": r for (t, k, s), r in rows.items() if s != _INSIDE}
        words.append(compared(outside, most=4))
        return Report(
            tables=[self._table(results, rows)],
            figures={"sizes": self._figure(results, rows, pairs, sets, limit)}
            | self._by_size(dataset, results, rows, pairs, sets[0]),
            words=words,
            cells=[cell for row in rows.values() for cell in row.values()],
        )

    def _verdict(self, results: Results, rows: Rows, target: str, kind: str, sets: list[str]) -> str:
        rmse = {s: rows[target, kind, s][NET].metrics["rmse"] for s in sets}
        best = min(sets, key=lambda s: rmse[s])
        unit = _unit(results, target)
        inside = rows[target, kind, _INSIDE][NET].metrics["rmse"]
        control = _as_many(sets[0], best)
        text = (
            f"{target} (inputs {kind}): root mean squared error {rmse[sets[0]]:.3g}{unit} trained on {sets[0]} "
            f"{self._unit}, against {inside:.3g}{unit} on unseen molecules of the sizes trained on; the best training "
            f"set is {best} ({rmse[best]:.3g}{unit}"
        )
        return text + (f"; as many of all sizes: {rmse[control]:.3g}{unit})." if control in rmse else ").")

    def _table(self, results: Results, rows: Rows) -> Table:
        body = []
        for (target, kind, label), row in rows.items():
            cards = results.cards_at(model=kind, trained_on=label)
            covered = results.coverage(target, model=kind, trained_on=label)
            body.append(
                (
                    target, kind, label, f"{cards[0]['molecules']['train']:,}", f"{cards[0]['molecules']['test']:,}",
                    *(shown(row[m], row, "rmse") for m in METHODS), "-" if covered is None else f"{covered:.0%}",
                )
            )  # fmt: skip
        return Table(
            f"R² (root mean squared error) on larger molecules, by the sizes ({self.count.replace('_', ' ')}) trained "
            f"on; “{_INSIDE}”: unseen molecules of all smaller sizes, for comparison; bold: best of the row",
            (
                "target",
                "inputs",
                "trained on",
                "molecules",
                "tested",
                *METHODS.values(),
                "90% interval holds",
            ),
            tuple(body),
        )

    def _figure(
        self, results: Results, rows: Rows, pairs: list[tuple[str, str]], sets: list[str], limit: int
    ) -> Figure:
        labels = [*sets, _INSIDE]
        figure, panels = canvas(1, len(pairs), 2.7, 0.34 * len(labels) + 1.2, sharey=True)
        for panel, (target, kind) in zip(panels[0], pairs, strict=True):
            for place, label in enumerate(labels):
                for method, cell in rows[target, kind, label].items():
                    panel.plot(
                        cell.metrics["rmse"], place, MARKERS[method], color=COLOURS[method],
                        ms=7 if method == NET else 5, mfc=COLOURS[method] if method in (NET, "mean") else "none",
                        label=METHODS[method] if place == 0 else None, zorder=3 if method == NET else 2,
                    )  # fmt: skip
            panel.axhline(len(sets) - 0.5, color="0.7", linewidth=0.8, linestyle=":")
            panel.set_title(f"{target}, inputs {kind}", fontsize=9)
            panel.set_xlabel(f"RMSE{_unit(results, target, brackets=True)}", fontsize=8)
            panel.set_xlim(left=0)
            panel.grid(axis="x", color="0.9")
        panels[0, 0].set_yticks(range(len(labels)), labels, fontsize=8)
        panels[0, 0].invert_yaxis()
        panels[0, 0].set_ylabel(
            f"trained on ({self.count.replace('_', ' ')}); tested on {limit} or more", fontsize=8
        )
        legend_below(figure, panels[0, 0], 6)
        return figure

    def _by_size(
        self, dataset: Dataset, results: Results, rows: Rows, pairs: list[tuple[str, str]], whole: str
    ) -> dict[str, Figure]:
        """Return how errors of numbers grow with size, trained on all smaller molecules; nothing of curves."""
        if results.cards[0]["targets"][pairs[0][0]]["kind"] == "curve":
            return {}
        size_of = dict(zip(dataset.ids, self._sizes(dataset).tolist(), strict=True))
        figure, panels = canvas(1, len(pairs), 2.7, 2.4)
        for panel, (target, kind) in zip(panels[0], pairs, strict=True):
            best = best_baseline(rows[target, kind, whole]).method
            for label, marker, fill in ((_INSIDE, "o", "none"), (whole, "o", None)):
                sizes = np.array([size_of[i] for i in results.ids(model=kind, trained_on=label)])
                for method in (best, NET):
                    true, predicted = results.scatter(target, method, model=kind, trained_on=label)
                    error, colour = np.abs(predicted - true), COLOURS[method]
                    if method == NET:
                        face = colour if fill is None else fill
                        panel.plot(sizes, error, marker, color=colour, ms=3, mfc=face, mew=0.6, alpha=0.6)
                    there = np.unique(sizes)
                    rms = [float(np.sqrt((error[sizes == n] ** 2).mean())) for n in there]
                    name = f"RMS error of {METHODS[method]}" if label == whole else None
                    panel.plot(there, rms, "-" if label == whole else ":", color=colour, lw=1.4, label=name)
            panel.set_title(f"{target}, inputs {kind}", fontsize=9)
            panel.set_xlabel(self._unit, fontsize=8)
            panel.set_ylabel(f"absolute error{_unit(results, target, brackets=True)}", fontsize=8)
            panel.set_ylim(bottom=0)
            panel.grid(color="0.93")
            panel.legend(fontsize=7, frameon=False)
        figure.suptitle(
            f"filled, full lines: larger than anything trained on ({whole}); open, dotted: {_INSIDE}",
            fontsize=8,
        )
        return {"by_size": figure}


def _as_many(whole: str, part: str) -> str:
    """Return the label of as many molecules of all smaller sizes as there are of some."""
    return f"{whole} (as many as {part})"


def _unit(results: Results, target: str, *, brackets: bool = False) -> str:
    unit = str(results.cards[0]["targets"][target]["unit"]).split(" (")[0]
    if unit == "1":
        return ""
    return f" ({unit})" if brackets else f" {unit}"
