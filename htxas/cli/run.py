"""``htxas run``: compute with local workers."""

from __future__ import annotations

import time
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
    from htxas.launch.fireworks_pad import launchpad_of
    from htxas.launch.run import run_workers
    from htxas.store.store import Store

    with Store.open() as store, launchpad_of(store) as launchpad, _display(campaign) as show:
        summary = run_workers(store, launchpad, jobs=jobs, campaign=campaign, on_report=show)
    _say(summary, campaign)
    if summary.interrupted:
        context.exit(_INTERRUPTED)
    if summary.problems:
        context.exit(1)


@contextmanager
def _display(campaign: str | None) -> Iterator[Callable[[Report], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console.print)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[about]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(campaign or "all campaigns", total=None, about="")

        def show(report: Report) -> None:
            counts = report.progress["counts"]
            over = counts["done"] + counts["failed"] + counts["quarantined"]
            bar.update(task, total=report.progress["total"], completed=over, about=describe(report))

        yield show


def _plain_lines(write: Callable[[str], None]) -> Callable[[Report], None]:
    last = [0.0]

    def show(report: Report) -> None:
        now = time.monotonic()
        if now - last[0] >= _PLAIN_EVERY_S:
            last[0] = now
            p = report.progress
            write(f"{p['counts']['done']:,} of {p['total']:,} done, {describe(report)}")

    return show


def describe(report: Report) -> str:
    """Return running, failed by cause, rate and time left, in a few words."""
    from htxas.cli._text import duration

    p: dict[str, Any] = report.progress
    words = [f"{p['counts']['running']} running"]
    words += [f"{count} {cause}" for cause, count in sorted(p["causes"].items())]
    if p["rate_per_s"]:
        per_minute = 60 * p["rate_per_s"]
        left = p["counts"]["ready"] + p["counts"]["running"]
        words.append(f"{per_minute:.1f}/min")
        words.append(f"{duration(left / p['rate_per_s'])} left")
    if report.stopping:
        words.append("finishing the calculations in hand (Ctrl-C: at once)")
    words += report.notes
    return ", ".join(words)


def _say(summary: RunSummary, campaign: str | None) -> None:
    p = summary.progress
    counts, option = p["counts"], f" {campaign}" if campaign else ""
    wrong = counts["failed"] + counts["quarantined"]
    if summary.recovered:
        click.echo(f"freed what {summary.recovered} dead worker(s) had held")
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
        click.echo(f"interrupted with {left:,} left; carry on: htxas run")
    elif summary.unsubmitted:
        click.echo(f"{summary.unsubmitted:,} were never queued; complete: htxas campaign submit FILE")
    elif left and not summary.problems:
        click.echo(f"{left:,} are ready but in the hands of another run, or waiting for it")
