"""``htxas status``: how far campaigns are."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from htxas.store.store import Store

__all__ = ["status"]

_WATCH_S = 2.0


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
def status(name: str | None, as_json: bool, watch: bool) -> None:
    """Show how far campaigns are, or one of them: states, causes, rate, time left, workers.

    \b
    htxas status
    htxas status qm9 --watch
    htxas status qm9 --json | jq .campaigns[0].counts.done
    """
    from htxas.store.store import Store

    with Store.open() as store:
        if name is not None:
            store.campaign(name)
        if as_json:
            while True:
                click.echo(json.dumps(_look(store, name), indent=None if watch else 1))
                if not watch:
                    return
                time.sleep(_WATCH_S)
        _show(store, name, watch)


def _look(store: Store, name: str | None) -> dict[str, Any]:
    from htxas.launch.liveness import is_dead

    names = [name] if name is not None else [c["name"] for c in store.campaigns()]
    workers = store.workers()
    unfinished = store.unfinished_submissions(name)
    return {
        "campaigns": [{**store.progress(n), "submission_finished": n not in unfinished} for n in names],
        "workers": [
            {"owner": w["owner"], "host": w["info"].get("host"), "silent_s": w["age_s"], "dead": is_dead(w)}
            for w in workers
        ],
    }


def _show(store: Store, name: str | None, watch: bool) -> None:
    from rich.live import Live

    from htxas.report.terminal import console

    if not watch:
        console().print(_table(_look(store, name)))
        return
    with Live(_table(_look(store, name)), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_S)
            live.update(_table(_look(store, name)), refresh=True)


def _table(seen: dict[str, Any]) -> Table:
    from rich.table import Table

    from htxas.cli._text import duration

    table = Table(
        "campaign", "calculations", "done", "running", "ready", "failed", "quarantined", "why", "left"
    )
    for p in seen["campaigns"]:
        counts = p["counts"]
        active = counts["ready"] + counts["running"]
        left = duration(active / p["rate_per_s"]) if p["rate_per_s"] and active else "-"
        causes = ", ".join(f"{n:,} {cause}" for cause, n in sorted(p["causes"].items()))
        states = [f"{counts[s]:,}" for s in ("done", "running", "ready", "failed", "quarantined")]
        table.add_row(p["campaign"], f"{p['total']:,}", *states, causes or "-", left)
    alive = sum(not w["dead"] for w in seen["workers"])
    dead = len(seen["workers"]) - alive
    table.caption = f"{alive} workers" + (
        f", {dead} dead: the next htxas run frees their work" if dead else ""
    )
    for p in seen["campaigns"]:
        if not p["submission_finished"]:
            table.caption += (
                f"\nthe submission of {p['campaign']} is not finished: htxas campaign submit FILE"
            )
    return table
