"""``htxas run``: compute with local workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.launch.run import Report, RunSummary

__all__ = ["run"]

_INTERRUPTED = 130
_PLAIN_EVERY_S = 15.0


@click.command()
@click.option(
    "-j", "--jobs", default=1, show_default=True, type=click.IntRange(1, 512), help="Workers, one core each."
)
@click.option("--campaign", "-c", metavar="NAME", help="Only this campaign.")
@click.pass_context
def run(context: click.Context, jobs: int, campaign: str | None) -> None:
    """Compute what has been submitted, until nothing is left.

    Ctrl-C lets each worker finish the calculation in hand and gives the rest back; a second one stops at once.
    Whatever was killed before is found and freed first. Several runs may work side by side.

    \b
    htxas run -j 2
    htxas run -j 8 --campaign qm9
    """
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.launch.run import run_workers
    from htxas.store.store import Store

    with Store.open() as store, launchpad_of(store) as launchpad, _display(campaign) as show:
        summary = run_workers(store, launchpad, jobs=jobs, campaign=campaign, on_report=show)
    _say(summary, campaign)
    if summary.interrupted:
        context.exit(_INTERRUPTED)
    if summary.problems or summary.undelivered is not None:
        context.exit(1)


@contextmanager
def _display(campaign: str | None) -> Iterator[Callable[[Report], None]]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = Console(stderr=True)
    rate = _Rate()
    if not console.is_terminal:
        yield _plain_lines(console.print, rate)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[about]}"),
        TimeElapsedColumn(),
    )
    bar = Progress(*columns, console=console)
    task = bar.add_task(campaign or "all campaigns", total=None, about="starting workers")
    below = Text(overflow="ellipsis", no_wrap=True)  # a line of its own: causes and hints come and go
    with Live(Group(bar, below), console=console, refresh_per_second=4, redirect_stdout=False):

        def show(report: Report) -> None:
            total, over = report.progress["total"], ended(report)
            bar.update(task, total=total, completed=over, about=pace(report, rate.of(over)))
            below.plain = "; ".join(words for words in (wrong(report), *remarks(report)) if words)

        yield show


class _Rate:
    """Calculations that ended per second, over the last ten minutes of this run."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=600)  # one a second

    def of(self, over: int) -> float:
        """Return the rate, given how many have ended by now; 0 while it is not known."""
        now = time.monotonic()
        self._seen.append((now, over))
        then, before = self._seen[0]
        return (over - before) / (now - then) if now > then else 0.0


def ended(report: Report) -> int:
    """Return how many calculations have ended, well or not."""
    counts: dict[str, int] = report.progress["counts"]
    return counts["done"] + counts["failed"] + counts["quarantined"]


def _plain_lines(write: Callable[[str], None], rate: _Rate) -> Callable[[Report], None]:
    last = [0.0]

    def show(report: Report) -> None:
        now = time.monotonic()
        per_s = rate.of(ended(report))
        if now - last[0] >= _PLAIN_EVERY_S:
            last[0] = now
            p = report.progress
            words = (
                f"{p['counts']['done']:,} of {p['total']:,} done",
                pace(report, per_s),
                wrong(report),
                *remarks(report),
            )
            write(", ".join(w for w in words if w))

    return show


def pace(report: Report, per_s: float) -> str:
    """Return how many run, the rate and the time left, given how many end in a second."""
    from htxas.cli._text import duration

    p: dict[str, Any] = report.progress
    words = [f"{p['counts']['running']} running"]
    if per_s:
        left = p["counts"]["ready"] + p["counts"]["running"]
        words += [f"{60 * per_s:.1f}/min", f"{duration(left / per_s)} left"]
    return ", ".join(words)


def wrong(report: Report) -> str:
    """Return how many ended without an accepted result, by cause; nothing if none did."""
    counts, causes = report.progress["counts"], report.progress["causes"]
    total = counts["failed"] + counts["quarantined"]
    if not total:
        return ""
    return f"{total:,} failed: " + ", ".join(f"{n:,} {cause}" for cause, n in sorted(causes.items()))


def remarks(report: Report) -> tuple[str, ...]:
    """Return what the user should know besides."""
    if not report.stopping:
        return report.notes
    return ("finishing what is in hand; Ctrl-C again: at once", *report.notes)


def _say(summary: RunSummary, campaign: str | None) -> None:
    p = summary.progress
    counts, option = p["counts"], f" {campaign}" if campaign else ""
    flag = f" --campaign {campaign}" if campaign else ""
    wrong = counts["failed"] + counts["quarantined"]
    if summary.undelivered is not None:
        click.echo(
            f"the database is away; what was computed waits in {summary.undelivered} "
            f"and is delivered by the next: htxas run{flag}",
            err=True,
        )
    if summary.recovered:
        click.echo(f"freed what {summary.recovered} dead agent(s) had held")
    click.echo(f"{counts['done']:,} of {p['total']:,} calculations done")
    if wrong:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(p["causes"].items()))
        click.echo(f"{wrong:,} without an accepted result: {causes}; look: htxas failures{option}")
    for problem in summary.problems:
        click.echo(f"stopped: {problem}", err=True)
    for name in summary.unfinished:
        click.echo(f"the submission of {name} has not come to its end; complete: htxas campaign submit FILE")
    left = counts["ready"]
    if summary.interrupted and left:
        click.echo(f"interrupted with {left:,} left; carry on: htxas run{flag}")
    elif summary.unsubmitted:
        click.echo(f"{summary.unsubmitted:,} were never queued; complete: htxas campaign submit FILE")
    elif left and not summary.problems:
        click.echo(f"{left:,} are ready but in the hands of another run, or waiting for it")
