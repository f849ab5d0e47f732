"""``htxas dataset``: freeze spectra and what is to be learned of them; list and show what was frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.learn.data.dataset import Dataset

__all__ = ["dataset"]


@click.group()
def dataset() -> None:
    """Frozen datasets: made once, hashed, never changed."""


@dataset.command()
@click.argument("name")
@click.option(
    "--from",
    "sources",
    required=True,
    multiple=True,
    metavar="CAMPAIGN|FILE|FOLDER",
    help="A campaign, an exported file, or (a folder of) files of the published database. May be repeated.",
)
@click.option(
    "--recipe", type=click.Path(path_type=Path), required=True, help="What is taken of it: a YAML file."
)
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def freeze(name: str, sources: tuple[str, ...], recipe: Path, as_json: bool) -> None:
    """Read a source, or several, once and keep what a recipe asks for, as NAME.

    The same content gives the same dataset. A recipe says rows (molecule or site), window, broadening, targets,
    curves (densities of states) and how large the sides of its splits are: see templates/dataset.yaml.

    \b
    htxas dataset freeze quick --from quickstart --recipe templates/dataset.yaml
    htxas dataset freeze big --from reference.h5 --from my-extension --recipe pdos.yaml
    htxas dataset freeze published --from published_files/ --recipe published.yaml
    """
    from rich.console import Console

    from htxas.learn.data.config import read_recipe
    from htxas.learn.data.door import freeze_source, is_source, name_dataset
    from htxas.settings import datasets_folder

    asked, qm9 = read_recipe(recipe)
    paths = [Path(source).expanduser() for source in sources]
    files = [path for path in paths if is_source(path)]
    campaigns = [s for s, path in zip(sources, paths, strict=True) if path not in files]
    folder = datasets_folder()
    with Console(stderr=True).status(f"reading {', '.join(sources)}"):
        found = freeze_source(asked, folder, campaigns=campaigns, files=files, qm9=qm9)
    name_dataset(found, name, folder)
    _show(found, name, as_json)


@dataset.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_(as_json: bool) -> None:
    """List frozen datasets."""
    from rich.console import Console
    from rich.table import Table

    from htxas.learn.data.dataset import load
    from htxas.learn.data.door import named_datasets
    from htxas.settings import datasets_folder

    found = {name: load(path).card for name, path in named_datasets(datasets_folder()).items()}
    if as_json:
        click.echo(json.dumps({name: _line(card) for name, card in found.items()}, indent=1))
        return
    if not found:
        click.echo("no datasets; htxas dataset freeze NAME --from CAMPAIGN --recipe FILE")
        return
    table = Table()
    for heading in ("name", "key", "rows", "molecules", "points", "to learn", "source"):
        table.add_column(heading, justify="right" if heading in ("rows", "molecules", "points") else "left")
    for name, card in found.items():
        line = _line(card)
        table.add_row(
            name, line["key"][:12], f"{line['rows']:,} {line['of']}s", f"{line['molecules']:,}",
            str(line["points"]), " ".join(line["learns"]), line["source"],
        )  # fmt: skip
    Console().print(table)


@dataset.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the card of a dataset: NAME, the start of its key, or its folder.

    \b
    htxas dataset show quick
    """
    from htxas.learn.data.door import find_dataset
    from htxas.settings import datasets_folder

    _show(find_dataset(name, datasets_folder()), name, as_json)


def _line(card: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": card["key"],
        "rows": card["counts"]["rows"],
        "of": card["recipe"]["rows"],
        "molecules": card["counts"]["molecules"],
        "points": card["recipe"]["window"]["points"],
        "learns": [*(t["name"] for t in card["targets"]), *card["curves"]],
        "source": card["source"],
    }


def _show(dataset: Dataset, name: str, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    card = dataset.card
    if as_json:
        click.echo(json.dumps(card | {"path": str(dataset.path)}, indent=1))
        return
    counts, line = card["counts"], _line(card)
    left = "".join(f"; {n} left out ({reason})" for reason, n in counts["left_out"].items())
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("dataset", f"{name}  {card['key']}")
    facts.add_row("source", card["source"])
    facts.add_row("rows", f"{counts['rows']:,} {line['of']}s of {counts['molecules']:,} molecules{left}")
    facts.add_row(
        "method", "{engine} {element} {edge}, parameters {parameters_key:.8}".format(**card["method"])
    )
    facts.add_row("input", f"{card['input']['quantity']}, {card['input']['unit']}")
    sigma_eV = card["broadening_sigma_eV"]
    facts.add_row(
        "", f"{card['input']['energies']}; {f'sigma {sigma_eV} eV' if sigma_eV else 'not broadened further'}"
    )
    for query in card["query"].get("sources", [card["query"]]):
        if "states_complete_to" in query:
            facts.add_row("", f"states taken to be complete to {query['states_complete_to']}")
    for target in card["targets"]:
        facts.add_row(f"target {target['name']}", f"{target['meaning']} ({target['unit']})")
    for key, curve in card["curves"].items():
        end = curve["start_eV"] + (curve["points"] - 1) * curve["step_eV"]
        facts.add_row(
            f"curve {key}",
            f"{curve['meaning']}; {curve['start_eV']:g} to {end:g} eV, {curve['zero']} ({curve['unit']})",
        )
    for key, sides in card["splits"]["counts"].items():
        facts.add_row(
            f"split {key}", "{train:,} train, {validation:,} validation, {test:,} test".format(**sides)
        )
    for key, why in card["splits"]["lacking"].items():
        facts.add_row(f"split {key}", f"none: {why}")
    facts.add_row("folder", str(dataset.path))
    Console().print(facts, soft_wrap=True)
