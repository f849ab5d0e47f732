"""A plan into the database and the LaunchPad, chunk by chunk.

The order within a chunk - structures, calculations, molecules, batches, Fireworks, marks - means that whatever a kill
leaves is completed by submitting again: what is there is found there, and nothing is added twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from fireworks import LaunchPad

from htxas.campaign.batches import Task, Work, pack, useful_target_s
from htxas.campaign.cost import Calibration
from htxas.campaign.file import CampaignFile, other_limits
from htxas.campaign.plan import Plan, PlannedMolecule
from htxas.domain.calculation import Kind, State
from htxas.domain.identity import content_key
from htxas.errors import UserError
from htxas.launch.estimates import measured
from htxas.launch.pad.launchpad import database_errors, prepare_launchpad
from htxas.launch.pad.workflows import queue_batches
from htxas.store.locks import HeldLock
from htxas.store.records import Batch, PlannedCalculation
from htxas.store.store import Store

__all__ = ["CHUNK", "Submitted", "layout", "submit"]

CHUNK = 400
"""Molecules per chunk."""

_QUEUED_AT_ONCE = 500


@dataclass(slots=True)
class Submitted:
    """What a submission added.

    Attributes
    ----------
    molecules, batches
        New ones.
    calculations
        Calculations that had no batch until now.
    known
        Calculations that were done or in a batch already.
    """

    molecules: int = 0
    calculations: int = 0
    known: int = 0
    batches: int = 0
    _batch_ids: list[str] = field(default_factory=list)


def layout(campaign: CampaignFile, works: Iterable[Work], total_s: float) -> Iterator[Batch]:
    """Yield the batches of ``works``, sized for a campaign of ``total_s`` seconds in all."""
    return pack(
        works,
        campaign=campaign.name,
        target_s=useful_target_s(campaign.target_s, total_s, campaign.at_least),
        split_above_s=campaign.split_above_s,
    )


def submit(
    store: Store, launchpad: LaunchPad, plan: Plan, on_molecules: Callable[[int], None] | None = None
) -> Submitted:
    """Submit a campaign, or what is missing of it.

    Parameters
    ----------
    store, launchpad
        Where to.
    plan
        The surveyed campaign.
    on_molecules
        Called with the number of molecules after each chunk.

    Raises
    ------
    UnsupportedInput
        If the engine refused a molecule; nothing has been written then.
    UserError
        If another campaign has this name, or some of these calculations with another gate.
    Busy
        If another submission of it is under way, on this host or another.
    """
    plan.refuse_unless_sound()
    campaign, done = plan.campaign, Submitted()
    calibration = measured(store, campaign)
    total_s = calibration.total_s(plan.survey.ground_s, plan.survey.sites_s)
    with store.lock(f"submission of {campaign.name}") as lock:
        _refuse_another_gate(store, plan)
        prepare_launchpad(launchpad)
        store.put_campaign(campaign.name, campaign.document)
        _queue(store, launchpad, campaign.name, lock)  # what an earlier submission left
        molecules = plan.molecules()
        shared = False
        while chunk := list(islice(molecules, CHUNK)):
            shared |= _put(store, campaign, chunk, calibration, total_s, done)
            _queue(store, launchpad, campaign.name, lock)
            if on_molecules is not None:
                on_molecules(len(chunk))
        if shared:
            _share(store, launchpad, campaign.name)
        store.seal_campaign(campaign.name, [asdict(s) for s in plan.survey.skipped])
    return done


def _refuse_another_gate(store: Store, plan: Plan) -> None:
    """Refuse what would serve results as accepted that this campaign's own gate has never seen.

    A calculation is judged once, by the limits of the campaign that computes it; a campaign keeps its limits.
    """
    campaign = plan.campaign
    mine = campaign.document
    others = {
        document["name"]: document["gate"]
        for document in store.campaigns()
        if document["engine"] == mine["engine"]
        and document["gate"] != mine["gate"]
        and any(_same(document["parameters"][kind], mine["parameters"][kind]) for kind in Kind)
    }
    before = others.pop(campaign.name, None)
    if before is not None:
        names = other_limits(mine["gate"], before)
        raise UserError(
            f"was submitted with other limits of the gate ({', '.join(names)})",
            where=campaign.name,
            hint=f"to go on with it, {_to_write(before, names)}; or give the campaign another name",
        )
    molecules = plan.molecules() if others else iter(())
    while chunk := list(islice(molecules, CHUNK)):
        found = store.wanted([p.calculation.key for m in chunk for p in m.calculations], sorted(others))
        if found is None:
            continue
        name = found[1]
        names = other_limits(mine["gate"], others[name])
        raise UserError(
            f"campaign {name} has some of these calculations, judged with other limits of the gate "
            f"({', '.join(names)})",
            where=campaign.name,
            hint=f"a result is judged once, for all campaigns that share it: {_to_write(others[name], names)}",
        )


def _to_write(gate: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return in words what a campaign file needs to have the limits of ``gate``."""
    given = ", ".join(f"{k}: {gate[k]}" for k in names if gate.get(k) is not None)
    left_out = " and ".join(k for k in names if gate.get(k) is None)
    return " and ".join(
        filter(None, (given and f"write gate: {{{given}}}", left_out and f"leave out {left_out}"))
    )


def _same(parameters: Mapping[str, Any] | None, others: Mapping[str, Any] | None) -> bool:
    if parameters is None or others is None:  # no ground states: nothing to share
        return False
    return content_key(parameters) == content_key(others)


def _put(
    store: Store,
    campaign: CampaignFile,
    chunk: Sequence[PlannedMolecule],
    calibration: Calibration,
    total_s: float,
    done: Submitted,
) -> bool:
    """Write a chunk up to its batches; return whether some of it waits in batches made before."""
    structures = {m.structure.structure.key: m.structure for m in chunk}
    planned = {p.calculation.key: p for m in chunk for p in m.calculations}
    store.put_structures(structures.values())
    homeless = store.put_calculations(campaign.name, planned.values(), structures)
    done.molecules += store.put_molecules(m.molecule for m in chunk)
    rest = planned.keys() - homeless
    done.calculations += len(homeless)
    done.known += len(rest)
    works = list(_works(chunk, homeless, calibration))
    done.batches += store.put_batches(layout(campaign, works, total_s))
    return any(state is not State.DONE for state in store.states(rest).values()) if rest else False


def _works(chunk: Sequence[PlannedMolecule], homeless: set[str], calibration: Calibration) -> Iterator[Work]:
    left = set(homeless)  # two molecules of one structure share their calculations: the first one takes them

    def take(planned: PlannedCalculation, atoms: int) -> Task | None:
        key = planned.calculation.key
        if key not in left:
            return None
        left.remove(key)
        return Task(key, calibration.seconds(planned.calculation.kind, planned.estimate_s, atoms))

    for molecule in chunk:
        atoms = len(molecule.structure.structure)
        ground = None if molecule.ground is None else take(molecule.ground, atoms)
        sites = (take(site, atoms) for site in molecule.sites)
        yield Work(ground, tuple(t for t in sites if t is not None))


def _queue(store: Store, launchpad: LaunchPad, campaign: str, lock: HeldLock) -> None:
    """Make Fireworks for all batches of the campaign that have none; only the holder of the lock may."""
    waiting = list(store.unsubmitted_batches(campaign))
    # A ground-state batch and those after it belong into one workflow, hence into one part.
    groups: dict[str, list[Batch]] = {}
    for batch in waiting:
        groups.setdefault(batch.after or batch.id, []).append(batch)
    control = store.controls().get(campaign)
    priority = 0 if control is None else control.priority
    part: list[Batch] = []
    for group in groups.values():
        part += group
        if len(part) >= _QUEUED_AT_ONCE:
            lock.check()
            store.mark_submitted(queue_batches(launchpad, part, priority))
            part = []
    if part:
        lock.check()
        store.mark_submitted(queue_batches(launchpad, part, priority))


def _share(store: Store, launchpad: LaunchPad, campaign: str) -> None:
    """Let ``run --campaign`` of this campaign take batches of others that carry calculations it wants."""
    batches: set[str] = set()
    for record in store.find(campaign=campaign, state=State.READY):
        if record.batch is not None:
            batches.add(record.batch)
        if len(batches) >= _QUEUED_AT_ONCE:
            _share_batches(launchpad, batches, campaign)
            batches.clear()
    _share_batches(launchpad, batches, campaign)


def _share_batches(launchpad: LaunchPad, batches: set[str], campaign: str) -> None:
    query = {"spec.htxas.batch": {"$in": sorted(batches)}, "spec.htxas.campaign": {"$ne": campaign}}
    with database_errors():
        fw_ids = [f["fw_id"] for f in launchpad.fireworks.find(query, {"fw_id": 1})]
        if fw_ids:
            launchpad.update_spec(fw_ids, {"$addToSet": {"spec.htxas.shared_with": campaign}}, mongo=True)
