"""Bundles for the pilots of a cluster, made and brought in without being asked; through ssh where the cluster is away.

On a cluster whose folders this host sees, a bundle lies where its pilot will look for it. Elsewhere it is made here,
its two files are put over there, and what the pilot writes into its journals is fetched into the copy here, from where
the last fetch ended.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from fireworks import LaunchPad

from htxas.cluster.host import Host, one_line
from htxas.cluster.profile import Profile
from htxas.cluster.queue import Queue
from htxas.cluster.script import Job
from htxas.errors import ClusterError, DatabaseUnavailable, NotFound, UserError
from htxas.launch.bundles.collect import Collected, Fate, collect
from htxas.launch.bundles.folder import BUNDLE_FILE, CLOSED_FILE, TASKS_FILE, is_closed, runs
from htxas.launch.bundles.forget import forget_unfinished
from htxas.launch.bundles.make import Wish, make_bundle
from htxas.launch.pilots.look import refresh
from htxas.launch.pilots.settings import site_settings
from htxas.launch.recovery.judge import cause_of
from htxas.settings import home
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

__all__ = ["bundle_maker", "collect_all", "fetch"]

_BLOCK = 8_000_000
_TIMEOUT_S = 600.0
# Fixed texts; the values come as positional parameters.
_LIST = (
    'cd -- "$1/runs/workers" 2>/dev/null || exit 0; '
    'find . -type f \\( -name "journal-*.bin" -o -name run.json \\) -size +0c -exec wc -c {} \\;'
)
_READ = 'tail -c "+$2" -- "$1" | head -c "$3" | base64'
# What a host over there may have us write: in an owner's folder, and nothing hidden.
_FETCHED = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*/(journal-[0-9]+\.bin|run\.json)")
_log = logging.getLogger(__name__)


def bundle_maker(
    store: Store, launchpad: LaunchPad, profile: Profile, queue: Queue
) -> Callable[[Job], str | None]:
    """Return what makes the bundle of each new pilot: ``prepare`` of ``submit_pilots``."""

    def prepare(job: Job) -> str | None:
        if job.bundle is None:
            return None
        q = job.partition
        if q.nodes > 1:
            raise UserError(
                "a bundle is computed by one node",
                where=f"{profile.where}: partitions: {q.name}: nodes",
                hint="nodes: 1, and more pilots",
            )
        wish = Wish(
            hours=q.walltime_s / 3600,
            workers=profile.workers(q),
            cores_per_worker=profile.pilots.cores_per_worker,
            memory_per_worker_MB=profile.pilots.memory_per_worker_MB,
            margin_s=profile.pilots.margin_s,
            campaign=job.campaign,
            cluster=profile.name,
            pilot=job.submission,
            settings=site_settings(profile, q, store.name),
        )
        folder = _here(profile, job.submission)
        if make_bundle(store, launchpad, folder, wish) is None:
            return "nothing more is ready that fits: no further pilots"
        if profile.host is not None:
            _put(queue.host, folder, job.bundle)
        return None

    return prepare


def _here(profile: Profile, pilot: str) -> Path:
    """Return where the bundle of a pilot, or the copy of it, is on this host."""
    if profile.host is None:
        return Path(profile.home) / "bundles" / pilot
    return home() / "bundles" / profile.name / pilot


def _there(profile: Profile, pilot: str) -> str:
    return f"{profile.home.rstrip('/')}/bundles/{pilot}"


def _put(host: Host, folder: Path, remote: str) -> None:
    host.mkdir([remote])
    for name in (TASKS_FILE, BUNDLE_FILE):  # in this order: what has a bundle.json is whole
        host.put((folder / name).read_text(), f"{remote}/{name}")


def fetch(host: Host, remote: str, folder: Path) -> int:
    """Fetch what is new in the journals of a bundle on another host; return how many bytes.

    Raises
    ------
    ClusterError
        If that cannot be told or read. What was fetched is whole up to there; do it again.
    """
    fetched = 0
    for name, size in sorted(_remote_files(host, remote)):
        path = folder / "runs" / "workers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "run.json":  # small, and written anew each time
            draft = path.with_name(".run.json.part")
            draft.write_bytes(_read(host, f"{remote}/runs/workers/{name}", 0))
            draft.replace(path)
            continue
        have = path.stat().st_size if path.exists() else 0
        while have < size:
            block = _read(host, f"{remote}/runs/workers/{name}", have)
            if not block:
                break
            with path.open("ab") as stream:
                stream.write(block)
            have += len(block)
            fetched += len(block)
    return fetched


def _remote_files(host: Host, remote: str) -> Iterator[tuple[str, int]]:
    done = host.run(["sh", "-c", _LIST, "sh", remote], timeout_s=_TIMEOUT_S)
    if not done.ok:
        raise ClusterError(
            f"the journals cannot be listed: {done.complaint()}", where=f"{host.name}:{remote}"
        )
    for line in done.stdout.splitlines():
        size, _, name = line.strip().partition(" ")
        if size.isdecimal() and name.startswith("./") and _FETCHED.fullmatch(name[2:]):
            yield name[2:], int(size)
        elif line.strip():
            _log.warning("%s:%s: not a journal, left there: %s", host.name, remote, one_line(line))


def _read(host: Host, path: str, offset: int) -> bytes:
    done = host.run(["sh", "-c", _READ, "sh", path, str(offset + 1), str(_BLOCK)], timeout_s=_TIMEOUT_S)
    if not done.ok:
        raise ClusterError(f"cannot be read: {done.complaint()}", where=f"{host.name}:{path}")
    try:
        return base64.b64decode("".join(done.stdout.split()), validate=True)
    except binascii.Error:
        raise ClusterError("cannot be read: what came is not base64", where=f"{host.name}:{path}") from None


def collect_all(store: Store, launchpad: LaunchPad, profile: Profile, queue: Queue) -> list[Collected]:
    """Bring in what the bundles of a cluster have; close those whose pilot has ended.

    Raises
    ------
    ClusterError
        If a host does not answer.
    """
    refresh(store, profile, queue)
    collected = []
    for worker in store.workers():
        info = worker["info"]
        if info.get("cluster") != profile.name or not info.get("bundle") or not info.get("for_pilot"):
            continue
        folder, pilot_id = Path(info["bundle"]), str(info["for_pilot"])
        try:
            if not (folder / BUNDLE_FILE).exists():
                forget_unfinished(store, launchpad, folder)
                continue
            if profile.host is not None and not is_closed(folder):
                fetch(queue.host, _there(profile, pilot_id), folder)
            found = collect(store, launchpad, folder, close=_fate(store, pilot_id))
        except (ClusterError, DatabaseUnavailable):
            raise
        except UserError as error:  # of this bundle; the others shall not wait for it
            _log.warning("%s", error)
            continue
        if found.closed:
            if profile.host is not None:
                queue.host.put("{}\n", f"{_there(profile, pilot_id)}/{CLOSED_FILE}")
            _account(store, pilot_id, folder)
        collected.append(found)
    return collected


def _fate(store: Store, pilot_id: str) -> Fate | None:
    """Return the end of a bundle's pilot, if it has ended."""
    try:
        pilot: PilotRecord = store.pilot(pilot_id)
    except NotFound:
        return None
    if pilot.state is not PilotState.ENDED:
        return None
    why = pilot.reason or "its pilot has ended"
    return Fate(cause_of(why), f"pilot {pilot.id}: {why}")


def _account(store: Store, pilot_id: str, folder: Path) -> None:
    """Record how well a pilot used its allocation, which it could not tell itself."""
    told = runs(folder)
    store.update_pilot(
        pilot_id, allocated_s=sum(r.allocated_s for r in told), engine_s=sum(r.engine_s for r in told)
    )
