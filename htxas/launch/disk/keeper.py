"""Keeping the run folders small: what is over is thinned and packed, and never before the database has the result.

Only calculations that the database calls done, failed or quarantined are touched, up to the attempt it records. The
directory of a ground state stays as it is while a site that could read it is not finished. Several processes may pack
at once, and any of them may be killed at any moment: see :mod:`htxas.launch.disk.archive`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from htxas.domain.calculation import State
from htxas.domain.identity import is_key
from htxas.engines.registry import get_engine
from htxas.errors import HtxasError, NotFound
from htxas.launch.agent.delivery import journals
from htxas.launch.disk.archive import GONE, SUFFIX, Saved, archive_path, finish_removal, pack
from htxas.launch.disk.usage import DiskQuota, prefixes
from htxas.launch.work.journal import read_journal
from htxas.settings import runs_folder
from htxas.store.outcomes import Outcome
from htxas.store.records import CalculationRecord
from htxas.store.store import Store

__all__ = [
    "EVIDENCE_S",
    "FINISHED",
    "SETTLE_S",
    "DiskQuota",
    "Keeper",
    "Packed",
    "pack_finished",
    "pack_owners",
]

SETTLE_S = 600.0
EVIDENCE_S = 86_400.0
"""How long what is done, and what failed, stays as it is before agents pack it; ``htxas disk pack`` does not wait."""

FINISHED = frozenset({State.DONE, State.FAILED, State.QUARANTINED})

_AT_ONCE = 100
_MOST_NOTED = 200_000
_SWEEP_EVERY_S = 60.0
_QUIET_S = 3600.0
_CROWDED = 0.8
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Packed:
    """What packing did, or would do.

    Attributes
    ----------
    calculations, attempts
        Packed; an attempt is a directory.
    freed_bytes, freed_files
        As a quota counts them; of a dry run, an upper bound for the bytes.
    waiting
        Ground states that an unfinished site may still read.
    unfinished
        Calculations that are ready or running.
    young
        Ended just now.
    strange
        Directories this database knows nothing of; they stay.
    owners
        Folders of past agents whose journals are delivered.
    problems
        One line each, at most 20.
    """

    calculations: int = 0
    attempts: int = 0
    freed_bytes: int = 0
    freed_files: int = 0
    waiting: int = 0
    unfinished: int = 0
    young: int = 0
    strange: int = 0
    owners: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Packed) -> None:
        """Add another's numbers."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))
        del self.problems[20:]

    def saved(self, saved: Saved) -> None:
        """Count one directory."""
        self.attempts += 1
        self.freed_bytes += saved.bytes_before - saved.bytes_after
        self.freed_files += saved.files_before - saved.files_after


class Keeper:
    """Packs what an agent has delivered, a little at a time, and not at once: people look at what ended just now.

    Parameters
    ----------
    store
        The store.
    quota
        Of the run folders: when it is four fifths full, nothing is waited for.
    settle_s
        How long what is done stays unpacked.
    evidence_s
        How long what failed does.
    """

    def __init__(
        self,
        store: Store,
        quota: DiskQuota | None = None,
        *,
        settle_s: float = SETTLE_S,
        evidence_s: float = EVIDENCE_S,
    ) -> None:
        self._store = store
        self._quota = quota
        self._ages = (settle_s, evidence_s)
        self._noted: dict[str, float] = {}
        self._swept_at = time.monotonic()
        self._next_prefix = os.getpid() % 256  # agents start at different places

    def note(self, keys: Iterable[str]) -> None:
        """Remember calculations whose outcome was just stored; costs nothing."""
        now = time.monotonic()
        for key in keys:
            if len(self._noted) >= _MOST_NOTED:
                return  # the sweep finds them
            self._noted[key] = now

    def tick(self, budget_s: float = 1.0) -> Packed:
        """Pack for about ``budget_s``: what was noted, else what others left. Never raises for disk or database.

        To be called in idle moments and at the end: three queries per hundred calculations, none if there is nothing.
        """
        deadline = time.monotonic() + budget_s
        total = Packed()
        sweeping = time.monotonic() - self._swept_at > _SWEEP_EVERY_S
        if not (self._noted or sweeping):
            return total
        try:
            settle_s, evidence_s = self._patience()
            while time.monotonic() < deadline:
                due = time.monotonic() - settle_s
                keys = [k for k, noted in islice(self._noted.items(), _AT_ONCE) if noted <= due]
                if not keys:
                    break
                done = _pack_keys(self._store, keys, deadline=deadline, ages=(0.0, evidence_s))
                for key in done.seen:
                    self._noted.pop(key, None)
                total.add(done.packed)
            if sweeping and time.monotonic() < deadline:
                self._swept_at = time.monotonic()
                self._next_prefix = (self._next_prefix + 1) % 256
                prefix = f"{self._next_prefix:02x}"
                total.add(_sweep(self._store, prefix, deadline=deadline, ages=(settle_s, evidence_s)))
        except (HtxasError, OSError) as error:  # tidying may wait; the agent's own work says what is wrong
            _log.warning("run folders are not packed: %s", error)
        for problem in total.problems:
            _log.warning("%s", problem)
        return total

    def _patience(self) -> tuple[float, float]:
        if self._quota is not None and self._quota.room().share > _CROWDED:
            return 0.0, 0.0
        return self._ages


def pack_finished(
    store: Store,
    *,
    dry_run: bool = False,
    owners: bool = True,
    on_progress: Callable[[float, Packed], None] | None = None,
) -> Packed:
    """Pack everything that is finished.

    Parameters
    ----------
    store
        The store.
    dry_run
        Change nothing; tell what would be packed.
    owners
        Pack folders of past agents, too.
    on_progress
        Called with the share of the tree seen and the result so far.

    Raises
    ------
    DatabaseUnavailable
        If it is away: nothing is packed that cannot be looked up.
    """
    total = Packed()
    present = prefixes()
    for i, prefix in enumerate(present):
        total.add(_sweep(store, prefix, dry_run=dry_run))
        if on_progress is not None:
            on_progress((i + 1) / len(present), total)
    if owners:
        total.add(pack_owners(store, dry_run=dry_run))
    return total


@dataclass(slots=True)
class _Done:
    seen: list[str]
    packed: Packed


def _sweep(
    store: Store,
    prefix: str,
    *,
    deadline: float | None = None,
    dry_run: bool = False,
    ages: tuple[float, float] = (0.0, 0.0),
) -> Packed:
    total = Packed()
    keys = []
    try:
        with os.scandir(runs_folder() / prefix) as entries:
            for entry in entries:
                if is_key(entry.name) and entry.is_dir(follow_symlinks=False):
                    keys.append(entry.name)
                elif entry.name.endswith(".part") and not dry_run:
                    _drop_part(entry)
    except FileNotFoundError:
        return total
    for start in range(0, len(keys), _AT_ONCE):
        if deadline is not None and time.monotonic() > deadline:
            break
        chunk = sorted(keys)[start : start + _AT_ONCE]
        total.add(_pack_keys(store, chunk, deadline=deadline, dry_run=dry_run, ages=ages).packed)
    return total


def _drop_part(entry: os.DirEntry[str]) -> None:
    """Remove the half-written archive of a killed process: nothing writes to one for an hour."""
    try:
        if time.time() - entry.stat().st_mtime > _QUIET_S:
            Path(entry.path).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s stays: %s", entry.path, error)


def _pack_keys(
    store: Store,
    keys: Sequence[str],
    *,
    deadline: float | None = None,
    dry_run: bool = False,
    ages: tuple[float, float] = (0.0, 0.0),
) -> _Done:
    """Pack the finished ones among ``keys``, and the ground states that were only kept for them.

    Those stay that ended less than ``ages`` seconds ago: done ones the first, others the second.
    """
    found = store.calculations(keys)
    grounds, needed = _grounds(store, found.values())
    extra = (
        {k: r for k, r in store.calculations(grounds - found.keys()).items() if _here(k)} if grounds else {}
    )
    done = _Done([], Packed())
    for key in [*keys, *extra]:
        if deadline is not None and time.monotonic() > deadline:
            break
        done.seen.append(key)
        record = found.get(key) or extra.get(key)
        if record is None:
            done.packed.strange += _here(key)
        elif record.state not in FINISHED:
            done.packed.unfinished += _here(key)
        elif key in needed:
            done.packed.waiting += _here(key)
        elif _age_s(record) < ages[record.state is not State.DONE]:
            done.packed.young += _here(key)
        else:
            _pack_calculation(record, done.packed, dry_run)
    return done


def _age_s(record: CalculationRecord) -> float:
    return (datetime.now(UTC) - record.updated).total_seconds()


def _here(key: str) -> bool:
    return (runs_folder() / key[:2] / key).is_dir()


def _grounds(store: Store, records: Iterable[CalculationRecord]) -> tuple[set[str], set[str]]:
    """Return the ground states of the finished among these structures, and those that an unfinished site needs."""
    structures = sorted({r.structure_key for r in records if r.state in FINISHED})
    if not structures:
        return set(), set()
    sites: dict[str, set[str]] = {}
    for molecule in store.molecules(structure_key=structures):
        if molecule.ground_key is None:
            continue
        sites.setdefault(molecule.ground_key, set()).update(s.key for s in molecule.sites)
    states = store.states(set().union(*sites.values())) if sites else {}
    needed = {
        ground
        for ground, keys in sites.items()
        if any(states.get(k, State.DONE) not in FINISHED for k in keys)
    }
    return set(sites), needed


def _pack_calculation(record: CalculationRecord, total: Packed, dry_run: bool) -> None:
    folder = runs_folder() / record.key[:2] / record.key
    try:
        entries = sorted(p.name for p in folder.iterdir())
    except FileNotFoundError:
        return
    before = total.attempts
    for name in entries:
        if name.endswith(GONE):
            if not dry_run:
                finish_removal(folder / name)
        elif name.isdecimal() and int(name) <= record.attempts:
            try:
                _pack_attempt(record, int(name), total, dry_run)
            except (OSError, NotFound) as error:  # NotFound: an engine of another version of htxas
                why = error.strerror or error if isinstance(error, OSError) else error
                total.problems.append(f"{folder / name} is not packed: {why}")
    total.calculations += total.attempts > before
    if not dry_run:
        try:
            folder.rmdir()
        except OSError:
            return  # something is left in it, or another process was faster


def _pack_attempt(record: CalculationRecord, attempt: int, total: Packed, dry_run: bool) -> None:
    directory = runs_folder() / record.key[:2] / record.key / str(attempt)
    last = attempt == record.attempts
    if last and not _is_recorded(record, directory):
        total.strange += 1
        return
    if dry_run:
        from htxas.launch.disk.usage import folder_usage

        usage = folder_usage(directory)
        total.attempts += 1
        total.freed_bytes += usage.bytes
        total.freed_files += usage.files - 1
        return
    facts = {
        "key": record.key,
        "attempt": attempt,
        "engine": record.engine,
        "state": record.state.value if last else "superseded",
        "cause": record.cause.value if last and record.cause is not None else None,
        "last_attempt": record.attempts,
    }
    saved = pack(
        directory,
        archive_path(record.key, attempt),
        keep=get_engine(record.engine).keep,
        evidence=not last or record.state is not State.DONE,
        facts=facts,
    )
    if saved is not None:
        total.saved(saved)


def _is_recorded(record: CalculationRecord, directory: Path) -> bool:
    """Return whether the database speaks of this very directory.

    Where the recorded path does not exist (the file system has another name on the node that computed), or the attempt
    never told where it was, a directory nobody has written to for an hour is taken for it.
    """
    if record.directory is not None:
        recorded = Path(record.directory)
        if recorded == directory:
            return True
        if recorded.exists():
            return recorded.samefile(directory)
    return time.time() - _last_change(directory) > _QUIET_S


def _last_change(directory: Path) -> float:
    return max(p.stat().st_mtime for p in (directory, *directory.iterdir()))


def pack_owners(store: Store, *, dry_run: bool = False, quiet_s: float = _QUIET_S) -> Packed:
    """Pack the logs of agents that are gone and whose journals are in the database to the last outcome.

    Gone: no heartbeat document (whoever recovers a dead agent removes it last), no lease, no lock, and nothing written
    for ``quiet_s``. The journals are not kept (what they held is stored), unless their end cannot be read.
    """
    total = Packed()
    folder = runs_folder() / "workers"
    try:
        names = sorted(p.name for p in folder.iterdir())
    except FileNotFoundError:
        return total
    known = {w["owner"] for w in store.workers()}
    for name in names:
        path = folder / name
        if name.endswith(GONE):
            if not dry_run:
                finish_removal(path)
        elif path.is_dir() and name not in known and _owner_is_over(store, path, quiet_s):
            total.owners += 1
            if dry_run:
                continue
            try:
                saved = pack(
                    path,
                    folder / f"{name}{SUFFIX}",
                    keep=("*.log",),
                    evidence=True,
                    facts={"owner": name},
                    leave_out=("alive.lock", *(p.name for p in journals(path) if _read_whole(p))),
                )
            except OSError as error:
                total.problems.append(f"{path} is not packed: {error.strerror or error}")
                continue
            if saved is not None:
                total.freed_bytes += saved.bytes_before - saved.bytes_after
                total.freed_files += saved.files_before - saved.files_after
    return total


def _owner_is_over(store: Store, folder: Path, quiet_s: float) -> bool:
    try:
        quiet = time.time() - _last_change(folder) > quiet_s
    except OSError:
        return False
    return quiet and not _locked(folder / "alive.lock") and delivered(folder) and not store.held(folder.name)


def _locked(lock: Path) -> bool:
    try:
        with lock.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held, or locks do not work here: then it stays
        return True
    return False


def delivered(folder: Path) -> bool:
    """Return whether every outcome in an agent's journals was delivered, as ``delivered.json`` tells.

    The journals are read from their start: an offset that points between records says nothing of those after it.
    """
    try:
        offsets = json.loads((folder / "delivered.json").read_text())
    except FileNotFoundError:
        offsets = {}
    except (OSError, ValueError):
        return False
    return all(
        not isinstance(record, Outcome) or end <= int(offsets.get(path.name, 0))
        for path in journals(folder)
        for record, end in read_journal(path)
    )


def _read_whole(journal: Path) -> bool:
    """Return whether a journal can be read to its last byte; a torn one is evidence."""
    ends = [end for _, end in read_journal(journal)]
    return (ends[-1] if ends else 0) == journal.stat().st_size
