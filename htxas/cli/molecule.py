"""``htxas molecule``: one molecule."""

from __future__ import annotations

from pathlib import Path

import click

from htxas.cli._options import SIGMA

__all__ = ["molecule"]

_CAMPAIGN = click.option("--campaign", "-c", metavar="NAME", help="Campaign, if several use the name.")


@click.group()
def molecule() -> None:
    """Show or plot a molecule: its sites, their sum, its DOS.

    \b
    htxas molecule show ethanol
    htxas molecule plot ethanol -o ethanol.svg
    """


@molecule.command()
@click.argument("name")
@_CAMPAIGN
@click.option(
    "--json", "as_json", is_flag=True, help="As JSON, with the spectrum if the molecule is complete."
)
def show(name: str, campaign: str | None, as_json: bool) -> None:
    """Show a molecule's ground state, if its engine has one, and one line per site.

    An incomplete molecule says so; its spectrum is not given.

    \b
    htxas molecule show ethanol
    htxas molecule show gdb_17 --campaign quickstart --json
    """
    from htxas.report.results import load_molecule
    from htxas.report.tables import molecule_document, molecule_table
    from htxas.report.terminal import console, to_json
    from htxas.store.store import Store

    with Store.open() as store:
        view = load_molecule(store, name, campaign)
    if as_json:
        click.echo(to_json(molecule_document(view)))
    else:
        console().print(molecule_table(view))


@molecule.command()
@click.argument("name")
@_CAMPAIGN
@click.option("--output", "-o", type=click.Path(path_type=Path), help="PNG, SVG or PDF.  [default: NAME.png]")
@SIGMA
def plot(name: str, campaign: str | None, output: Path | None, sigma_eV: float) -> None:
    """Plot a molecule: every unique site, their weighted mean, and the ground-state PDOS or the absorbers' local DOS.

    \b
    htxas molecule plot ethanol
    htxas molecule plot gdb_17 --campaign quickstart -o gdb_17.pdf
    """
    from htxas.report.plots import plot_molecule
    from htxas.report.results import load_molecule
    from htxas.store.store import Store

    with Store.open() as store:
        view = load_molecule(store, name, campaign)
    path = output or Path(name.replace("/", "_") + ".png")
    click.echo(plot_molecule(view, path, sigma_eV=sigma_eV))
