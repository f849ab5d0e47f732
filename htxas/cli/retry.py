"""``htxas retry``: failed calculations back into the queue."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from htxas.errors import Cause

if TYPE_CHECKING:
    from htxas.launch.retry import Retried
    from htxas.store.store import Store

__all__ = ["retry"]


@click.command()
@click.argument("name")
@click.option(
    "--cause", type=click.Choice([c.value for c in Cause]), help="Only those that failed like this."
)
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Only this calculation; may be repeated.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Numerics of the engine, memory_factor or walltime_factor; may be repeated. Never the physics.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be retried; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def retry(
    name: str, cause: str | None, keys: tuple[str, ...], pairs: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Make failed and quarantined calculations of campaign NAME ready again, with all their attempts before them.

    \b
    htxas retry qm9
    htxas retry qm9 --cause node_failure
    htxas retry qm9 --cause out_of_memory --set memory_factor=4
    htxas retry qm9 --key 3f9c1a --dry-run
    """
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.launch.retry import parse_settings, preview_retry
    from htxas.launch.retry import retry as make_ready
    from htxas.store.store import Store

    with Store.open() as store, launchpad_of(store) as launchpad:
        campaign = store.campaign(name)
        settings = parse_settings(campaign["engine"], pairs)
        chosen = [_key(store, name, key) for key in keys] or None
        why = None if cause is None else Cause(cause)
        if dry_run:
            done = preview_retry(store, launchpad, name, why, keys=chosen)
        else:
            done = make_ready(store, launchpad, name, why, keys=chosen, settings=settings)
    if as_json:
        document = {
            "calculations": done.calculations,
            "fireworks": done.fireworks,
            "causes": done.causes,
            "set": {**settings.numerics, **settings.factors},
            "cancelled": done.cancelled,
            "dry_run": dry_run,
        }
        click.echo(json.dumps(document))
        return
    for line in _lines(name, cause, done, dry_run):
        click.echo(line)


def _key(store: Store, name: str, prefix: str) -> str:
    from htxas.errors import NotFound

    record = store.calculation(prefix)
    if name not in record.campaigns:
        raise NotFound(
            f"not a calculation of {name}", where=record.key, hint=f"htxas query --campaign {name}"
        )
    return record.key


def _lines(name: str, cause: str | None, done: Retried, dry_run: bool) -> list[str]:
    from htxas.cli._text import plural

    if not done.calculations:
        return [f"{name}: nothing to retry" + (f" with cause {cause}" if cause else "")]
    causes = ", ".join(f"{count:,} {why}" for why, count in sorted(done.causes.items()))
    what = plural(done.calculations, "calculation")
    are = "is" if done.calculations == 1 else "are"
    if dry_run:
        return [f"{what} would be ready again ({causes}), in {plural(done.fireworks, 'Firework')}"]
    first = f"{what} {are} ready again ({causes})"
    if done.cancelled:
        return [first, f"{name} is cancelled: htxas campaign resume {name}"]
    return [f"{first}; next: htxas run --campaign {name}, or pilots take them"]
