"""Where training spectra come from: a campaign in the store, or a dataset file, as one stream of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from htxas.datafile import DatasetFile, MoleculeEntry
from htxas.domain.identity import content_key
from htxas.domain.result import SiteResult, Spectral
from htxas.domain.spectrum import Spectrum
from htxas.domain.structure import Structure
from htxas.errors import DatasetError

if TYPE_CHECKING:
    from htxas.store.records import MolecularSpectrum
    from htxas.store.store import Store

__all__ = ["FileSource", "Method", "Source", "SpectrumRecord", "StoreSource", "store_record"]

_GROUND_SCALARS = ("gap_eV", "homo_eV", "lumo_eV", "dipole_D", "total_energy_eV")


@dataclass(frozen=True, slots=True)
class Method:
    """What a spectrum is of, and how it was computed. Spectra of different methods never meet in one model.

    Attributes
    ----------
    engine
        Engine name.
    element, edge
        Absorber.
    parameters_key
        Content key of the resolved site parameters: the same in the database and in a file exported from it.
    """

    engine: str
    element: str
    edge: str
    parameters_key: str

    def __str__(self) -> str:
        return f"{self.engine} {self.element} {self.edge} (parameters {self.parameters_key[:8]})"


@dataclass(frozen=True, slots=True, eq=False)
class SpectrumRecord:
    """One molecule with its complete spectrum and what is known of it.

    Attributes
    ----------
    name
        Name in the campaign or file; unique there.
    smiles
        SMILES, or None.
    structure
        Canonical structure.
    spectrum
        Molecular spectrum on absolute energies.
    excitation_energy_eV
        Lowest excitation energy of the molecule's sites: where the spectrum starts.
    complete_to_eV
        Absolute energy up to which every site's states are complete.
    method
        Records of one dataset share it.
    ground
        Ground state: ``gap_eV``, ``homo_eV``, ``lumo_eV``, ``dipole_D`` (norm), ``total_energy_eV``; without what
        the engine does not tell (levels that are not counted from the vacuum), empty where it has no ground state.
    """

    name: str
    smiles: str | None
    structure: Structure
    spectrum: Spectrum
    excitation_energy_eV: float
    complete_to_eV: float
    method: Method
    ground: Mapping[str, float]


class Source(Protocol):
    """A stream of complete molecules. Later sources (site by site, the published files) have the same shape."""

    @property
    def query(self) -> Mapping[str, Any]:
        """What was asked of what; JSON-able, part of the dataset's hash."""
        ...

    @property
    def label(self) -> str:
        """Name for people: campaign or file."""
        ...

    def records(self) -> Iterator[SpectrumRecord]:
        """Yield complete molecules, one at a time, in any order.

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

    def records(self) -> Iterator[SpectrumRecord]:
        """Yield every complete molecule of the campaign."""
        self.store.campaign(self.campaign)  # NotFound with near names, before an empty dataset is blamed
        for spectrum in self.store.molecular_spectra(self.campaign):
            yield store_record(self.store, spectrum)


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

    def records(self) -> Iterator[SpectrumRecord]:
        """Check the file's hashes, then yield every complete molecule."""
        with DatasetFile(self.path) as data:
            data.verify()
            try:
                parameters_key = content_key(data.meta.parameters["parameters"]["site"])
            except (KeyError, TypeError):
                raise DatasetError("does not say how its sites were computed", where=str(self.path)) from None
            for entry in data:
                if entry.complete:
                    yield _entry_record(entry, data.meta.engine, parameters_key)


def _entry_record(entry: MoleculeEntry, engine: str, parameters_key: str) -> SpectrumRecord:
    where = f"molecule {entry.name}"
    energy, spectrum, ground = entry.excitation_energy_eV, entry.spectrum, entry.ground
    if not entry.complete or energy is None or spectrum is None:
        raise DatasetError("its spectrum is not complete", where=where)
    return SpectrumRecord(
        name=entry.name,
        smiles=entry.smiles,
        structure=entry.structure,
        spectrum=spectrum,
        excitation_energy_eV=energy,
        complete_to_eV=min(s.excitation_energy_eV + s.window_eV for s in entry.sites),
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
    )


def store_record(store: Store, molecular: MolecularSpectrum) -> SpectrumRecord:
    """Return the record of one complete molecular spectrum.

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
    sites = [_with_sticks(store.site_result(key), where) for key in molecular.site_keys]
    structure = store.structure(molecular.structure_key)
    molecule = store.molecule(molecular.campaign, molecular.name)
    ground_key = molecular.ground_key
    scalars = {} if ground_key is None else store.calculation(ground_key).scalars
    return SpectrumRecord(
        name=molecular.name,
        smiles=molecule.smiles,  # as this campaign wrote it; the structure may be shared with another
        structure=structure.structure,
        spectrum=molecular.spectrum,
        excitation_energy_eV=min(s.excitation_energy_eV for s in sites),
        complete_to_eV=min(s.excitation_energy_eV + s.window_eV for s in sites),
        method=_one_method(methods, where),
        ground={name: scalars[name] for name in _GROUND_SCALARS if name in scalars},
    )


def _with_sticks(result: Spectral, where: str) -> SiteResult:
    if isinstance(result, SiteResult):
        return result
    raise DatasetError(
        "its spectrum is continuous; models are trained on transitions",
        where=where,
        hint="train on a campaign of another engine, or read the tables of htxas export --format parquet",
    )


def _one_method(methods: set[Method], where: str) -> Method:
    if len(methods) != 1:
        raise DatasetError("its sites differ in edge, engine or parameters", where=where)
    return next(iter(methods))
