"""``htxas collect``: results of bundles into the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from htxas.launch.bundles.collect import Collected

__all__ = ["collect"]


@click.command()
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=click.Path(path_type=Path, file_okay=False))
@click.option("--cluster", "-C", metavar="NAME", help="All bundles of this cluster's pilots.")
@click.option("--close", is_flag=True, help="Nothing more of it will be computed: give the rest back.")
@click.option(
    "--forget", metavar="OWNER", help="Give back what a bundle leased whose folder is gone for good."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def collect(
    folders: tuple[Path, ...], cluster: str | None, close: bool, forget: str | None, as_json: bool
) -> None:
    """Bring in what bundles have; also while they are being computed, and again.

    A bundle is closed once all of it has ended, once its pilot has ended, or with --close; what has no result by then
    goes back into the queue.

    \b
    htxas collect /scratch/me/b1
    htxas collect --cluster mine
    htxas collect /scratch/me/b1 --close
    htxas collect --forget bundle-node1-4711-a1b2c3
    """
    from htxas.errors import Cause, NotFound, UserError
    from htxas.launch.bundles.collect import Fate
    from htxas.launch.bundles.collect import collect as bring_in
    from htxas.launch.bundles.forget import forget as give_up
    from htxas.launch.bundles.forget import forget_unfinished
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.store.store import Store

    if not folders and cluster is None and forget is None:
        raise click.UsageError("name a bundle's folder, or a --cluster")
    if cluster is not None and close:
        raise click.UsageError(
            "--close is for a folder; the bundles of a cluster close when their pilots end"
        )
    done: list[Collected] = []
    with Store.open() as store, launchpad_of(store) as launchpad:
        for folder in folders:
            fate = Fate(Cause.LOST, "its bundle was closed by hand") if close else None
            try:
                one = bring_in(store, launchpad, folder)
                if fate is not None and one.running:
                    raise UserError(
                        "somebody is computing it", where=str(folder), hint="stop that first, then close it"
                    )
                if fate is not None and not one.closed:
                    stored = one.stored
                    one = bring_in(store, launchpad, folder, close=fate)
                    one.stored += stored
            except NotFound:
                if not forget_unfinished(store, launchpad, folder):
                    raise
                click.echo(
                    f"{folder}: its making was interrupted; what it had leased is free again", err=as_json
                )
                continue
            done.append(one)
        if forget is not None:
            from htxas.cli._text import plural

            freed = give_up(store, launchpad, forget)
            click.echo(f"{forget}: {plural(freed, 'calculation')} given back", err=as_json)
        if cluster is not None:
            from htxas.cluster.load import load_config
            from htxas.cluster.queue import open_queue
            from htxas.launch.bundles.site import collect_all

            profile = load_config().cluster(cluster)
            done += collect_all(store, launchpad, profile, open_queue(profile))
    if as_json:
        from htxas.report.terminal import to_json

        click.echo(to_json([one.to_dict() for one in done]))
        return
    for one in done:
        for line in _lines(one):
            click.echo(line)
    if cluster is not None and not done:
        click.echo(f"{cluster} has no open bundles")


def _lines(one: Collected) -> Iterator[str]:
    from htxas.cli._text import plural

    new = f"{plural(one.stored, 'result')} brought in" if one.stored else "nothing new"
    yield f"{one.folder}: {new}; {one.ended:,} of {one.tasks:,} ended"
    if one.refused:
        yield f"  {plural(one.refused, 'result')} too late: somebody else has the calculation"
    if one.foreign:
        yield f"  {plural(one.foreign, 'result')} of other calculations than this bundle's: left out"
    if one.closed and one.released:
        charged = f", {one.charged:,} of them interrupted" if one.charged else ""
        yield f"  closed; {plural(one.released, 'calculation')} given back{charged}"
    elif one.closed:
        yield "  closed"
    elif one.running:
        yield "  still being computed"
    elif one.left:
        yield f"  go on: htxas bundle run {one.folder}; or give the rest back: htxas collect {one.folder} --close"
