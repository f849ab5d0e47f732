"""Bundles brought in: outcomes into the database while it is still computed, the rest given back at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import Kind, State
from htxas.engines.base import JOB_FILE
from htxas.errors import Cause, UserError
from htxas.launch.agent.assembling import assemble
from htxas.launch.agent.delivery import Delivered, deliver_journals, journals
from htxas.launch.agent.source import Source
from htxas.launch.bundles.folder import (
    Bundle,
    Progress,
    Run,
    close_folder,
    is_closed,
    moved,
    progress,
    read_bundle,
    read_tasks,
    run_folders,
    runs,
)
from htxas.launch.pad.launchpad import fireworks_of
from htxas.launch.recovery.recover import free_fireworks
from htxas.launch.work.journal import Returned, Started, read_journal
from htxas.launch.work.task import Task
from htxas.store.outcomes import Outcome
from htxas.store.records import Lease
from htxas.store.store import Store

__all__ = ["Collected", "Fate", "collect"]

_ALIVE_S = 60.0
_H = 3600.0


@dataclass(frozen=True, slots=True)
class Fate:
    """Why a bundle is closed before all of it is done.

    Attributes
    ----------
    cause
        What happened to the calculations in hand; None if they are not to blame.
    why
        For people, one line.
    """

    cause: Cause | None
    why: str


@dataclass(slots=True)
class Collected:
    """What a call of :func:`collect` did.

    Attributes
    ----------
    folder
        The bundle.
    tasks, ended
        How many there are, and how many have an outcome.
    stored, again, refused, foreign
        Outcomes new to the database, known to it, too late (somebody else has the calculation), and of calculations
        that are not this bundle's.
    released, charged
        Calculations given back, and those of them that count as interrupted.
    completed, returned
        Fireworks.
    closed
        Whether it is over.
    running
        Whether somebody has shown a sign of life in it within the last minute.
    """

    folder: Path
    tasks: int = 0
    ended: int = 0
    stored: int = 0
    again: int = 0
    refused: int = 0
    foreign: int = 0
    released: int = 0
    charged: int = 0
    completed: int = 0
    returned: int = 0
    closed: bool = False
    running: bool = False

    @property
    def left(self) -> int:
        """Tasks without an outcome."""
        return self.tasks - self.ended

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {n: getattr(self, n) for n in self.__slots__ if n != "folder"} | {"folder": str(self.folder)}


class _Moved:
    """Takes outcomes of a bundle's leases for the store, with the paths that run folders have now."""

    def __init__(self, store: Store, root: str, folder: Path, leases: Mapping[str, Lease]) -> None:
        self.stored: list[str] = []
        self.foreign = 0
        self._store = store
        self._leases = leases
        self._root = root
        self._folder = folder

    def deliver(self, outcomes: Sequence[Outcome]) -> list[str]:
        ours = [o for o in outcomes if o.lease == self._leases.get(o.lease.key)]
        self.foreign += len(outcomes) - len(ours)
        if self._root != str(self._folder):
            ours = [self._rewritten(o) for o in ours]
        answers = dict(zip((o.lease for o in ours), self._store.deliver(ours), strict=True))
        self.stored += [o.lease.key for o in ours if answers[o.lease] == "stored" and o.state is State.DONE]
        return [answers.get(o.lease, "refused") for o in outcomes]

    def _rewritten(self, outcome: Outcome) -> Outcome:
        def here(document: dict[str, Any]) -> dict[str, Any]:
            path = document.get("directory")
            if not isinstance(path, str):
                return document
            now = moved(path, self._root, self._folder)
            return {**document, "directory": now if Path(now).exists() else path}

        fields = here(dict(outcome.fields))
        if isinstance(fields.get("provenance"), dict):
            fields["provenance"] = here(fields["provenance"])
        return replace(outcome, fields=fields, entry=here(dict(outcome.entry)))


def collect(store: Store, launchpad: LaunchPad, folder: Path, *, close: Fate | None = None) -> Collected:
    """Bring in what a bundle has; close it if nothing in it can be computed any more, or ``close`` says so.

    May be repeated, and killed anywhere.

    Parameters
    ----------
    store, launchpad
        Where it was leased from.
    folder
        The bundle, or a copy of it that came back.
    close
        Give back what has no outcome: nothing of it is computed any more.

    Raises
    ------
    NotFound
        If there is no bundle.
    UserError
        If it belongs to another database, or is damaged.
    """
    folder = folder.absolute()
    bundle = read_bundle(folder)
    if bundle.database != store.name:
        raise UserError(
            f"this bundle belongs to the database {bundle.database!r}, not {store.name!r}", where=str(folder)
        )
    tasks = list(read_tasks(folder))
    done = Collected(folder, tasks=len(tasks))
    _deliver(store, folder, bundle.id, tasks, done)
    found = progress(folder, tasks)
    ended = [task for task in tasks if task.key in found.ended]
    done.ended = len(ended)
    done.running = any(run.ended is None and time.time() - run.seen < _ALIVE_S for run in runs(folder))
    if is_closed(folder):  # killed in the middle of closing, or asked again
        close = close or Fate(None, "the bundle is closed")
    exhausted = not any(map(found.open, tasks)) and (not done.left or not done.running)
    if close is not None or exhausted:
        _close(store, launchpad, folder, bundle, tasks, found, close or Fate(None, ""), done)
    return done


def _deliver(store: Store, folder: Path, owner: str, tasks: Sequence[Task], done: Collected) -> None:
    by_key = {task.key: task for task in tasks}
    leases = {task.key: Lease(task.key, task.attempt, owner) for task in tasks}
    stored: dict[str, list[str]] = {}
    for path, run in zip(run_folders(folder), runs(folder), strict=True):
        recipient = _Moved(store, run.root, folder, leases)
        told: Delivered = deliver_journals(recipient, path)
        done.stored += told.stored
        done.again += told.again
        done.refused += told.refused - recipient.foreign
        done.foreign += recipient.foreign
        for key in recipient.stored:
            if by_key[key].kind is Kind.SITE:
                stored.setdefault(by_key[key].campaign, []).append(key)
        if run.ended is not None:
            _pay(store, path, run, by_key)
    if stored:
        source = Source(store, None, "", folder, None, 1)
        for keys in stored.values():
            assemble(store, source.maker, {key: by_key[key].structure_key for key in keys})


def _pay(store: Store, path: Path, run: Run, tasks: dict[str, Task]) -> None:
    """Charge the campaigns for a run that is over, by the time that their calculations took.

    Of one that ended nothing each start counts the same.
    """
    shares: dict[str, float] = defaultdict(float)
    starts: dict[str, float] = defaultdict(float)
    for journal in journals(path):
        for record, _ in read_journal(journal):
            if isinstance(record, Outcome) and record.lease.key in tasks:
                shares[tasks[record.lease.key].campaign] += float(record.entry["wall_s"] or 0.0)
            elif isinstance(record, Started) and record.key in tasks:
                starts[tasks[record.key].campaign] += 1.0
    if not any(shares.values()):
        shares = starts
    total = sum(shares.values())
    if total > 0:
        store.spend(run.owner, {c: run.wall_s * s / total for c, s in shares.items()}, 1)


def _close(
    store: Store,
    launchpad: LaunchPad,
    folder: Path,
    bundle: Bundle,
    tasks: Sequence[Task],
    found: Progress,
    fate: Fate,
    done: Collected,
) -> None:
    """Give back what is left, complete what is whole. Each step may be repeated; the owner is forgotten last."""
    close_folder(folder)  # first: whoever still computes must not go on for nothing
    held = {lease.key: lease for lease in store.held(bundle.id)}
    in_hand = found.in_hand & held.keys()
    charged = _charges(folder, in_hand, fate)
    for key, why in charged.items():
        store.release([held[key]], cause=why.cause, message=why.message, evidence=why.evidence, in_hand=[key])
    done.charged = len(charged)
    done.released = len(held)
    store.release([lease for key, lease in held.items() if key not in charged])
    by_key = {task.key: task for task in tasks}
    for path, run in zip(run_folders(folder), runs(folder), strict=True):
        if run.ended is None:  # killed: its last sign of life is the end that is known
            _pay(store, path, run, by_key)
    source = Source(store, launchpad, bundle.id, folder, bundle.campaign, bundle.workers)
    states = fireworks_of(launchpad, [c.batch for c in bundle.carried])
    whole = []
    for carried in bundle.carried:
        if states.get(carried.fw_id, {}).get("state") != "RUNNING":
            continue
        batch = source.hold(carried.batch, carried.fw_id, carried.launch_id)
        for record in source.look(sorted(batch.open)).values():
            if record.state not in (State.READY, State.RUNNING):
                batch.found(record)
        if not batch.open:
            whole.append(batch)
    source.complete(whole)
    done.completed = len(whole)
    done.returned = free_fireworks(launchpad, {bundle.id})
    sites = {
        t.key: t.structure_key for t in tasks if t.kind is Kind.SITE and found.ended.get(t.key) is State.DONE
    }
    assemble(store, source.maker, sites)
    store.forget_worker(bundle.id)
    done.closed = True


@dataclass(frozen=True, slots=True)
class _Charge:
    cause: Cause
    message: str
    evidence: Mapping[str, Any]


def _charges(folder: Path, in_hand: set[str], fate: Fate) -> dict[str, _Charge]:
    """Return what interrupted calculations are to be charged with.

    One that a run had to stop at the end of its time is too long for it: WALLTIME, whoever closes the bundle. One whose
    run ended without a word was killed, and the fate of the job says by what. One that took its worker with it is told
    of in the journal.
    """
    charges: dict[str, _Charge] = {}
    for path, run in zip(run_folders(folder), runs(folder), strict=True):
        if run.ended is None:
            cause = fate.cause
        else:
            cause = Cause.WALLTIME if run.why == "deadline" else None
        begun, told = _interruptions(path, orderly=run.ended is not None)
        for key, attempt in begun.items():
            if key not in in_hand:
                continue
            charges.pop(key, None)  # what an earlier run did to it no longer matters
            facts = {"host": run.host, **_traces(folder / "runs" / key[:2] / key / str(attempt), run)}
            if key in told and told[key].cause is not None:
                facts.update(told[key].evidence)
                charges[key] = _Charge(told[key].cause or Cause.LOST, told[key].message, facts)
            elif cause is not None:
                charges[key] = _Charge(cause, fate.why or "interrupted", facts)
    return charges


def _interruptions(path: Path, *, orderly: bool) -> tuple[dict[str, int], dict[str, Returned]]:
    """Return what was begun in a run -> its attempt, and what was said of attempts that came to nothing.

    What had been handed back before a run was killed is not what it had in hand then; one that ended in order handed
    back all it had, for the reason that the run gives.
    """
    begun: dict[str, int] = {}
    told: dict[str, Returned] = {}
    for journal in journals(path):
        for record, _ in read_journal(journal):
            if isinstance(record, Started):
                begun[record.key] = record.attempt
            elif isinstance(record, Returned) and record.cause is not None:
                told[record.key] = record
            elif isinstance(record, Returned) and not orderly:
                begun.pop(record.key, None)
    return begun, told


def _traces(directory: Path, run: Run) -> dict[str, Any]:
    try:  # written first, and kept by copies that keep times
        began = (directory / JOB_FILE).stat().st_mtime
    except OSError:
        return {}
    return {"elapsed_s": max(0.0, (run.ended or run.seen) - began), "directory": str(directory)}
