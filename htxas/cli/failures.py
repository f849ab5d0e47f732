"""``htxas failures``: what went wrong, by cause."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["failures"]

_LOG_LINES = 6


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def failures(name: str | None, as_json: bool) -> None:
    """List failed and quarantined calculations by cause, each with an example, its evidence and what to do.

    \b
    htxas failures
    htxas failures qm9
    htxas retry qm9 --cause walltime
    """
    from htxas.store.store import Store

    with Store.open() as store:
        if name is not None:
            store.campaign(name)
        rows = store.cause_counts(name)
        for row in rows:
            example = store.calculation(row["key"])
            row["evidence"] = example.evidence
            row["kind"] = example.kind.value
            row["attempts"] = example.attempts
            row["retry"] = _retry(name, row["cause"])
    if as_json:
        click.echo(json.dumps(rows, indent=1, default=str))
        return
    if not rows:
        click.echo("nothing failed")
    for row in rows:
        _print(row)


def _retry(name: str | None, cause: str) -> str:
    return f"htxas retry {name or 'CAMPAIGN'} --cause {cause}"


def _print(row: dict[str, Any]) -> None:
    from htxas.cli._text import plural

    click.secho(f"{row['cause']}: {plural(row['count'], 'calculation')} {row['state']}", bold=True)
    click.echo(f"  example   {row['key']} ({row['kind']}, attempt {row['attempts']})")
    click.echo(f"  says      {row['message']}")
    for key, value in row["evidence"].items():
        if isinstance(value, list):
            for line in value[-_LOG_LINES:]:
                click.echo(f"  {key:<9} {line}")
        elif value is not None:
            click.echo(f"  {key:<9} {value}")
    if row["directory"]:
        click.echo(f"  directory {row['directory']}")
    click.echo(f"  retry     {row['retry']}")
