"""Adopted calculations into the database, as if they had just been computed: leased, judged, delivered."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from fireworks import LaunchPad

from htxas.campaign.file import gate_document, other_limits
from htxas.domain.calculation import Calculation, State
from htxas.domain.gate import GateLimits, Rejection, inspect
from htxas.domain.identity import content_key
from htxas.domain.result import CurveResult
from htxas.domain.site import Site
from htxas.engines.adoption import Adopted
from htxas.errors import DatabaseUnavailable, StoreError, UserError
from htxas.launch.agent.liveness import hold_alive, new_owner, worker_folder
from htxas.launch.ingest.folders import Found, RunFolder, read_all
from htxas.launch.recovery.recover import recover
from htxas.store.outcomes import Outcome, done, quarantined
from htxas.store.records import Lease, MoleculeRecord, PlannedCalculation, SiteRef, StructureRecord
from htxas.store.store import Store

__all__ = ["Ingested", "Left", "ingest", "judge"]

_LEASE_S = 600.0
# Two runs of one site differ by less: other machines, compilers, mixing.
_APART_EV = 0.1
_APART = 0.02


@dataclass(frozen=True, slots=True)
class Left:
    """A folder that was not brought in."""

    folder: str
    why: str
    message: str


@dataclass(slots=True)
class Ingested:
    """What came of it.

    Attributes
    ----------
    folders
        Run folders that were read.
    stored
        Results that are new.
    known
        Calculations whose result was there, from an earlier call or because htxas had computed them.
    quarantined
        Results the gate refused, by message.
    refused_before
        Results the gate refused in an earlier call.
    campaigns
        Campaigns they are in, with the number of their folders.
    warnings
        Sound runs in which the code warned, by warning.
    left
        Folders that were not brought in.
    """

    folders: int = 0
    stored: int = 0
    known: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    refused_before: int = 0
    campaigns: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return asdict(self)


class _Judged(NamedTuple):
    """A folder's calculation and what the gate says of it."""

    path: str
    adopted: Adopted
    sites: tuple[Site, ...]
    rejection: Rejection | None

    @property
    def key(self) -> str:
        return self.adopted.calculation.key


class _Seen(NamedTuple):
    """What is remembered of a calculation that this call has met."""

    path: str
    sound: bool
    onset_eV: float
    top: float


class _Court:
    """Judges what was read; keeps twins apart and tells of all that is left out."""

    def __init__(self, told: Ingested, sigma_eV: float, step_eV: float) -> None:
        self._told = told
        self._grid = {"sigma_eV": sigma_eV, "step_eV": step_eV}
        self._seen: dict[str, _Seen] = {}

    def judge(self, part: Sequence[Found]) -> list[_Judged]:
        """Return those that give a calculation no other folder has given, or only one that the gate refused."""
        self._told.folders += len(part)
        fresh = []
        for found in part:
            path = str(found.folder.path)
            if found.adopted is None:
                assert found.why is not None
                self._leave(path, found.why.value, found.message)
                continue
            c, result = found.adopted.calculation, found.adopted.result
            rejection = inspect(result, GateLimits(), element=c.element, edge=c.edge)
            if rejection is None:
                try:
                    result.spectrum(**self._grid)
                except ValueError as error:
                    self._leave(path, "short", f"{error}: --sigma {self._grid['sigma_eV']:g}")
                    continue
            if self._is_new(path, c.key, found.adopted, sound=rejection is None):
                fresh.append(_Judged(path, found.adopted, found.sites, rejection))
        return fresh

    def _is_new(self, path: str, key: str, adopted: Adopted, *, sound: bool) -> bool:
        top = float(adopted.result.spectrum(**self._grid).total.max()) if sound else math.nan
        mine = _Seen(path, sound, adopted.result.onset_eV, top)
        first = self._seen.get(key)
        if first is None or (sound and not first.sound):
            self._seen[key] = mine
            return True
        apart = sound and (
            abs(first.onset_eV - mine.onset_eV) > _APART_EV or abs(first.top - top) > _APART * abs(top)
        )
        why, words = (
            ("contradicts", "not the same spectrum as") if apart else ("equivalent", "the same site as")
        )
        self._leave(path, why, f"{words} {first.path}")
        return False

    def count(self, one: _Judged) -> None:
        """Count a new one: what the gate says of it, or what the code warned of."""
        told, rejection = self._told, one.rejection
        if rejection is not None:
            told.quarantined[rejection.message] = told.quarantined.get(rejection.message, 0) + 1
            return
        for name in one.adopted.result.provenance.extra.get("warnings", {}):
            told.warnings[name] = told.warnings.get(name, 0) + 1

    def _leave(self, path: str, why: str, message: str) -> None:
        self._told.left.append(Left(path, why, message))


class _Books:
    """Which campaign takes which calculations: one for each set of parameters, element and edge.

    Clusters without a crystal differ in stoichiometry and radius, each from the others; these make no campaign.
    """

    def __init__(self, store: Store, name: str, tolerance_A: float, sigma_eV: float, step_eV: float) -> None:
        self._store = store
        self._name = name
        self._common: dict[str, Any] = {
            "symmetry_tolerance_A": tolerance_A,
            "preset": "adopted",
            "spectrum": {"sigma_eV": sigma_eV, "step_eV": step_eV},
            "gate": dict(gate_document(GateLimits())),
            "walltime_s": None,
            "structures": [],
        }
        self._names: dict[str, str] = {}
        self._number = 1
        self._strict: dict[bool, list[str]] = {}

    def campaign(self, adopted: Adopted) -> str:
        """Return the campaign of a calculation; it is made if it is not there."""
        c = adopted.calculation
        parameters = dict(c.parameters)
        if adopted.origin["structure"] == "cluster":
            parameters = {
                k: v for k, v in parameters.items() if k not in ("stoichiometry", "cluster_radius_A")
            }
        document = {
            **self._common,
            "element": c.element,
            "edge": c.edge,
            "engine": c.engine,
            "parameters": {"site": parameters, "ground": None},
        }
        about = content_key(document)
        if about not in self._names:
            self._names[about] = self._make(document, curves=isinstance(adopted.result, CurveResult))
        return self._names[about]

    def _make(self, document: Mapping[str, Any], *, curves: bool) -> str:
        while True:
            name = self._name if self._number == 1 else f"{self._name}-{self._number}"
            self._number += 1
            try:
                self._store.put_campaign(name, document)
            except (DatabaseUnavailable, StoreError):
                raise
            except UserError:  # another set of parameters has it
                if not self._judged_alike(self._store.campaign(name), document, curves=curves):
                    continue
            self._store.seal_campaign(name)
            return name

    @staticmethod
    def _judged_alike(made: Mapping[str, Any], document: Mapping[str, Any], *, curves: bool) -> bool:
        """Tell whether a campaign of an older version differs only in limits that these results do not meet."""
        if other_limits(made["gate"], document["gate"], curves=curves):
            return False
        ours = {k: v for k, v in document.items() if k != "gate"}
        return content_key({k: made.get(k) for k in ours}) == content_key(ours)

    def refuse_another_gate(self, keys: Iterable[str], *, curves: bool) -> None:
        """Refuse calculations that a campaign with other limits wants: a result is judged once.

        Parameters
        ----------
        keys
            Calculations.
        curves
            Whether they give continuous spectra.

        Raises
        ------
        UserError
            With the name of that campaign.
        """
        if curves not in self._strict:
            self._strict[curves] = [
                c["name"]
                for c in self._store.campaigns()
                if other_limits(self._common["gate"], c["gate"], curves=curves)
            ]
        strict = self._strict[curves]
        found = self._store.wanted(keys, strict) if strict else None
        if found is not None:
            raise UserError(
                f"campaign {found[1]} wants some of these calculations, by other limits of the gate than the default",
                where=found[0][:12],
                hint="compute them there",
            )


def ingest(
    store: Store,
    launchpad: LaunchPad,
    folders: Iterable[RunFolder],
    campaign: str,
    *,
    tolerance_A: float,
    sigma_eV: float,
    step_eV: float,
    jobs: int,
    on_folders: Callable[[int], None] | None = None,
) -> Ingested:
    """Bring run folders into the database. May be repeated, and killed at any point: what is there stays as it is.

    Parameters
    ----------
    store, launchpad
        Where to.
    folders
        As :func:`htxas.launch.ingest.folders.find` yields them.
    campaign
        Name; further sets of parameters get ``NAME-2``, ``NAME-3``.
    tolerance_A
        Of the symmetry that says which atoms are equivalent.
    sigma_eV, step_eV
        Of the stored grid.
    jobs
        Processes that read.
    on_folders
        Called with a number of folders now and then, for a progress bar.

    Raises
    ------
    UserError
        A folder is none, or a campaign with other limits of the gate wants some of these calculations.
    """
    recover(store, launchpad)  # what an earlier call had in hand when it was killed
    told, owner = Ingested(), new_owner()
    court, books = _Court(told, sigma_eV, step_eV), _Books(store, campaign, tolerance_A, sigma_eV, step_eV)
    with hold_alive(owner) as facts:
        store.heartbeat(owner, {**facts, "campaign": campaign, "workers": 0, "in_hand": [], "held": 0})
        for part in read_all(folders, tolerance_A, jobs):
            for one in _bring(store, books, court.judge(part), told, owner, sigma_eV, step_eV):
                court.count(one)
            if on_folders is not None:
                on_folders(len(part))
        store.forget_worker(owner)
    shutil.rmtree(worker_folder(owner), ignore_errors=True)
    return told


def judge(
    folders: Iterable[RunFolder],
    *,
    tolerance_A: float,
    sigma_eV: float,
    step_eV: float,
    jobs: int,
    on_folders: Callable[[int], None] | None = None,
) -> Ingested:
    """Return what :func:`ingest` into an empty database would tell, without one; ``stored`` counts the sound ones."""
    told = Ingested()
    court = _Court(told, sigma_eV, step_eV)
    for part in read_all(folders, tolerance_A, jobs):
        for one in court.judge(part):
            court.count(one)
            told.stored += one.rejection is None
        if on_folders is not None:
            on_folders(len(part))
    return told


def _bring(
    store: Store,
    books: _Books,
    part: Sequence[_Judged],
    told: Ingested,
    owner: str,
    sigma_eV: float,
    step_eV: float,
) -> list[_Judged]:
    """Store a part; return what is new in the database."""
    new: list[_Judged] = []
    by_campaign: dict[str, dict[str, _Judged]] = {}
    for one in part:  # of twins in one part the last is the sound one
        by_campaign.setdefault(books.campaign(one.adopted), {})[one.key] = one
    for name, mine in by_campaign.items():
        curves = all(isinstance(one.adopted.result, CurveResult) for one in mine.values())
        books.refuse_another_gate(mine, curves=curves)
        _put_molecules(store, name, mine, told)
        told.campaigns[name] = told.campaigns.get(name, 0) + len(mine)
        structures = {one.adopted.structure.key: _structure(one.adopted) for one in mine.values()}
        store.put_structures(structures.values())
        planned = [PlannedCalculation(one.adopted.calculation, 0.0) for one in mine.values()]
        store.put_calculations(name, planned, structures)
        _judge_again(store, mine)
        leased = store.lease_many(sorted(mine), owner, _LEASE_S)
        _tell_of_others(store, mine, {one.lease.key for one in leased}, told)
        outcomes = [_outcome(one.lease, mine[one.lease.key], sigma_eV, step_eV) for one in leased]
        answers = store.deliver(outcomes)
        told.stored += sum(
            answer == "stored" and o.state is State.DONE for answer, o in zip(answers, outcomes, strict=True)
        )
        new += [mine[one.lease.key] for one in leased]
    return new


def _put_molecules(store: Store, campaign: str, mine: dict[str, _Judged], told: Ingested) -> None:
    """Store the molecules of ``mine``; take out, and tell of, those whose name is another structure's."""
    records = {key: _molecule(campaign, one) for key, one in mine.items()}
    try:
        store.put_molecules({r.structure_key: r for r in records.values()}.values())
    except (DatabaseUnavailable, StoreError):
        raise
    except UserError:
        for key, record in records.items():
            try:
                store.put_molecules([record])
            except (DatabaseUnavailable, StoreError):
                raise
            except UserError as error:
                told.left.append(Left(mine.pop(key).path, "name", error.message))


def _judge_again(store: Store, mine: Mapping[str, _Judged]) -> None:
    """Make room for sound results of adopted runs in whose place another folder had given a refused one."""
    sound = [key for key, one in mine.items() if one.rejection is None]
    refused = [
        key
        for key, record in store.calculations(sound).items()
        if record.state is State.QUARANTINED and record.batch is None
    ]
    if refused:
        store.retry(None, keys=refused)


def _tell_of_others(store: Store, mine: Mapping[str, _Judged], leased: set[str], told: Ingested) -> None:
    others = store.states(mine.keys() - leased)
    for key, state in others.items():
        if state is State.DONE:
            told.known += 1
        elif state is State.QUARANTINED:
            told.refused_before += 1
        else:
            hint = "htxas retry, then again" if state is State.FAILED else "somebody is computing it"
            told.left.append(Left(mine[key].path, state.value, f"{key[:12]} is {state.value}: {hint}"))


def _structure(adopted: Adopted) -> StructureRecord:
    provenance = {"format": "adopted", **adopted.origin, "geometry": {"method": None, "energy_eV": None}}
    return StructureRecord(adopted.structure, None, provenance)


def _molecule(campaign: str, one: _Judged) -> MoleculeRecord:
    adopted = one.adopted
    refs = []
    for site in one.sites:
        calculation = Calculation(
            adopted.calculation.kind,
            adopted.structure.key,
            adopted.calculation.engine,
            adopted.calculation.parameters,
            site.element,
            adopted.calculation.edge,
            site.atom,
        )
        refs.append(
            SiteRef(
                key=calculation.key,
                atom=site.atom,
                file_atom=adopted.order[site.atom],
                element=site.element,
                multiplicity=site.multiplicity,
                equivalent_file_atoms=tuple(sorted(adopted.order[a] for a in site.equivalent)),
            )
        )
    return MoleculeRecord(
        campaign, adopted.name, adopted.structure.key, None, None, adopted.order, tuple(refs)
    )


def _outcome(lease: Lease, one: _Judged, sigma_eV: float, step_eV: float) -> Outcome:
    c, structure, result = one.adopted.calculation, one.adopted.structure, one.adopted.result
    if one.rejection is None:
        return done(lease, c, structure, result, sigma_eV=sigma_eV, step_eV=step_eV)
    return quarantined(lease, c, structure, result, one.rejection, sigma_eV=sigma_eV, step_eV=step_eV)
