"""What of a molecule becomes rows: its spectrum, or those of its sites, with the broadening that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from htxas.domain.spectrum import Spectrum, Sticks, broaden, combine
from htxas.errors import DatasetError
from htxas.learn.data.recipe import Recipe, Rows
from htxas.learn.data.records import SiteRecord, SpectrumRecord

__all__ = ["Part", "parts_of"]

_MARGIN_EV, _MARGIN_SIGMAS = 3.0, 6.0  # below the first transition; as stored spectra of sigma 0.5 eV have it


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A molecule, or a site of it: what becomes a row."""

    name: str
    key: str
    spectrum: Spectrum | None  # None of a continuum
    excitation_energy_eV: float | None
    complete_to_eV: float
    site: SiteRecord | None
    zero_eV: float = 0.0


def parts_of(record: SpectrumRecord, recipe: Recipe, where: str) -> Iterator[Part]:
    """Yield what of a molecule becomes rows.

    Raises
    ------
    DatasetError
        If it has not what a recipe asks for.
    """
    if recipe.rows is Rows.SITE:
        if not record.sites and not record.missing:
            raise DatasetError("has no sites of its own here", where=where, hint="rows: molecule")
        for site in record.sites:
            name = f"{record.name}/{site.name}"
            spectrum = None if site.continuum else _of_site(site, site.sticks, recipe, f"site {name}")
            yield Part(
                name, site.key, spectrum, site.excitation_energy_eV, site.complete_to_eV, site, site.zero_eV
            )
        return
    if any(site.continuum for site in record.sites):
        raise DatasetError(
            "its spectra are continuous: they are taken site by site", where=where, hint="rows: site"
        )
    spectrum = record.spectrum
    if spectrum is None or recipe.sigma_eV not in (None, spectrum.sigma_eV):
        if not record.sites:
            raise DatasetError("has no sites to be broadened anew", where=where, hint="leave sigma_eV out")
        parts = [_of_site(s, _absolute(s), recipe, where) for s in record.sites]
        spectrum = combine(parts, [s.multiplicity for s in record.sites])
    yield Part(record.name, record.key, spectrum, record.excitation_energy_eV, record.complete_to_eV, None)


def _absolute(site: SiteRecord) -> Sticks | None:
    """Return the transitions on absolute energies."""
    if site.sticks is None or not site.zero_eV:
        return site.sticks
    return replace(site.sticks, energies_eV=site.sticks.energies_eV + site.zero_eV)


def _of_site(site: SiteRecord, sticks: Sticks | None, recipe: Recipe, where: str) -> Spectrum:
    """Return the spectrum of a site with the recipe's broadening, or as it is stored."""
    sigma_eV = 0.5 if recipe.sigma_eV is None else recipe.sigma_eV
    if sticks is not None:
        margin_eV = max(_MARGIN_EV, _MARGIN_SIGMAS * sigma_eV)
        made = broaden(sticks, sigma_eV=sigma_eV, step_eV=recipe.window.step_eV, margin_eV=margin_eV)
        return replace(made, quantity=site.quantity)
    if site.spectrum is None:
        raise DatasetError("has neither transitions nor a spectrum", where=where)
    if recipe.sigma_eV not in (None, site.spectrum.sigma_eV):
        raise DatasetError(
            f"is broadened by {site.spectrum.sigma_eV} eV and its transitions are not known",
            where=where,
            hint="leave sigma_eV out",
        )
    return site.spectrum
