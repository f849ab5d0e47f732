"""A molecule's computed spectrum beside a measured one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.domain.agreement import Agreement, agreement
from htxas.domain.result import SiteResult
from htxas.domain.spectrum import Quantity, Spectrum
from htxas.errors import UserError
from htxas.report.figure import BLACK, GREY, LIGHT, clean, new_figure, palette, save, style
from htxas.report.plots import Y_LABEL, mark, times
from htxas.report.results import MoleculeView, molecular_spectrum, site_spectrum

__all__ = ["Beside", "lay_beside", "plot_beside", "words"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """The two spectra and how far they agree.

    Attributes
    ----------
    energies_eV, intensity
        As measured, shape (n,).
    label
        Name of the file.
    one_unit
        Whether both are oscillator strengths per eV and atom: then their ratio means something.
    computed
        The molecule's spectrum.
    sigma_eV
        Its Gaussian broadening.
    ionization_eV
        The lowest ionisation energy of its sites, as computed, or None: further up lines stand for a continuum.
    found
        Shift, correlation, strength.
    """

    energies_eV: FloatArray
    intensity: FloatArray
    label: str
    one_unit: bool
    computed: Spectrum
    sigma_eV: float
    ionization_eV: float | None
    found: Agreement


def lay_beside(
    view: MoleculeView,
    energies_eV: FloatArray,
    intensity: FloatArray,
    label: str,
    *,
    one_unit: bool,
    sigma_eV: float,
    range_eV: tuple[float, float],
    shift_eV: float | None,
    within_eV: float,
) -> Beside:
    """Compare a complete molecule with a measured spectrum.

    Parameters
    ----------
    energies_eV, intensity, label, one_unit
        See :class:`Beside`.
    sigma_eV
        Gaussian broadening of the computed spectrum.
    range_eV
        What is compared, from the first final state or threshold.
    shift_eV, within_eV
        See :func:`htxas.domain.agreement.agreement`.

    Raises
    ------
    UserError
        The molecule is not complete, or the two cannot be compared.
    """
    name = view.record.name
    if view.missing or not view.sites:
        raise UserError(
            f"{len(view.missing)} of {len(view.sites)} sites are not done: the spectrum is not complete",
            where=name,
            hint="htxas status; htxas run",
        )
    computed = molecular_spectrum(view, sigma_eV)
    assert computed is not None
    results = [s.result for s in view.sites if s.result is not None]
    onset = min(r.onset_eV for r in results)
    ends = [r.onset_eV + r.window_eV for r in results if isinstance(r, SiteResult)]
    low, high = onset + range_eV[0], min([onset + range_eV[1], *ends])
    try:
        found = agreement(
            (energies_eV, intensity),
            (computed.energies_eV, computed.total),
            (low, high),
            shift_eV=shift_eV,
            within_eV=within_eV,
        )
    except ValueError as error:
        raise UserError(
            str(error), where=f"{name}, {label}", hint="--range LOW HIGH, --shift EV or --within EV"
        ) from None
    levels = [r.ionization_eV for r in results if isinstance(r, SiteResult) and r.ionization_eV is not None]
    same = one_unit and computed.quantity is Quantity.OSCILLATOR_STRENGTH
    return Beside(
        energies_eV, intensity, label, same, computed, sigma_eV, min(levels, default=None), found
    )  # fmt: skip


def words(view: MoleculeView, beside: Beside) -> list[str]:
    """Return what was found, a line each."""
    found, name = beside.found, view.record.name
    between = f"from {found.low_eV:.1f} to {found.high_eV:.1f} eV on the computed axis"
    how = (
        "as given"
        if found.searched_eV is None
        else f"the best of -{found.searched_eV:g} to {found.searched_eV:g} eV"
    )
    lines = [
        f"{name} and {beside.label}, computed with sigma {beside.sigma_eV:g} eV, {between}",
        f"  shift        measured {found.shift_eV:+.2f} eV from computed, {how}",
        f"  correlation  {found.correlation:.3f}; unshifted {found.unshifted:.3f}",
        f"  strength     measured {found.strength:.3g} of computed"
        if beside.one_unit
        else f"  strength     not in one unit: measured divided by {found.strength:.4g} in the picture",
    ]
    if beside.ionization_eV is not None and beside.ionization_eV < found.high_eV:
        lines.append(
            f"  note         above {beside.ionization_eV:.1f} eV, the lowest ionisation energy, computed lines stand "
            "for a continuum"
        )
    return lines


def plot_beside(view: MoleculeView, beside: Beside, path: Path) -> Path:
    """Draw the measured spectrum over the computed one and what each site brings to it.

    The computed spectrum is moved by the shift; the measured one is divided by nothing where both have one unit, else
    by the ratio of the two integrals.

    Parameters
    ----------
    path
        ``.png``, ``.svg`` or ``.pdf``.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    found, shift = beside.found, beside.found.shift_eV
    scale = 1.0 if beside.one_unit else 1.0 / found.strength
    low, high = found.low_eV + shift - 1.0, found.high_eV + shift + 1.0
    computed = beside.computed
    atoms = sum(s.multiplicity or 1 for s in view.sites)
    with style():
        figure = new_figure(7.2, 4.2)
        axes = figure.subplots()
        axes.fill_between(
            computed.energies_eV + shift,
            computed.total,
            color=LIGHT,
            linewidth=0,
            label=f"computed, {shift:+.2f} eV",
        )
        axes.plot(computed.energies_eV + shift, computed.total, color=GREY, linewidth=0.8)
        sites = sorted(view.sites, key=lambda s: s.file_atom or 0)
        for site, colour in zip(sites, palette(len(sites)), strict=True):
            spectrum = site_spectrum(site, beside.sigma_eV)
            axes.plot(
                spectrum.energies_eV + shift,
                spectrum.total * (site.multiplicity or 1) / atoms,
                color=colour,
                linewidth=1.0,
                label=site.label + times(site.multiplicity),
            )
        inside = (beside.energies_eV >= low) & (beside.energies_eV <= high)
        axes.plot(
            beside.energies_eV[inside],
            scale * beside.intensity[inside],
            color=BLACK,
            linewidth=1.6,
            label="measured" if beside.one_unit else "measured, scaled",
        )
        axes.set_xlim(low, high)
        if beside.ionization_eV is not None and low < beside.ionization_eV + shift < high:
            axes.axvspan(beside.ionization_eV + shift, high, color="#faf3ea", zorder=0, linewidth=0)
            mark(axes, beside.ionization_eV + shift, "lowest\nionisation", left=False)
        axes.set_ylim(bottom=min(0.0, scale * float(beside.intensity[inside].min())))
        axes.set_xlabel("measured energy (eV)")
        per_eV = " (1/eV)" if computed.quantity is Quantity.OSCILLATOR_STRENGTH else ""
        axes.set_ylabel(f"{Y_LABEL[computed.quantity]}{per_eV}, mean of the atoms")
        axes.set_title(view.record.name, loc="left", fontweight="bold")
        axes.text(1.0, 1.02, f"r = {found.correlation:.2f}", ha="right", color=GREY, transform=axes.transAxes)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderpad=0.1, handlelength=1.4)
        clean(axes)
        return save(figure, path)
