"""``htxas compare``: the same sites by several engines."""

from __future__ import annotations

from pathlib import Path

import click

from htxas.cli._options import SIGMA

__all__ = ["compare"]


@click.command()
@click.argument("campaigns", nargs=-1, required=True, metavar="CAMPAIGN CAMPAIGN [CAMPAIGN]...")
@click.option(
    "--molecule", "molecules", multiple=True, metavar="NAME", help="Only this one; may be repeated."
)
@click.option("--summary", is_flag=True, help="Only the summary, not site by site.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, every site.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Also a figure of the molecules: PNG, SVG or PDF."
)
@click.option(
    "--above",
    "above_eV",
    type=click.FloatRange(2, 60),
    default=10.0,
    show_default=True,
    metavar="EV",
    help="How far above the onset the figure goes.",
)
@SIGMA
def compare(
    campaigns: tuple[str, ...],
    molecules: tuple[str, ...],
    summary: bool,
    as_json: bool,
    output: Path | None,
    above_eV: float,
    sigma_eV: float,
) -> None:
    """Compare the sites that several campaigns have finished with those of the first.

    Onset: where a spectrum begins, on its engine's own energies. Shift: onset from the mean of the campaign's common
    sites, free of the engine's zero. Alike: cosine of two spectra from 2 eV below to 15 eV above the onset, the other
    one moved until it is greatest.

    \b
    htxas compare quickstart feff-molecules qe-molecules
    htxas compare quickstart qe-molecules --molecule furan
    htxas compare compare-pyscf compare-qe compare-cp2k -o engines.png
    htxas site plot furan/0 -c quickstart --with qe-molecules      # to see them
    """
    from htxas.report.compare import compare as compared
    from htxas.report.compare_plot import plot_compared, views_of
    from htxas.report.compare_tables import compared_document, compared_summary, compared_table
    from htxas.report.terminal import console, to_json
    from htxas.store.store import Store

    with Store.open() as store:
        found = compared(store, campaigns, molecules=molecules, sigma_eV=sigma_eV)
        views = [] if output is None else views_of(store, found)
    if output is not None:
        plot_compared(found, views, output, sigma_eV=sigma_eV, above_eV=above_eV)
    if as_json:
        click.echo(to_json(compared_document(found)))
        return
    if not summary:
        console().print(compared_table(found))
    console().print(compared_summary(found))
    if output is not None:
        click.echo(output)
    if found.missing:
        click.echo(f"{found.missing} sites of {found.campaigns[0]} are not finished in all of them")
