"""Spectra of one site by several engines or parameters in one figure, each on its own energy scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from htxas.errors import UserError
from htxas.report.figure import clean, new_figure, palette, save, style
from htxas.report.results import SiteView, site_spectrum

__all__ = ["plot_overlay"]

_BELOW_eV = 8.0
_ABOVE_eV = 30.0


def plot_overlay(
    views: Sequence[tuple[str, SiteView]], path: Path, *, sigma_eV: float = 0.5, relative: bool = False
) -> Path:
    """Draw the total spectra of several calculations of one site.

    Codes give different quantities, so each is divided by its largest value in the picture; the legend tells it.
    Energies are each code's own. Nothing is aligned, unless ``relative`` is asked for.

    Parameters
    ----------
    views
        Label and finished site, of one element and edge.
    path
        ``.png``, ``.svg`` or ``.pdf``.
    sigma_eV
        Gaussian broadening.
    relative
        Count energies from where each spectrum begins: its first final state or its threshold. These are not the same
        thing.

    Raises
    ------
    UserError
        A site has no accepted result, or they are of different elements or edges, or the file cannot be written.
    """
    first = views[0][1]
    for _, view in views[1:]:
        if (view.record.element, view.record.edge) != (first.record.element, first.record.edge):
            raise UserError(
                f"{view.title} cannot be laid over {first.title}",
                hint="name the same site in another campaign",
            )
    spectra = [site_spectrum(view, sigma_eV) for _, view in views]
    onsets = [view.result.onset_eV for _, view in views if view.result is not None]
    zeros = np.array(onsets if relative else [0.0] * len(onsets))
    begins = np.array(onsets) - zeros
    low, high = float(begins.min()) - _BELOW_eV, float(begins.max()) + _ABOVE_eV
    with style():
        figure = new_figure(6.8, 4.0)
        axes = figure.subplots()
        for (label, view), spectrum, zero, begin, colour in zip(
            views, spectra, zeros, begins, palette(len(views)), strict=True
        ):
            energies = spectrum.energies_eV - zero
            shown = (energies >= low) & (energies <= high)
            top = max(float(spectrum.total[shown].max(initial=0.0)), 1e-12)
            other = "" if view.record.structure_key == first.record.structure_key else ", another geometry"
            axes.plot(
                energies[shown],
                spectrum.total[shown] / top,
                color=colour,
                linewidth=1.5,
                label=f"{label}: from {begin + zero:.1f} eV, 1 is {top:.3g} ({spectrum.quantity}){other}",
            )
            if not relative:
                axes.axvline(begin, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.set_xlim(low, high)
        axes.set_ylim(0, 1.08)
        kind = "energy from where each spectrum begins (eV)" if relative else "transition energy (eV)"
        axes.set_xlabel(kind)
        axes.set_ylabel("relative intensity")
        axes.set_title(first.title, loc="left", pad=10 + 13 * len(views))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), handlelength=1.4, borderpad=0.1, fontsize=8)
        clean(axes)
        return save(figure, path)
