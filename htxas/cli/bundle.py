"""``htxas bundle``: work in a folder, for nodes that cannot reach the database."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from htxas.launch.agent.agent import AgentReport

__all__ = ["bundle"]

_INTERRUPTED = 130
_PLAIN_EVERY_S = 15.0
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group()
def bundle() -> None:
    """Take work to where the database cannot be reached, and bring the results back.

    \b
    htxas bundle make --hours 8 -j 16 --output DIR    lease work into DIR
    htxas bundle run DIR -j 16                        compute it there; may be killed and repeated
    htxas collect DIR                                 bring in what is done

    On a cluster with `database: none`, `htxas queue submit` makes bundles by itself.
    """


@bundle.command()
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--hours", required=True, type=click.FloatRange(0, min_open=True), help="Hours of work.")
@click.option("--jobs", "-j", type=click.IntRange(1), help="For so many workers; by default the cluster's.")
@click.option("--cluster", "-C", metavar="NAME", help="A cluster of htxas.yaml it is meant for.")
@click.option("--campaign", "-c", metavar="NAME", help="Only this campaign.")
@_JSON
def make(
    output: Path, hours: float, jobs: int | None, cluster: str | None, campaign: str | None, as_json: bool
) -> None:
    """Lease work for some hours into a folder.

    What is in it is nobody else's until it is collected.

    \b
    htxas bundle make --hours 8 -j 16 --output /scratch/me/b1
    htxas bundle make --cluster mine --hours 8 --output /scratch/me/b1
    """
    from htxas.launch.bundles.make import Wish, make_bundle
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.launch.pilots.settings import site_settings
    from htxas.store.store import Store

    with Store.open() as store, launchpad_of(store) as launchpad:
        wish = Wish(hours, jobs or 1, campaign=campaign)
        if cluster is not None:
            from htxas.cluster.load import load_config

            profile = load_config().cluster(cluster)
            partition = profile.partition()
            wish = Wish(
                hours,
                jobs or profile.workers(partition),
                profile.pilots.cores_per_worker,
                profile.pilots.memory_per_worker_MB,
                profile.pilots.margin_s,
                campaign,
                profile.name,
                settings=site_settings(profile, partition, store.name),
            )
        made = make_bundle(store, launchpad, output, wish)
    if as_json:
        from htxas.report.terminal import to_json

        found = None if made is None else {k: v for k, v in made.to_dict().items() if k != "settings"}
        click.echo(to_json({"folder": str(output), "bundle": found}))
    elif made is None:
        click.echo("nothing is ready that fits; no bundle was made")
    else:
        from htxas.cli._text import duration, plural

        work = duration(made.estimate_s / made.workers)
        click.echo(
            f"{plural(made.tasks, 'calculation')}, about {work} for {plural(made.workers, 'worker')}: {output}"
        )
        click.echo(f"compute there: htxas bundle run {output} -j {made.workers}")
        click.echo(f"bring it in:   htxas collect {output}")


@bundle.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--jobs", "-j", type=click.IntRange(1, 512), help="Workers; by default what it was made for.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Stop by then; start only what fits.")
@click.pass_context
def run(context: click.Context, folder: Path, jobs: int | None, hours: float | None) -> None:
    """Compute what is left of a bundle; needs no database.

    Killed or interrupted, doing it again goes on where it was.

    \b
    htxas bundle run /scratch/me/b1 -j 16
    """
    from htxas.launch.agent.agent import AgentConfig
    from htxas.launch.agent.liveness import new_owner
    from htxas.launch.bundles.folder import read_bundle
    from htxas.launch.bundles.run import open_tasks, run_bundle
    from htxas.launch.work.stop import Stop, listening

    made = read_bundle(folder)
    stop = Stop()
    config = AgentConfig(
        owner=new_owner(),
        folder=folder,  # chosen anew inside the bundle
        workers=jobs or made.workers,
        end=None if hours is None else time.time() + 3600 * hours,
        margin_s=0.0 if hours is None else min(made.margin_s, 360 * hours),
        threads=made.cores_per_worker,
        engines=made.engines(),
    )
    with listening(stop):
        summary = run_bundle(folder, config, stop, _plain_lines())
    left = len(open_tasks(folder))
    counts = ", ".join(f"{n:,} {state}" for state, n in sorted(summary.ended.items())) or "nothing"
    click.echo(f"{counts}; {left:,} left")
    for problem in summary.problems:
        click.echo(f"stopped: {problem}", err=True)
    click.echo(f"bring it in where the database is: htxas collect {folder}")
    if stop.asked:
        context.exit(_INTERRUPTED)
    if summary.problems:
        context.exit(1)


def _plain_lines() -> Callable[[AgentReport], None]:
    last = [time.monotonic()]

    def show(report: AgentReport) -> None:
        if time.monotonic() - last[0] >= _PLAIN_EVERY_S:
            last[0] = time.monotonic()
            words = [f"{report.running} in hand", *(["stopping"] if report.stopping else []), *report.notes]
            click.echo(", ".join(words), err=True)

    return show
