"""``htxas tune``: search a better net for a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from htxas.cli._dask import job_text, on_dask

if TYPE_CHECKING:
    from htxas.learn.runs.tune import Tuned
    from htxas.learn.runs.tune_config import TunePlan

__all__ = ["tune"]

_SHOWN = 10


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@on_dask
@click.option(
    "--out",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write. Default: tuned/NAME.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the trials as JSON.")
def tune(
    file: Path,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    dry_run: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    r"""Search widths, dropout, learning rate, weight decay and batch of a net.

    Nets are judged by their validation rows; the test rows are never predicted. Poor ones are given up early. The first
    trial is the file's own net. Again with more trials, or after Ctrl-C, the search goes on. With one worker the same
    seed gives the same search.

    \b
    htxas tune workflows/studies/tune.yaml
    htxas tune FILE.yaml --workers 4 -o tuned/
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from htxas.learn.data.door import open_dataset
    from htxas.learn.runs.queue_cluster import queue_workers
    from htxas.learn.runs.tune import tune as search
    from htxas.learn.runs.tune_config import read_tuning
    from htxas.learn.runs.tune_report import write_tuning
    from htxas.settings import datasets_folder, home

    plan = read_tuning(file)
    if dry_run:
        click.echo(
            f"{plan.name}: {plan.trials} trials" if cluster is None else job_text(cluster), nl=cluster is None
        )
        return
    console = Console(stderr=as_json)
    queue = None if cluster is None else queue_workers(cluster)
    out_dir = (out if out is not None else home() / "tuned" / plan.name).resolve()
    dataset = open_dataset(plan.dataset, datasets_folder())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(plan.name, total=plan.trials)
        found = search(
            plan, dataset, out_dir, workers=workers, scheduler=scheduler, queue=queue,
            on_done=lambda n: progress.update(task, completed=n),
        )  # fmt: skip
    document = write_tuning(plan, dataset, found, out_dir)
    if as_json:
        click.echo(json.dumps(document | {"out_dir": str(out_dir)}, indent=1))
        return
    _show(plan, found, out_dir)


def _show(plan: TunePlan, found: Tuned, out_dir: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from htxas.learn.runs.tune_report import setting, verdict, yaml_text

    console = Console()
    searched = [*plan.choices, *plan.ranges]
    table = Table(title=f"lowest validation loss: the best {_SHOWN} of {len(found.trials)} trials")
    for heading in ("trial", "loss", *(name.replace("_", " ") for name in searched)):
        table.add_column(heading, justify="right")
    complete = sorted((t for t in found.trials if t.state == "complete"), key=lambda t: (t.loss, t.number))
    for trial in complete[:_SHOWN]:
        table.add_row(str(trial.number), f"{trial.loss:.4f}", *(setting(trial.network, n) for n in searched))
    console.print(table)
    for line in verdict(found):
        console.print(line, highlight=False)
    console.print(yaml_text(found.best.network), highlight=False, soft_wrap=True)
    console.print(f"trials, plot, best net: {out_dir}", highlight=False, soft_wrap=True)
