"""What a model says of a computed molecule, a measured spectrum or a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Quantity
from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset
from htxas.learn.data.features import ENERGIES
from htxas.learn.data.parts import Part, parts_of
from htxas.learn.data.recipe import ModelKind
from htxas.learn.data.records import SpectrumRecord
from htxas.learn.data.targets import ratios
from htxas.learn.data.windows import Windows
from htxas.learn.data.wording import UNITS
from htxas.learn.runs.model import Predicted
from htxas.learn.runs.sides import sides
from htxas.learn.serve.answers import CurveEstimate, Estimate, Familiarity, Prediction
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum
from htxas.learn.serve.model import Model
from htxas.learn.serve.onset import learn_landmark
from htxas.learn.serve.options import Inputs, Options
from htxas.learn.serve.prepare import prepare

__all__ = ["predict_dataset", "predict_measured", "predict_record"]

FloatArray = npt.NDArray[np.float64]
_UNITS = {
    UNITS[Quantity.OSCILLATOR_STRENGTH]: Intensity.STRENGTH,
    UNITS[Quantity.ABSORPTION]: Intensity.NORMALISED,
}
_MEASURED = (
    "the interval was calibrated on computed spectra: what sets a measured one apart from them is not in it"
)


def predict_measured(
    model: Model,
    spectrum: MeasuredSpectrum,
    options: Options,
    *,
    composition: Mapping[str, int] | None = None,
    counts: float | None = None,
    dataset: Dataset | None = None,
) -> Prediction:
    """Predict from a measured spectrum.

    Parameters
    ----------
    composition
        Atoms per element; required by Model-B.
    counts
        Expected counts at its maximum; required by a noise-conditioned model.
    dataset
        What the model was trained on; needed where the onset is to be found.

    Raises
    ------
    DatasetError
        See :func:`htxas.learn.serve.prepare.prepare`; or something required is missing.
    """
    if model.kind is ModelKind.B and composition is None:
        raise DatasetError("Model-B needs the composition", hint="give --formula, such as C2H6O")
    conditioned = model.net.spec.network.noise_conditioned
    if conditioned != (counts is not None):
        raise DatasetError(
            "the model asks how noisy the spectrum is"
            if conditioned
            else "the model does not ask how noisy the spectrum is",
            hint="give --counts, expected at the maximum" if conditioned else "leave --counts out",
        )
    doses = _dose_range(model)
    if doses is not None and counts is not None and counts < doses[0]:
        raise DatasetError(
            f"the model was trained on {doses[0]:g} to {doses[1]:g} counts at the maximum, not on {counts:g}",
            where=str(spectrum.path),
            hint="train with a lower counts",
        )
    asked, landmark = _inputs(model), None
    if options.auto_onset and dataset is not None:
        rows = sides(dataset, model.net.spec).train
        columns = asked.columns if asked.needed != asked.window else slice(None)
        landmark = learn_landmark(dataset.spectra[rows][:, columns], asked.needed)
    prepared = prepare(spectrum, options, asked, landmark)
    onsets = list(prepared.others)
    rows_ = np.array([prepared.row, *prepared.others.values()])
    extra = np.zeros(3) if composition is None else np.array(ratios(composition, str(spectrum.path)))
    dose = None if counts is None else np.full(len(rows_), np.log10(counts))
    found = _predictions(
        model,
        [spectrum.path.name, *map(str, onsets)],
        rows_,
        np.tile(extra, (len(rows_), 1)),
        composition,
        log_dose=dose,
    )
    first = found[0]
    notes = [_MEASURED, *_smoothing_note(model, options)]
    if doses is not None and counts is not None and counts > doses[1]:
        notes.append(f"taken for a spectrum of {doses[1]:g} counts, the least noise the model was trained on")
    if model.of_continua:
        notes.append(
            f"the training spectra have a core-hole width of {model.card['inputs']['lifetime_eV']:g} eV (Lorentzian)"
        )
    if spectrum.element is None:
        notes.append(
            f"the file does not say what it is of; taken to be {model.method.element} {model.method.edge}"
        )
    if onsets:
        first = _widened(found)
        notes.insert(0, "the interval spans those at both ends of the onset's range, too")
    return replace(
        first,
        notes=tuple(notes),
        prepared=prepared,
        if_onset={onset: p.estimates for onset, p in zip(onsets, found[1:], strict=True)},
    )


def _widened(found: Sequence[Prediction]) -> Prediction:
    """Return the first prediction with intervals that contain those of all."""
    first = found[0]
    estimates = []
    for i, e in enumerate(first.estimates):
        ends = ([getattr(p.estimates[i], end) for p in found] for end in ("low", "high"))
        estimates.append(e if e.low is None else replace(e, low=min(next(ends)), high=max(next(ends))))
    curve = first.curve
    if curve is not None and curve.low is not None:
        bands = np.array(
            [(p.curve.low, p.curve.high) for p in found if p.curve is not None], dtype=np.float64
        )
        curve = replace(curve, low=bands[:, 0].min(axis=0), high=bands[:, 1].max(axis=0))
    return replace(first, estimates=tuple(estimates), curve=curve)


def predict_record(model: Model, record: SpectrumRecord) -> list[Prediction]:
    """Predict for a computed molecule; of a model of sites, for each of its sites.

    Raises
    ------
    DatasetError
        If it was computed with another method, or does not cover the window.
    """
    where = f"molecule {record.name}"
    if record.method != model.method:
        raise DatasetError(f"is {record.method}, the model was trained on {model.method}", where=where)
    names, rows = [], []
    for part in parts_of(record, model.recipe, where):
        names.append(part.name)
        rows.append(_row(model, part))
    if not rows:
        raise DatasetError("none of its sites is done", where=where, hint="htxas status; htxas run")
    extra = np.zeros((len(rows), 3))
    if model.kind is ModelKind.B:
        if record.composition is None:
            raise DatasetError("its composition is not known, and Model-B needs it", where=where)
        extra += ratios(record.composition, where)
    return _predictions(model, names, np.array(rows), extra, record.composition)


def _row(model: Model, part: Part) -> npt.NDArray[np.float32]:
    """Return the input of a computed molecule or site, made as in training."""
    recipe = model.recipe
    where = f"{'molecule' if part.site is None else 'site'} {part.name}"
    if part.spectrum is not None and part.spectrum.sigma_eV != model.sigma_eV:
        raise DatasetError(
            f"sigma {part.spectrum.sigma_eV} eV, the model was trained at {model.sigma_eV} eV", where=where
        )
    windows = Windows(recipe)
    row = windows.row(part)
    if row is None:
        low, high = windows.unknown.get(part.name, (None, windows.ends.get(part.name)))
        raise DatasetError(
            f"is known {'' if low is None else f'from {low:.2f} '}to {high:.2f} eV, the window goes from "
            f"{recipe.window.start_eV:g} to {recipe.window.stop_eV:g} eV ({ENERGIES[recipe.window.align]})",
            where=where,
        )
    return row


def predict_dataset(model: Model, dataset: Dataset) -> list[Prediction]:
    """Predict for every row of a frozen dataset, beside what is known.

    Raises
    ------
    DatasetError
        If its inputs were made in another way, or by another method.
    """
    mine, its = model.recipe, dataset.recipe
    same = (
        its.window == mine.window
        and its.rows == mine.rows
        and dataset.card["method"] == model.card["dataset"]["method"]
        and dataset.card["broadening_sigma_eV"] == model.sigma_eV
    )
    if not same:
        raise DatasetError(
            "rows, window, broadening or method differ from the model's", where=str(dataset.path)
        )
    found = _predictions(model, dataset.ids, dataset.spectra, dataset.ratios, None)
    if model.is_curve:
        (name,) = model.targets
        if name not in dataset.curves:
            return found
        true = np.asarray(dataset.curve(name), dtype=np.float64)
        return [
            replace(p, curve=replace(p.curve, true=t)) for p, t in zip(found, true, strict=True) if p.curve
        ]
    known = {t["name"] for t in dataset.card["targets"]}
    columns = {t: dataset.target(t) for t in model.targets if t in known}
    return [
        replace(
            p,
            estimates=tuple(
                replace(e, true=float(columns[e.target][i])) if e.target in columns else e
                for e in p.estimates
            ),
        )
        for i, p in enumerate(found)
    ]


def _inputs(model: Model) -> Inputs:
    window, method = model.recipe.window, model.method
    points = int(model.card["inputs"]["spectrum_points"])
    return Inputs(
        window,
        model.columns,
        model.sigma_eV,
        method.element,
        method.edge,
        float(model.net.x.mean[:points].sum() * window.step_eV),
        model.of_continua,
        _UNITS.get(model.card["inputs"]["unit"]),
    )


def _dose_range(model: Model) -> tuple[float, float] | None:
    """Return the counts that a noise-conditioned model was trained on, or None."""
    noise = model.net.spec.noise
    if not model.net.spec.network.noise_conditioned or noise is None:
        return None
    assert noise.counts is not None
    assert noise.counts_to is not None
    return noise.counts, noise.counts_to


def _smoothing_note(model: Model, options: Options) -> list[str]:
    noise = model.net.spec.noise
    trained = None if noise is None else noise.smoothing_eV
    if trained == options.smooth_eV:
        return []
    return [
        f"the model was trained on spectra {'not smoothed' if trained is None else f'smoothed over {trained:g} eV'}"
    ]


def _predictions(
    model: Model,
    names: Sequence[str],
    spectra: npt.ArrayLike,
    extra: npt.ArrayLike,
    composition: Mapping[str, int] | None,
    *,
    log_dose: FloatArray | None = None,
) -> list[Prediction]:
    got = model.net.predict(spectra, extra, log_dose=log_dose)
    z = model.net.standardised(spectra, extra, log_dose=log_dose)
    points = int(model.card["inputs"]["spectrum_points"])
    rms = np.sqrt((z[:, :points] ** 2).mean(axis=1))
    domain = model.card["domain"]
    strange = tuple(sorted(set(composition or ()) - set(domain["elements"])))
    return [
        Prediction(
            name,
            () if model.is_curve else _estimates(model, got, i),
            _curve(model, got, i) if model.is_curve else None,
            Familiarity(float(got.percentile[i]), float(rms[i]), float(domain["largest_rms_z"]), strange),
            z[i],
        )
        for i, name in enumerate(names)
    ]


def _estimates(model: Model, got: Predicted, row: int) -> tuple[Estimate, ...]:
    found = []
    for i, (name, target) in enumerate(model.targets.items()):
        value, half = float(got.value[row, i]), float(got.half_width[row, i])
        low, high = (value - half, value + half) if np.isfinite(half) else (None, None)
        mae = float(target["metrics"]["net"]["mae"])
        found.append(Estimate(name, target["unit"], value, low, high, mae))
    return tuple(found)


def _curve(model: Model, got: Predicted, row: int) -> CurveEstimate:
    ((name, target),) = model.targets.items()
    value, half = got.value[row], got.half_width[row]
    finite = bool(np.isfinite(half).all())
    return CurveEstimate(
        name,
        target["unit"],
        target["zero"],
        target["start_eV"] + np.arange(target["points"]) * target["step_eV"],
        value,
        value - half if finite else None,
        value + half if finite else None,
    )
