"""``htxas estimates``: predicted against actual times."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["estimates"]


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it, too: PNG, SVG or PDF."
)
def estimates(name: str | None, as_json: bool, plot: Path | None) -> None:
    """Show how good the expected times are, for campaign NAME or for all.

    The prior is the engine's stated formula. What is learned is that formula, corrected by finished calculations of
    the same engine, parameters and kind of machine; each is judged by a fit to the others. A calculation is started
    near the end of an allocation only if its expected time, multiplied by the reserved factor, still fits.

    \b
    htxas estimates
    htxas estimates qm9 --plot qm9.png
    htxas estimates --json | jq '.[].actual_over_learned'
    """
    from htxas.launch.estimates import compare
    from htxas.report.estimates import estimates_table, plot_estimates
    from htxas.report.terminal import console, to_json
    from htxas.store.store import Store

    with Store.open() as store:
        found = compare(store, name)
    if as_json:
        click.echo(to_json([c.to_dict() for c in found]))
    elif found:
        console().print(estimates_table(found))
    else:
        click.echo("nothing has finished yet; times are expected by the engines' priors")
    if plot is not None:
        click.echo(plot_estimates(found, plot), err=as_json)
