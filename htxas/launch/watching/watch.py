"""What the status page, its JSON and the metrics tell: one look at the database, as plain numbers.

Nothing here reads calculations one by one: campaigns are counted in an index, endings are those of the last hour, and
the rest are heartbeats and pilots. The counts of a large campaign take longer than the rest, so :class:`Watcher` takes
them less often, and it goes on when the database is away.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.errors import DatabaseUnavailable
from htxas.launch.agent.policy import LONGER
from htxas.launch.recovery.judge import FRESH_S, Life, judge
from htxas.launch.recovery.witness import Scene, evidence
from htxas.store.records import Control, ControlState, PilotRecord, PilotState
from htxas.store.store import Store
from htxas.store.watching import Ending

__all__ = ["HOUR_S", "Watcher", "look"]

HOUR_S = 3600.0
_NOW_S = 300.0
_LEAST_SPAN_S = 5.0
_SLOW_FACTOR = 20.0
_JUMP_LEAST, _JUMP_SHARE, _JUMP_TIMES = 5, 0.05, 2.0
_JUMP_FIRST = 0.1  # taken for usual in the first hour of a campaign
_PATIENCE_S = 2.0

Document = dict[str, Any]


def look(store: Store, name: str | None = None) -> Document:
    """Return everything ``htxas status`` shows, of all campaigns or one; JSON-able."""
    return _together(_counted(store, name), _beating(store), name)


def _counted(store: Store, name: str | None) -> Document:
    """Return what grows with the number of calculations and of past pilots."""
    names = [name] if name is not None else [c["name"] for c in store.campaigns()]
    unfinished = set(store.unfinished_submissions(name))
    endings: dict[str, list[Ending]] = {}
    for ending in store.endings(HOUR_S, now_s=_NOW_S, campaign=name):
        endings.setdefault(ending.campaign, []).append(ending)
    spent = store.spent()
    campaigns = []
    for campaign in names:
        progress = store.progress(campaign)
        mine = endings.get(campaign, [])
        campaigns.append(
            {
                **progress,
                "submission_finished": campaign not in unfinished,
                "spent_node_h": spent.get(campaign, 0.0),
                "throughput": _throughput(mine),
                "failures": _failures(progress, mine),
                "left_s": _left_s(progress, mine),
            }
        )
    return {"campaigns": campaigns, "pilots": store.pilots()}


def _beating(store: Store) -> Document:
    """Return what changes every few seconds."""
    return {
        "workers": store.workers(),
        "up_s": store.server_up_s(),
        "controls": store.controls(),
        "stamps": store.stamps(),
    }


def _together(counted: Mapping[str, Any], beating: Mapping[str, Any], name: str | None) -> Document:
    controls: Mapping[str, Control] = beating["controls"]
    campaigns = [_controlled(c, controls.get(c["campaign"], Control())) for c in counted["campaigns"]]
    # No scheduler is asked here: what only one of them can tell stays unknown.
    scene = Scene.of(beating["up_s"], beating["workers"], counted["pilots"])
    workers = [_worker(w, scene) for w in beating["workers"]]
    pilots: Sequence[PilotRecord] = [
        p for p in counted["pilots"] if name is None or p.campaign in (None, name)
    ]
    reconciled = beating["stamps"].get("reconcile")
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": {"up": True, "silent_s": 0.0, "error": None},
        "campaigns": campaigns,
        "workers": workers,
        "agents": _agents(workers),
        "pilots": _pilots(pilots, workers),
        "utilisation": _utilisation(pilots, workers),
        "unfit": _unfit(pilots, campaigns),
        "reconciled_s": reconciled,
    }


def _controlled(campaign: Document, control: Control) -> Document:
    budget = control.budget_node_h
    over = budget is not None and campaign["spent_node_h"] >= budget
    held = over or control.state is not ControlState.ACTIVE
    return {
        **campaign,
        "control": control.state.value,
        "priority": control.priority,
        "budget_node_h": budget,
        "over_budget": over,
        "left_s": None if held else campaign["left_s"],
    }


def _throughput(endings: Iterable[Ending]) -> Document:
    """Return what was done per minute: over the last hour, or since the first began if that is less."""
    done = [e for e in endings if e.state is State.DONE]
    span = min(HOUR_S, max((e.span_s for e in done), default=HOUR_S))
    span = max(span, _LEAST_SPAN_S)
    sites = [e for e in done if e.kind is Kind.SITE]
    return {
        "sites_per_min": 60 * sum(e.now for e in sites) / min(_NOW_S, span),
        "sites_per_min_hour": 60 * sum(e.count for e in sites) / span,
        "calculations_per_min_hour": 60 * sum(e.count for e in done) / span,
        "window_s": span,
    }


def _left_s(progress: Mapping[str, Any], endings: Iterable[Ending]) -> float | None:
    """Return the seconds left at the pace of the last hour, in expected seconds done per second; None if unknown."""
    ended = list(endings)
    if not progress["counts"]["ready"] + progress["counts"]["running"]:
        return 0.0
    span = max(_LEAST_SPAN_S, min(HOUR_S, max((e.span_s for e in ended), default=HOUR_S)))
    pace = sum(e.estimate_s for e in ended) / span
    return float(progress["left_estimate_s"]) / pace if pace > 0 else None


def _failures(progress: Mapping[str, Any], endings: Iterable[Ending]) -> list[Document]:
    """Return the causes, most frequent first, with those of the last hour, and whether a cause has become frequent."""
    ended = list(endings)
    recent: Counter[str] = Counter()
    for e in ended:
        if e.cause is not None and e.state is not State.DONE:
            recent[str(e.cause)] += e.count
    lately = sum(e.count for e in ended)
    counts = progress["counts"]
    before = counts["done"] + counts["failed"] + counts["quarantined"] - lately
    rows = []
    for cause, count in sorted(progress["causes"].items(), key=lambda item: (-item[1], item[0])):
        share = recent[cause] / lately if lately else 0.0
        usual = (count - recent[cause]) / before if before > 0 else _JUMP_FIRST
        jump = recent[cause] >= _JUMP_LEAST and share >= max(_JUMP_SHARE, _JUMP_TIMES * usual)
        rows.append(
            {
                "cause": cause,
                "count": count,
                "last_hour": recent[cause],
                "share_last_hour": share,
                "jump": jump,
            }
        )
    return rows


def _worker(worker: Mapping[str, Any], scene: Scene) -> Document:
    info, silent = worker["info"], float(worker["age_s"])
    verdict = judge(evidence(worker, scene))
    if verdict.life is Life.DEAD:
        state = "dead"
    elif info.get("bundle") is not None:  # never beats
        state = "bundle"
    else:
        state = "alive" if silent < FRESH_S else "silent"
    return {
        "owner": worker["owner"],
        "host": info.get("host"),
        "silent_s": silent,
        "dead": verdict.life is Life.DEAD,
        "state": state,
        "why": verdict.why,
        "campaign": info.get("campaign"),
        "cluster": info.get("cluster"),
        "pilot": info.get("pilot"),
        "places": int(info.get("workers", 1)),
        "busy": len(info.get("in_hand", ())),
        "held": int(info.get("held", 0)),
        "engine_s": float(info.get("engine_s", 0.0)),
        "allocated_s": float(info.get("allocated_s", 0.0)),
        "end": info.get("end"),
    }


def _agents(workers: Sequence[Mapping[str, Any]]) -> Document:
    states = Counter(w["state"] for w in workers)
    living = [w for w in workers if w["state"] == "alive"]
    return {
        **{state: states[state] for state in ("alive", "silent", "dead")},
        "bundles": states["bundle"],
        "longest_silence_s": max((w["silent_s"] for w in workers if w["state"] == "silent"), default=0.0),
        "places": sum(w["places"] for w in living),
        "busy": sum(w["busy"] for w in living),
        "held": sum(w["held"] for w in living),
    }


def _times(
    pilots: Iterable[PilotRecord], workers: Iterable[Mapping[str, Any]]
) -> dict[str, tuple[float, float]]:
    """Return engine and allocated seconds by cluster; of a pilot at work its heartbeat is newer than its record."""
    beating = {w["pilot"]: w for w in workers if w["pilot"] is not None}
    total: dict[str, tuple[float, float]] = {}

    def add(cluster: str, engine_s: float, allocated_s: float) -> None:
        before = total.get(cluster, (0.0, 0.0))
        total[cluster] = (before[0] + engine_s, before[1] + allocated_s)

    for pilot in pilots:
        worker = beating.pop(pilot.id, None)
        if worker is not None and worker["allocated_s"] >= pilot.allocated_s:
            add(pilot.cluster, worker["engine_s"], worker["allocated_s"])
        else:
            add(pilot.cluster, pilot.engine_s, pilot.allocated_s)
    for worker in workers:
        if worker["pilot"] is None or worker["pilot"] in beating:
            add(worker["cluster"] or "", worker["engine_s"], worker["allocated_s"])
    return total


def _unfit(pilots: Iterable[PilotRecord], campaigns: Iterable[Document]) -> Document | None:
    """Return what the last pilot said that found only work too long for it; None if none did, or nothing waits."""
    if not any(c["counts"][State.READY.value] for c in campaigns):
        return None
    ended = [p for p in pilots if p.ended is not None]
    last = max(ended, key=lambda p: p.ended or p.submitted, default=None)
    if last is None or not (last.reason or "").endswith(LONGER):
        return None
    return {"pilot": last.id, "partition": last.partition, "reason": last.reason}


def _share(engine_s: float, allocated_s: float) -> float | None:
    return engine_s / allocated_s if allocated_s > 0 else None


def _utilisation(pilots: Iterable[PilotRecord], workers: Iterable[Mapping[str, Any]]) -> Document:
    times = list(_times(pilots, workers).values())
    engine_s, allocated_s = sum(t[0] for t in times), sum(t[1] for t in times)
    return {"engine_s": engine_s, "allocated_s": allocated_s, "share": _share(engine_s, allocated_s)}


def _pilots(pilots: Iterable[PilotRecord], workers: Iterable[Mapping[str, Any]]) -> list[Document]:
    """Return one row per cluster; the empty name is agents without a pilot, if there are any."""
    times = _times(pilots, workers)
    rows = []
    for cluster in sorted({p.cluster for p in pilots} | times.keys()):
        mine = [p for p in pilots if p.cluster == cluster]
        states = Counter(p.state for p in mine)
        running = [p for p in mine if p.state is PilotState.RUNNING]
        engine_s, allocated_s = times.get(cluster, (0.0, 0.0))
        rows.append(
            {
                "cluster": cluster,
                "states": {s.value: states[s] for s in PilotState},
                "nodes": sum(p.nodes for p in running),
                "cores": sum(p.cores for p in running),
                "agents": sum(w["cluster"] == (cluster or None) and w["state"] == "alive" for w in workers),
                "engine_s": engine_s,
                "allocated_s": allocated_s,
                "utilisation": _share(engine_s, allocated_s),
            }
        )
    return rows


class Watcher:
    """Looks again and again, and keeps the last answer when the database does not give one.

    Parameters
    ----------
    name
        Campaign, or None for all.
    open_store
        Gives a store that does not wait long; called again after an outage, as a private server may have moved.
    """

    def __init__(self, name: str | None, open_store: Callable[[], Store] | None = None) -> None:
        self._name = name
        self._open = open_store or (lambda: Store.open(patience_s=_PATIENCE_S))
        self._store: Store | None = None
        self._counted: Document | None = None
        self._counted_at = self._cost_s = 0.0
        self._last: Document | None = None
        self._last_at = 0.0

    def look(self) -> Document:
        """Return what :func:`look` does; during an outage the last answer, with ``database.up`` false.

        Raises
        ------
        DatabaseUnavailable
            If it is away at the first look.
        NotFound
            If there is no such campaign.
        """
        try:
            self._last, self._last_at = self._ask(), time.monotonic()
        except DatabaseUnavailable as error:
            self.close()
            if self._last is None:
                raise
            silent = time.monotonic() - self._last_at
            self._last = {**self._last, "database": {"up": False, "silent_s": silent, "error": str(error)}}
        return self._last

    def _ask(self) -> Document:
        if self._store is None:
            self._store = self._open()
            self._counted = None
            if self._name is not None:
                self._store.campaign(self._name)
        start = time.perf_counter()
        if self._counted is None or time.monotonic() - self._counted_at > _SLOW_FACTOR * self._cost_s:
            self._counted = _counted(self._store, self._name)
            self._cost_s = time.perf_counter() - start
            self._counted_at = time.monotonic()
        seen = _together(self._counted, _beating(self._store), self._name)
        seen["database"]["look_ms"] = 1000 * (time.perf_counter() - start)
        return seen

    def close(self) -> None:
        """Close the connection; the next look opens another."""
        if self._store is not None:
            with suppress(DatabaseUnavailable):
                self._store.close()
            self._store = None

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
