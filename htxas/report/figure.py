"""Common look of the figures, and saving them by suffix. Agg and the object interface only: no global state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import matplotlib
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from htxas.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BLACK", "COLOURS", "GREY", "LIGHT", "clean", "new_figure", "palette", "save", "style"]

COLOURS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart with any colour vision; yellow is left out, it is lost on white."""

BLACK, GREY, LIGHT = "#1a1a1a", "#6b6b6b", "#e9ecef"
_SUFFIXES = (".png", ".svg", ".pdf")
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": BLACK,
    "axes.labelcolor": BLACK,
    "text.color": BLACK,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "htxas",  # the same figure is the same file
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the look to everything drawn inside, and only there."""
    with matplotlib.rc_context(cast(Any, _STYLE)):  # its type lists every known key one by one
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure of fixed size in inches, drawn by Agg."""
    figure = Figure(figsize=(width_in, height_in), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def palette(n: int) -> Sequence[Any]:
    """Return ``n`` colours: Okabe-Ito while they last, then evenly spaced ones of cividis."""
    if n <= len(COLOURS):
        return COLOURS[:n]
    ramp = colormaps["viridis"]
    return [ramp(0.9 * i / (n - 1)) for i in range(n)]


def clean(axes: Axes, *, y_ticks: bool = True) -> None:
    """Leave only the axes that carry numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0)
    if not y_ticks:
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG, SVG or PDF, by suffix; no dates inside, so equal figures are equal files.

    Raises
    ------
    UserError
        For another suffix, or if the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(
            f"cannot draw {suffix or 'a file without suffix'}", where=str(path), hint="use .png, .svg or .pdf"
        )
    dates: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    try:
        with style():
            figure.savefig(path, metadata=dates.get(suffix))
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", where=str(path)) from error
    return path
