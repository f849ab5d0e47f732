"""One figure of several campaigns' molecular spectra, each from its own onset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from htxas.errors import UserError
from htxas.report.compare import Compared
from htxas.report.figure import BLACK, GREY, clean, new_figure, palette, save, style
from htxas.report.results import MoleculeView, Results, load_molecule, molecular_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_MOLECULES", "plot_compared", "views_of"]

MOST_MOLECULES = 6
_BELOW = 0.4  # of what is drawn above: room for the names
_NORMALISED_TO_EV = 8.0  # the greatest value up to here is 1: above it codes differ in how they stop
_ROOM = 1.15


def views_of(store: Results, compared: Compared) -> list[list[MoleculeView]]:
    """Return the molecules that all campaigns have whole, each by campaign.

    Raises
    ------
    UserError
        There is none, or more than a figure has room for.
    """
    views = []
    for name in dict.fromkeys(row.molecule for row in compared.rows):
        found = [load_molecule(store, name, campaign) for campaign in compared.campaigns]
        if all(view.complete for view in found):
            views.append(found)
    if not views:
        raise UserError("no molecule is finished in all of them", hint="htxas status")
    if len(views) > MOST_MOLECULES:
        raise UserError(
            f"a figure has room for {MOST_MOLECULES} molecules, there are {len(views)}",
            hint=f"choose: --molecule {views[0][0].record.name} --molecule ...",
        )
    return views


def plot_compared(
    compared: Compared,
    views: Sequence[Sequence[MoleculeView]],
    path: Path,
    *,
    sigma_eV: float = 0.5,
    above_eV: float = 10.0,
) -> Path:
    """Draw the molecular spectra of several campaigns above each other, a panel for each molecule.

    Energies are counted from the lowest onset of the molecule in each campaign, which the figure names; intensities
    are over the greatest within 8 eV of it.

    Parameters
    ----------
    compared
        Campaigns and engines.
    views
        For each molecule its views by campaign, in order; each complete.
    path
        ``.png``, ``.svg`` or ``.pdf``.
    sigma_eV
        Gaussian broadening.
    above_eV
        How far above the onset spectra are drawn, eV.

    Raises
    ------
    UserError
        If a spectrum cannot be broadened so, or the file cannot be written.
    """
    count = len(compared.campaigns)
    with style():
        figure = new_figure(3.4 * min(2, len(views)), 0.5 + (0.5 + 0.62 * count) * ((len(views) + 1) // 2))
        panels = figure.subplots((len(views) + 1) // 2, min(2, len(views)), squeeze=False).ravel()
        for axes, molecule in zip(panels, views, strict=False):
            _draw(axes, _names(compared), molecule, sigma_eV, above_eV)
        for axes in panels[len(views) :]:
            axes.set_visible(False)
        figure.supxlabel("energy above the first transition of each (eV)", fontsize=9)
        return save(figure, path)


def _names(compared: Compared) -> tuple[str, ...]:
    """Return what the curves are called: engines, or campaigns if engines do not tell them apart."""
    return compared.engines if len(set(compared.engines)) == len(compared.engines) else compared.campaigns


def _draw(
    axes: Axes, names: Sequence[str], views: Sequence[MoleculeView], sigma_eV: float, above_eV: float
) -> None:
    colours, below_eV = palette(len(views)), _BELOW * above_eV
    for i, (name, view) in enumerate(zip(names, views, strict=True)):
        spectrum = molecular_spectrum(view, sigma_eV)
        assert spectrum is not None
        onset = min(s.result.onset_eV for s in view.sites if s.result is not None)
        above = spectrum.energies_eV - onset
        shown = (above >= -below_eV) & (above <= above_eV)
        height = spectrum.total[shown & (above <= _NORMALISED_TO_EV)].max(initial=0.0) or 1.0
        base = _ROOM * (len(views) - 1 - i)
        line = base + spectrum.total[shown] / height
        axes.fill_between(above[shown], base, line, color=colours[i], alpha=0.15, linewidth=0)
        axes.plot(above[shown], line, color=colours[i], linewidth=1.2)
        words = f"{name}\n{onset:.1f} eV"
        axes.text(-below_eV, base + 0.55, words, ha="left", fontsize=7.5, color=colours[i])
    axes.axvline(0.0, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_xlim(-below_eV, above_eV)
    axes.set_ylim(0, _ROOM * len(views) + 0.1)
    axes.set_title(views[0].record.name, loc="left", color=BLACK)
    clean(axes, y_ticks=False)
