"""What a study is: it plans runs, and reads a report from what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from htxas.learn.data.dataset import Dataset
from htxas.learn.data.recipe import ModelKind
from htxas.learn.runs.spec import Fold, RunSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htxas.learn.studies.results import Cell, Results

__all__ = ["Axis", "Planned", "Report", "Study", "Table", "askable", "folds_of"]

Axis = str | int | float | None


@dataclass(frozen=True, slots=True)
class Planned:
    """A run of a study.

    Attributes
    ----------
    spec
        What it computes.
    axes
        Where it stands in the study. Runs that differ in ``fold`` and ``seed`` only are repeats of each other.
    """

    spec: RunSpec
    axes: Mapping[str, Axis]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes
    ----------
    title
        What its numbers are, in which unit.
    heads
        Column headings.
    rows
        Cells in Markdown.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [
            f"**{self.title}**",
            "",
            "| " + " | ".join(self.heads) + " |",
            "|" + "---|" * len(self.heads),
        ]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows), ""])


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What a study says.

    Attributes
    ----------
    tables
        Written into ``table.md``.
    figures
        By file name without ending.
    words
        Sentences: together one paragraph, ``summary.md``.
    cells
        Every number of the tables with the runs it comes from: ``results.json``.
    """

    tables: Sequence[Table]
    figures: Mapping[str, Figure]
    words: Sequence[str]
    cells: Sequence[Cell]


class Study(Protocol):
    """A question that many runs answer."""

    def plan(self, dataset: Dataset) -> list[Planned]:
        """Return the runs; none twice.

        Raises
        ------
        DatasetError
            If the dataset cannot answer.
        """
        ...

    def report(self, dataset: Dataset, results: Results) -> Report:
        """Return tables, figures and words of finished runs."""
        ...


def folds_of(count: int) -> list[Fold | None]:
    """Return ``count`` folds, or the dataset's own split for 0."""
    return [Fold(i, count) for i in range(count)] if count else [None]


def askable(targets: Sequence[str], kind: ModelKind) -> tuple[str, ...]:
    """Return the targets that are not inputs of this model kind: Model-B is given the composition ratios."""
    return tuple(t for t in targets if kind is ModelKind.A or not t.startswith("ratio_"))


def repeat(spec: RunSpec) -> dict[str, Any]:
    """Return the axes of a repeat."""
    return {"fold": None if spec.fold is None else spec.fold.number, "seed": spec.seed}
