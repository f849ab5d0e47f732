"""Figures of a site and of a molecule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from htxas.domain.result import CurveResult, SiteResult, Spectral
from htxas.domain.spectrum import Curve, Quantity, Spectrum, Sticks, smear
from htxas.errors import UserError
from htxas.report.figure import BLACK, COLOURS, GREY, LIGHT, clean, new_figure, palette, save, style
from htxas.report.results import MoleculeView, SiteView, molecular_spectrum, site_spectrum
from htxas.report.sketch import draw_structure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from htxas.domain.dos import LocalDos
    from htxas.domain.result import GroundResult

__all__ = ["Y_LABEL", "mark", "plot_molecule", "plot_site", "times"]

_ABOVE_eV = 20.0  # what is drawn above the first final state; a site's window may end earlier
_BELOW_eV = 3.0
_CURVE_ABOVE_eV = 60.0  # and above a threshold: a multiple-scattering spectrum means something farther out
_CURVE_BELOW_eV = 10.0
_ROOM = 0.1  # of the width, for a few words
Y_LABEL = {
    Quantity.OSCILLATOR_STRENGTH: "oscillator strength",
    Quantity.ABSORPTION: "normalised absorption",
}
# Where an edge mostly leads; the others lead to d.
_FINAL = {"K": "p", "L1": "p", "M1": "p", "M4": "f", "M5": "f", "M4,5": "f"}
_PDOS_RANGE_eV = (-15.0, 15.0)  # as the published PDOS (Chen et al., J. Phys. Chem. Lett. 14, 4858 (2023))
FloatArray = npt.NDArray[np.float64]


def plot_site(view: SiteView, path: Path, *, sigma_eV: float = 0.5) -> Path:
    """Draw the spectrum of a site.

    Of sticks: total, x, y, z and the sticks, with excitation and ionisation energy. Of a curve: total, x, y, z if they
    differ, and the atom's own absorption, with the threshold.

    Parameters
    ----------
    view
        A finished site.
    path
        ``.png``, ``.svg`` or ``.pdf``.
    sigma_eV
        Gaussian broadening.

    Raises
    ------
    UserError
        If the site has no accepted result or its curve is too short for the broadening, or the file cannot be written.
    """
    spectrum = site_spectrum(view, sigma_eV)
    assert view.result is not None
    low, high = _shown(view.result, spectrum)
    with style():
        figure = new_figure(6.8, 4.0)
        axes = figure.subplots()
        _draw_curves(axes, spectrum)
        axes.set_xlim(low, high)
        axes.set_ylim(0, 1.25 * _top(spectrum, low, high, columns=True))
        match view.result:
            case SiteResult() as result:
                _draw_sticks(axes, result.sticks, high)
                _mark_energies(axes, result, view.core, low, high)
            case CurveResult() as curve:
                _draw_background(axes, curve, sigma_eV, color=GREY, label="atom alone")
                mark(axes, curve.edge_eV, f"threshold\n{curve.edge_eV:.2f} eV", left=True)
        axes.set_xlabel("transition energy (eV)")
        per_eV = " (1/eV)" if spectrum.quantity is Quantity.OSCILLATOR_STRENGTH else ""
        axes.set_ylabel(Y_LABEL[spectrum.quantity] + per_eV)
        axes.set_title(view.title + times(view.multiplicity), loc="left")
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=5,
            handlelength=1.4,
            columnspacing=1.2,
            borderpad=0.1,
        )
        clean(axes)
        return save(figure, path)


def times(multiplicity: int | None) -> str:
    """Return how many atoms a site stands for, as a legend writes it."""
    return f" (\N{MULTIPLICATION SIGN}{multiplicity})" if multiplicity is not None else ""


def _draw_curves(axes: Axes, spectrum: Spectrum) -> None:
    energies = spectrum.energies_eV
    axes.fill_between(energies, spectrum.total, color=LIGHT, linewidth=0, zorder=1)
    columns = spectrum.intensity.T
    if not np.array_equal(columns, np.broadcast_to(columns[0], columns.shape)):
        for name, column, colour in zip("xyz", columns, COLOURS, strict=False):
            axes.plot(energies, column, color=colour, linewidth=1.1, label=name, zorder=2)
    axes.plot(energies, spectrum.total, color=BLACK, linewidth=1.8, label="total", zorder=3)


def _draw_sticks(axes: Axes, sticks: Sticks, high: float) -> None:
    right = axes.twinx()
    shown = sticks.energies_eV <= high
    strengths = sticks.isotropic[shown]
    right.vlines(sticks.energies_eV[shown], 0, strengths, color=BLACK, alpha=0.6, linewidth=0.9)
    right.set_ylim(0, 2.2 * max(float(strengths.max()), 1e-12))
    right.set_ylabel("stick: oscillator strength", color=GREY)
    right.tick_params(axis="y", colors=GREY)
    right.spines[["top", "left"]].set_visible(False)
    right.spines["right"].set_color(GREY)


def _mark_energies(axes: Axes, result: SiteResult, core: str, low: float, high: float) -> None:
    first = result.excitation_energy_eV
    mark(axes, first, f"first state\n{first:.2f} eV", left=True)
    ionization = result.ionization_eV
    if ionization is not None and low < ionization < high:
        axes.axvspan(ionization, high, color="#faf3ea", zorder=0, linewidth=0)
        mark(axes, ionization, f"{core} ionisation\n{ionization:.2f} eV", left=False)


def mark(axes: Axes, energy_eV: float, text: str, *, left: bool) -> None:
    """Mark an energy, with its text to the left or to the right of the line, where there is room."""
    colour = COLOURS[0] if left else COLOURS[1]
    axes.axvline(energy_eV, ymax=0.98, color=colour, linewidth=0.9, linestyle=(0, (1, 2)) if left else "--")
    low, high = axes.get_xlim()
    gap = 0.0065 * (high - low)
    left = left and energy_eV - low > _ROOM * (high - low)
    axes.text(
        energy_eV - gap if left else energy_eV + gap,
        0.98,
        text,
        ha="right" if left else "left",
        va="top",
        fontsize=8,
        color=colour,
        transform=axes.get_xaxis_transform(),
    )


def _draw_background(
    axes: Axes,
    result: CurveResult,
    sigma_eV: float,
    *,
    offset: float = 0.0,
    color: Any,
    label: str | None = None,
) -> None:
    """Draw what the atom would absorb without its neighbours, broadened like the spectrum."""
    columns = np.broadcast_to(result.background[:, None], (len(result.background), 3))
    atom = smear(Curve(result.curve.energies_eV, columns), sigma_eV=sigma_eV)
    axes.plot(
        atom.energies_eV,
        offset + atom.total,
        color=color,
        linewidth=1.0,
        linestyle="--",
        label=label,
        zorder=4,
    )


def _shown(result: Spectral, spectrum: Spectrum) -> tuple[float, float]:
    """Return the energies between which a spectrum is drawn; what lies outside a curve is unknown."""
    onset = result.onset_eV
    if isinstance(result, SiteResult):
        return onset - _BELOW_eV, onset + min(_ABOVE_eV, result.window_eV)
    first, last = float(spectrum.energies_eV[0]), float(spectrum.energies_eV[-1])
    return max(first, onset - _CURVE_BELOW_eV), min(last, onset + _CURVE_ABOVE_eV)


def _top(spectrum: Spectrum, low: float, high: float, *, columns: bool = False) -> float:
    shown = (spectrum.energies_eV >= low) & (spectrum.energies_eV <= high)
    values = spectrum.columns[shown] if columns else spectrum.total[shown]
    return max(float(values.max(initial=0.0)), 1e-12)


def plot_molecule(view: MoleculeView, path: Path, *, sigma_eV: float = 0.5) -> Path:
    """Draw a molecule: its site spectra, their mean, where the sites are, and the ground-state PDOS.

    Without a ground state the local DOS of the absorbers takes the place of the PDOS, where the engine gives one. An
    incomplete molecule is drawn with what there is, and says so in red.

    Parameters
    ----------
    view
        A molecule with at least one finished site or a finished ground state.
    path
        ``.png``, ``.svg`` or ``.pdf``.
    sigma_eV
        Gaussian broadening of spectra and PDOS.

    Raises
    ------
    UserError
        If nothing of the molecule is finished, its spectra cannot be broadened so or added, or the file cannot be
        written.
    """
    done = sorted((s for s in view.sites if s.result is not None), key=_onset)
    if not done and view.ground is None:
        raise UserError("nothing to draw yet", where=view.record.name, hint="htxas run")
    upper = min(2.0 + 0.42 * max(len(done), 1), 8.0)
    colours = dict(zip((s.record.key for s in done), palette(len(done)), strict=True))
    with_dos = view.ground_record is not None or any(_local_dos(s) is not None for s in done)
    with style():
        figure = new_figure(8.4, upper + (2.7 if with_dos else 1.9))
        grid = figure.add_gridspec(
            2, 2, width_ratios=(2.6, 1.0), height_ratios=(upper, 2.5 if with_dos else 1.7)
        )
        _draw_sites(
            figure.add_subplot(grid[0 if with_dos else slice(None), 0]), view, done, colours, sigma_eV
        )
        sketch = figure.add_subplot(grid[0, 1])
        draw_structure(sketch, view.atoms, view.record, colours)
        if view.ground_record is not None:
            _draw_pdos(figure.add_subplot(grid[1, 0]), view, sigma_eV)
        elif with_dos:
            _draw_local_dos(figure.add_subplot(grid[1, 0]), done, colours)
        _write_facts(figure.add_subplot(grid[1, 1]), view)
        return save(figure, path)


def _draw_sites(
    axes: Axes, view: MoleculeView, done: list[SiteView], colours: dict[str, Any], sigma_eV: float
) -> None:
    axes.set_title(view.record.name, loc="left", fontweight="bold")
    mean = molecular_spectrum(view, sigma_eV)
    if mean is None:
        axes.text(
            0.5, 0.5, "no finished site", ha="center", va="center", transform=axes.transAxes, color=GREY
        )
        clean(axes, y_ticks=False)
        return
    spectra = [site_spectrum(s, sigma_eV) for s in done]
    ranges = [_shown(s.result, c) for s, c in zip(done, spectra, strict=True) if s.result is not None]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    height = max(_top(s, low, high) for s in [*spectra, mean])
    step = 0.62 * height
    base = 1.25 * _top(mean, low, high)
    ticks: list[tuple[float, str, Any]] = [
        (0.0, "mean of\nfinished" if view.missing else "weighted\nmean", BLACK)
    ]
    for row, (site, spectrum) in enumerate(zip(done, spectra, strict=True)):
        offset = base + (len(done) - 1 - row) * step
        colour = colours[site.record.key]
        order = 10 + 2 * row
        axes.fill_between(
            spectrum.energies_eV,
            offset,
            offset + spectrum.total,
            color=colour,
            alpha=0.18,
            linewidth=0,
            zorder=order,
        )
        axes.plot(
            spectrum.energies_eV, offset + spectrum.total, color=colour, linewidth=1.3, zorder=order + 1
        )
        axes.axhline(offset, color=colour, linewidth=0.8, zorder=order)
        if isinstance(site.result, CurveResult):
            _draw_background(axes, site.result, sigma_eV, offset=offset, color=colour)
            axes.vlines(
                site.result.edge_eV,
                offset,
                offset + 0.5 * step,
                color=colour,
                linewidth=0.9,
                linestyle=(0, (1, 2)),
                zorder=order + 1,
            )
        ticks.append((offset, site.label + times(site.multiplicity), colour))
    axes.fill_between(mean.energies_eV, mean.total, color=LIGHT, linewidth=0, zorder=1)
    axes.plot(mean.energies_eV, mean.total, color=BLACK, linewidth=1.8, zorder=2)
    axes.set_xlim(low, high)
    axes.set_ylim(0, base + (len(done) - 1) * step + 1.05 * _top(spectra[0], low, high))
    axes.set_xlabel("transition energy (eV)")
    axes.set_ylabel(Y_LABEL[mean.quantity] + ", offset")
    clean(axes, y_ticks=False)
    axes.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], fontweight="bold", va="bottom")
    axes.tick_params(axis="y", length=0)
    for tick, (_, _, colour) in zip(axes.get_yticklabels(), ticks, strict=True):
        tick.set_color(colour)


def _onset(site: SiteView) -> float:
    return float("inf") if site.result is None else site.result.onset_eV


def _local_dos(site: SiteView) -> LocalDos | None:
    return site.result.dos if isinstance(site.result, CurveResult) else None


def _draw_local_dos(axes: Axes, done: list[SiteView], colours: dict[str, Any]) -> None:
    """Draw, for each absorber, the states that its edge leads to."""
    angular = _FINAL.get(done[0].record.edge or "", "d")
    for site in done:
        dos = _local_dos(site)
        if dos is not None:
            density = dos.density[0, :, "spdf".index(angular)]
            axes.plot(
                dos.energies_eV, density, color=colours[site.record.key], linewidth=1.2, label=site.label
            )
    axes.axvline(0.0, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("energy relative to the Fermi level (eV)")
    axes.set_ylabel(f"absorber {angular} DOS (states/eV)")
    clean(axes)


def _draw_pdos(axes: Axes, view: MoleculeView, sigma_eV: float) -> None:
    ground = view.ground
    if ground is None:
        axes.text(
            0.5, 0.5, "no ground state yet", ha="center", va="center", transform=axes.transAxes, color=GREY
        )
        clean(axes, y_ticks=False)
        return
    low, high = _PDOS_RANGE_eV
    end = ground.pdos.curve_to_eV(sigma_eV=sigma_eV, zero_eV=ground.homo_eV)
    grid = np.linspace(low, high, 801)
    grid = grid[grid <= end]
    if len(grid) < 2:
        words = f"PDOS: too few levels to be broadened by {sigma_eV:g} eV"
        axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color=GREY)
        clean(axes, y_ticks=False)
        return
    element = view.record.sites[0].element if view.record.sites else "C"
    everything = _curve(ground, grid, range(len(view.atoms)), ("s", "p", "d"), sigma_eV)
    axes.fill_between(grid, everything, color=LIGHT, linewidth=0, label="all atoms")
    atoms = view.atoms.indices_of(element)
    for angular, colour in (("p", COLOURS[0]), ("s", COLOURS[1])):
        curve = _curve(ground, grid, atoms, (angular,), sigma_eV)
        axes.plot(grid, curve, color=colour, linewidth=1.4, label=f"{element} {angular}")
    gap = ground.gap_eV
    axes.axvspan(0.0, gap, color="#faf3ea", zorder=0, linewidth=0)
    top = 1.25 * float(everything.max())
    axes.set_xlim(*_PDOS_RANGE_eV)
    axes.set_ylim(0, top)
    for energy, name, side in ((0.0, "HOMO", "right"), (gap, "LUMO", "left")):
        if energy < _PDOS_RANGE_eV[1]:
            axes.axvline(energy, color=GREY, linewidth=0.8, linestyle="--")
            shift = -0.2 if side == "right" else 0.2
            axes.text(energy + shift, 0.97 * top, name, ha=side, va="top", fontsize=8, color=GREY)
    if end < high:
        axes.axvspan(end, high, facecolor="none", edgecolor=LIGHT, hatch="////", linewidth=0, zorder=0)
        known = ground.pdos.known_to_eV - ground.homo_eV
        words = f"unknown: levels\ncomputed to {known:.1f} eV"
        room = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(high - 0.3, 0.5 * top, words, ha="right", va="center", fontsize=8, color=GREY, bbox=room)
    axes.set_xlabel("energy relative to HOMO (eV)")
    axes.set_ylabel("PDOS (states/eV)")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, handlelength=1.4, columnspacing=1.2, borderpad=0.1
    )
    clean(axes)


def _curve(
    ground: GroundResult, grid: FloatArray, atoms: Any, angular: tuple[str, ...], sigma_eV: float
) -> FloatArray:
    return ground.pdos.curve(
        grid, atoms=list(atoms), angular=angular, sigma_eV=sigma_eV, zero_eV=ground.homo_eV
    )


def _write_facts(axes: Axes, view: MoleculeView) -> None:
    axes.set_axis_off()
    rows: list[tuple[str, str]] = [("formula", view.atoms.formula)]
    results = [s.result for s in view.sites if s.result is not None]
    if results:
        name = "threshold" if isinstance(results[0], CurveResult) else "first state"
        rows.append((name, f"{min(r.onset_eV for r in results):.2f} eV"))
    if view.ground is not None:
        rows += [
            ("gap", f"{view.ground.gap_eV:.2f} eV"),
            ("HOMO", f"{view.ground.homo_eV:.2f} eV"),
            ("LUMO", f"{view.ground.lumo_eV:.2f} eV"),
        ]
        if view.ground.dipole_norm_D is not None:
            rows.append(("dipole", f"{view.ground.dipole_norm_D:.2f} D"))
    y = 0.95
    for name, value in rows:
        axes.text(0.08, y, name, transform=axes.transAxes, color=GREY, va="top")
        axes.text(0.95, y, value, transform=axes.transAxes, va="top", ha="right")
        y -= 0.13
    if not view.complete:
        names = ", ".join(s.label for s in view.missing[:4]) + (", ..." if len(view.missing) > 4 else "")
        lacking = names or "ground state"
        axes.text(
            0.08,
            y - 0.02,
            f"INCOMPLETE\nwithout {lacking}",
            transform=axes.transAxes,
            color="#b3001b",
            va="top",
            fontweight="bold",
        )
