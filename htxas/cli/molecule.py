"""``htxas molecule``: one molecule."""

from __future__ import annotations

from pathlib import Path

import click

from htxas.cli._options import SIGMA

__all__ = ["molecule"]

_CAMPAIGN = click.option("--campaign", "-c", metavar="NAME", help="Campaign, if several use the name.")


@click.group()
def molecule() -> None:
    """Show or plot a molecule: its sites, their sum, its DOS; lay a measured spectrum over it.

    \b
    htxas molecule show ethanol
    htxas molecule plot ethanol -o ethanol.svg
    htxas molecule measured ethanol ethanol.xdi
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


@molecule.command()
@click.argument("name")
@click.argument("file", metavar="SPECTRUM", type=click.Path(path_type=Path))
@_CAMPAIGN
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="PNG, SVG or PDF.  [default: NAME-measured.png]"
)
@SIGMA
@click.option(
    "--range",
    "range_eV",
    type=float,
    nargs=2,
    default=(-3.0, 10.0),
    show_default=True,
    metavar="LOW HIGH",
    help="What is compared, from the first final state (or threshold), eV.",
)
@click.option(
    "--shift",
    "shift_eV",
    type=float,
    metavar="EV",
    help="Measured minus computed; otherwise it is looked for.",
)
@click.option(
    "--within",
    "within_eV",
    type=click.FloatRange(0.0, min_open=True),
    default=3.0,
    show_default=True,
    metavar="EV",
    help="How far from 0 the shift is looked for.",
)
@click.option(
    "--column", metavar="NAME", help="Intensity, where the file leaves a choice (a table: or number)."
)
@click.option(
    "--energy-unit", type=click.Choice(["eV", "keV"]), help="Unit of energies, where the file does not say."
)
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
def measured(
    name: str,
    file: Path,
    campaign: str | None,
    output: Path | None,
    sigma_eV: float,
    range_eV: tuple[float, float],
    shift_eV: float | None,
    within_eV: float,
    column: str | None,
    energy_unit: str | None,
    as_json: bool,
) -> None:
    """Lay a measured spectrum over a computed molecule: shift, correlation, strength, and a picture.

    SPECTRUM is XDI, EMSA/MAS (.msa), a file of the Gas Phase Core Excitation Database, or a table (CSV). The shift is
    the one with the largest correlation; it moves the computed spectrum rigidly. Nothing else is fitted, and no
    background is subtracted. Where both are oscillator strengths per eV and atom, so is the ratio of their integrals.

    \b
    htxas molecule measured ethanol ethanol.xdi
    htxas molecule measured furan furan_C1s.txt --sigma 0.4 --range -2 6 -o furan.pdf
    htxas molecule measured furan scan.csv --shift 0.6 --json
    """
    from dataclasses import asdict

    from htxas.errors import UserError
    from htxas.learn.serve.formats.measured import Intensity
    from htxas.learn.serve.formats.read import read_spectrum
    from htxas.report.beside import lay_beside, plot_beside, words
    from htxas.report.results import load_molecule
    from htxas.report.terminal import console, to_json
    from htxas.store.store import Store

    spectrum = read_spectrum(file, column=column, energy_unit=energy_unit)
    with Store.open() as store:
        view = load_molecule(store, name, campaign)
    for site in view.sites[:1]:  # all are of one element and edge
        if spectrum.contradicts(site.record.element, site.record.edge):
            raise UserError(
                f"says it is {spectrum.absorber}; {name} was computed at {site.record.element} {site.record.edge}",
                where=str(file),
            )
    beside = lay_beside(
        view,
        spectrum.energies_eV,
        spectrum.intensity,
        file.name,
        one_unit=spectrum.scale is Intensity.STRENGTH,
        sigma_eV=sigma_eV,
        range_eV=range_eV,
        shift_eV=shift_eV,
        within_eV=within_eV,
    )
    path = plot_beside(view, beside, output or Path(name.replace("/", "_") + "-measured.png"))
    if as_json:
        document = {"molecule": name, "file": str(file), "figure": str(path), "sigma_eV": sigma_eV}
        click.echo(to_json({**document, "one_unit": beside.one_unit, **asdict(beside.found)}))
        return
    for line in words(view, beside):
        console().print(line, highlight=False, markup=False)
    click.echo(path)
