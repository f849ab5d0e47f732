"""Bundles brought in: outcomes into the database while it is still computed, the rest given back at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.domain.calculation import Kind, State
from htxas.engines.base import JOB_FILE
from htxas.errors import Cause, UserError
from htxas.launch.assembling import assemble
from htxas.launch.bundle_folder import (
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
from htxas.launch.delivery import Delivered, deliver_journals, journals
from htxas.launch.fireworks_pad import fireworks_of
from htxas.launch.journal import Started, read_journal
from htxas.launch.recover import free_fireworks
from htxas.launch.source import Source
from htxas.launch.task import Task
from htxas.store.outcomes import Outcome
from htxas.store.store import Store

__all__ = ["Collected", "Fate", "collect", "forget_unfinished"]

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
    stored, again, refused
        Outcomes new to the database, known to it, and too late: somebody else has the calculation.
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
    """Takes outcomes for the store, with the paths that run folders have now."""

    def __init__(self, store: Store, root: str, folder: Path) -> None:
        self.stored_sites: dict[str, str] = {}
        self._store = store
        self._root = root
        self._folder = folder

    def deliver(self, outcomes: Sequence[Outcome]) -> list[str]:
        if self._root != str(self._folder):
            outcomes = [self._rewritten(o) for o in outcomes]
        answers = self._store.deliver(outcomes)
        for outcome, answer in zip(outcomes, answers, strict=True):
            if answer == "stored" and outcome.state is State.DONE:
                self.stored_sites[outcome.lease.key] = ""
        return answers

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
    _deliver(store, folder, tasks, done)
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


def _deliver(store: Store, folder: Path, tasks: Sequence[Task], done: Collected) -> None:
    by_key = {task.key: task for task in tasks}
    stored: dict[str, list[str]] = {}
    for path, run in zip(run_folders(folder), runs(folder), strict=True):
        recipient = _Moved(store, run.root, folder)
        told: Delivered = deliver_journals(recipient, path)
        done.stored += told.stored
        done.again += told.again
        done.refused += told.refused
        for key in recipient.stored_sites:
            task = by_key.get(key)
            if task is not None and task.kind is Kind.SITE:
                stored.setdefault(task.campaign, []).append(key)
        _pay(store, path, run, by_key)
    if stored:
        source = Source(store, None, "", folder, None, 1)
        for keys in stored.values():
            assemble(store, source.maker, {key: by_key[key].structure_key for key in keys})


def _pay(store: Store, path: Path, run: Run, tasks: dict[str, Task]) -> None:
    """Charge the campaigns for a run that is over, by the time that their calculations took."""
    if run.ended is None:
        return
    shares: dict[str, float] = defaultdict(float)
    for journal in journals(path):
        for record, _ in read_journal(journal):
            if isinstance(record, Started) or record.lease.key not in tasks:
                continue
            shares[tasks[record.lease.key].campaign] += float(record.entry["wall_s"] or 0.0)
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
    for key, (cause, facts) in charged.items():
        store.release(
            [held[key]], cause=cause, message=fate.why or "interrupted", evidence=facts, in_hand=[key]
        )
    done.charged = len(charged)
    done.released = len(held)
    store.release([lease for key, lease in held.items() if key not in charged])
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


def _charges(folder: Path, in_hand: set[str], fate: Fate) -> dict[str, tuple[Cause, dict[str, Any]]]:
    """Return what interrupted calculations are to be charged with.

    One that a run had to stop at the end of its time is too long for it: WALLTIME, whoever closes the bundle. One whose
    run ended without a word was killed, and the fate of the job says by what.
    """
    charges: dict[str, tuple[Cause, dict[str, Any]]] = {}
    by_owner = {run.owner: run for run in runs(folder)}
    for path in run_folders(folder):
        run = by_owner[path.name]
        if run.ended is not None and run.why != "deadline":
            cause = None
        elif run.ended is not None:
            cause = Cause.WALLTIME
        else:
            cause = fate.cause
        for key, attempt in _begun(path):
            if key not in in_hand:
                continue
            directory = folder / "runs" / key[:2] / key / str(attempt)
            if cause is None:
                charges.pop(key, None)  # what an earlier run did to it no longer matters
                continue
            facts: dict[str, Any] = {"host": run.host}
            try:
                began = (
                    (directory / JOB_FILE).stat().st_mtime
                )  # written first, and kept by copies that keep times
                facts["elapsed_s"] = max(0.0, (run.ended or run.seen) - began)
                facts["directory"] = str(directory)
            except OSError:
                pass
            charges[key] = (cause, facts)
    return charges


def _begun(path: Path) -> list[tuple[str, int]]:
    return [
        (record.key, record.attempt)
        for journal in journals(path)
        for record, _ in read_journal(journal)
        if isinstance(record, Started)
    ]


def forget_unfinished(store: Store, launchpad: LaunchPad, folder: Path) -> bool:
    """Give back what a bundle had leased whose making was killed at its very end; return whether there was one."""
    owners = [w["owner"] for w in store.workers() if w["info"].get("bundle") == str(folder.absolute())]
    for owner in owners:
        store.release(store.held(owner))
        free_fireworks(launchpad, {owner})
        store.forget_worker(owner)
    return bool(owners)
