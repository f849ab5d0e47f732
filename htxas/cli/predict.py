"""``htxas predict``: what a trained model says of a molecule, a measured spectrum or a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htxas.cli._prediction import document, print_prediction, print_rows
from htxas.errors import HtxasError, UserError

if TYPE_CHECKING:
    from htxas.learn.data.dataset import Dataset
    from htxas.learn.serve.answers import Prediction
    from htxas.learn.serve.formats.measured import MeasuredSpectrum
    from htxas.learn.serve.model import Model
    from htxas.learn.serve.neighbours import Neighbour
    from htxas.store.store import Store

__all__ = ["predict"]

_RANGE = {"type": float, "nargs": 2, "metavar": "LOW HIGH"}


@click.command()
@click.argument("model")
@click.argument("file", metavar="[SPECTRUM]", required=False, type=click.Path(path_type=Path))
@click.option("--molecule", metavar="NAME", help="A computed molecule of the database.")
@click.option(
    "--campaign", metavar="NAME", help="Campaign of --molecule, where several have one of that name."
)
@click.option("--dataset", "rows", type=click.Path(path_type=Path), help="A frozen dataset: every row of it.")
@click.option("--formula", metavar="C2H6O", help="Composition of SPECTRUM, for Model-B.")
@click.option(
    "--column", metavar="NAME", help="Intensity, where the file leaves a choice (a table: or number)."
)
@click.option(
    "--energy-unit", type=click.Choice(["eV", "keV"]), help="Unit of energies, where the file does not say."
)
@click.option(
    "--shift", "shift_eV", type=float, default=0.0, metavar="EV", help="Calibration, added to the energies."
)
@click.option(
    "--background",
    type=click.Choice(["none", "linear", "polynomial", "victoreen", "power-law"]),
    default="none",
    show_default=True,
    help="Fitted to --pre-edge and subtracted; power-law is for energy loss.",
)
@click.option("--pre-edge", "pre_edge_eV", help="Range before the edge, eV.", **_RANGE)  # type: ignore[arg-type]
@click.option(
    "--normalise",
    type=click.Choice(["none", "area", "edge-step"]),
    default="none",
    show_default=True,
    help="Scale of arbitrary intensities: the training spectra's area, or the bare atom's absorption above the edge.",
)
@click.option("--post-edge", "post_edge_eV", help="Range of the edge step, eV.", **_RANGE)  # type: ignore[arg-type]
@click.option(
    "--instrument-sigma",
    "instrument_sigma_eV",
    type=click.FloatRange(0.0),
    metavar="EV",
    help="Gaussian sigma that the file has; it is broadened to the model's.",
)
@click.option(
    "--smooth", "smooth_eV", type=float, metavar="EV", help="Width of a Savitzky-Golay filter, such as 0.5."
)
@click.option("--excitation-energy", type=float, metavar="EV", help="First final state: places the window.")
@click.option("--onset", type=click.Choice(["auto"]), help="Find it, as the training spectra teach.")
@click.option(
    "--edge", "edge_eV", type=float, metavar="EV", help="Threshold, for models of continuous spectra."
)
@click.option(
    "--counts", type=click.FloatRange(0.0, min_open=True), help="At the maximum, for models that ask."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="A predicted curve as CSV.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="A predicted curve with its band: PNG, SVG, PDF."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def predict(
    model: str,
    file: Path | None,
    molecule: str | None,
    campaign: str | None,
    rows: Path | None,
    formula: str | None,
    column: str | None,
    energy_unit: str | None,
    counts: float | None,
    output: Path | None,
    plot: Path | None,
    as_json: bool,
    **preparation: Any,
) -> None:
    """Predict properties or a density of states from a spectrum with a trained model.

    MODEL is TRAINING/TARGET-KIND, a model's folder, or the first digits of a registered key. SPECTRUM is a measured
    one: XDI, EMSA/MAS (.msa), FEFF's xmu.dat, a file of the Gas Phase Core Excitation Database, or a table (CSV).
    Energies of options are those of the file after --shift. Nothing is done that is not asked for, and everything
    that was done is printed.

    \b
    htxas predict quickstart/gap-A --molecule ethanol
    htxas predict quickstart/gap-B spectrum.csv --excitation-energy 287.1 --formula C2H6O
    htxas predict quickstart/gap-A loss.msa --shift 0.3 --background power-law --pre-edge 270 282 \\
        --normalise edge-step --post-edge 310 320 --instrument-sigma 0.3 --onset auto
    htxas predict pdos/pdos-A scan.xdi --onset auto -o pdos.csv --plot pdos.png
    """
    from htxas.learn.serve.model import Model
    from htxas.learn.serve.registry import database, find_folder
    from htxas.settings import models_folder

    if sum(given is not None for given in (file, molecule, rows)) != 1:
        raise UserError("give one of SPECTRUM, --molecule NAME and --dataset DIR", where="htxas predict")
    asked = {"column": column, "energy-unit": energy_unit, "formula": formula, "counts": counts}
    if file is None and (named := _named(preparation, asked)):
        raise UserError(f"--{named} belongs to a measured SPECTRUM", where="htxas predict")
    if molecule is None and campaign is not None:
        raise UserError("--campaign belongs to --molecule", where="htxas predict")
    with database() as store:
        found = Model.load(find_folder(model, models_folder(), store))
        if not found.is_curve and (output is not None or plot is not None):
            raise UserError("--output and --plot are for models of curves", where=found.name)
        dataset = _dataset(found, store)
        measured = None
        if rows is not None:
            from htxas.learn.data.dataset import load
            from htxas.learn.serve.predict import predict_dataset

            if output is not None or plot is not None:
                raise UserError("--output and --plot are for one spectrum", where="--dataset")
            predictions, near = predict_dataset(found, load(rows)), {}
        else:
            if file is not None:
                from htxas.learn.serve.formats.read import read_spectrum

                measured = read_spectrum(file, column=column, energy_unit=energy_unit)
                predictions = [_measured(found, measured, dataset, formula, counts, preparation)]
            else:
                assert molecule is not None
                predictions = _molecule(found, store, campaign, molecule)
            near = {p.name: _near(found, dataset, store, p) for p in predictions}
    if output is not None or plot is not None:
        _draw(found, predictions, output, plot)
    if as_json:
        from htxas.report.terminal import to_json

        click.echo(to_json(document(found, measured, dataset, store, predictions, near)))
    elif rows is not None:
        print_rows(found, predictions)
    else:
        print_prediction(found, measured, dataset, store, predictions, near)
    for path in (output, plot):
        if path is not None and not as_json:
            click.echo(path)


def _named(preparation: dict[str, Any], asked: dict[str, Any]) -> str | None:
    silent = (None, 0.0, "none")
    given = [n for n, v in {**asked, **preparation}.items() if v not in silent]
    return given[0].removesuffix("_eV").replace("_", "-") if given else None


def _dataset(model: Model, store: Store | str) -> Dataset | str:
    """Return the model's dataset, or why it is not there."""
    from htxas.errors import NotFound

    def registered(key: str) -> Path | None:
        if isinstance(store, str):
            return None
        paths = [r.dataset.get("path") for r in store.models(dataset_key=key)]
        return next((Path(p) for p in paths if p and Path(p).is_dir()), None)

    try:
        return model.dataset(registered)
    except NotFound as error:
        return error.message


def _measured(
    model: Model,
    spectrum: MeasuredSpectrum,
    dataset: Dataset | str,
    formula: str | None,
    counts: float | None,
    preparation: dict[str, Any],
) -> Prediction:
    from htxas.learn.data.chemistry import parse_formula
    from htxas.learn.serve.background import Background
    from htxas.learn.serve.options import Normalise, Options
    from htxas.learn.serve.predict import predict_measured

    options = Options(
        shift_eV=preparation["shift_eV"],
        background=Background(preparation["background"]),
        pre_edge_eV=preparation["pre_edge_eV"],
        normalise=Normalise(preparation["normalise"]),
        post_edge_eV=preparation["post_edge_eV"],
        instrument_sigma_eV=preparation["instrument_sigma_eV"],
        smooth_eV=preparation["smooth_eV"],
        excitation_energy_eV=preparation["excitation_energy"],
        auto_onset=preparation["onset"] == "auto",
        edge_eV=preparation["edge_eV"],
    )
    return predict_measured(
        model,
        spectrum,
        options,
        composition=None if formula is None else parse_formula(formula, "--formula"),
        counts=counts,
        dataset=None if isinstance(dataset, str) else dataset,
    )


def _molecule(model: Model, store: Store | str, campaign: str | None, name: str) -> list[Prediction]:
    from htxas.learn.data.curve_source import curve_record
    from htxas.learn.data.source import store_record
    from htxas.learn.serve.predict import predict_record

    if isinstance(store, str):
        raise UserError(f"a computed molecule comes from the database: {store}", where="--molecule")
    molecule = store.molecule(campaign, name)
    if model.of_continua:
        return predict_record(model, curve_record(store, molecule))
    return predict_record(model, store_record(store, store.assemble(molecule)))


def _near(
    model: Model, dataset: Dataset | str, store: Store | str, prediction: Prediction
) -> list[Neighbour]:
    from htxas.learn.serve.neighbours import nearest, with_origins

    if isinstance(dataset, str):
        return []
    found = nearest(model, dataset, prediction.z)
    if isinstance(store, str):
        return found
    try:
        return with_origins(found, model, store)
    except HtxasError:  # the database went away meanwhile: the prediction stands without it
        return found


def _draw(model: Model, predictions: list[Prediction], output: Path | None, plot: Path | None) -> None:
    from htxas.learn.serve.curves import plot_curve, write_curve

    if len(predictions) != 1:
        raise UserError(f"--output and --plot are for one spectrum, here are {len(predictions)}")
    curve = predictions[0].curve
    assert curve is not None
    if output is not None:
        write_curve(curve, output)
    if plot is not None:
        plot_curve(curve, plot, title=f"{predictions[0].name}: {curve.target} by {model.name}")
