"""Finished runs of a study: found by their axes, repeats pooled, baselines beside the nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.errors import InternalError
from htxas.learn.nets.baselines import BASELINES
from htxas.learn.nets.metrics import Bootstrap, score
from htxas.learn.nets.noise import Noise
from htxas.learn.runs.run import TEST
from htxas.learn.runs.spec import folder_name
from htxas.learn.studies.study import Axis, Planned

__all__ = ["METHODS", "NET", "Cell", "Results", "best_baseline"]

FloatArray = npt.NDArray[np.float64]
Card = Mapping[str, Any]

NET = "net"
METHODS: dict[str, str] = {**BASELINES, NET: "net"}
"""Methods and how tables call them: baselines first."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a study with its range, and all that belongs to it.

    Attributes
    ----------
    axes
        What was varied, but for repeats.
    target, method
        Of what, by what.
    metrics
        Means over repeats; of folds all test rows pooled where their values are known.
    runs
        Keys of the runs.
    """

    axes: Mapping[str, Axis]
    target: str
    method: str
    metrics: Mapping[str, float]
    runs: tuple[str, ...]

    @property
    def r2(self) -> float:
        """R^2."""
        return self.metrics["r2"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return {
            **self.axes, "target": self.target, "method": self.method, **self.metrics, "runs": list(self.runs),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Planned runs and their cards, in the same order; and the folder of all runs."""

    planned: Sequence[Planned]
    cards: Sequence[Card]
    runs_dir: Path

    def cards_at(self, **axes: Axis) -> list[Card]:
        """Return the cards of the runs that stand there."""
        pairs = zip(self.planned, self.cards, strict=True)
        return [card for plan, card in pairs if all(plan.axes[k] == v for k, v in axes.items())]

    def values(self, axis: str) -> list[Any]:
        """Return the values of an axis, in the order of the runs."""
        return list(dict.fromkeys(plan.axes[axis] for plan in self.planned))

    def cell(self, target: str, method: str, *, noise: Noise | None = None, **axes: Axis) -> Cell:
        """Return what a method makes of a target, repeats pooled.

        Parameters
        ----------
        noise
            On the test spectra: one of the runs' ``test_noise``.
        axes
            Where the runs stand.
        """
        cards = self.cards_at(**axes)
        if not cards:
            raise InternalError(f"no run stands at {axes}")
        seeds = list(dict.fromkeys(c["spec"]["seed"] for c in cards))
        parts = [_folds([c for c in cards if c["spec"]["seed"] == s], target, method, noise) for s in seeds]
        metrics = {name: float(np.mean([p[name] for p in parts])) for name in parts[0]}
        return Cell(axes, target, method, metrics, tuple(str(c["key"]) for c in cards))

    def row(self, target: str, *, noise: Noise | None = None, **axes: Axis) -> dict[str, Cell]:
        """Return the cells of all methods."""
        return {m: self.cell(target, m, noise=noise, **axes) for m in METHODS}

    def spread(self, target: str, method: str, metric: str = "r2", **axes: Axis) -> tuple[float, float]:
        """Return the smallest and the largest value of a metric among repeats."""
        values = [c["targets"][target]["metrics"][method][metric] for c in self.cards_at(**axes)]
        return min(values), max(values)

    def coverage(self, target: str, **axes: Axis) -> float | None:
        """Return the coverage of the net's 90% intervals, the mean over repeats; None where one has no intervals."""
        found = [c["targets"][target]["interval"]["coverage"] for c in self.cards_at(**axes)]
        return None if None in found else float(np.mean(found))

    def ids(self, **axes: Axis) -> list[str]:
        """Return the names of all test rows, in the order of :meth:`scatter`."""
        return [i for card in self.cards_at(**axes) for i in card["test"]["ids"]]

    def scatter(self, target: str, method: str, **axes: Axis) -> tuple[FloatArray, FloatArray]:
        """Return true and predicted values of all test rows, shapes (n,); each once per seed and fold."""
        cards = self.cards_at(**axes)
        true = np.concatenate([c["test"]["true"][target] for c in cards])
        return true, np.concatenate([c["test"]["predicted"][target][method] for c in cards])

    def curves(self, card: Card) -> dict[str, FloatArray]:
        """Return ``true``, ``predicted`` and ``half_width`` of a curve's test rows, shape (n, m)."""
        from safetensors.numpy import load_file

        arrays = load_file(self.runs_dir / folder_name(card["name"], card["key"]) / TEST)
        return {name: a.astype(np.float64) for name, a in arrays.items()}


def _folds(cards: Sequence[Card], target: str, method: str, noise: Noise | None) -> dict[str, float]:
    """Return the metrics of runs that differ in their fold only."""
    if len(cards) > 1 and noise is None and cards[0]["targets"][target]["kind"] == "scalar":
        true = np.concatenate([c["test"]["true"][target] for c in cards])
        predicted = np.concatenate([c["test"]["predicted"][target][method] for c in cards])
        bootstrap = Bootstrap.of([m for c in cards for m in c["test"]["molecules"]])
        return score(true, predicted, bootstrap)
    found = [_metrics(c["targets"][target], method, noise) for c in cards]
    weights = [c["counts"]["test"] for c in cards]
    return {name: float(np.average([f[name] for f in found], weights=weights)) for name in found[0]}


def _metrics(target: Card, method: str, noise: Noise | None) -> Mapping[str, float]:
    if noise is None:
        return dict(target["metrics"][method])
    wanted = noise.to_dict()
    return dict(next(n for n in target["noisy"] if n["noise"] == wanted)["metrics"][method])


def best_baseline(row: Mapping[str, Cell]) -> Cell:
    """Return the baseline with the largest R^2."""
    return max((row[m] for m in BASELINES if m in row), key=lambda c: c.r2)
