"""``htxas db``: the private MongoDB, or the site's own that the environment points at."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from htxas.settings import DatabaseLocation
    from htxas.store.server import ServerStatus

__all__ = ["db"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def db() -> None:
    """Start, stop and look at the private MongoDB.

    \b
    htxas db up               start it (again)
    htxas db status           is it there, where, how large
    htxas db down             stop it; the data stay

    HTXAS_DB_URI, or HTXAS_DB_URI_FILE (a file of mode 0600), points at a server of your own instead.
    """


@db.command()
@_JSON
def up(as_json: bool) -> None:
    """Start the server unless it runs."""
    from htxas.store.server import PrivateServer

    _refuse_elsewhere("started")
    _print(PrivateServer().up(), as_json)


@db.command()
@_JSON
def down(as_json: bool) -> None:
    """Stop the server; the data stay."""
    from htxas.store.server import PrivateServer

    _refuse_elsewhere("stopped")
    server = PrivateServer()
    stopped = server.down()
    if as_json:
        click.echo(json.dumps({"stopped": stopped, "folder": str(server.folder)}))
    else:
        click.echo(f"{'stopped' if stopped else 'was not running'}: {server.folder}")


@db.command()
@_JSON
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Look at the server; exit status 1 unless it is up."""
    from htxas.store.server import PrivateServer

    elsewhere = _elsewhere()
    if elsewhere is None:
        found = PrivateServer().status()
        _print(found, as_json)
        context.exit(0 if found.state == "up" else 1)
    from htxas.store.store import Store

    with Store.open(elsewhere.uri, source=elsewhere.source) as store:
        version = store.server_version
    if as_json:
        click.echo(json.dumps({"state": "up", "source": elsewhere.source, "version": version}))
    else:
        click.echo(f"up: MongoDB {version} ({elsewhere.source.split('=')[0]})")


def _elsewhere() -> DatabaseLocation | None:
    """Return the site's own server, if the environment names one."""
    import os

    from htxas.settings import database_location

    named = os.environ.get("HTXAS_DB_URI") or os.environ.get("HTXAS_DB_URI_FILE")
    return database_location() if named else None


def _refuse_elsewhere(verb: str) -> None:
    from htxas.errors import UserError

    elsewhere = _elsewhere()
    if elsewhere is not None:
        name = elsewhere.source.split("=")[0]
        raise UserError(
            f"a server of your own is in use and cannot be {verb} here", where=name, hint=f"unset {name}"
        )


def _print(found: ServerStatus, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    lines = [f"{found.state}: {found.folder}"]
    if found.state == "up":
        lines[0] = f"up: MongoDB {found.version} on port {found.port}, {_duration(found.uptime_s or 0)}"
        lines.append(f"folder   {found.folder}, {found.data_bytes / 2**20:.0f} MB")
        lines.append(f"URI in   {found.uri_file}")
    if found.message:
        lines.append(found.message)
    if found.state != "up":
        lines.append("start it: htxas db up")
    click.echo("\n".join(lines))


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
