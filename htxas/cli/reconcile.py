"""``htxas reconcile``: what is dead, settled; what is left over, mended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.launch.recovery.reconcile import Cluster, Owner, Report
    from htxas.store.store import Store

__all__ = ["known_clusters", "reconcile"]

_THOROUGH_EVERY = 10


@click.command()
@click.option("--cluster", "-C", "only", metavar="NAME", help="Only owners and pilots of this cluster.")
@click.option("--dry-run", is_flag=True, help="Judge and say what would be done; change nothing.")
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C: as a service.")
@click.option(
    "--every",
    default=60.0,
    show_default=True,
    metavar="S",
    type=click.FloatRange(5.0),
    help="Pause with --watch.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --watch one line each time.")
@click.pass_context
def reconcile(
    context: click.Context, only: str | None, dry_run: bool, watch: bool, every: float, as_json: bool
) -> None:
    """Compare database, schedulers, heartbeats and folders; settle what is provably dead.

    Results that a dead agent left in its journal are brought in first, then its calculations are freed. An empty or
    failed answer of a scheduler is "unknown", never "gone". May be repeated and interrupted, and runs beside
    everything else.

    \b
    htxas reconcile --dry-run
    htxas reconcile
    htxas reconcile --watch --every 60
    """
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.store.store import Store

    clusters = known_clusters(only)
    with Store.open() as store, launchpad_of(store) as launchpad:
        if watch:
            _watch(store, launchpad, clusters, only, dry_run, every, as_json)
            return
        from htxas.launch.recovery.reconcile import reconcile as look

        report = look(store, launchpad, clusters, only=only, dry_run=dry_run)
        _say(report, as_json)
    if report.unknown:
        context.exit(1)


def known_clusters(only: str | None) -> Mapping[str, Cluster]:
    """Return the clusters of ``htxas.yaml``; none without one, unless one is asked for by name."""
    from htxas.cluster.load import load_config
    from htxas.cluster.queue import open_queue
    from htxas.errors import NotFound
    from htxas.launch.recovery.reconcile import Cluster

    try:
        config = load_config()
    except NotFound:
        if only is not None:
            raise
        return {}
    profiles = config.clusters.values() if only is None else [config.cluster(only)]
    return {p.name: Cluster(p, open_queue(p)) for p in profiles}


def _watch(
    store: Store,
    launchpad: Any,
    clusters: Mapping[str, Cluster],
    only: str | None,
    dry_run: bool,
    every: float,
    as_json: bool,
) -> None:
    from htxas.errors import Busy, DatabaseUnavailable
    from htxas.launch.recovery.reconcile import reconcile as look
    from htxas.launch.watching.upkeep import Upkeep

    upkeep = None if dry_run else Upkeep(store)
    for count in _rounds(every):
        try:
            report = look(
                store, launchpad, clusters, only=only, dry_run=dry_run, thorough=count % _THOROUGH_EVERY == 0
            )
        except (DatabaseUnavailable, Busy) as error:  # a service outlasts both
            click.echo(f"{_now()} {error}", err=True)
            continue
        if as_json or not report.clean:
            _say(report, as_json, brief=True)
        if upkeep is not None:
            upkeep.tick()


def _rounds(every: float) -> Iterator[int]:
    count = 0
    while True:
        yield count
        count += 1
        time.sleep(every)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _say(report: Report, as_json: bool, *, brief: bool = False) -> None:
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=None if brief else 1, default=str))
        return
    prefix = f"{_now()} " if brief else ""
    for line in _lines(report):
        click.echo(prefix + line)


def _lines(report: Report) -> Iterator[str]:
    from htxas.cli._text import plural

    lives = [o.life.value for o in report.owners]
    for owner in report.owners:
        if owner.life.value != "alive":
            yield from _about(owner, report.dry_run)
    for line in report.unknown:
        yield f"unknown: {line}"
    would = "would be " if report.dry_run else ""
    if report.journals["stored"]:
        yield f"{plural(report.journals['stored'], 'result')} {would}brought in from journals of the past"
    for count, noun, what in (
        (report.fireworks_freed, "Firework", "that nobody held"),
        (report.locks, "stale workflow lock", ""),
        (report.workflows, "workflow", "that disagreed with its Fireworks"),
        (report.fireworks_requeued, "Firework", "queued again: calculations of theirs were ready"),
        (report.fireworks_controlled, "Firework", "brought in line with what is wanted of their campaign"),
    ):
        if count:
            yield f"{plural(count, noun)} {would}mended {what}".rstrip()
    if report.unsubmitted:
        yield (
            f"{plural(report.unsubmitted, 'ready calculation')} without a batch: unless a submission is under way, "
            "complete it: htxas campaign submit FILE"
        )
    states = ", ".join(
        f"{lives.count(life)} {life}" for life in ("alive", "dead", "unknown") if life in lives
    )
    pilots = "; ".join(f"{c}: {plural(len(p), 'pilot')}" for c, p in report.pilots.items())
    yield f"{plural(len(lives), 'owner')}{': ' + states if states else ''}{'; ' + pilots if pilots else ''}"


def _about(owner: Owner, dry_run: bool) -> Iterator[str]:
    cause = f" [{owner.cause.value}]" if owner.cause else ""
    yield f"{owner.life.value}: {owner.name}{cause}: {owner.why}"
    if owner.left is not None:
        yield f"  not settled: {owner.left}"
    done: dict[str, Any] | None = None
    if owner.settled is not None:
        s = owner.settled
        done = {
            "results brought in": s.stored,
            "results too late": s.refused,
            "calculations freed": s.released,
            "of them interrupted": s.charged,
            "Fireworks freed": s.fireworks,
        }
    if done is not None:
        yield "  " + (", ".join(f"{n:,} {what}" for what, n in done.items() if n) or "held nothing")
    elif dry_run and owner.life.value == "dead" and owner.left is None:
        yield "  would be settled: journals brought in, the rest freed"
