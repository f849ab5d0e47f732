"""``htxas queue submit | status | cancel``: pilots in the queues of clusters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.table import Table

    from htxas.launch.pilots.cancel import Cancelling
    from htxas.launch.pilots.submit import Submission
    from htxas.launch.recovery.reconcile import Cluster
    from htxas.store.store import Store

__all__ = ["cancel", "status", "submit"]

_THOROUGH_EVERY = 10
_CLUSTER = click.option(
    "--cluster",
    "-C",
    "cluster",
    metavar="NAME",
    help="The cluster; may be left out if htxas.yaml has one only.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command()
@_CLUSTER
@click.option(
    "--pilots",
    "-n",
    type=click.IntRange(1),
    metavar="N",
    help="Keep N pilots queued or running; 1 without --adapt.",
)
@click.option("--adapt", is_flag=True, help="As many pilots as the ready work needs, at most N.")
@click.option("--campaign", "-c", metavar="NAME", help="Pilots for this campaign only.")
@click.option("--dry-run", is_flag=True, help="Say what would be submitted, and print the script.")
@click.option(
    "--watch", is_flag=True, help="Again and again, with reconcile in between, until Ctrl-C: as a service."
)
@click.option(
    "--every",
    default=60.0,
    show_default=True,
    metavar="S",
    type=click.FloatRange(5.0),
    help="Pause with --watch.",
)
@_JSON
@click.pass_context
def submit(
    context: click.Context,
    cluster: str | None,
    pilots: int | None,
    adapt: bool,
    campaign: str | None,
    dry_run: bool,
    watch: bool,
    every: float,
    as_json: bool,
) -> None:
    """Submit the pilots that are missing.

    A pilot is a queue job that computes whatever is ready until its time ends. Doing it again adds nothing while there
    are enough. Nothing is submitted while the scheduler gives no usable answer, when nothing is ready, or when a
    campaign's budget could not pay for a pilot's whole walltime. After pilots that ended without having worked, one at
    a time is tried; with --watch with pauses that double, up to an hour.

    \b
    htxas queue submit --cluster mine --dry-run
    htxas queue submit --cluster mine --pilots 5
    htxas queue submit --cluster mine --adapt --watch
    """
    from htxas.cluster.load import load_config
    from htxas.cluster.queue import open_queue
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.launch.recovery.reconcile import Cluster
    from htxas.store.store import Store

    profile = load_config().cluster(cluster)
    where = Cluster(profile, open_queue(profile))
    count = pilots if adapt else pilots or 1
    with Store.open() as store, launchpad_of(store) as launchpad:
        if watch:
            if dry_run:
                raise click.UsageError("--watch does what --dry-run only says")
            _watch(store, launchpad, where, count, adapt, campaign, every, as_json)
        done = _submit(store, launchpad, where, count, adapt, campaign, dry_run, patient=False)
    _say(done, dry_run, as_json)
    if done.problems:
        context.exit(1)


def _submit(
    store: Store,
    launchpad: Any,
    where: Cluster,
    count: int | None,
    adapt: bool,
    campaign: str | None,
    dry_run: bool = False,
    *,
    patient: bool = True,
) -> Submission:
    from htxas.launch.bundles.site import bundle_maker
    from htxas.launch.pilots.submit import submit_pilots

    reachable = where.profile.database.reachable
    return submit_pilots(
        store,
        where.profile,
        where.queue,
        pilots=count,
        adaptive=adapt,
        campaign=campaign,
        dry_run=dry_run,
        prepare=None if reachable else bundle_maker(store, launchpad, where.profile, where.queue),
        patient=patient,
    )


def _watch(
    store: Store,
    launchpad: Any,
    where: Cluster,
    count: int | None,
    adapt: bool,
    campaign: str | None,
    every: float,
    as_json: bool,
) -> None:
    """Reconcile, collect, submit; outlast an absent database, a busy lock and a scheduler out of order."""
    from dataclasses import replace

    from htxas.errors import Busy, ClusterError, DatabaseUnavailable
    from htxas.launch.bundles.site import collect_all
    from htxas.launch.recovery.reconcile import reconcile
    from htxas.launch.watching.upkeep import Upkeep

    upkeep = Upkeep(store)
    rounds = 0
    noted: list[str] = []
    while True:
        try:
            thorough = rounds % _THOROUGH_EVERY == 0
            report = reconcile(store, launchpad, {where.profile.name: where}, thorough=thorough)
            if not where.profile.database.reachable:
                collect_all(store, launchpad, where.profile, where.queue)
            done = _submit(store, launchpad, where, count, adapt, campaign)
        except (Busy, ClusterError, DatabaseUnavailable) as error:
            click.echo(f"{_now()} {error}", err=True)
        else:
            for owner in report.dead:
                click.echo(f"{_now()} dead: {owner.name}: {owner.why}", err=as_json)
            if as_json:
                _say(done, False, as_json, brief=True)
            else:
                # What stays as it is is said once, not every minute for weeks.
                told, noted = noted, list(done.notes)
                _say(replace(done, notes=[n for n in noted if n not in told]), False, as_json, brief=True)
            upkeep.tick()
        rounds += 1
        time.sleep(every)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _say(done: Submission, dry_run: bool, as_json: bool, *, brief: bool = False) -> None:
    from htxas.cli._text import plural

    if as_json:
        from htxas.report.terminal import to_json

        click.echo(to_json(_document(done, dry_run), indent=None if brief else 1))
        return
    prefix = f"{_now()} " if brief else ""
    for partition, count in done.plan.submit.items() if dry_run else ():
        click.echo(
            f"{plural(count, 'pilot')} would go to {partition}, with this script:\n\n{done.scripts[partition]}"
        )
    if done.submitted:
        first, *others = done.submitted.values()
        jobs = f"jobs {first} to {others[-1]}" if others else f"job {first}"
        click.echo(f"{prefix}{plural(len(done.submitted), 'pilot')} submitted to {done.cluster}: {jobs}")
    for note in done.notes:
        click.echo(prefix + note)
    for problem in done.problems:
        click.echo(f"{prefix}{problem}", err=True)
    if not brief and not done.submitted and not done.problems and not dry_run:
        click.echo(
            f"{plural(len(done.seen.pilots), 'pilot')} queued or running on {done.cluster}; none submitted"
        )


def _document(done: Submission, dry_run: bool) -> dict[str, Any]:
    return {
        "cluster": done.cluster,
        "dry_run": dry_run,
        "active": [p.id for p in done.seen.pilots],
        "needed": done.plan.needed,
        "planned": done.plan.submit,
        "submitted": done.submitted,
        "scripts": done.scripts,
        "notes": done.notes,
        "problems": done.problems,
    }


@click.command()
@_CLUSTER
@click.option("--all", "everything", is_flag=True, help="Ended pilots, too.")
@_JSON
@click.pass_context
def status(context: click.Context, cluster: str | None, everything: bool, as_json: bool) -> None:
    """Show pilots: state, node, time left, whether they are alive, how well they use their allocation.

    \b
    htxas queue status
    htxas queue status --cluster mine --all --json
    """
    from htxas.cli.reconcile import known_clusters
    from htxas.store.store import Store

    clusters = known_clusters(cluster)
    with Store.open() as store:
        seen = _look(store, clusters, cluster, everything)
    if as_json:
        from htxas.report.terminal import to_json

        click.echo(to_json(seen))
    else:
        from htxas.report.terminal import console

        console().print(_table(seen["pilots"])) if seen["pilots"] else click.echo(
            "no pilots; htxas queue submit"
        )
        for name, why in seen["unknown"].items():
            click.echo(f"{name}: the scheduler gives no usable answer: {why}", err=True)
    if seen["unknown"]:
        context.exit(1)


def _look(
    store: Store, clusters: Mapping[str, Cluster], only: str | None, everything: bool
) -> dict[str, Any]:
    from htxas.launch.pilots.look import describe, refresh

    unknown = {}
    for name, where in clusters.items():
        looked = refresh(store, where.profile, where.queue)
        if looked.unknown is not None:
            unknown[name] = looked.unknown
    pilots = store.pilots(only, active=None if everything else True)
    return {"pilots": describe(store, pilots), "unknown": unknown}


def _table(pilots: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    from htxas.cli._text import duration

    table = Table(
        "pilot", "cluster", "job", "state", "node", "left", "alive", "in hand", "used", "campaign", "about"
    )
    for p in pilots:
        table.add_row(
            p["id"],
            f"{p['cluster']}:{p['partition']}",
            p["job_id"] or "-",
            p["state"],
            p["node"] or "-",
            "-" if p["left_s"] is None else duration(max(0.0, p["left_s"])),
            {True: "yes", False: "no", None: "-"}[p["alive"]],
            "-" if p["in_hand"] is None else str(p["in_hand"]),
            "-" if p["utilisation"] is None else f"{100 * p['utilisation']:.0f}%",
            p["campaign"] or "all",
            p["reason"] or "",
        )
    return table


@click.command()
@_CLUSTER
@click.argument("pilots", nargs=-1, metavar="[PILOT]...")
@click.option("--pending", is_flag=True, help="Only those that have not started.")
@_JSON
@click.pass_context
def cancel(
    context: click.Context, cluster: str | None, pilots: tuple[str, ...], pending: bool, as_json: bool
) -> None:
    """Cancel pilots in the queue, and look until they are gone; all of the cluster, if none is named.

    Running ones give back what they have in hand. Results are kept; nothing is marked as failed.

    \b
    htxas queue cancel --cluster mine --pending
    htxas queue cancel --cluster mine 3f9a12bc-7
    """
    from htxas.cluster.load import load_config
    from htxas.cluster.queue import open_queue
    from htxas.launch.pilots.cancel import cancel_pilots
    from htxas.store.store import Store

    profile = load_config().cluster(cluster)
    with Store.open() as store:
        done = cancel_pilots(store, profile, open_queue(profile), pilots or None, pending=pending)
    if as_json:
        from htxas.report.terminal import to_json

        click.echo(to_json({"gone": done.gone, "left": done.left, "failed": done.failed}))
    else:
        for line in _lines(done, profile.name):
            click.echo(line)
    if done.left or done.failed:
        context.exit(1)


def _lines(done: Cancelling, cluster: str) -> Iterator[str]:
    from htxas.cli._text import plural

    if not (done.gone or done.left or done.failed):
        yield f"there was nothing to cancel on {cluster}"
    if done.gone:
        yield f"{plural(len(done.gone), 'pilot')} gone from the queue of {cluster}"
    for pilot, word in done.left.items():
        yield f"{pilot} is still there: {word}"
    for pilot in done.failed:
        yield f"{pilot}: the scheduler did not take the request; do it again"
