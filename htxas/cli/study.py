"""``htxas study``: a study file to a table, plots and a paragraph of numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htxas.cli._dask import job_text, on_dask

if TYPE_CHECKING:
    from htxas.learn.studies.config import StudyPlan
    from htxas.learn.studies.run import Studied

__all__ = ["study"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@on_dask
@click.option(
    "--out",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write. Default: studies/NAME.",
)
@click.option("--json", "as_json", is_flag=True, help="Print results.json.")
def study(
    file: Path,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    dry_run: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    r"""Answer one question with many trained models: a table, plots and one paragraph.

    FILE names a dataset, what is varied, and a net; workflows/studies has one of each kind. Runs are independent; after
    Ctrl-C or a crash, and after adding to the file, only what is missing is run.

    \b
    htxas study workflows/studies/learning_curve.yaml        what more molecules would bring
    htxas study workflows/studies/noise_study.yaml -o noise/ which noise to train on; report in noise/
    htxas study FILE.yaml --workers 1                        the same numbers to the bit
    htxas study FILE.yaml --cluster mycluster                runs as jobs of a queue
    htxas study FILE.yaml --dry-run                          what would be run, and what is done already

    \b
    property_models      properties by cross-validation, Model-A and Model-B
    pdos_model           density of states, several nets and splits
    noise_study          training dose x test dose, smoothed or not
    size_extrapolation   train on small molecules, test larger ones
    learning_curve       growing parts of the training molecules
    window_study         sliding and growing parts of the spectrum
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from htxas.learn.studies.config import read_study

    plan = read_study(file)
    if dry_run and cluster is not None:
        click.echo(job_text(cluster), nl=False)
        return
    console = Console(stderr=as_json)
    found = _run(plan, workers, scheduler, cluster, out, console, dry_run=dry_run)
    if found is None:
        return
    if as_json:
        click.echo(json.dumps(found.document | {"out_dir": str(found.out_dir)}, indent=1))
        return
    for table in found.report.tables:
        console.print(Markdown(table.markdown()))
    console.print(" ".join(found.report.words), highlight=False)
    console.print(f"table, plots, numbers: {found.out_dir}", highlight=False, soft_wrap=True)


def _run(
    plan: StudyPlan,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    out: Path | None,
    console: Any,
    *,
    dry_run: bool,
) -> Studied | None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from htxas.learn.data.door import open_dataset
    from htxas.learn.runs.queue_cluster import queue_workers
    from htxas.learn.runs.run import finished
    from htxas.learn.studies.run import RUNS, run_study
    from htxas.settings import datasets_folder, studies_folder

    queue = None if cluster is None else queue_workers(cluster)
    out_dir = (out if out is not None else studies_folder() / plan.name).resolve()
    dataset = open_dataset(plan.dataset, datasets_folder())
    planned = plan.study.plan(dataset)
    if dry_run:
        done = sum(finished(p.spec, out_dir / RUNS) is not None for p in planned)
        click.echo(f"{plan.name}: {len(planned)} runs, {done} done, in {out_dir}")
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(plan.name, total=len(planned))

        def advance(_spec: Any, _card: dict[str, Any]) -> None:
            progress.update(task, advance=1)

        return run_study(
            plan, dataset, planned, out_dir,
            workers=workers, scheduler=scheduler, queue=queue, on_done=advance,
        )  # fmt: skip
