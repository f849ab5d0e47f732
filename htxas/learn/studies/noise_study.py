"""Which noise to train on when spectra will be noisy: training dose against test dose, smoothed or not."""

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
from htxas.learn.nets.noise import Noise, smoothing_matrix
from htxas.learn.runs.network_section import network_of
from htxas.learn.runs.spec import RunSpec
from htxas.learn.studies.figures import canvas, heat_map
from htxas.learn.studies.file import StudyFile
from htxas.learn.studies.results import METHODS, NET, Cell, Results, best_baseline
from htxas.learn.studies.study import Planned, Report, Table, repeat
from htxas.learn.studies.words import compared, found_in, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NoiseStudy", "NoiseStudyFile"]

_Dose = Annotated[float, Field(gt=0)]
_CLEAN = "clean"
_RANGE = "all doses"
_STANDS = 0.1  # of R^2: what a net may lose and still be said to stand a dose
Where = tuple[str, float | None, float | None]  # target, smoothing, test dose


class NoiseStudyFile(StudyFile):
    """``study: noise_study``."""

    model: str = ModelKind.A.value
    train_counts: list[_Dose] = Field(min_length=1)
    test_counts: list[_Dose] = Field(min_length=1)
    smoothing_eV: list[_Dose] = Field(default=[])
    conditioned: bool = True

    def build(self, lines: Lines) -> NoiseStudy:
        """Return the study."""
        for key in ("train_counts", "test_counts", "smoothing_eV"):
            if sorted(set(getattr(self, key))) != getattr(self, key):
                raise lines.error((key,), "must grow")
        if self.conditioned and len(self.train_counts) < 2:
            raise lines.error(("conditioned",), "needs two or more train_counts: the range of its doses")
        for i, width in enumerate(self.smoothing_eV):
            try:
                smoothing_matrix(width, self.dataset.window.step_eV, self.dataset.window.points)
            except DatasetError as error:
                raise lines.error(("smoothing_eV", i), error.message, error.hint) from None
        if self.model not in [k.value for k in ModelKind]:
            raise lines.error(("model",), f"{self.model!r} is not one of A, B")
        return NoiseStudy(
            tuple(self.targets), ModelKind(self.model), network_of(self.network, lines, ("network",)),
            tuple(self.seeds), tuple(self.train_counts), tuple(self.test_counts), tuple(self.smoothing_eV),
            self.conditioned,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NoiseStudy:
    """One run per training dose and seed, tested with every dose, smoothed and not.

    Attributes
    ----------
    targets
        Numbers, learned together in one batched product; or one curve.
    train_counts, test_counts
        Expected counts at the spectrum's maximum; without noise is added to both.
    smoothing_eV
        Widths of Savitzky-Golay filters on the test spectra only; none is added.
    conditioned
        Add a net that is trained over all training doses and told each spectrum's.
    """

    targets: tuple[str, ...]
    kind: ModelKind
    network: Network
    seeds: tuple[int, ...]
    train_counts: tuple[float, ...]
    test_counts: tuple[float, ...]
    smoothing_eV: tuple[float, ...]
    conditioned: bool

    @property
    def _smoothings(self) -> tuple[float | None, ...]:
        return (None, *self.smoothing_eV)

    def plan(self, dataset: Dataset) -> list[Planned]:
        """Return the runs."""
        from dataclasses import replace

        tests = tuple(
            Noise(dose, None, width)
            for width in self._smoothings
            for dose in (*self.test_counts, None)
            if not (dose is None and width is None)
        )
        trainings: dict[str, tuple[Noise | None, Network]] = {
            **{f"{dose:g}": (Noise(dose), self.network) for dose in self.train_counts},
            _CLEAN: (None, self.network),
        }
        if self.conditioned:
            span = Noise(self.train_counts[0], self.train_counts[-1])
            trainings[_RANGE] = (span, replace(self.network, noise_conditioned=True))
        planned = []
        for name, (noise, network) in trainings.items():
            for seed in self.seeds:
                spec = RunSpec(
                    dataset.key, self.targets, self.kind, network, seed, noise=noise, test_noise=tests
                )
                planned.append(Planned(spec, {"train_counts": name, **repeat(spec)}))
        return planned

    def report(self, dataset: Dataset, results: Results) -> Report:
        """Return the guideline maps and what to train on for each dose."""
        rows: dict[Where, dict[str, dict[str, Cell]]] = {}  # -> training dose -> method -> cell
        trainings = results.values("train_counts")
        for target in self.targets:
            for width in self._smoothings:
                for dose in (*self.test_counts, None):
                    noise = None if dose is None and width is None else Noise(dose, None, width)
                    rows[target, width, dose] = {
                        t: results.row(target, noise=noise, train_counts=t) for t in trainings
                    }
        words = [found_in(dataset), self._who(results)]
        for target in self.targets:
            words += self._words(target, rows)
        best = {
            f"{target} at {_dose(dose)}": _champions(row)
            for (target, width, dose), row in rows.items()
            if width is None
        }
        ranges = [c[NET].metrics for row in rows.values() for c in row.values()]
        luck = np.mean([m["r2_high"] - m["r2_low"] for m in ranges]) / 2
        words.append(
            f"The range of a single R² (5-95%, bootstrap over test molecules) is ±{luck:.2f} on average."
        )
        words.append("Each method taken at its own best training dose: " + within(compared(best)))
        return Report(
            tables=[self._table(rows)],
            figures={f"guideline-{t}": self._map(t, rows, trainings) for t in self.targets},
            words=words,
            cells=[
                _placed(cell, dose, width)
                for (_, width, dose), row in rows.items()
                for cells in row.values()
                for cell in cells.values()
            ],
        )

    def _who(self, results: Results) -> str:
        counts = results.cards[0]["molecules"]
        return (
            f"Poisson noise, doses in expected counts at a spectrum's maximum; {counts['train']:,} molecules trained "
            f"on (nets: noise drawn anew in every epoch; baselines: one draw), {counts['test']:,} tested."
        )

    def _words(self, target: str, rows: dict[Where, dict[str, dict[str, Cell]]]) -> list[str]:
        def net(dose: float | None, training: str, width: float | None = None) -> float:
            return rows[target, width, dose][training][NET].r2

        clean = net(None, _CLEAN)
        stands = [d for d in self.test_counts if clean - net(d, _CLEAN) <= _STANDS]
        above = [d for d in stands if all(e in stands for e in self.test_counts if e > d)]
        said = [
            f"{target}: a net trained without noise (R² {clean:.2f} on clean spectra) loses less than {_STANDS} "
            + (f"only from {above[0]:g} counts up" if above else "at none of the test doses")
            + f"; at a dose of {self.test_counts[0]:g} it has R² {net(self.test_counts[0], _CLEAN):.2f}."
        ]
        named = [f"{d:g}" for d in self.train_counts] + [_CLEAN]
        for width in self._smoothings:
            best = {d: max(named, key=lambda t, d=d, w=width: net(d, t, w)) for d in self.test_counts}  # type: ignore[misc]
            how = "without smoothing" if width is None else f"smoothed over {width:g} eV"
            said.append(
                f"Best training dose for {target}, test spectra {how}: "
                + ", ".join(f"{b} for {d:g} (R² {net(d, b, width):.2f})" for d, b in best.items())
                + "."
            )
        if self.conditioned:
            lost = [max(net(d, t) for t in named) - net(d, _RANGE) for d in self.test_counts]
            said.append(
                f"One net trained over all doses and told each spectrum's loses at most {max(max(lost), 0):.2f} of R² "
                "to the best of those trained at one dose."
            )
        return said

    def _table(self, rows: dict[Where, dict[str, dict[str, Cell]]]) -> Table:
        body = []
        for (target, width, dose), row in rows.items():
            nets = {t: c[NET].r2 for t, c in row.items() if t != _RANGE}
            best = max(nets, key=lambda t: nets[t])
            other = best_baseline(_champions(row))
            told = f"{row[_RANGE][NET].r2:.2f}" if self.conditioned else "-"
            numbers = [f"{nets[best]:.2f}", f"{nets[_CLEAN]:.2f}", told, f"{other.r2:.2f}"]
            values = [float("-inf") if n == "-" else float(n) for n in numbers]
            numbers[int(np.argmax(values))] = f"**{numbers[int(np.argmax(values))]}**"
            smoothed = "-" if width is None else f"{width:g} eV"
            numbers[3] += f" ({METHODS[other.method]}, {other.axes['train_counts']})"
            body.append((target, smoothed, _dose(dose), best, *numbers))
        return Table(
            "R² of test molecules: the best net, its training dose, the net trained without noise, the one trained "
            "over all doses and told them, the best baseline and its training dose; bold: best of the row",
            (
                "target",
                "smoothed",
                "test dose",
                "best trained at",
                "net",
                "net, clean",
                "net, all doses",
                "baseline",
            ),
            tuple(body),
        )

    def _map(
        self, target: str, rows: dict[Where, dict[str, dict[str, Cell]]], trainings: list[str]
    ) -> Figure:
        doses = (*self.test_counts, None)
        values: list[npt.NDArray[np.float64]] = [
            np.array([[rows[target, width, d][t][NET].r2 for d in doses] for t in trainings])
            for width in self._smoothings
        ]
        low, top = min(v.min() for v in values), max(v.max() for v in values)
        figure, panels = canvas(
            1, len(values), 0.42 * len(doses) + 0.7, 0.32 * len(trainings) + 1.3, sharey=True
        )
        for panel, width, shown in zip(panels[0], self._smoothings, values, strict=True):
            image = heat_map(
                panel,
                shown,
                rows=trainings,
                columns=[_short(d) for d in doses],
                limits=(max(0.0, low), top),
            )
            title = "test spectra as they are" if width is None else f"smoothed over {width:g} eV"
            panel.set_title(title, fontsize=9)
        bar = figure.colorbar(image, ax=panels[0, -1], fraction=0.06, extend="min" if low < 0 else "neither")
        bar.set_label(f"R² of {target}", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        figure.supxlabel(
            "dose of test spectra (counts at the maximum); frame: best training for it", fontsize=9
        )
        panels[0, 0].set_ylabel("dose of training spectra", fontsize=9)
        return figure


def _champions(row: dict[str, dict[str, Cell]]) -> dict[str, Cell]:
    """Return each method's best cell over the training doses."""
    return {m: max((cells[m] for cells in row.values()), key=lambda c: c.r2) for m in METHODS}


def _dose(dose: float | None) -> str:
    return _CLEAN if dose is None else f"{dose:g} counts"


def _short(dose: float | None) -> str:
    return _CLEAN if dose is None else f"{dose:g}"


def _placed(cell: Cell, dose: float | None, width: float | None) -> Cell:
    axes = {**cell.axes, "test_counts": dose, "smoothing_eV": width}
    return Cell(axes, cell.target, cell.method, cell.metrics, cell.runs)
