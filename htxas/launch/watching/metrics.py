"""The same look as the status page, for Prometheus."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from htxas.errors import DatabaseUnavailable, UserError
from htxas.launch.agent.delivery import journals
from htxas.launch.disk.usage import DiskQuota, file_system
from htxas.launch.watching.watch import Watcher
from htxas.settings import runs_folder

__all__ = ["HtxasCollector", "registry", "serve", "text", "write"]

_DISK_BUDGET_S, _DISK_FRESH_S = 0.5, 60.0
_FRESH_S = 2.0
_FILE_MODE = 0o644  # the node exporter runs as another user; nothing in it is secret


class HtxasCollector(Collector):
    """Looks when asked. During an outage of the database only ``htxas_database_up 0`` and the disk are told.

    Parameters
    ----------
    watcher
        Asked at most every two seconds, however often the endpoint is.
    quota
        Measures the run folders of this host.
    """

    def __init__(self, watcher: Watcher, quota: DiskQuota | None = None) -> None:
        self._watcher = watcher
        self._quota = quota or DiskQuota()
        self._seen: dict[str, Any] | None = None
        self._seen_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering this does not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        seen = self._look()
        up = seen is not None and seen["database"]["up"]
        yield _gauge("htxas_database_up", "1 if the database answers.", float(up))
        if seen is not None and up:
            yield from _calculations(seen)
            yield from _flow(seen)
            yield from _pilots(seen)
            yield from _agents(seen)
            if seen["reconciled_s"] is not None:
                text = "Seconds since htxas reconcile looked last."
                yield _gauge("htxas_reconcile_age_seconds", text, seen["reconciled_s"])
        yield from self._disk()

    def _look(self) -> dict[str, Any] | None:
        now = time.monotonic()
        if now - self._seen_at > _FRESH_S:
            try:
                self._seen = self._watcher.look()
            except DatabaseUnavailable:
                self._seen = None
            self._seen_at = time.monotonic()
        return self._seen

    def _disk(self) -> Iterator[Metric]:
        used, free = self._quota.used(budget_s=_DISK_BUDGET_S, fresh_s=_DISK_FRESH_S), file_system()
        yield _gauge("htxas_runs_bytes", "Bytes the run folders take on this host, estimated.", used.bytes)
        yield _gauge("htxas_runs_files", "Files and folders below the run folders, estimated.", used.files)
        yield _gauge("htxas_disk_free_bytes", "Free bytes on their file system.", free["free_bytes"])
        if free["files"]:
            yield _gauge("htxas_disk_free_files", "Free inodes on their file system.", free["free_files"])
        folders, size = _backlog()
        yield _gauge(
            "htxas_journal_backlog_agents", "Agents with undelivered journals, on this host.", folders
        )
        yield _gauge("htxas_journal_backlog_bytes", "Undelivered bytes in them.", size)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, labels: list[str], rows: Iterator[tuple[list[str], float]]) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        metric.add_metric(values, value)
    return metric


def _calculations(seen: dict[str, Any]) -> Iterator[Metric]:
    campaigns = seen["campaigns"]
    yield _labelled(
        "htxas_calculations",
        "Calculations by campaign, kind and state.",
        ["campaign", "kind", "state"],
        (
            ([c["campaign"], kind, state], count)
            for c in campaigns
            for kind, states in c["kinds"].items()
            for state, count in states.items()
        ),
    )
    yield _labelled(
        "htxas_failures",
        "Failed and quarantined calculations by campaign and cause.",
        ["campaign", "cause"],
        (([c["campaign"], f["cause"]], f["count"]) for c in campaigns for f in c["failures"]),
    )
    yield _labelled(
        "htxas_failures_last_hour",
        "Those of the last hour.",
        ["campaign", "cause"],
        (([c["campaign"], f["cause"]], f["last_hour"]) for c in campaigns for f in c["failures"]),
    )


def _flow(seen: dict[str, Any]) -> Iterator[Metric]:
    campaigns, by = seen["campaigns"], ["campaign"]
    yield _labelled(
        "htxas_sites_per_minute",
        "Sites done per minute, over the last five minutes.",
        by,
        (([c["campaign"]], c["throughput"]["sites_per_min"]) for c in campaigns),
    )
    yield _labelled(
        "htxas_left_seconds",
        "Expected seconds to the end at the pace of the last hour; absent if unknown.",
        by,
        (([c["campaign"]], c["left_s"]) for c in campaigns if c["left_s"] is not None),
    )
    yield _labelled(
        "htxas_left_estimate_seconds",
        "Expected seconds of computing left.",
        by,
        (([c["campaign"]], c["left_estimate_s"]) for c in campaigns),
    )
    yield _labelled(
        "htxas_spent_node_hours",
        "Node-hours used.",
        by,
        (([c["campaign"]], c["spent_node_h"]) for c in campaigns),
    )
    yield _labelled(
        "htxas_budget_node_hours",
        "Node-hours it may use; absent without a budget.",
        by,
        (([c["campaign"]], c["budget_node_h"]) for c in campaigns if c["budget_node_h"] is not None),
    )
    yield _labelled(
        "htxas_campaign_active",
        "1 if active, 0 if paused, cancelled or out of budget.",
        by,
        (([c["campaign"]], float(c["control"] == "active" and not c["over_budget"])) for c in campaigns),
    )


def _pilots(seen: dict[str, Any]) -> Iterator[Metric]:
    rows, by = seen["pilots"], ["cluster"]
    yield _labelled(
        "htxas_pilots",
        "Queue jobs by cluster and state.",
        ["cluster", "state"],
        (([r["cluster"], state], n) for r in rows if r["cluster"] for state, n in r["states"].items()),
    )
    for key, what in (("engine_s", "engines ran in"), ("allocated_s", "were allocated to")):
        yield _labelled(
            f"htxas_{key.removesuffix('_s')}_seconds",
            f"Seconds of workers' places that {what} pilots and living agents.",
            by,
            (([r["cluster"]], r[key]) for r in rows),
        )
    yield _labelled(
        "htxas_utilisation",
        "Engine time over allocated time.",
        by,
        (([r["cluster"]], r["utilisation"]) for r in rows if r["utilisation"] is not None),
    )


def _agents(seen: dict[str, Any]) -> Iterator[Metric]:
    agents = seen["agents"]
    yield _labelled(
        "htxas_agents",
        "Agents by state.",
        ["state"],
        (([state], agents[state]) for state in ("alive", "silent", "dead")),
    )
    yield _gauge("htxas_workers", "Workers' places of living agents.", agents["places"])
    yield _gauge("htxas_workers_busy", "Those that are computing.", agents["busy"])


def _backlog() -> tuple[int, int]:
    """Return how many agents have bytes in journals that were not delivered, and how many bytes."""
    folders = size = 0
    for folder in (runs_folder() / "workers").glob("*/"):
        try:
            noted = json.loads((folder / "delivered.json").read_text())
        except (OSError, ValueError):
            noted = {}
        left = sum(max(0, p.stat().st_size - int(noted.get(p.name, 0))) for p in journals(folder))
        folders += left > 0
        size += left
    return folders, size


def registry(watcher: Watcher) -> CollectorRegistry:
    """Return a registry with nothing but htxas in it."""
    made = CollectorRegistry()
    made.register(HtxasCollector(watcher))
    return made


def text(source: CollectorRegistry) -> bytes:
    """Return the metrics in Prometheus' text format."""
    return generate_latest(source)


def write(source: CollectorRegistry, path: Path) -> None:
    """Write the metrics into a file for the node exporter's textfile collector; a reader sees all or the last.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    draft = path.with_name(
        f".{path.name}.{secrets.token_hex(4)}"
    )  # not *.prom: the collector must not see it
    try:
        draft.write_bytes(text(source))
        draft.chmod(_FILE_MODE)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"cannot write: {error.strerror}", where=str(path)) from error


def serve(source: CollectorRegistry, host: str, port: int) -> tuple[Callable[[], None], int]:
    """Answer ``http://host:port/metrics`` in a thread; return what stops it, and the port (for port 0: any).

    Raises
    ------
    UserError
        If the port is taken.
    """
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, addr=host, registry=source)
    except OSError as error:
        raise UserError(f"cannot listen: {error.strerror}", where=f"{host}:{port}") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop, int(server.server_port)
