"""``htxas retry``: failed calculations back into the queue."""

from __future__ import annotations

import json

import click

from htxas.errors import Cause

__all__ = ["retry"]


@click.command()
@click.argument("name")
@click.option(
    "--cause", type=click.Choice([c.value for c in Cause]), help="Only those that failed like this."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def retry(name: str, cause: str | None, as_json: bool) -> None:
    """Make failed and quarantined calculations of campaign NAME ready again.

    \b
    htxas retry qm9
    htxas retry qm9 --cause node_failure
    htxas run -j 2 --campaign qm9
    """
    from htxas.launch.fireworks_pad import launchpad_of
    from htxas.launch.retry import retry as make_ready
    from htxas.store.store import Store

    with Store.open() as store, launchpad_of(store) as launchpad:
        store.campaign(name)
        done = make_ready(store, launchpad, name, None if cause is None else Cause(cause))
    if as_json:
        click.echo(json.dumps({"calculations": done.calculations, "fireworks": done.fireworks}))
    elif done.calculations:
        click.echo(f"{done.calculations:,} calculations are ready again; next: htxas run --campaign {name}")
    else:
        click.echo(f"{name}: nothing to retry" + (f" with cause {cause}" if cause else ""))
