"""``htxas failures``: what went wrong, by cause."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from htxas.errors import Cause

if TYPE_CHECKING:
    from htxas.store.store import Store

__all__ = ["failures"]

_LOG_LINES = 6


@click.command()
@click.argument("name", required=False)
@click.option("--cause", type=click.Choice([c.value for c in Cause]), help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def failures(name: str | None, cause: str | None, as_json: bool) -> None:
    """List failed and quarantined calculations by cause, and attempts that were repeated.

    Each cause comes with one example, the end of its log, what was tried, and the command that retries just those.

    \b
    htxas failures
    htxas failures qm9 --cause walltime
    htxas retry qm9 --cause walltime
    """
    from htxas.store.store import Store

    with Store.open() as store:
        if name is not None:
            store.campaign(name)
        names = [name] if name is not None else [c["name"] for c in store.campaigns()]
        found = [_look(store, n, None if cause is None else Cause(cause)) for n in names]
    if as_json:
        click.echo(json.dumps(found, indent=1, default=str))
        return
    if not any(campaign["failures"] for campaign in found):
        click.echo("nothing failed")
    for campaign in found:
        for line in _lines(campaign, several=len(found) > 1):
            click.echo(line)


def _look(store: Store, name: str, cause: Cause | None) -> dict[str, Any]:
    rows = [r for r in store.cause_counts(name) if cause is None or r["cause"] == cause.value]
    for row in rows:
        row["site"] = _site(store.named_site(row["key"], name))
        row["tried"] = _tried(row["history"])
        row["retry"] = f"htxas retry {name} --cause {row['cause']}"
    again = store.attempts_by_cause(name, cause)
    return {
        "campaign": name,
        "failures": rows,
        "repeated": again,
        "settable": _settable(store.campaign(name)["engine"]) if rows else [],
    }


def _site(found: Mapping[str, Any] | None) -> str | None:
    """Return molecule and atom as the user's own file names them."""
    if found is None:
        return None
    atom = found["file_atom"]
    return str(found["name"]) if atom is None else f"{found['name']}, atom {atom}"


def _tried(history: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what each attempt did differently and how it ended."""
    return [
        f"attempt {e['attempt']}: {', '.join(e['corrections']) or 'as planned'} -> {e['cause'] or e['state']}"
        for e in history
    ]


def _settable(engine: str) -> list[str]:
    from htxas.launch.retry import settable

    return settable(engine)


def _lines(found: Mapping[str, Any], *, several: bool) -> Iterator[str]:
    if several and (found["failures"] or found["repeated"]):
        yield click.style(found["campaign"], bold=True, underline=True)
    for row in found["failures"]:
        yield from _failure(row)
    if found["settable"]:
        yield (
            f"with other numerics: htxas retry {found['campaign']} --cause CAUSE --set KEY=VALUE, KEY one of "
            + " ".join(found["settable"])
        )
    if found["repeated"]:
        yield ""
        yield from _repeated(found["repeated"])


def _failure(row: Mapping[str, Any]) -> Iterator[str]:
    from htxas.cli._text import plural

    yield click.style(f"{row['cause']}: {plural(row['count'], 'calculation')} {row['state']}", bold=True)
    what = f"{row['kind']} of {row['site']}" if row["site"] else row["kind"]
    yield f"  example   {row['key']} ({what})"
    yield f"  says      {row['message']}"
    for line in row["tried"]:
        yield f"  tried     {line}"
    for key, value in row["evidence"].items():
        if key == "log":
            continue
        if isinstance(value, list):
            for item in value[-_LOG_LINES:]:
                yield f"  {key:<9} {item}"
        elif value is not None:
            yield f"  {key:<9} {value}"
    for line in row["log"][-_LOG_LINES:]:
        yield f"  log       {line}"
    if row["directory"]:
        where = f" on {row['host']}" if row["host"] else ""
        yield f"  directory {row['directory']}{where}"
    yield f"  retry     {row['retry']}"


def _repeated(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    from io import StringIO

    from rich.console import Console
    from rich.table import Table

    table = Table(
        "cause",
        "attempts",
        "calculations",
        "done since",
        "still to run",
        "failed",
        title="repeated by themselves",
    )
    for r in rows:
        table.add_row(
            r["cause"], *(f"{r[k]:,}" for k in ("attempts", "calculations", "done", "left", "wrong"))
        )
    text = StringIO()
    Console(file=text, width=100).print(table)
    yield text.getvalue().rstrip()
