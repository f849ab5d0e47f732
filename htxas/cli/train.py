"""``htxas train``: a training file to models, a table and parity plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htxas.cli._dask import job_text, on_dask

if TYPE_CHECKING:
    from htxas.learn.runs.plan import TrainingPlan
    from htxas.learn.runs.training import Trained

__all__ = ["train"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@on_dask
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write. Default: models/NAME."
)
@click.option("--json", "as_json", is_flag=True, help="Print metrics as JSON.")
def train(
    file: Path,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    dry_run: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train models on spectra, beside simple baselines.

    FILE names a dataset (a campaign or an exported file), targets and model kinds. What is already trained is not
    trained again.

    \b
    htxas train workflows/quickstart/train.yaml
    htxas train FILE.yaml --workers 2 --out report/
    htxas train FILE.yaml --cluster mycluster
    """
    from rich.console import Console

    from htxas.learn.runs.config import read_plan
    from htxas.learn.runs.summary import headline, rich_table, verdict
    from htxas.learn.runs.training import MODELS
    from htxas.learn.serve.registry import register

    if dry_run and cluster is None:
        raise click.UsageError("--dry-run goes with --cluster")
    plan = read_plan(file)
    if dry_run:
        click.echo(job_text(cluster), nl=False)
        return
    console = Console(stderr=as_json)
    trained = _run(plan, workers, scheduler, cluster, out, console)
    registered, said = register(
        trained.out_dir / MODELS / name for name in trained.summary["models"].values()
    )
    if as_json:
        click.echo(
            json.dumps(
                trained.summary | {"out_dir": str(trained.out_dir), "registered": registered}, indent=1
            )
        )
        return
    console.print(headline(trained.dataset), highlight=False)
    console.print(rich_table(trained.cards, trained.dataset))
    for line in verdict(trained.cards):
        console.print(line, highlight=False)
    console.print(f"table, plots and models: {trained.out_dir}", highlight=False, soft_wrap=True)
    console.print(said, highlight=False, soft_wrap=True)


def _run(
    plan: TrainingPlan,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    out: Path | None,
    console: Any,
) -> Trained:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from htxas.learn.data.door import open_dataset
    from htxas.learn.runs.queue_cluster import queue_workers
    from htxas.learn.runs.training import plan_runs, train_plan
    from htxas.settings import datasets_folder, models_folder

    queue = None if cluster is None else queue_workers(cluster)
    out_dir = (out if out is not None else models_folder() / plan.name).resolve()
    dataset = open_dataset(plan.dataset, datasets_folder())
    runs = plan_runs(plan, dataset)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=len(runs))

        def advance(spec: Any, _card: dict[str, Any]) -> None:
            progress.update(task, advance=1, description=spec.name)

        return train_plan(
            plan,
            dataset,
            out_dir,
            workers=workers,
            scheduler=scheduler,
            queue=queue,
            on_done=advance,
        )
