"""From a measured spectrum to a model's input, step by step; every step says what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from htxas.domain.elements import edge_range_eV
from htxas.domain.spectrum import REACH, Curve, smear
from htxas.errors import DatasetError
from htxas.learn.data.curve_window import METHOD, curve_row
from htxas.learn.data.features import resample
from htxas.learn.data.recipe import Align, Recipe, Scale
from htxas.learn.data.records import Continuum
from htxas.learn.nets.noise import smoothing_matrix
from htxas.learn.serve.background import fit_background
from htxas.learn.serve.formats.measured import MeasuredSpectrum
from htxas.learn.serve.onset import LEVEL, Landmark, find_onset
from htxas.learn.serve.options import Inputs, Normalise, Options, Step
from htxas.learn.serve.scaling import scaled

__all__ = ["Prepared", "prepare"]

FloatArray = npt.NDArray[np.float64]
_SAME_EV = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A model's input and how it came about.

    Attributes
    ----------
    row
        Shape (points,) over the dataset's window; points that the model does not see are 0.
    anchor_eV
        Where the window was placed, or None where it is absolute.
    steps
        In the order they were done.
    others
        Where the onset was found: rows for the onset at the 5% and 95% quantiles of its uncertainty, by onset.
    """

    row: npt.NDArray[np.float32]
    anchor_eV: float | None
    steps: tuple[Step, ...]
    others: Mapping[float, npt.NDArray[np.float32]] = field(default_factory=dict)


def prepare(
    spectrum: MeasuredSpectrum, options: Options, inputs: Inputs, landmark: Landmark | None = None
) -> Prepared:
    """Return a spectrum as a model takes it.

    Parameters
    ----------
    landmark
        Needed where the onset is to be found.

    Raises
    ------
    DatasetError
        Another absorber than the model's, something required missing, a window that is not covered, points too far
        apart, a file broader than the model.
    """
    where = str(spectrum.path)
    _refuse_absorber(spectrum, inputs, where)
    _refuse_anchor(options, inputs, where)
    energies, intensity = spectrum.energies_eV, spectrum.intensity
    steps = []
    if options.shift_eV:
        energies = energies + options.shift_eV
        steps.append(Step("shift", f"{options.shift_eV:+g} eV", {"shift_eV": options.shift_eV}))
    intensity, step = _without_background(energies, intensity, options, where)
    steps.append(step)
    intensity, step = scaled(spectrum, energies, intensity, options, inputs, where)
    steps.append(step)
    curve, step = _broadened(energies, intensity, options, inputs, where)
    steps.append(step)
    anchor: float | None = None
    spread: tuple[float, ...] = ()
    if inputs.window.align is Align.EXCITATION_ENERGY:
        anchor, spread, step = _onset(curve, options, inputs, landmark, where)
        steps.append(step)
    elif inputs.window.align is Align.EDGE:
        anchor, step = _edge(spectrum, options, inputs, where)
        steps.append(step)
    row, after = _row(curve, anchor, options, inputs, where)
    others = {e: _row(curve, e, options, inputs, where)[0] for e in spread}
    return Prepared(row, anchor, (*steps, *after), others)


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """A spectrum on its way: energies and intensity (n,), and the Gaussian that is still to be added (continua)."""

    energies_eV: FloatArray
    intensity: FloatArray
    add_sigma_eV: float = 0.0


def _refuse_anchor(options: Options, inputs: Inputs, where: str) -> None:
    """Refuse an anchor that the model does not need, or the lack of one that it does."""
    align, onset = inputs.window.align, options.excitation_energy_eV is not None or options.auto_onset
    if align is Align.EXCITATION_ENERGY and not onset:
        raise DatasetError(
            "the model aligns spectra by the first final state",
            where=where,
            hint="give --excitation-energy EV, or --onset auto",
        )
    if align is not Align.EXCITATION_ENERGY and onset:
        takes = "absolute energies" if align is Align.ABSOLUTE else "energies above the threshold"
        raise DatasetError(f"the model takes {takes}: no onset is needed", where=where)
    if align is not Align.EDGE and options.edge_eV is not None:
        raise DatasetError("the model does not align spectra by the threshold: leave --edge out", where=where)


def _refuse_absorber(spectrum: MeasuredSpectrum, inputs: Inputs, where: str) -> None:
    if spectrum.contradicts(inputs.element, inputs.edge):
        raise DatasetError(
            f"says it is {spectrum.absorber}, the model was trained on {inputs.element} {inputs.edge}",
            where=where,
        )


def _without_background(
    energies: FloatArray, intensity: FloatArray, options: Options, where: str
) -> tuple[FloatArray, Step]:
    if options.pre_edge_eV is None:
        return intensity, Step("background", "none subtracted", {"background": "none"})
    fit = fit_background(options.background, energies, intensity, options.pre_edge_eV, where)
    low, high = options.pre_edge_eV
    terms = ", ".join(f"{k} = {v:.4g}" for k, v in fit.coefficients.items())
    text = (
        f"{options.background}, {fit.formula} with x = E / {fit.centre_eV:.2f} eV, {terms}; least squares of "
        f"{fit.points} points from {low:g} to {high:g} eV (rms of the rest {fit.rms:.3g}); subtracted everywhere"
    )
    numbers = {
        "background": options.background.value,
        "pre_edge_eV": [low, high],
        "centre_eV": fit.centre_eV,
        "coefficients": fit.coefficients,
        "rms": fit.rms,
        "points": fit.points,
    }
    return intensity - fit(energies), Step("background", text, numbers)


def _broadened(
    energies: FloatArray, intensity: FloatArray, options: Options, inputs: Inputs, where: str
) -> tuple[_Curve, Step]:
    own, wanted, plain = options.instrument_sigma_eV, inputs.sigma_eV, _Curve(energies, intensity)
    if own is None:
        text = f"none added; the file's own is taken to be the model's, sigma {wanted:g} eV"
        return plain, Step("broadening", text, {"instrument_sigma_eV": None, "sigma_eV": wanted})
    if own > wanted + _SAME_EV:
        raise DatasetError(
            f"is broadened by sigma {own:g} eV, the model's spectra by {wanted:g} eV: it cannot be made sharper",
            where=where,
            hint="train with dataset.sigma_eV of at least that",
        )
    added = math.sqrt(max(wanted**2 - own**2, 0.0))
    numbers = {"instrument_sigma_eV": own, "sigma_eV": wanted, "added_sigma_eV": added}
    if added < _SAME_EV:
        return plain, Step("broadening", f"none added: sigma {own:g} eV already", numbers)
    text = (
        f"Gaussian of sigma {added:.4g} eV added: sqrt({wanted:g}^2 - {own:g}^2); "
        f"{REACH * added:.2g} eV at either end are lost to it"
    )
    step = Step("broadening", text, numbers)
    if inputs.continuum:  # added with the window, as in training
        return replace(plain, add_sigma_eV=added), step
    try:
        # Straight lines between the file's points, convolved exactly.
        smeared = smear(_curve(plain), sigma_eV=added, step_eV=inputs.window.step_eV)
    except ValueError as error:
        raise DatasetError(str(error), where=where) from None
    return _Curve(smeared.energies_eV, smeared.total), step


def _curve(spectrum: _Curve) -> Curve:
    return Curve(spectrum.energies_eV, np.repeat(spectrum.intensity[:, None], 3, axis=1))


def _onset(
    curve: _Curve,
    options: Options,
    inputs: Inputs,
    landmark: Landmark | None,
    where: str,
) -> tuple[float, tuple[float, ...], Step]:
    given = options.excitation_energy_eV
    if given is not None:
        _check_edge(given, inputs, where)
        return given, (), Step("onset", f"first final state at {given:g} eV, as given", {"onset_eV": given})
    if landmark is None:
        raise DatasetError(
            "how far the first final state lies above the rise is learned from the training spectra, "
            "and they have gone",
            where=where,
            hint="give --excitation-energy EV",
        )
    rise, onset = find_onset(
        curve.energies_eV,
        curve.intensity,
        landmark,
        inputs.needed,
        where,
        smooth_eV=options.smooth_eV,
    )
    _check_edge(onset, inputs, where)
    low, high = rise + landmark.low_eV, rise + landmark.high_eV
    text = (
        f"first final state at {onset:.2f} eV, found: the intensity reaches {LEVEL:.0%} of its maximum at "
        f"{rise:.2f} eV; in {landmark.spectra} training spectra the first final state lies "
        f"{landmark.median_eV:+.2f} eV from there, in nine of ten {landmark.low_eV:+.2f} to {landmark.high_eV:+.2f} eV"
    )
    numbers = {"onset_eV": onset, "rise_eV": rise, "range_eV": [low, high], "from_rise": asdict(landmark)}
    return onset, (low, high), Step("onset", text, numbers)


def _edge(spectrum: MeasuredSpectrum, options: Options, inputs: Inputs, where: str) -> tuple[float, Step]:
    if options.edge_eV is not None:
        edge, how = options.edge_eV, "as given"
    elif spectrum.edge_eV is not None:
        edge, how = spectrum.edge_eV + options.shift_eV, "as the file says"
    else:
        raise DatasetError("the model aligns spectra by the threshold", where=where, hint="give --edge EV")
    _check_edge(edge, inputs, where)
    return edge, Step("edge", f"threshold at {edge:g} eV, {how}", {"edge_eV": edge})


def _check_edge(onset_eV: float, inputs: Inputs, where: str) -> None:
    span = edge_range_eV(inputs.element, inputs.edge)
    if span is not None and not span[0] <= onset_eV <= span[1]:
        raise DatasetError(
            f"{onset_eV:.1f} eV is no onset of {inputs.element} {inputs.edge} ({span[0]:.0f} to {span[1]:.0f} eV)",
            where=where,
            hint="calibrate the energies: --shift EV",
        )


def _row(
    curve: _Curve, anchor_eV: float | None, options: Options, inputs: Inputs, where: str
) -> tuple[npt.NDArray[np.float32], tuple[Step, ...]]:
    window, anchor = inputs.needed, 0.0 if anchor_eV is None else anchor_eV
    low, high = anchor + window.start_eV, anchor + window.stop_eV
    energies, reach = curve.energies_eV, REACH * curve.add_sigma_eV
    _refuse_uncovered(energies[0] + reach, energies[-1] - reach, low, high, where)
    apart = np.diff(energies[(energies >= low - inputs.sigma_eV) & (energies <= high + inputs.sigma_eV)])
    if inputs.continuum:
        made = curve_row(
            Continuum(_curve(curve), anchor, 0.0, ""),
            Recipe((), window=window, sigma_eV=curve.add_sigma_eV or None),
            where,
        )
        if made is None:  # covered, as was seen above, but for rounding
            raise DatasetError("the window is not covered", where=where)
        values, how = made, METHOD[curve.add_sigma_eV > 0].replace("the code's", "the file's")
    else:
        most = 0.5 * inputs.sigma_eV
        if not len(apart) or apart.max() > most + 1e-9:
            raise DatasetError(
                f"points are up to {apart.max() if len(apart) else math.inf:.2f} eV apart; sigma {inputs.sigma_eV:g} "
                f"eV needs at most {most:g} eV",
                where=where,
            )
        values = resample(energies, curve.intensity, anchor, window, where=where, zero_below=False)
        how = f"by a cubic spline through points {apart.min():.3g} to {apart.max():.3g} eV apart"
    text = f"{window.points} points every {window.step_eV:g} eV from {low:.2f} to {high:.2f} eV, {how}"
    numbers = {"from_eV": low, "to_eV": high, "points": window.points, "step_eV": window.step_eV, "how": how}
    steps = [Step("resampling", text, numbers)]
    if options.smooth_eV is not None:
        values = values @ smoothing_matrix(options.smooth_eV, window.step_eV, window.points).astype(
            np.float32
        )
        text = f"Savitzky-Golay over {options.smooth_eV:g} eV, on the model's points"
        steps.append(Step("smoothing", text, {"smooth_eV": options.smooth_eV}))
    if window.scale is Scale.AREA or options.normalise is Normalise.AREA:
        area = float(values.sum()) * window.step_eV
        if not area > 0:
            raise DatasetError("the spectrum has no area above zero in the window", where=where)
        values = values * ((1.0 if window.scale is Scale.AREA else inputs.mean_area) / area)
    row = np.zeros(inputs.window.points, dtype=np.float32)
    row[slice(None) if window.scale is Scale.AREA else inputs.columns] = values
    return row, tuple(steps)


def _refuse_uncovered(first: float, last: float, low: float, high: float, where: str) -> None:
    slack = 1e-6
    lacking = []
    if low < first - slack:
        lacking.append(f"{low:.1f} to {first:.1f} eV")
    if high > last + slack:
        lacking.append(f"{last:.1f} to {high:.1f} eV")
    if lacking:
        raise DatasetError(
            f"the window goes from {low:.1f} to {high:.1f} eV; lacking: {' and '.join(lacking)}",
            where=where,
            hint="measure a wider range, or train with a smaller dataset.window",
        )
