"""What the store takes and returns: frozen records, free of pymongo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.spectrum import Spectrum
from htxas.domain.structure import Structure
from htxas.errors import Cause

__all__ = [
    "Batch",
    "CalculationRecord",
    "Control",
    "ControlState",
    "Hungry",
    "Lease",
    "Leased",
    "MOST_INTERRUPTED",
    "ModelRecord",
    "MolecularSpectrum",
    "MoleculeRecord",
    "PilotRecord",
    "PilotState",
    "PlannedCalculation",
    "SiteRef",
    "StructureRecord",
]

MOST_INTERRUPTED: Mapping[Cause, int] = MappingProxyType(
    {Cause.LOST: 3, Cause.WALLTIME: 3, Cause.NODE_FAILURE: 10, Cause.DISK_FULL: 10}
)
"""What may end an attempt without an outcome, and how often before the calculation is taken out of the queue.

Nodes and disks fail by themselves; whatever vanishes three times in the middle of the same calculation does so because
of it.
"""


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
        Its structure and its ground-state calculation; no ground key where the engine has none.
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
    ground_key: str | None
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
        Site with sticks: ``excitation_energy_eV``, ``ionization_eV`` (if the engine has one), ``strength_sum``,
        ``hole_overlap``. Site with a curve: ``edge_eV``, ``fermi_eV``, ``white_line`` (largest isotropic absorption).
        Ground state: ``total_energy_eV``, ``homo_eV``, ``lumo_eV``, ``gap_eV``, ``dipole_D``.
    updated
        UTC.
    provenance
        :class:`htxas.domain.result.Provenance` as a document.
    ladder
        What the next attempt (or, once it is over, the last one) does differently: a
        :class:`htxas.launch.work.ladder.Step` as a document; None for a first attempt.
    history
        The last 20 attempts that ended with an outcome or were interrupted, oldest first: ``attempt``, ``state``,
        ``cause``, ``message``, ``corrections``, ``worker``, ``host``, ``wall_s``, ``directory``, ``ended``.
    interrupted
        How often, since it was submitted or retried, an attempt ended without an outcome, by cause.
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
    ladder: dict[str, Any] | None = None
    history: tuple[dict[str, Any], ...] = ()
    interrupted: dict[str, int] = field(default_factory=dict)

    @property
    def onset_eV(self) -> float | None:
        """Where a site's spectrum begins, eV: its first final state or its threshold; None without a result."""
        return self.scalars.get("excitation_energy_eV", self.scalars.get("edge_eV"))

    @property
    def lost(self) -> int:
        """How often its worker vanished and left nothing."""
        return self.interrupted.get(Cause.LOST.value, 0)


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
    shortest_s, longest_s
        Expected seconds of its shortest and longest calculation; None in databases of older versions.
    """

    id: str
    campaign: str
    keys: tuple[str, ...]
    estimate_s: float
    after: str | None = None
    fw_id: int | None = None
    shortest_s: float | None = None
    longest_s: float | None = None


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


@dataclass(frozen=True, slots=True)
class Hungry:
    """An agent that has nothing to do.

    Attributes
    ----------
    campaign
        The only one it works for, or None.
    room_s
        Seconds that are left to it.
    workers
        How many of its workers wait.
    """

    campaign: str | None
    room_s: float
    workers: int


@dataclass(frozen=True, slots=True)
class Leased:
    """A calculation in hand: the lease, and the record as it was leased."""

    lease: Lease
    record: CalculationRecord


class ControlState(StrEnum):
    """What its user wants of a campaign."""

    ACTIVE = "active"  # compute it
    PAUSED = "paused"  # start nothing new; what runs may end
    CANCELLED = "cancelled"  # start nothing new and stop what runs


@dataclass(frozen=True, slots=True)
class Control:
    """How a campaign is to be treated.

    Attributes
    ----------
    state
        Compute it, wait, or stop.
    priority
        Higher goes first; 0 for most.
    budget_node_h
        Node-hours it may use in all, or None.
    """

    state: ControlState = ControlState.ACTIVE
    priority: int = 0
    budget_node_h: float | None = None


class PilotState(StrEnum):
    """Where a queue job stands, as far as we know."""

    SUBMITTING = "submitting"  # about to be handed over: if nothing follows, look for a job of that name
    QUEUED = "queued"  # the scheduler has it
    RUNNING = "running"  # it has its allocation
    ENDED = "ended"  # confirmed over
    LOST_TRACK = "lost_track"  # the scheduler no longer tells, and nothing else does


@dataclass(frozen=True, slots=True)
class PilotRecord:
    """A queue job of ours.

    Attributes
    ----------
    id
        Ours; part of the job's name, so that a job is found whose number was lost on the way.
    cluster, partition
        As in the profile.
    job_id, array_task
        The scheduler's number of the job (of the array) and index in the array; None before it is known.
    state
        Where it stands.
    campaign
        What it works on; None for all.
    nodes, cores
        Nodes, and cores in all.
    walltime_s
        Asked for.
    submitted, started, ended, end_time
        UTC. ``end_time`` is when the allocation ends.
    script_sha256
        Of the script as submitted.
    bundle
        Folder of its bundle, for nodes without a database.
    reason
        Why it waits, or how it ended.
    allocated_s, engine_s
        Seconds of all its workers' places, and those of them that engines used.
    scheduler_state
        In the scheduler's word.
    seen
        When the scheduler told last.
    owner
        The agent in it.
    restart
        How often the scheduler has requeued it.
    """

    id: str
    cluster: str
    job_id: str | None
    array_task: int | None
    state: PilotState
    campaign: str | None
    partition: str
    nodes: int
    cores: int
    walltime_s: float
    submitted: datetime
    started: datetime | None = None
    ended: datetime | None = None
    end_time: datetime | None = None
    script_sha256: str | None = None
    bundle: str | None = None
    reason: str | None = None
    allocated_s: float = 0.0
    engine_s: float = 0.0
    scheduler_state: str | None = None
    seen: datetime | None = None
    owner: str | None = None
    restart: int = 0


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
        Its structure and ground state, if it has one.
    spectrum
        Mean over the atoms of the element: weighted by multiplicity, divided by the sum of multiplicities. It is in the
        quantity of its sites; of continuous spectra it covers the energies that all have.
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
    ground_key: str | None
    spectrum: Spectrum
    site_keys: tuple[str, ...]
    multiplicities: tuple[int, ...]
    complete: bool
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A trained model, as its card has it; the net itself stays in its folder.

    Attributes
    ----------
    key
        Content key of the run that made it.
    name, training
        ``gap-A``, and the name of the training's folder.
    dataset
        ``key``, ``path``, ``source``, ``recipe``, ``method`` of the frozen dataset.
    spec
        Everything that decided its numbers.
    code
        Versions of what computed them.
    targets
        By name: unit, meaning, metrics of the net and its baselines on the test rows, coverage of its intervals.
    test_set
        Hash of the names of its test rows: models with the same one were asked the same questions.
    card
        The rest of the card; predictions of test rows and training history stay in the folder.
    host, folder
        Where it was registered last.
    created
        When it was registered first, UTC; None if it never was.
    """

    key: str
    name: str
    training: str
    dataset: dict[str, Any]
    spec: dict[str, Any]
    code: dict[str, str]
    targets: dict[str, dict[str, Any]]
    test_set: str
    card: dict[str, Any]
    host: str
    folder: str
    created: datetime | None = None
