"""Results put together for the eye: one site or one molecule with whatever is known of it.

The :class:`Results` protocol is the part of the store that reporting reads; tests stand in for it with a few lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from htxas.domain.calculation import Kind, State
from htxas.domain.result import GroundResult, Spectral
from htxas.domain.spectrum import Spectrum, combine
from htxas.domain.structure import Structure
from htxas.errors import NotFound, UserError
from htxas.store.records import CalculationRecord, MolecularSpectrum, MoleculeRecord, SiteRef, StructureRecord

__all__ = [
    "MoleculeView",
    "Results",
    "SiteView",
    "another_state",
    "corrections",
    "load_molecule",
    "load_site",
    "molecular_spectrum",
    "site_spectrum",
]


class Results(Protocol):
    """What reporting asks of the store; see :class:`htxas.store.store.Store`."""

    def campaign(self, name: str, /) -> dict[str, Any]:
        """Return the campaign document."""
        ...

    def calculation(self, key_or_prefix: str, /) -> CalculationRecord:
        """Return one calculation."""
        ...

    def calculations(self, keys: Iterable[str], /) -> Mapping[str, CalculationRecord]:
        """Return the known calculations among ``keys``."""
        ...

    def structure(self, key: str, /) -> StructureRecord:
        """Return one structure."""
        ...

    def molecule(self, campaign: str | None, name: str, /) -> MoleculeRecord:
        """Return one molecule."""
        ...

    def molecules(
        self, campaign: str | None = None, /, *, structure_key: str | None = None
    ) -> Iterator[MoleculeRecord]:
        """Iterate over the molecules of a campaign, or those with one structure."""
        ...

    def site_result(self, key: str, /) -> Spectral:
        """Return the accepted result of a site."""
        ...

    def ground_result(self, key: str, /) -> GroundResult:
        """Return the accepted result of a ground state."""
        ...

    def assemble(self, molecule: MoleculeRecord, /) -> MolecularSpectrum:
        """Return the molecular spectrum."""
        ...


def corrections(record: CalculationRecord) -> tuple[str, ...]:
    """Return the names of the corrections that the last attempt of a calculation made, in order."""
    return tuple((record.ladder or {}).get("corrections", ()))


def another_state(record: CalculationRecord) -> tuple[str, ...]:
    """Return the states behind a result that may not be the ones the uncorrected iteration was on its way to."""
    extra = (record.provenance or {}).get("extra") or {}
    return tuple(extra.get("another_state", ()))


@dataclass(frozen=True, slots=True, eq=False)
class SiteView:
    """One site: where it stands and, if it is done, its result.

    Attributes
    ----------
    record
        The calculation.
    structure
        Its structure.
    molecule
        Name of a molecule that has this site, or None if no campaign names one.
    file_atom, multiplicity
        Index in the user's file and number of equivalent atoms; None without a molecule.
    result
        The accepted result, or None while there is none.
    """

    record: CalculationRecord
    structure: StructureRecord
    molecule: str | None
    file_atom: int | None
    multiplicity: int | None
    result: Spectral | None

    @property
    def label(self) -> str:
        """Short name of the absorber: ``C3`` by file index, or ``C[3]`` by canonical index."""
        element = self.record.element
        return f"{element}[{self.record.atom}]" if self.file_atom is None else f"{element}{self.file_atom}"

    @property
    def core(self) -> str:
        """The core level: ``1s`` for a K edge, else the name of the edge."""
        return "1s" if self.record.edge == "K" else str(self.record.edge)

    @property
    def title(self) -> str:
        """Molecule, absorber and edge in a line."""
        name = self.molecule or self.structure.smiles or self.structure.structure.formula
        return f"{name}, {self.label} {self.record.edge} edge"


@dataclass(frozen=True, slots=True, eq=False)
class MoleculeView:
    """One molecule: its sites, done or not, and its ground state if it is done.

    Without a ``ground_record`` it has no ground state and needs none.
    """

    record: MoleculeRecord
    structure: StructureRecord
    sites: tuple[SiteView, ...]
    ground_record: CalculationRecord | None
    ground: GroundResult | None

    @property
    def missing(self) -> tuple[SiteView, ...]:
        """Sites without an accepted result."""
        return tuple(s for s in self.sites if s.result is None)

    @property
    def complete(self) -> bool:
        """Whether every unique site, and the ground state if there is one, are done."""
        return not self.lacks_ground and bool(self.sites) and not self.missing

    @property
    def lacks_ground(self) -> bool:
        """Whether its ground state is not there yet."""
        return self.ground_record is not None and self.ground is None

    @property
    def atoms(self) -> Structure:
        """The canonical structure."""
        return self.structure.structure


def load_site(store: Results, identifier: str, campaign: str | None = None) -> SiteView:
    """Return the site named by a calculation key (or a prefix of it) or by ``MOLECULE/ATOM``.

    Parameters
    ----------
    store
        Where to read.
    identifier
        ``1f3a9c`` or ``ethanol/2``; the atom is any atom of the site, counted from 0 in the user's file.
    campaign
        Needed for ``MOLECULE/ATOM`` when several campaigns use the name.

    Raises
    ------
    NotFound
        If there is no such calculation, molecule or site.
    UserError
        If the key is that of a ground state.
    """
    name, slash, atom = identifier.rpartition("/")
    if not slash:
        record = store.calculation(identifier)
        if record.kind is not Kind.SITE:
            raise UserError(
                "this is a ground state, not a site", where=record.key[:12], hint="htxas molecule show NAME"
            )
        named = _named(store, record, campaign)
        return _view(store, record, store.structure(record.structure_key), *named)
    molecule = store.molecule(campaign, name)
    if not atom.isdecimal():
        raise UserError(
            f"{atom!r} is not an atom index", where=identifier, hint="MOLECULE/ATOM, e.g. ethanol/0"
        )
    for ref in molecule.sites:
        if int(atom) in ref.equivalent_file_atoms:
            record = store.calculation(ref.key)
            return _view(store, record, store.structure(record.structure_key), molecule.name, ref)
    sites = " ".join(f"{s.element}{s.file_atom}" for s in molecule.sites)
    raise NotFound(f"{molecule.name} has no site at atom {atom}", hint=f"its sites are {sites}")


def _named(
    store: Results, record: CalculationRecord, campaign: str | None
) -> tuple[str, SiteRef] | tuple[()]:
    """Return the name of a molecule that has this site, and its reference to it."""
    for molecule in store.molecules(campaign, structure_key=record.structure_key):
        for ref in molecule.sites:
            if ref.key == record.key:
                return molecule.name, ref
    return ()


def load_molecule(store: Results, name: str, campaign: str | None = None) -> MoleculeView:
    """Return a molecule with everything known of it.

    Raises
    ------
    NotFound
        If there is no such molecule.
    """
    record = store.molecule(campaign, name)
    structure = store.structure(record.structure_key)
    sites = tuple(_view(store, store.calculation(r.key), structure, record.name, r) for r in record.sites)
    if record.ground_key is None:
        return MoleculeView(record, structure, sites, None, None)
    ground_record = store.calculation(record.ground_key)
    done = ground_record.state is State.DONE
    ground = store.ground_result(record.ground_key) if done else None
    return MoleculeView(record, structure, sites, ground_record, ground)


def _view(
    store: Results,
    record: CalculationRecord,
    structure: StructureRecord,
    molecule: str | None = None,
    ref: SiteRef | None = None,
) -> SiteView:
    result = store.site_result(record.key) if record.state is State.DONE else None
    if ref is None:
        return SiteView(record, structure, molecule, None, None, result)
    return SiteView(record, structure, molecule, ref.file_atom, ref.multiplicity, result)


def molecular_spectrum(view: MoleculeView, sigma_eV: float = 0.5) -> Spectrum | None:
    """Return the multiplicity-weighted mean over the finished sites, or None without any.

    Of an incomplete molecule this is not its spectrum: ask ``view.complete``.

    Raises
    ------
    UserError
        If the spectra of its sites cannot be broadened so or added.
    """
    done = [s for s in view.sites if s.result is not None]
    if not done:
        return None
    spectra = [site_spectrum(s, sigma_eV) for s in done]
    try:
        return combine(spectra, [float(s.multiplicity or 1) for s in done])
    except ValueError as error:
        raise UserError(
            f"the spectra of its sites cannot be added: {error}",
            where=view.record.name,
            hint="htxas site show KEY shows each",
        ) from error


def site_spectrum(view: SiteView, sigma_eV: float = 0.5) -> Spectrum:
    """Return the broadened spectrum of a finished site.

    Raises
    ------
    UserError
        If it has no result, or its curve is too short for the broadening.
    """
    if view.result is None:
        raise UserError(
            f"nothing to draw: {view.label} is {view.record.state.value}",
            where=view.record.key[:12],
            hint="htxas run",
        )
    try:
        return view.result.spectrum(sigma_eV=sigma_eV)
    except ValueError as error:
        raise UserError(
            f"{view.label} cannot be broadened by {sigma_eV} eV: {error}",
            where=view.record.key[:12],
            hint="a smaller --sigma",
        ) from error
