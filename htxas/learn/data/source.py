"""Where training spectra come from: a campaign in the store, or a dataset file, as one stream of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from htxas.datafile import DatasetFile, MoleculeEntry
from htxas.domain.identity import content_key
from htxas.domain.result import SiteResult, Spectral
from htxas.errors import DatasetError
from htxas.learn.data.curve_source import curve_records, has_curves
from htxas.learn.data.ground import read_ground
from htxas.learn.data.recipe import Recipe, Rows
from htxas.learn.data.records import LeftOut, Method, SiteRecord, SpectrumRecord

if TYPE_CHECKING:
    from htxas.store.records import MolecularSpectrum
    from htxas.store.store import Store

__all__ = ["FileSource", "SeveralSources", "Source", "StoreSource", "site_parameters_key", "store_record"]

_TWICE = "in two sources, taken once"


class Source(Protocol):
    """A stream of complete molecules."""

    @property
    def query(self) -> Mapping[str, Any]:
        """What was asked of what; JSON-able, part of the dataset's hash."""
        ...

    @property
    def label(self) -> str:
        """Name for people: campaign or file."""
        ...

    def records(self, recipe: Recipe) -> Iterator[SpectrumRecord | LeftOut]:
        """Yield complete molecules, one at a time, in any order, with what a recipe asks for.

        Raises
        ------
        DatasetError
            If a record cannot be used; it names the record.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoreSource:
    """The complete molecular spectra of one campaign.

    Attributes
    ----------
    store
        An open store.
    campaign
        Campaign name.
    """

    store: Store
    campaign: str

    @property
    def query(self) -> Mapping[str, Any]:
        """The campaign asked for."""
        return {"campaign": self.campaign}

    @property
    def label(self) -> str:
        """Name for people."""
        return f"campaign {self.campaign}"

    def records(self, recipe: Recipe) -> Iterator[SpectrumRecord]:
        """Yield every complete molecule of the campaign; where continuous spectra are taken site by site, every one."""
        self.store.campaign(self.campaign)  # NotFound with near names, before an empty dataset is blamed
        if recipe.rows is Rows.SITE and has_curves(self.store, self.campaign):
            yield from curve_records(self.store, self.campaign, pdos=bool(recipe.curves))
            return
        for spectrum in self.store.molecular_spectra(self.campaign):
            yield store_record(self.store, spectrum, pdos=bool(recipe.curves))


@dataclass(frozen=True, slots=True)
class FileSource:
    """The complete molecules of a dataset file (:mod:`htxas.datafile`).

    Attributes
    ----------
    path
        The file.
    """

    path: Path

    @property
    def query(self) -> Mapping[str, Any]:
        """The file's content hash: its name and place do not matter."""
        with DatasetFile(self.path) as data:
            return {"file_content_sha256": data.meta.content_sha256}

    @property
    def label(self) -> str:
        """Name for people."""
        return f"file {self.path.name}"

    def records(self, recipe: Recipe) -> Iterator[SpectrumRecord]:  # all of it is in an entry
        """Check the file's hashes, then yield every complete molecule."""
        with DatasetFile(self.path) as data:
            data.verify()
            parameters_key = site_parameters_key(data)
            for entry in data:
                if entry.complete:
                    yield _entry_record(entry, data.meta.engine, parameters_key)


@dataclass(frozen=True, slots=True)
class SeveralSources:
    """What several sources have: a campaign and its extensions, say.

    Attributes
    ----------
    sources
        Sorted by what is asked of them, so that the order in which they were named does not matter.
    """

    sources: tuple[Source, ...]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Self:
        """Return them as one.

        Raises
        ------
        DatasetError
            If two of them are the same.
        """
        by_key = {content_key(s.query): s for s in sources}
        if len(by_key) != len(sources):
            raise DatasetError(
                "two sources are the same", where=", ".join(s.label for s in sources), hint="name each once"
            )
        return cls(tuple(by_key[key] for key in sorted(by_key)))

    @property
    def query(self) -> Mapping[str, Any]:
        """What is asked of each."""
        return {"sources": [dict(s.query) for s in self.sources]}

    @property
    def label(self) -> str:
        """Names for people."""
        return ", ".join(s.label for s in self.sources)

    def records(self, recipe: Recipe) -> Iterator[SpectrumRecord | LeftOut]:
        """Yield the molecules of each; one that an earlier source has comes once, and is counted.

        A structure is the same in two sources if it was computed by the same method, and has no site more in the
        second. What differs is yielded, for whoever collects to judge.
        """
        seen: dict[tuple[str, Method], frozenset[object]] = {}
        for source in self.sources:
            own: dict[tuple[str, Method], frozenset[object]] = {}
            for record in source.records(recipe):
                if isinstance(record, SpectrumRecord):
                    key, sites = (
                        (record.key, record.method),
                        frozenset(s.atoms or s.name for s in record.sites),
                    )
                    if key in seen and sites <= seen[key]:
                        yield LeftOut(f"{record.name} ({source.label})", _TWICE)
                        continue
                    own[key] = sites
                yield record
            seen |= own


def site_parameters_key(data: DatasetFile) -> str:
    """Return the content key of the parameters that a file's sites were computed with.

    Raises
    ------
    DatasetError
        If it does not tell them.
    """
    try:
        return content_key(data.meta.parameters["parameters"]["site"])
    except (KeyError, TypeError):
        raise DatasetError("does not say how its sites were computed", where=str(data.path)) from None


def _entry_record(entry: MoleculeEntry, engine: str, parameters_key: str) -> SpectrumRecord:
    where = f"molecule {entry.name}"
    energy, spectrum, ground = entry.excitation_energy_eV, entry.spectrum, entry.ground
    if not entry.complete or energy is None or spectrum is None:
        raise DatasetError("its spectrum is not complete", where=where)
    place = {atom: i for i, atom in enumerate(entry.file_order)}
    sites = tuple(
        SiteRecord(
            name=str(s.file_atom),
            key=s.key,
            multiplicity=s.multiplicity,
            excitation_energy_eV=s.excitation_energy_eV,
            complete_to_eV=s.excitation_energy_eV + s.window_eV,
            sticks=s.sticks,
            atoms=tuple(sorted(place[a] for a in s.equivalent_file_atoms)),
        )
        for s in entry.sites
    )
    return SpectrumRecord(
        name=entry.name,
        key=entry.structure.key,
        smiles=entry.smiles,
        composition=entry.structure.composition,
        structure=entry.structure,
        spectrum=spectrum,
        excitation_energy_eV=energy,
        complete_to_eV=min(s.complete_to_eV for s in sites),
        method=_one_method({Method(engine, s.element, s.edge, parameters_key) for s in entry.sites}, where),
        ground={}
        if ground is None
        else {
            "gap_eV": ground.gap_eV,
            **(
                {"homo_eV": ground.homo_eV, "lumo_eV": ground.lumo_eV} if ground.reference == "vacuum" else {}
            ),
            **({} if ground.dipole_norm_D is None else {"dipole_D": ground.dipole_norm_D}),
            "total_energy_eV": ground.total_energy_eV,
        },
        sites=sites,
        pdos=None if ground is None else ground.pdos,
        frontier_eV=None if ground is None else (ground.homo_eV, ground.lumo_eV),
    )


def store_record(store: Store, molecular: MolecularSpectrum, *, pdos: bool = False) -> SpectrumRecord:
    """Return the record of one complete molecular spectrum, with its projected levels if ``pdos``.

    Raises
    ------
    DatasetError
        If the spectrum is incomplete or continuous, or its sites were computed with different parameters.
    """
    where = f"molecule {molecular.name}"
    if not molecular.complete:
        raise DatasetError(
            f"{len(molecular.missing)} of {len(molecular.site_keys)} sites are not done: the spectrum is not complete",
            where=where,
            hint="htxas status; htxas run",
        )
    calculations = [store.calculation(key) for key in molecular.site_keys]
    methods = {Method(c.engine, c.element or "", c.edge or "", c.parameters_key) for c in calculations}
    results = [_with_sticks(store.site_result(key), where) for key in molecular.site_keys]
    structure = store.structure(molecular.structure_key).structure
    molecule = store.molecule(molecular.campaign, molecular.name)
    orbits = {s.key: s for s in molecule.sites}
    place = {atom: i for i, atom in enumerate(molecule.file_order)}
    sites = tuple(
        SiteRecord(
            name=str(orbits[key].file_atom),
            key=key,
            multiplicity=multiplicity,
            excitation_energy_eV=result.excitation_energy_eV,
            complete_to_eV=result.excitation_energy_eV + result.window_eV,
            sticks=result.sticks,
            atoms=tuple(sorted(place[a] for a in orbits[key].equivalent_file_atoms)),
        )
        for key, multiplicity, result in zip(
            molecular.site_keys, molecular.multiplicities, results, strict=True
        )
    )
    ground = read_ground(store, molecular.ground_key, pdos=pdos)
    return SpectrumRecord(
        name=molecular.name,
        key=structure.key,
        smiles=molecule.smiles,  # as this campaign wrote it; the structure may be shared with another
        composition=structure.composition,
        structure=structure,
        spectrum=molecular.spectrum,
        excitation_energy_eV=min(r.excitation_energy_eV for r in results),
        complete_to_eV=min(s.complete_to_eV for s in sites),
        method=_one_method(methods, where),
        ground=ground.scalars,
        sites=sites,
        pdos=ground.pdos,
        frontier_eV=ground.frontier_eV,
    )


def _with_sticks(result: Spectral, where: str) -> SiteResult:
    if isinstance(result, SiteResult):
        return result
    raise DatasetError(
        "its spectrum is continuous: such spectra are taken site by site", where=where, hint="rows: site"
    )


def _one_method(methods: set[Method], where: str) -> Method:
    if len(methods) != 1:
        raise DatasetError("its sites differ in edge, engine or parameters", where=where)
    return next(iter(methods))
