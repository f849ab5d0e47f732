"""Tasks from leased records: structures, parameters, ground states and the campaign's limits put together."""

from __future__ import annotations

import platform
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.identity import content_key
from htxas.domain.structure import Structure
from htxas.errors import Cause
from htxas.launch.agent.policy import SAFETY, Item
from htxas.launch.estimates import Estimator, lengths
from htxas.launch.work.compute import CampaignSettings, walltime_s
from htxas.launch.work.engine_run import Engines
from htxas.launch.work.ladder import Step
from htxas.launch.work.task import Task
from htxas.store.demand import Length
from htxas.store.records import MOST_INTERRUPTED, CalculationRecord, Leased
from htxas.store.store import Store

if TYPE_CHECKING:
    from htxas.launch.agent.source import Held

__all__ = ["Ground", "TaskMaker", "cut_short", "item_of", "shown_s"]

_REMEMBERED = 2_000
_CUT_SHORT = {cause.value for cause in MOST_INTERRUPTED}


def item_of(task: Task) -> Item:
    """Return a task as the policy sees it."""
    needs = None if task.ground_directory is not None else task.ground_key
    group = f"{task.engine}:{task.structure_key}"
    return Item(task.key, group, task.estimate_s, needs, task.slots, task.safety)


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of a ground state: DONE somewhere, or why it never will be.

    Its energy (eV) and its numerics are those that are stored; what this agent has just computed lies in its folder.
    """

    key: str
    state: State
    directory: str | None
    cause: str
    message: str
    energy_eV: float | None = None
    numerics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Campaign:
    settings: CampaignSettings
    parameters: Mapping[str, Mapping[str, Any]]  # by their key


class TaskMaker:
    """Makes tasks; remembers campaigns, structures and ground states.

    Parameters
    ----------
    store
        Where to look things up.
    places
        Workers' places of the agent.
    engines
        How it starts engines.
    """

    def __init__(self, store: Store, places: int, engines: Engines | None = None) -> None:
        self._store = store
        self._places = places
        self._engines = engines or Engines()
        self._estimator = Estimator(store, host=platform.node(), engines=self._engines)
        self._campaigns: dict[str, _Campaign] = {}
        self._structures: OrderedDict[str, tuple[Structure, dict[str, Any]]] = OrderedDict()
        self._ground_keys: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._grounds: OrderedDict[str, Ground] = OrderedDict()

    def lengths(self, campaigns: Iterable[str]) -> list[Length]:
        """Return what has been learned of the calculations of campaigns."""
        return lengths(self._store, campaigns, self._estimator, self._engines)

    def settings(self, name: str) -> CampaignSettings:
        """Return what workers need of a campaign."""
        return self._campaign(name).settings

    def _campaign(self, name: str) -> _Campaign:
        if name not in self._campaigns:
            settings = CampaignSettings.from_document(self._store.campaign(name))
            self._campaigns[name] = _Campaign(
                settings,
                {
                    content_key(parameters): parameters
                    for parameters in (settings.site_parameters, settings.ground_parameters)
                    if parameters is not None
                },
            )
        return self._campaigns[name]

    def remember(self, records: Iterable[CalculationRecord]) -> None:
        """Note the ground states among ``records`` that are over."""
        for r in records:
            if r.kind is Kind.GROUND:
                if r.state in (State.DONE, State.FAILED, State.QUARANTINED):
                    cause = r.cause.value if r.cause else r.state.value
                    extra = (r.provenance or {}).get("extra") or {}
                    self.note(
                        Ground(
                            r.key,
                            r.state,
                            r.directory,
                            cause,
                            r.message or "",
                            r.scalars.get("total_energy_eV"),
                            extra.get("numerics") or {},
                        )
                    )
                else:
                    self._grounds.pop(r.key, None)

    def note(self, ground: Ground) -> None:
        """Note how a ground state ended."""
        self._grounds[ground.key] = ground
        _trim(self._grounds)

    def forget(self, keys: Iterable[str]) -> None:
        """Forget how ground states ended that are computed once more."""
        for key in keys:
            self._grounds.pop(key, None)

    def ground(self, key: str) -> Ground | None:
        """Return how a ground state ended, as far as it is remembered."""
        return self._grounds.get(key)

    def grounds_of(self, campaign: str, records: Sequence[CalculationRecord]) -> dict[str, str]:
        """Return site -> ground state for those among ``records`` that are sites and have one."""
        parameters = self._campaign(campaign).settings.ground_parameters
        if parameters is None:
            return {}
        return {r.key: self._ground_key(campaign, r, parameters) for r in records if r.kind is Kind.SITE}

    def _ground_key(self, campaign: str, record: CalculationRecord, parameters: Mapping[str, Any]) -> str:
        about = (campaign, record.structure_key)
        if about not in self._ground_keys:
            ground = Calculation(Kind.GROUND, record.structure_key, record.engine, parameters)
            self._ground_keys[about] = ground.key
            _trim(self._ground_keys)
        return self._ground_keys[about]

    def unknown(self, keys: Iterable[str], known: Collection[str]) -> set[str]:
        """Return those of ``keys`` that are neither known nor remembered as done: a failure may have been retried."""

        def done(key: str) -> bool:
            ground = self._grounds.get(key)
            return ground is not None and ground.state is State.DONE

        return {k for k in keys if k not in known and not done(k)}

    def make(
        self, held: Held, leased: Sequence[Leased], needed: Mapping[str, str], *, exact: bool
    ) -> tuple[list[Task], list[tuple[Task, Ground]]]:
        """Return the tasks of leased calculations, and those whose ground state has no result."""
        missing = {one.record.structure_key for one in leased} - self._structures.keys()
        if missing:
            found = self._store.structures(missing)
            self._structures.update({k: (r.structure, r.structure.to_dict()) for k, r in found.items()})
        tasks, failed = [], []
        for one in leased:
            ground = self._grounds.get(needed.get(one.lease.key, ""))
            task = self._task(held, one, needed.get(one.lease.key), ground, exact)
            if ground is not None and ground.state is not State.DONE:
                failed.append((task, ground))
            else:
                tasks.append(task)
        _trim(self._structures)
        return tasks, failed

    def _task(
        self, held: Held, one: Leased, ground_key: str | None, ground: Ground | None, exact: bool
    ) -> Task:
        record, lease = one.record, one.lease
        campaign = self._campaign(held.campaign)
        settings = campaign.settings
        parameters = campaign.parameters.get(record.parameters_key)
        if parameters is None:  # shared with a campaign that asks for the same in other words
            parameters = self._store.identity(record.key).parameters
        structure, document = self._structures[record.structure_key]
        known_s = shown_s(record)
        estimate_s, safety = max(record.estimate_s, known_s), SAFETY
        step = Step.from_dict(record.ladder)
        if exact:
            calculation = Calculation(
                record.kind,
                record.structure_key,
                record.engine,
                parameters,
                record.element,
                record.edge,
                record.atom,
            )
            found = self._estimator.estimate(calculation, structure, at_least_s=known_s)
            estimate_s, safety = found.seconds, found.safety
        there = ground if ground is not None and ground.state is State.DONE else None
        return Task(
            key=lease.key,
            attempt=lease.attempt,
            owner=lease.owner,
            batch=held.batch,
            campaign=held.campaign,
            kind=record.kind,
            engine=record.engine,
            structure_key=record.structure_key,
            parameters=parameters,
            element=record.element,
            edge=record.edge,
            atom=record.atom,
            structure=document,
            estimate_s=estimate_s,
            timeout_s=step.timeout_s(walltime_s(settings, max(record.estimate_s, known_s))),
            gate=settings.gate,
            sigma_eV=settings.sigma_eV,
            step_eV=settings.step_eV,
            ground_key=ground_key,
            ground_directory=None if there is None else there.directory or "",
            ground_energy_eV=None if there is None else there.energy_eV,
            ground_numerics={} if there is None else there.numerics,
            numerics=step.numerics,
            corrections=step.corrections,
            rungs=step.rungs,
            memory_factor=step.memory_factor,
            previous_directory=cut_short(record),
            walltime_factor=step.walltime_factor,
            slots=step.slots(self._places, self._engines.of(record.engine).slots),
            safety=safety,
        )


def shown_s(record: CalculationRecord) -> float:
    """Return what must be left for a calculation because an attempt was cut short; 0 if none was.

    Not after a user's retry, which forgets the interruptions.
    """
    if not record.interrupted.get(Cause.WALLTIME.value):
        return 0.0
    return max((float(entry.get("shown_s") or 0.0) for entry in record.history), default=0.0)


def cut_short(record: CalculationRecord) -> str | None:
    """Return where the last attempt ran if it was cut short: an engine may find a checkpoint there.

    Not after a user's retry, which forgets the interruptions: it is to begin at the beginning, perhaps otherwise.
    """
    last = record.history[-1] if record.history else {}
    cause = last.get("cause")
    return last.get("directory") if cause in _CUT_SHORT and record.interrupted.get(cause) else None


def _trim(remembered: OrderedDict[Any, Any]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
