"""How far a long command is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["progress"]

_PLAIN_EVERY_S = 10.0


@contextmanager
def progress(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that is told of every few things done.

    Parameters
    ----------
    what
        For people: ``submitting``.
    total
        How many there are, or None.
    quiet
        Say nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield _plain_lines(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _plain_lines(what: str, total: int | None) -> Callable[[int], None]:
    """Say on standard error now and then how far it is: geometries of many SMILES take hours."""
    count, start = 0, time.monotonic()
    last = start

    def advance(more: int) -> None:
        nonlocal count, last
        count += more
        now = time.monotonic()
        if now - last >= _PLAIN_EVERY_S:
            last = now
            of = f" of {total:,}" if total is not None else ""
            click.echo(f"{what}: {count:,}{of} in {now - start:.0f} s", err=True)

    return advance
