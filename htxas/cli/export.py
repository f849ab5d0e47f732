"""``htxas export``: results as files."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["export"]

_SUFFIX = {"hdf5": "_hdf5", "dataset": ".h5", "parquet": "_parquet"}


@click.command()
@click.argument("campaign", metavar="NAME")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(_SUFFIX)),
    required=True,
    help="hdf5: the three files of the published database; dataset: one compressed file, for training; "
    "parquet: a table of sites and one of molecules; it alone holds continuous spectra, too.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Folder (hdf5, parquet) or file (dataset).  [default: after NAME]",
)
@click.option(
    "--include-incomplete", is_flag=True, help="Also write incomplete molecules, flagged complete=False."
)
@click.option(
    "--numbered", is_flag=True, help="hdf5: number molecules 1, 2, ... for readers that want integers."
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@click.option("--json", "as_json", is_flag=True, help="Summary as JSON.")
def export(
    campaign: str,
    format_name: str,
    output: Path | None,
    include_incomplete: bool,
    numbered: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write a campaign's results to HDF5 or Parquet.

    Molecules that are not complete are left out and counted, unless --include-incomplete flags them.

    \b
    htxas export quickstart --format hdf5                     quickstart_hdf5/{site_eigen_dsf,...}.hdf5
    htxas export quickstart --format dataset -o reference.h5  what `htxas train` reads
    htxas export quickstart --format parquet -o tables/
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from htxas.cli._text import plural
    from htxas.report.export import ExportFormat, export_campaign
    from htxas.report.terminal import to_json
    from htxas.store.store import Store

    path = output or Path(campaign + _SUFFIX[format_name])
    columns = (SpinnerColumn(), TextColumn("{task.completed} molecules"), TimeElapsedColumn())
    with Store.open() as store, Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("export", total=None)
        summary = export_campaign(
            store,
            campaign,
            path,
            ExportFormat(format_name),
            include_incomplete=include_incomplete,
            overwrite=force,
            numbered=numbered,
            progress=lambda: bar.advance(task),
        )
    if as_json:
        click.echo(
            to_json(
                {
                    "output": str(summary.output),
                    "molecules": summary.molecules,
                    "sites": summary.sites,
                    "incomplete": list(summary.incomplete),
                    "incomplete_written": summary.incomplete_written,
                }
            )
        )
        return
    click.echo(f"{summary.output}: {plural(summary.molecules, 'molecule')}, {plural(summary.sites, 'site')}")
    if summary.incomplete:
        fate = (
            "written with complete=False where anything is done" if summary.incomplete_written else "left out"
        )
        names = ", ".join(summary.incomplete[:5]) + (", ..." if len(summary.incomplete) > 5 else "")
        click.echo(f"{len(summary.incomplete)} incomplete, {fate}: {names}", err=True)
