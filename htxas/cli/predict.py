"""``htxas predict``: what a trained model says of a molecule, a spectrum file or a dataset."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from htxas.errors import UserError

if TYPE_CHECKING:
    from htxas.learn.serve.predict import Model, Prediction

__all__ = ["predict"]


@click.command()
@click.argument("model")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--molecule", metavar="NAME", help="A computed molecule of the database.")
@click.option(
    "--campaign", metavar="NAME", help="Campaign of --molecule, where several have one of that name."
)
@click.option("--dataset", type=click.Path(path_type=Path), help="A frozen dataset: every molecule of it.")
@click.option(
    "--excitation-energy", type=float, metavar="EV", help="First final state in FILE, eV: places the window."
)
@click.option("--formula", metavar="C2H6O", help="Composition of FILE, for Model-B.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def predict(
    model: str,
    file: Path | None,
    molecule: str | None,
    campaign: str | None,
    dataset: Path | None,
    excitation_energy: float | None,
    formula: str | None,
    as_json: bool,
) -> None:
    r"""Predict a property from a spectrum with a trained model.

    MODEL is TRAINING/TARGET-KIND or a model's folder. FILE is a CSV file with the columns energy_eV and f_per_eV
    (or intensity, for models of area scale).

    \b
    htxas predict reference/gap-A --molecule ethanol
    htxas predict reference/gap-B spectrum.csv --excitation-energy 287.1 --formula C2H6O
    """
    from htxas.learn.serve.predict import Model, find_model
    from htxas.settings import models_folder

    if sum(given is not None for given in (file, molecule, dataset)) != 1:
        raise UserError("give one of --molecule NAME, FILE.csv and --dataset DIR", where="htxas predict")
    if file is None and (excitation_energy is not None or formula is not None):
        raise UserError("--excitation-energy and --formula belong to a FILE.csv", where="htxas predict")
    if molecule is None and campaign is not None:
        raise UserError("--campaign belongs to --molecule", where="htxas predict")
    found = Model.load(find_model(model, models_folder()))
    if molecule is not None:
        predictions = [_molecule(found, campaign, molecule)]
    elif dataset is not None:
        from htxas.learn.data.dataset import load

        predictions = found.predict_dataset(load(dataset))
    else:
        from htxas.learn.data.chemistry import parse_formula

        assert file is not None
        composition = None if formula is None else parse_formula(formula, "--formula")
        predictions = [
            found.predict_csv(file, excitation_energy_eV=excitation_energy, composition=composition)
        ]
    if as_json:
        documents = [dataclasses.asdict(p) for p in predictions]
        click.echo(
            json.dumps({"model": found.card["name"], "key": found.card["key"], "predictions": documents})
        )
        return
    _print(found, predictions)


def _molecule(model: Model, campaign: str | None, name: str) -> Prediction:
    from htxas.learn.data.source import store_record
    from htxas.store.store import Store

    with Store.open() as store:
        return model.predict_record(store_record(store, store.assemble(store.molecule(campaign, name))))


def _print(model: Model, predictions: list[Prediction]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    unit = predictions[0].unit
    target = model.target["name"] + ("" if unit == "1" else f" ({unit})")
    table = Table(title=f"{model.card['name']}: {model.target['meaning']}")
    known = any(p.true is not None for p in predictions)
    for heading in ("name", target, *(("computed",) if known else ()), "spread of nets", "test error (MAE)"):
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for p in predictions:
        true = ("-" if p.true is None else f"{p.true:.4g}",) if known else ()
        table.add_row(p.name, f"{p.value:.4g}", *true, f"{p.spread:.2g}", f"{p.test_mae:.2g}")
    console.print(table)
    for p in predictions:
        for warning in p.warnings:
            console.print(f"{p.name}: {warning}", highlight=False, soft_wrap=True)
