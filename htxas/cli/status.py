"""``htxas status``: how far campaigns are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.launch.watching.watch import Watcher

__all__ = ["status"]

_TICK_S = 0.5
_LATE_S = 4.0
"""An answer that takes longer is called none; the driver itself waits for ten seconds."""


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --watch one line per look.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C; outlasts the database.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.5),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch looks.",
)
def status(name: str | None, as_json: bool, watch: bool, every_s: float) -> None:
    """Show how far campaigns are, or one of them: states, causes, rate, time left, pilots, agents.

    \b
    htxas status
    htxas status qm9 --watch
    htxas status qm9 --json | jq .campaigns[0].counts.done
    """
    from htxas.launch.watching.watch import Watcher

    with Watcher(name) as watcher:
        if as_json:
            _print_json(watcher, watch, every_s)
        elif watch:
            _live(watcher, every_s)
        else:
            _show(watcher.look())


def _print_json(watcher: Watcher, watch: bool, every_s: float) -> None:
    from htxas.report.terminal import to_json

    while True:
        click.echo(to_json(watcher.look(), indent=None if watch else 1))
        if not watch:
            return
        time.sleep(every_s)


def _show(seen: dict[str, Any]) -> None:
    from htxas.report.terminal import console
    from htxas.report.watching import page

    screen = console()
    screen.print(page(seen, screen.width))


def _live(watcher: Watcher, every_s: float) -> None:
    """Draw twice a second; look in a thread, so that a database that hangs does not stop the clock."""
    from concurrent.futures import Future, ThreadPoolExecutor
    from datetime import datetime

    from rich.live import Live

    from htxas.report.terminal import console
    from htxas.report.watching import page

    screen = console()
    seen = watcher.look()
    looked = answered = time.monotonic()
    pending: Future[dict[str, Any]] | None = None
    thread = ThreadPoolExecutor(1, thread_name_prefix="look")
    first = page(seen, screen.width)
    try:
        with Live(first, console=screen, auto_refresh=False, screen=screen.is_terminal) as live:
            while True:
                if pending is None and time.monotonic() - looked >= every_s:
                    pending, looked = thread.submit(watcher.look), time.monotonic()
                if pending is not None and pending.done():
                    seen, pending = pending.result(), None
                    if seen["database"]["up"]:
                        answered = time.monotonic()
                late = pending is not None and time.monotonic() - looked > _LATE_S
                if late or not seen["database"]["up"]:
                    silent = {"up": False, "silent_s": time.monotonic() - answered, "error": None}
                    seen = {**seen, "database": silent}
                clock = datetime.now().astimezone().strftime("%H:%M:%S")
                live.update(page(seen, screen.width, now=clock), refresh=True)
                time.sleep(_TICK_S)
    except KeyboardInterrupt:  # how it is meant to end: the last page stays on the terminal
        screen.print(page(seen, screen.width))
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
