"""Batches as FireWorks workflows, created so that a kill at any moment is repaired by doing it again."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fireworks import Firework, LaunchPad, Workflow

from htxas.launch.pad.launchpad import database_errors, fireworks_of
from htxas.launch.tasks import RunBatchTask
from htxas.store.records import Batch

__all__ = ["queue_batches", "workflows_of"]


def workflows_of(batches: Sequence[Batch], priority: int = 0) -> Iterator[Workflow]:
    """Yield one workflow per batch, or per ground-state batch with the batches that come after it."""
    here = {b.id for b in batches}
    children: dict[str, list[Batch]] = {}
    for batch in batches:
        if batch.after in here:
            children.setdefault(str(batch.after), []).append(batch)
    for batch in batches:
        # A batch whose ground state was queued before stands alone: the worker waits for ground states itself.
        if batch.after not in here:
            yield _workflow(batch, children.get(batch.id, []), priority)


def _workflow(first: Batch, later: Sequence[Batch], priority: int) -> Workflow:
    fireworks = [_firework(b, -i - 1, priority) for i, b in enumerate((first, *later))]
    links = {fireworks[0]: fireworks[1:]} if later else None
    ids = [b.id for b in (first, *later)]
    return Workflow(
        fireworks,
        links,
        name=first.campaign,
        metadata={"htxas": {"campaign": first.campaign, "batches": ids}},
    )


def _firework(batch: Batch, fw_id: int, priority: int) -> Firework:
    about: dict[str, Any] = {"campaign": batch.campaign, "batch": batch.id}
    if batch.shortest_s is not None:
        about |= {"shortest_s": batch.shortest_s, "longest_s": batch.longest_s}
    # Always there: a Firework without comes after one with a negative priority.
    spec = {"htxas": about, "_priority": priority}
    name = f"{batch.campaign}: {len(batch.keys)} calculations"
    return Firework(RunBatchTask(), spec=spec, name=name, fw_id=fw_id)


def queue_batches(launchpad: LaunchPad, batches: Sequence[Batch], priority: int = 0) -> dict[str, int]:
    """Make sure that a Firework carries each batch; return batch id -> Firework id.

    ``bulk_add_wfs`` is not a transaction: it writes the workflows, then their Fireworks. A workflow that lacks
    Fireworks is the trace of a kill in between and is taken away first; one that is whole is kept.
    """
    ids = [b.id for b in batches]
    with database_errors():
        _remove_torn(launchpad, ids)
        carried = _carried(launchpad, ids)
        missing = [b for b in batches if b.id not in carried]
        if missing:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar, one per chunk
                launchpad.bulk_add_wfs(list(workflows_of(missing, priority)))
            carried |= _carried(launchpad, [b.id for b in missing])
    return carried


def _carried(launchpad: LaunchPad, ids: Iterable[str]) -> dict[str, int]:
    return {f["batch"]: fw_id for fw_id, f in fireworks_of(launchpad, ids).items()}


def _remove_torn(launchpad: LaunchPad, ids: Sequence[str]) -> None:
    for workflow in launchpad.workflows.find({"metadata.htxas.batches": {"$in": list(ids)}}, {"nodes": 1}):
        query = {"fw_id": {"$in": workflow["nodes"]}}
        if launchpad.fireworks.count_documents(query) < len(workflow["nodes"]):
            launchpad.workflows.delete_one({"_id": workflow["_id"]})
            launchpad.fireworks.delete_many(query)
