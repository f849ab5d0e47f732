"""What the store takes and returns: frozen records, free of pymongo."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.spectrum import Spectrum
from htxas.domain.structure import Structure
from htxas.errors import Cause

__all__ = [
    "Batch",
    "CalculationRecord",
    "Lease",
    "MolecularSpectrum",
    "MoleculeRecord",
    "PlannedCalculation",
    "SiteRef",
    "StructureRecord",
]


@dataclass(frozen=True, slots=True)
class StructureRecord:
    """A structure and how it came to be.

    Attributes
    ----------
    structure
        Canonical structure.
    smiles
        Canonical SMILES, or None for a crystal or an unknown bonding.
    provenance
        Source file, record, SHA-256; method and energy of the geometry.
    """

    structure: Structure
    smiles: str | None
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SiteRef:
    """A site of a molecule and the calculation that gives its spectrum.

    Attributes
    ----------
    key
        Calculation key.
    atom
        Canonical index of the absorber.
    file_atom
        Its index in the user's file, counted from 0.
    element
        Element symbol.
    multiplicity
        Number of equivalent atoms.
    equivalent_file_atoms
        Their indices in the user's file, the absorber included.
    """

    key: str
    atom: int
    file_atom: int
    element: str
    multiplicity: int
    equivalent_file_atoms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MoleculeRecord:
    """A molecule (or crystal) as a campaign names it.

    Attributes
    ----------
    campaign, name
        Unique together.
    structure_key, ground_key
        Its structure and its ground-state calculation.
    smiles
        As in the structure record.
    file_order
        Canonical atom i is atom ``file_order[i]`` of the user's file.
    sites
        One per symmetry-unique absorber.
    """

    campaign: str
    name: str
    structure_key: str
    ground_key: str
    smiles: str | None
    file_order: tuple[int, ...]
    sites: tuple[SiteRef, ...]


@dataclass(frozen=True, slots=True)
class PlannedCalculation:
    """A calculation with its expected cost in seconds on one core."""

    calculation: Calculation
    estimate_s: float


@dataclass(frozen=True, slots=True)
class CalculationRecord:
    """A calculation and where it stands.

    Attributes
    ----------
    key, kind, structure_key, engine, parameters_key, element, edge, atom
        Identity; see :class:`htxas.domain.calculation.Calculation`.
    state, cause, message, evidence
        Where it stands and, if it failed or was quarantined, why.
    attempts
        Leases given so far; the number of the last attempt.
    batch
        Id of the batch that carries it.
    estimate_s, wall_s
        Expected and spent seconds.
    host, directory, worker
        Where the last attempt ran.
    campaigns
        Names of the campaigns that want it.
    scalars
        Site: ``excitation_energy_eV``, ``ionization_eV`` (if the engine has one), ``strength_sum``,
        ``hole_overlap``. Ground state: ``total_energy_eV``, ``homo_eV``, ``lumo_eV``, ``gap_eV``, ``dipole_D``.
    updated
        UTC.
    provenance
        :class:`htxas.domain.result.Provenance` as a document.
    lost
        Leases since the last outcome that ended without one, the present one included.
    """

    key: str
    kind: Kind
    structure_key: str
    engine: str
    parameters_key: str
    element: str | None
    edge: str | None
    atom: int | None
    state: State
    cause: Cause | None
    message: str | None
    evidence: dict[str, Any]
    attempts: int
    batch: str | None
    estimate_s: float
    wall_s: float | None
    host: str | None
    directory: str | None
    worker: str | None
    campaigns: tuple[str, ...]
    scalars: dict[str, float]
    updated: datetime
    provenance: dict[str, Any] | None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Calculations that one Firework carries, in the order they run.

    Attributes
    ----------
    id
        Content key of the sorted calculation keys.
    campaign
        The campaign that submitted it.
    keys
        Calculation keys, ground states before their sites.
    estimate_s
        Sum of the expected seconds.
    after
        Id of the batch that must finish first, or None.
    fw_id
        The Firework, or None until it is submitted.
    """

    id: str
    campaign: str
    keys: tuple[str, ...]
    estimate_s: float
    after: str | None = None
    fw_id: int | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to compute a calculation and to report on it.

    Attributes
    ----------
    key
        Calculation key.
    attempt
        Grows with each lease: a report of an older attempt is refused.
    owner
        The worker.
    """

    key: str
    attempt: int
    owner: str


@dataclass(frozen=True, slots=True, eq=False)
class MolecularSpectrum:
    """Site spectra of a molecule, aligned by absolute energy and averaged over its absorbers.

    Attributes
    ----------
    key
        Content key of site keys, multiplicities, broadening and step.
    campaign, name
        The molecule as the campaign names it.
    structure_key, ground_key
        Its structure and ground state.
    spectrum
        Mean over the atoms of the element: weighted by multiplicity, divided by the sum of multiplicities.
    site_keys, multiplicities
        What was asked for, in the molecule's order.
    complete
        Whether every site is done. An incomplete one covers only the done sites and is never stored.
    missing
        Keys of the sites that are not done.
    """

    key: str
    campaign: str
    name: str
    structure_key: str
    ground_key: str
    spectrum: Spectrum
    site_keys: tuple[str, ...]
    multiplicities: tuple[int, ...]
    complete: bool
    missing: tuple[str, ...]
