"""A campaign's results as files: published layout, dataset file, or Parquet. One molecule in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Protocol

from htxas import __version__
from htxas.datafile import CurveEntry, DatasetMeta, GroundEntry, MoleculeEntry, SiteEntry
from htxas.domain.calculation import State
from htxas.domain.result import CurveResult, SiteResult
from htxas.domain.structure import Structure
from htxas.errors import UserError
from htxas.report.results import Results, another_state, corrections
from htxas.store.records import CalculationRecord, MoleculeRecord, SiteRef

__all__ = [
    "ExportFormat",
    "ExportSummary",
    "calculations_of",
    "export_campaign",
    "missing_keys",
    "molecule_entries",
    "molecule_entry",
]

# what the store adds to a campaign; left out, the same results make the same file whenever they were submitted
# What the store adds to a campaign's own document, and what has an attribute of its own.
_NOT_PARAMETERS = frozenset({"name", "created", "submitted", "skipped", "engine"})


class ExportFormat(StrEnum):
    """What ``htxas export`` writes."""

    HDF5 = "hdf5"  # the published layout: a folder of three files
    DATASET = "dataset"  # one compressed file with everything training needs
    PARQUET = "parquet"  # a folder with sites.parquet and molecules.parquet


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written.

    Attributes
    ----------
    output
        File or folder.
    molecules, sites
        Written, incomplete ones included.
    incomplete
        Names of the incomplete molecules, written (flagged) or left out.
    incomplete_written
        Whether they were written.
    """

    output: Path
    molecules: int
    sites: int
    incomplete: tuple[str, ...]
    incomplete_written: bool


class _Writer(Protocol):
    def add(self, entry: MoleculeEntry, /) -> None: ...


def molecular_weight_u(structure: Structure) -> float:
    """Molar mass in g/mol from standard atomic weights (IUPAC 2016, as tabulated in ASE)."""
    from ase.data import atomic_masses

    return float(sum(atomic_masses[z] for z in structure.atomic_numbers))


def calculations_of(store: Results, molecule: MoleculeRecord) -> Mapping[str, CalculationRecord]:
    """Return the known calculations of a molecule by key."""
    return store.calculations(_keys(molecule))


def _keys(molecule: MoleculeRecord) -> list[str]:
    """Return the keys of the ground state, if there is one, and of the sites."""
    ground = [] if molecule.ground_key is None else [molecule.ground_key]
    return [*ground, *(s.key for s in molecule.sites)]


def missing_keys(molecule: MoleculeRecord, records: Mapping[str, CalculationRecord]) -> tuple[str, ...]:
    """Return the calculations of a molecule, ground state first, that are not done."""
    return tuple(k for k in _keys(molecule) if k not in records or records[k].state is not State.DONE)


def molecule_entry(
    store: Results, molecule: MoleculeRecord, records: Mapping[str, CalculationRecord], *, edge: str
) -> MoleculeEntry:
    """Return a molecule with every accepted result; ``records`` are its calculations."""
    missing = missing_keys(molecule, records)
    record = store.structure(molecule.structure_key)
    sites: list[SiteEntry] = []
    curves: list[CurveEntry] = []
    for ref in sorted(molecule.sites, key=lambda s: s.file_atom):
        if ref.key in missing:
            continue
        result = store.site_result(ref.key)
        if isinstance(result, CurveResult):
            curves.append(_curve_entry(result, ref, edge, records[ref.key]))
        else:
            sites.append(_site_entry(result, ref, edge, records[ref.key]))
    ground = None
    if molecule.ground_key is not None and molecule.ground_key not in missing:
        g = store.ground_result(molecule.ground_key)
        made = corrections(records[molecule.ground_key])
        ground = GroundEntry(g.total_energy_eV, g.homo_eV, g.lumo_eV, g.dipole_D, g.pdos, made, g.reference)
    return MoleculeEntry(
        name=molecule.name,
        structure=record.structure,
        file_order=molecule.file_order,
        ground_key=molecule.ground_key,
        smiles=molecule.smiles,
        molecular_weight_u=molecular_weight_u(record.structure),
        complete=bool(sites or curves) and not missing,
        missing=missing,
        spectrum=store.assemble(molecule).spectrum if sites or curves else None,
        ground=ground,
        sites=tuple(sites),
        provenance=record.provenance,
        curves=tuple(curves),
    )


def _site_entry(result: SiteResult, ref: SiteRef, edge: str, record: CalculationRecord) -> SiteEntry:
    return SiteEntry(
        key=ref.key,
        file_atom=ref.file_atom,
        element=ref.element,
        edge=edge,
        multiplicity=ref.multiplicity,
        equivalent_file_atoms=ref.equivalent_file_atoms,
        excitation_energy_eV=result.excitation_energy_eV,
        ionization_eV=result.ionization_eV,
        scale=result.scale,
        energies_eV=result.energies_eV,
        hole_overlap=result.hole_overlap,
        window_eV=result.window_eV,
        sticks=result.sticks,
        corrections=corrections(record),
        another_state=another_state(record),
    )


def _curve_entry(result: CurveResult, ref: SiteRef, edge: str, record: CalculationRecord) -> CurveEntry:
    return CurveEntry(
        key=ref.key,
        file_atom=ref.file_atom,
        element=ref.element,
        edge=edge,
        multiplicity=ref.multiplicity,
        equivalent_file_atoms=ref.equivalent_file_atoms,
        edge_eV=result.edge_eV,
        fermi_eV=result.fermi_eV,
        lifetime_eV=result.lifetime_eV,
        normalisation=result.normalisation,
        scale=result.scale,
        window_eV=result.window_eV,
        curve=result.curve,
        background=result.background,
        corrections=corrections(record),
        another_state=another_state(record),
    )


def molecule_entries(
    store: Results, campaign: str, *, edge: str, include_incomplete: bool, incomplete: list[str]
) -> Iterator[MoleculeEntry]:
    """Yield the molecules of a campaign one by one; names of incomplete ones are appended to ``incomplete``.

    Incomplete molecules are yielded only on request, and only if anything of them is finished.
    """
    for molecule in store.molecules(campaign):
        records = calculations_of(store, molecule)
        missing = missing_keys(molecule, records)
        if missing or not molecule.sites:
            incomplete.append(molecule.name)
            if not include_incomplete or len(missing) == len(_keys(molecule)):
                continue
        yield molecule_entry(store, molecule, records, edge=edge)


def export_campaign(
    store: Results,
    campaign: str,
    output: Path,
    export_format: ExportFormat,
    *,
    include_incomplete: bool = False,
    overwrite: bool = False,
    numbered: bool = False,
    progress: Callable[[], None] | None = None,
) -> ExportSummary:
    """Write a campaign's molecules to ``output``.

    Parameters
    ----------
    store
        Where to read.
    campaign
        Campaign name.
    output
        A file for ``dataset``, a folder for the others.
    export_format
        What to write.
    include_incomplete
        Also write incomplete molecules, flagged ``complete=False``; otherwise they are only counted.
    overwrite
        Replace what an earlier export left.
    numbered
        ``hdf5`` only: number the molecules instead of naming their groups.
    progress
        Called after every molecule.

    Raises
    ------
    NotFound
        If there is no such campaign.
    UserError
        If nothing is complete, the output exists, or it cannot be written; if the format holds transitions and the
        campaign has continuous spectra.
    """
    document = store.campaign(campaign)
    if not overwrite and _exists(output, export_format):
        raise UserError("already exists", where=str(output), hint="add --force to replace it")
    incomplete: list[str] = []
    entries = molecule_entries(
        store,
        campaign,
        edge=document["edge"],
        include_incomplete=include_incomplete,
        incomplete=incomplete,
    )
    first = next(entries, None)
    if first is None:
        raise UserError(
            f"no molecule of {campaign} is complete ({len(incomplete)} are not)",
            hint=f"htxas status {campaign}; --include-incomplete exports what is finished",
        )
    if first.curves and export_format is not ExportFormat.PARQUET:
        raise UserError(
            f"{export_format.value} holds transitions, and this campaign has continuous spectra",
            where=campaign,
            hint=f"htxas export {campaign} --format parquet",
        )
    meta = DatasetMeta(
        campaign=campaign,
        engine=document["engine"],
        parameters={k: v for k, v in document.items() if k not in _NOT_PARAMETERS},
        created_by=f"htxas {__version__}",
    )
    molecules = sites = 0
    with _writer(store, campaign, output, export_format, meta, numbered) as writer:
        for entry in chain([first], entries):
            writer.add(entry)
            molecules += 1
            sites += len(entry.sites) + len(entry.curves)
            if progress is not None:
                progress()
    return ExportSummary(output, molecules, sites, tuple(incomplete), include_incomplete)


def _exists(output: Path, export_format: ExportFormat) -> bool:
    if export_format is ExportFormat.DATASET:
        return output.exists()
    return output.exists() and (not output.is_dir() or any(output.iterdir()))


def _writer(
    store: Results,
    campaign: str,
    output: Path,
    export_format: ExportFormat,
    meta: DatasetMeta,
    numbered: bool,
) -> AbstractContextManager[_Writer]:
    if export_format is ExportFormat.DATASET:
        from htxas.datafile import DatasetWriter

        return DatasetWriter(output, meta)
    if export_format is ExportFormat.HDF5:
        from htxas.datafile.published import PublishedWriter, gdb_number

        # all groups are QM9 numbers or none is: a mixture would fit no reader
        gdb = not numbered and all(gdb_number(m.name) is not None for m in store.molecules(campaign))
        return PublishedWriter(output, meta, numbered=numbered, use_gdb_numbers=gdb)
    from htxas.report.parquet import ParquetPairWriter

    return ParquetPairWriter(output, meta)
