"""Numbers in tables and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from htxas.learn.data.dataset import Dataset
from htxas.learn.studies.results import METHODS, NET, Cell, best_baseline

__all__ = ["compared", "found_in", "in_words", "ranged", "shown", "whom", "within"]

_WORDS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def in_words(count: int) -> str:
    """Return ``three`` for 3; digits above twelve."""
    return _WORDS[count] if count < len(_WORDS) else f"{count:,}"


def shown(cell: Cell, row: Mapping[str, Cell], metric: str = "mae") -> str:
    """Return ``0.61 (0.58)``, bold where no other cell of the row has a larger R^2."""
    text = f"{cell.r2:.2f} ({cell.metrics[metric]:.3g})"
    return f"**{text}**" if cell.r2 >= max(c.r2 for c in row.values()) else text


def ranged(cell: Cell) -> str:
    """Return the 5-95% range of R^2: ``[0.42, 0.80]``."""
    return f"[{cell.metrics['r2_low']:.2f}, {cell.metrics['r2_high']:.2f}]"


def whom(rows: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Return for which of the named rows a baseline beats the net by R^2, and by how much."""
    lost = []
    for name, row in rows.items():
        best = best_baseline(row)
        if best.r2 > row[NET].r2:
            lost.append(f"{name} ({METHODS[best.method]} {best.r2:.2f}, net {row[NET].r2:.2f})")
    return lost


def compared(rows: Mapping[str, Mapping[str, Cell]], *, most: int = 6) -> str:
    """Return one sentence: where a baseline on the same inputs beats the net by R^2.

    Parameters
    ----------
    rows
        Cells by method, by the words that name them.
    most
        No more than these are named.
    """
    lost = whom(rows)
    if not lost:
        return f"No baseline on the same inputs beats the net in any of {in_words(len(rows))} comparisons."
    more = f" and {len(lost) - most} more" if len(lost) > most else ""
    return (
        f"A baseline on the same inputs beats the net by R² in {in_words(len(lost))} of {in_words(len(rows))} "
        f"comparisons: {', '.join(lost[:most])}{more}."
    )


def found_in(dataset: Dataset) -> str:
    """Return a sentence on the dataset."""
    n = dataset.card["counts"]
    rows = f"{n['rows']:,} {dataset.recipe.rows.value}s"
    of = "" if n["rows"] == n["molecules"] else f" of {n['molecules']:,} molecules"
    return f"Dataset {dataset.key[:12]} ({dataset.card['source']}): {rows}{of}."


def listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def within(sentence: str) -> str:
    """Return a sentence that goes on after a colon."""
    return sentence[:1].lower() + sentence[1:]
