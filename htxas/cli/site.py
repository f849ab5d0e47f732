"""``htxas site``: one site."""

from __future__ import annotations

from pathlib import Path

import click

from htxas.cli._options import SIGMA
from htxas.cli.outliers import outliers

__all__ = ["site"]

_CAMPAIGN = click.option(
    "--campaign", "-c", metavar="NAME", help="Campaign of MOLECULE, if several use the name."
)


@click.group()
def site() -> None:
    """Show or plot the spectrum of one site; list those to look at.

    A site is a calculation key, its first digits, or MOLECULE/ATOM with atoms counted from 0 as in your file.

    \b
    htxas site show ethanol/0
    htxas site show 3f9a0c --json
    htxas site plot ethanol/1 -o c1.svg
    htxas site outliers quickstart
    """


site.add_command(outliers)


@site.command()
@click.argument("identifier", metavar="SITE")
@_CAMPAIGN
@click.option(
    "--json", "as_json", is_flag=True, help="Everything, sticks or curve and spectrum included, as JSON."
)
def show(identifier: str, campaign: str | None, as_json: bool) -> None:
    """Show where a site stands, its energies, and its strongest transitions or its white line.

    \b
    htxas site show ethanol/0
    htxas site show gdb_17/2 --campaign quickstart
    htxas site show 3f9a0c --json | jq .result.excitation_energy_eV
    """
    from htxas.report.results import load_site
    from htxas.report.tables import site_document, site_table
    from htxas.report.terminal import console, to_json
    from htxas.store.store import Store

    with Store.open() as store:
        view = load_site(store, identifier, campaign)
    if as_json:
        click.echo(to_json(site_document(view)))
    else:
        console().print(site_table(view))


@site.command()
@click.argument("identifier", metavar="SITE")
@_CAMPAIGN
@click.option("--output", "-o", type=click.Path(path_type=Path), help="PNG, SVG or PDF.  [default: SITE.png]")
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="CAMPAIGN|SITE",
    help="Lay another calculation over it: the same MOLECULE/ATOM of a campaign, or a site. May be repeated.",
)
@click.option("--relative", is_flag=True, help="With --with: count energies from where each spectrum begins.")
@SIGMA
def plot(
    identifier: str,
    campaign: str | None,
    output: Path | None,
    others: tuple[str, ...],
    relative: bool,
    sigma_eV: float,
) -> None:
    """Plot a site: its spectrum, and where it begins.

    With transitions: sticks, total, x, y and z, excitation and ionisation energy. Continuous: total, x, y and z
    if they differ, what the atom alone absorbs, the threshold. Laid over each other, spectra stay on their own
    energies, and the legend tells what each was divided by.

    \b
    htxas site plot ethanol/0
    htxas site plot 3f9a0c --sigma 0.2 -o fine.pdf
    htxas site plot furan/0 -c quickstart --with feff-molecules
    """
    from htxas.errors import UserError
    from htxas.report.overlay import plot_overlay
    from htxas.report.plots import plot_site
    from htxas.report.results import load_site
    from htxas.store.store import Store

    if relative and not others:
        raise UserError("one spectrum is relative to nothing", where="--relative", hint="use it with --with")
    with Store.open() as store:
        view = load_site(store, identifier, campaign)
        views = [(campaign or view.record.engine, view)]
        for other in others:
            same = "/" in identifier and other in {c["name"] for c in store.campaigns()}
            views.append(
                (other, load_site(store, identifier, other) if same else load_site(store, other, None))
            )
    path = output or Path(identifier.replace("/", "_") + ".png")
    if others:
        click.echo(plot_overlay(views, path, sigma_eV=sigma_eV, relative=relative))
    else:
        click.echo(plot_site(view, path, sigma_eV=sigma_eV))
