"""Does a choice beat chance? Part of a dataset is hidden and computed again in the order each strategy asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.choose.differences import Difference, over_repeats
from htxas.learn.choose.forest import Forest
from htxas.learn.choose.known import Known
from htxas.learn.choose.strategies import Strategy, by_diversity, by_uncertainty

__all__ = [
    "ERRORS",
    "Curves",
    "Plan",
    "curve_plot",
    "errors",
    "markdown",
    "run_study",
    "squared_errors",
    "verdicts",
    "write_report",
]

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

ERRORS: dict[str, str] = {
    "structure_spectrum": "structure -> spectrum, by the trees that choose (fitted with another seed)",
    "structure_spectrum_kernel": "structure -> spectrum, by kernel ridge regression, which had no say in the choice",
    "structure_energy": "structure -> excitation energy, by those trees",
    "spectrum_property": "spectrum -> property, by ridge regression on 20 principal components, root mean square over",
}
"""What is measured on the test molecules: root mean square errors, in units of the spread over the whole dataset."""

_ENERGY = "excitation_energy"
_SPECTRUM_COMPONENTS = 20
_MOST_STEPS = 8
_ALPHAS = tuple(10.0**e for e in np.arange(-3.0, 3.5, 0.5))


@dataclass(frozen=True, slots=True)
class Plan:
    """How the study is done.

    Attributes
    ----------
    start, step, steps
        Molecules computed at first, chosen at once, and how many times; None: as often as they last, but at most eight.
    test
        Fraction of the molecules kept for the test: the same for all strategies of a repeat.
    repeats
        With other test, start and hidden molecules.
    properties
        What is predicted from the spectrum.
    seed
        Of everything.
    """

    start: int = 100
    step: int = 50
    steps: int | None = None
    test: float = 0.25
    repeats: int = 10
    properties: tuple[str, ...] = ("gap", "lumo")
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What came out.

    Attributes
    ----------
    plan
        How it was done.
    molecules, test
        Of the dataset, and in the test.
    sizes
        Numbers of training molecules, shape (k,).
    errors
        Strategy -> error (:data:`ERRORS`) -> shape (repeats, k).
    differences
        Strategy other than random -> error -> difference from random choice.
    """

    plan: Plan
    molecules: int
    test: int
    sizes: tuple[int, ...]
    errors: dict[str, dict[str, FloatArray]]
    differences: dict[str, dict[str, Difference]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        values = {s: {e: v.tolist() for e, v in by.items()} for s, by in self.errors.items()}
        differences = {s: {e: d.to_dict() for e, d in by.items()} for s, by in self.differences.items()}
        return {
            "plan": asdict(self.plan),
            "molecules": self.molecules,
            "test": self.test,
            "sizes": list(self.sizes),
            "errors": values,
            "differences_from_random": differences,
        }


def run_study(known: Known, plan: Plan, on_done: Callable[[], None] = lambda: None) -> Curves:
    """Draw the learning curves of all strategies.

    Parameters
    ----------
    known
        The dataset, gathered with the targets ``excitation_energy`` and ``plan.properties``, in this order.
    plan
        How.
    on_done
        Called after each strategy of each repeat.

    Raises
    ------
    DatasetError
        If there are not enough molecules for one step.
    """
    n = len(known)
    test = round(plan.test * n)
    hidden = n - test - plan.start
    most = hidden // plan.step
    steps = plan.steps if plan.steps is not None else min(most, _MOST_STEPS)
    if not 1 <= steps <= most:
        raise DatasetError(
            f"{n} molecules less {test} for the test and {plan.start} to start with leave {hidden}, not "
            f"{steps} times {plan.step}",
            hint="lower --start, --step or --steps",
        )
    sizes = tuple(plan.start + i * plan.step for i in range(steps + 1))
    found = {s.value: {e: np.zeros((plan.repeats, steps + 1)) for e in ERRORS} for s in Strategy}
    for repeat in range(plan.repeats):
        order = np.random.default_rng([plan.seed, repeat]).permutation(n)
        held, pool = order[:test], order[test:]
        for strategy in Strategy:
            chosen, rest = pool[: plan.start], pool[plan.start :]
            for i in range(steps + 1):
                if i:
                    more = _choose(known, chosen, rest, strategy, plan.step, seed=1000 * repeat + i)
                    chosen, rest = (
                        np.concatenate([chosen, more]),
                        np.setdiff1d(rest, more, assume_unique=True),
                    )
                for name, value in errors(known, chosen, held, seed=plan.seed + 10_000 + repeat).items():
                    found[strategy.value][name][repeat, i] = value
            on_done()
    chance = found[Strategy.RANDOM.value]
    differences = {
        s: {e: over_repeats(by[e], chance[e], test, np.array(sizes, dtype=np.float64)) for e in ERRORS}
        for s, by in found.items()
        if s != Strategy.RANDOM.value
    }
    return Curves(plan, n, test, sizes, found, differences)


def _choose(known: Known, chosen: Rows, rest: Rows, strategy: Strategy, n: int, *, seed: int) -> Rows:
    if strategy is Strategy.RANDOM:
        return np.random.default_rng(seed).permutation(rest)[:n]
    if strategy is Strategy.DIVERSITY:
        both = np.concatenate([rest, chosen])
        given = range(len(rest), len(both))
        return rest[by_diversity(known.descriptors[both], n, given=given).rows]
    forest = Forest.fit(
        known.descriptors[chosen], known.spectra[chosen], known.targets[chosen, :1], seed=seed
    )
    return rest[by_uncertainty(forest.deviations(known.descriptors[rest]), n).rows]


def errors(known: Known, train: Rows, test: Rows, *, seed: int) -> dict[str, float]:
    """Return every error of :data:`ERRORS` on the rows ``test`` of what learned from the rows ``train``."""
    return {
        name: float(np.sqrt(s.mean())) for name, s in squared_errors(known, train, test, seed=seed).items()
    }


def squared_errors(known: Known, train: Rows, test: Rows, *, seed: int) -> dict[str, FloatArray]:
    """Return the square of every error of :data:`ERRORS` of each molecule of ``test``, shape (test,)."""
    spectra = known.spectra.astype(np.float64)
    x, y = known.descriptors, spectra[test]
    spread = float(np.sqrt(((spectra - spectra.mean(axis=0)) ** 2).sum(axis=1).mean()))
    forest = Forest.fit(x[train], known.spectra[train], known.targets[train, :1], seed=seed)
    by_trees, energies = forest.predict(x[test])
    by_kernel = _kernel_ridge(x[train], spectra[train], x[test])
    energy = known.targets[:, 0]
    return {
        "structure_spectrum": ((by_trees - y) ** 2).sum(axis=1) / spread**2,
        "structure_spectrum_kernel": ((by_kernel - y) ** 2).sum(axis=1) / spread**2,
        "structure_energy": ((energies[:, 0] - energy[test]) / energy.std()) ** 2,
        "spectrum_property": _property_squares(spectra, known.targets[:, 1:], train, test),
    }


def _kernel_ridge(x: FloatArray, y: FloatArray, x_test: FloatArray) -> FloatArray:
    """Gaussian kernel on standardised descriptors, width the median distance; ridge by leave-one-out error."""
    scale = x.std(axis=0)
    keep = scale > 1e-9
    mean, scale = x[:, keep].mean(axis=0), scale[keep]
    a, b = (x[:, keep] - mean) / scale, (x_test[:, keep] - mean) / scale

    def squares(p: FloatArray, q: FloatArray) -> FloatArray:
        return np.asarray(np.maximum((p**2).sum(1)[:, None] + (q**2).sum(1)[None] - 2.0 * p @ q.T, 0.0))

    inside = squares(a, a)
    width = float(np.median(inside[inside > 0]))
    values, vectors = np.linalg.eigh(np.exp(-inside / width))
    centred = vectors.T @ (y - y.mean(axis=0))
    best: tuple[float, FloatArray] | None = None
    for ridge in _ALPHAS:
        inverse = 1.0 / (np.maximum(values, 0.0) + ridge)
        alpha = vectors @ (inverse[:, None] * centred)
        # leave-one-out residual of kernel ridge: alpha_i / (K + ridge)^-1_ii
        diagonal = ((vectors**2) * inverse).sum(axis=1)
        error = float(((alpha / diagonal[:, None]) ** 2).sum())
        if best is None or error < best[0]:
            best = error, alpha
    assert best is not None
    return np.asarray(np.exp(-squares(b, a) / width) @ best[1] + y.mean(axis=0))


def _property_squares(spectra: FloatArray, targets: FloatArray, train: Rows, test: Rows) -> FloatArray:
    from sklearn.linear_model import RidgeCV

    mean = spectra[train].mean(axis=0)
    _, _, directions = np.linalg.svd(spectra[train] - mean, full_matrices=False)
    scores = (spectra - mean) @ directions[:_SPECTRUM_COMPONENTS].T
    scores /= scores[train, 0].std()
    model = RidgeCV(_ALPHAS)
    found = []
    for column in targets.T:
        predicted = model.fit(scores[train], column[train]).predict(scores[test])
        found.append(((predicted - column[test]) / column.std()) ** 2)
    return np.asarray(np.mean(found, axis=0))


def verdicts(curves: Curves) -> list[str]:
    """Return one sentence per error and strategy: whether it is surely better or worse than random choice.

    That is if the mean difference over all steps but the first is more than twice its standard error.
    """
    lines = []
    for error in ERRORS:
        for strategy, by in curves.differences.items():
            found = by[error]
            word = (
                "not surely different from random choice"
                if abs(found.mean) <= 2 * found.error
                else ("better than random choice" if found.mean < 0 else "worse than random choice")
            )
            lines.append(f"{error}, {strategy}: {word} ({found.mean:+.1%} ± {found.error:.1%})")
    return lines


def markdown(curves: Curves) -> str:
    """Return table and verdicts."""
    p = curves.plan
    lines = [
        f"{curves.molecules} molecules, {curves.test} of them for the test; {p.start} to start with, {p.step} chosen "
        f"at a time; {p.repeats} repeats with other molecules. Root mean square errors on the test molecules in units "
        "of the spread over the dataset (1 is as bad as the mean), mean ± standard deviation over the repeats.",
        "",
    ]
    for error, meaning in ERRORS.items():
        lines += [
            f"**{error}**: {meaning}"
            + (f" {', '.join(p.properties)}" if error == "spectrum_property" else ""),
            "",
            "| computed molecules | " + " | ".join(curves.errors) + " |",
            "|---|" + "---|" * len(curves.errors),
        ]
        for i, size in enumerate(curves.sizes):
            cells = []
            for by in curves.errors.values():
                column = by[error][:, i]
                cells.append(f"{column.mean():.3f} ± {column.std(ddof=1) if len(column) > 1 else 0.0:.3f}")
            lines.append(f"| {size} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["Difference from random choice, mean over the steps ± standard error:", ""]
    return "\n".join([*lines, *(f"- {v}" for v in verdicts(curves)), ""])


def curve_plot(curves: Curves, path: Path) -> None:
    """Draw a panel per error against the number of computed molecules; bars: error of the difference from random."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = {"uncertainty": "#d55e00", "diversity": "#0072b2", "random": "0.3"}
    figure = Figure(figsize=(3.0 * len(ERRORS), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, error in zip(figure.subplots(1, len(ERRORS)), ERRORS, strict=True):
        for strategy, by in curves.errors.items():
            values = by[error]
            found = curves.differences.get(strategy)
            margin = None if found is None else found[error].by_size_error * values.mean(axis=0)
            panel.errorbar(
                curves.sizes,
                values.mean(axis=0),
                None if margin is None or not np.isfinite(margin).all() else margin,
                color=colours[strategy],
                marker="o",
                markersize=3,
                capsize=2,
                label=strategy,
            )
        panel.set_title(error.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=8)
    panel.legend(fontsize=8, frameon=False)
    figure.supxlabel("computed molecules (bars: standard error of the difference from random)", fontsize=9)
    figure.supylabel("error / spread", fontsize=9)
    figure.savefig(path, dpi=130)


def write_report(curves: Curves, folder: Path) -> str:
    """Write ``curves.json``, ``table.md`` and ``curves.png`` into a folder; return the table."""
    text = markdown(curves)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curves.json").write_text(json.dumps(curves.to_dict(), indent=1) + "\n")
    (folder / "table.md").write_text(text)
    curve_plot(curves, folder / "curves.png")
    return text


def study_targets(properties: Sequence[str]) -> tuple[str, ...]:
    """Return the targets to gather a dataset with."""
    return (_ENERGY, *properties)
