"""From a measured spectrum to a model's input, step by step; every step says what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from htxas.domain.elements import edge_range_eV
from htxas.domain.spectrum import REACH, Curve, smear
from htxas.domain.strength import bare_atom_density
from htxas.errors import DatasetError
from htxas.learn.data.features import resample
from htxas.learn.data.recipe import Align, Scale
from htxas.learn.nets.noise import smoothing_matrix
from htxas.learn.serve.background import fit_background
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum
from htxas.learn.serve.onset import LEVEL, Landmark, find_onset
from htxas.learn.serve.options import Inputs, Normalise, Options, Step

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
    onset_eV
        Where the window was placed, or None where it is absolute.
    steps
        In the order they were done.
    others
        Where the onset was found: rows for the onset at the 5% and 95% quantiles of its uncertainty, by onset.
    """

    row: npt.NDArray[np.float32]
    onset_eV: float | None
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
    if inputs.window.align is Align.EDGE:
        raise DatasetError(
            "the model aligns spectra by the threshold of a site, which a measured spectrum does not tell",
            hint="a model trained with window.align: absolute",
        )
    aligned = inputs.window.align is Align.EXCITATION_ENERGY
    if aligned and options.excitation_energy_eV is None and not options.auto_onset:
        raise DatasetError(
            "the model aligns spectra by the first final state",
            where=where,
            hint="give --excitation-energy EV, or --onset auto",
        )
    if not aligned and (options.excitation_energy_eV is not None or options.auto_onset):
        raise DatasetError("the model takes absolute energies: no onset is needed", where=where)
    energies, intensity = spectrum.energies_eV, spectrum.intensity
    steps = []
    if options.shift_eV:
        energies = energies + options.shift_eV
        steps.append(Step("shift", f"{options.shift_eV:+g} eV", {"shift_eV": options.shift_eV}))
    intensity, step = _without_background(energies, intensity, options, where)
    steps.append(step)
    intensity, step = _scaled(spectrum, energies, intensity, options, inputs, where)
    steps.append(step)
    energies, intensity, step = _broadened(energies, intensity, options, inputs, where)
    steps.append(step)
    onset: float | None = None
    spread: tuple[float, ...] = ()
    if aligned:
        onset, spread, step = _onset(energies, intensity, options, inputs, landmark, where)
        steps.append(step)
    row, after = _row(energies, intensity, onset, options, inputs, where)
    others = {e: _row(energies, intensity, e, options, inputs, where)[0] for e in spread}
    return Prepared(row, onset, (*steps, *after), others)


def _refuse_absorber(spectrum: MeasuredSpectrum, inputs: Inputs, where: str) -> None:
    said = (spectrum.element, spectrum.edge)
    known = ((said[0], inputs.element), (said[1], inputs.edge))
    if any(a is not None and a.lower() != b.lower() for a, b in known):
        raise DatasetError(
            f"says it is {' '.join(s or '?' for s in said)}, the model was trained on {inputs.element} {inputs.edge}",
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


def _scaled(
    spectrum: MeasuredSpectrum,
    energies: FloatArray,
    intensity: FloatArray,
    options: Options,
    inputs: Inputs,
    where: str,
) -> tuple[FloatArray, Step]:
    """Bring the intensity to the model's scale, as far as that does not need the window."""
    asked = options.normalise
    if inputs.window.scale is Scale.AREA:
        if asked is Normalise.EDGE_STEP:
            raise DatasetError("the model takes spectra of area 1: an edge step is lost in it", where=where)
        return intensity, Step("scale", "area 1 in the window, as the model takes it", {"scale": "area"})
    if asked is Normalise.AREA:
        text = f"to the area of the training spectra's mean in the window, {inputs.mean_area:.4g} per atom"
        return intensity, Step(
            "scale",
            text + "; their differences in area are lost",
            {"scale": "area", "area": inputs.mean_area},
        )
    if asked is Normalise.EDGE_STEP:
        return _by_edge_step(spectrum, energies, intensity, options, inputs, where)
    if spectrum.scale is not Intensity.STRENGTH:
        raise DatasetError(
            f"the intensity ({spectrum.column}) is in {spectrum.scale.value} units, the model takes "
            f"{Intensity.STRENGTH.value}",
            where=where,
            hint="--normalise edge-step --post-edge LOW HIGH, or --normalise area; or train with "
            "dataset.window.scale: area",
        )
    return intensity, Step("scale", f"as in the file, {spectrum.scale.value}", {"scale": "file"})


def _by_edge_step(
    spectrum: MeasuredSpectrum,
    energies: FloatArray,
    intensity: FloatArray,
    options: Options,
    inputs: Inputs,
    where: str,
) -> tuple[FloatArray, Step]:
    from htxas.domain.edges import BINDING_EV

    binding = BINDING_EV.get((inputs.element, inputs.edge))
    density = (
        None
        if binding is None
        else bare_atom_density(inputs.element, inputs.edge, np.maximum(energies - binding, 0.0))
    )
    if density is None:
        raise DatasetError(
            f"the bare atom's absorption is known at K edges only, not {inputs.element} {inputs.edge}",
            where=where,
        )
    if options.post_edge_eV is None:
        if spectrum.scale is not Intensity.NORMALISED:
            raise DatasetError(
                "an edge step is measured above the edge", where=where, hint="--post-edge LOW HIGH"
            )
        text = "the file's 1 is the bare atom's absorption, put in"
        return intensity * density, Step("scale", text, {"scale": "edge-step", "step": 1.0})
    low, high = options.post_edge_eV
    inside = (energies >= low) & (energies <= high)
    step = float(intensity[inside].mean()) if inside.any() else math.nan
    if not step > 0:
        raise DatasetError(
            f"no edge step above zero from {low:g} to {high:g} eV",
            where=where,
            hint=f"the file covers {energies[0]:.1f} to {energies[-1]:.1f} eV; a --background?",
        )
    factor = float(density[inside].mean()) / step
    text = (
        f"edge step {step:.4g} (mean of {int(inside.sum())} points from {low:g} to {high:g} eV) made the bare "
        f"atom's {density[inside].mean():.4g} per eV there: times {factor:.4g}"
    )
    numbers = {"scale": "edge-step", "post_edge_eV": [low, high], "step": step, "factor": factor}
    return intensity * factor, Step("scale", text, numbers)


def _broadened(
    energies: FloatArray, intensity: FloatArray, options: Options, inputs: Inputs, where: str
) -> tuple[FloatArray, FloatArray, Step]:
    own, wanted = options.instrument_sigma_eV, inputs.sigma_eV
    if own is None:
        text = f"none added; the file's own is taken to be the model's, sigma {wanted:g} eV"
        return (
            energies,
            intensity,
            Step("broadening", text, {"instrument_sigma_eV": None, "sigma_eV": wanted}),
        )
    if own > wanted + _SAME_EV:
        raise DatasetError(
            f"is broadened by sigma {own:g} eV, the model's spectra by {wanted:g} eV: it cannot be made sharper",
            where=where,
            hint="train with dataset.sigma_eV of at least that",
        )
    added = math.sqrt(max(wanted**2 - own**2, 0.0))
    numbers = {"instrument_sigma_eV": own, "sigma_eV": wanted, "added_sigma_eV": added}
    if added < _SAME_EV:
        return energies, intensity, Step("broadening", f"none added: sigma {own:g} eV already", numbers)
    try:
        # Straight lines between the file's points, convolved exactly.
        curve = Curve(energies, np.repeat(intensity[:, None], 3, axis=1))
        smeared = smear(curve, sigma_eV=added, step_eV=inputs.window.step_eV)
    except ValueError as error:
        raise DatasetError(str(error), where=where) from None
    text = (
        f"Gaussian of sigma {added:.4g} eV added: sqrt({wanted:g}^2 - {own:g}^2); "
        f"{REACH * added:.2g} eV at either end are lost to it"
    )
    return smeared.energies_eV, smeared.total, Step("broadening", text, numbers)


def _onset(
    energies: FloatArray,
    intensity: FloatArray,
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
    rise, onset = find_onset(energies, intensity, landmark, inputs.needed, where, smooth_eV=options.smooth_eV)
    _check_edge(onset, inputs, where)
    low, high = rise + landmark.low_eV, rise + landmark.high_eV
    text = (
        f"first final state at {onset:.2f} eV, found: the intensity reaches {LEVEL:.0%} of its maximum at "
        f"{rise:.2f} eV; in {landmark.spectra} training spectra the first final state lies "
        f"{landmark.median_eV:+.2f} eV from there, in nine of ten {landmark.low_eV:+.2f} to {landmark.high_eV:+.2f} eV"
    )
    numbers = {"onset_eV": onset, "rise_eV": rise, "range_eV": [low, high], "from_rise": asdict(landmark)}
    return onset, (low, high), Step("onset", text, numbers)


def _check_edge(onset_eV: float, inputs: Inputs, where: str) -> None:
    span = edge_range_eV(inputs.element, inputs.edge)
    if span is not None and not span[0] <= onset_eV <= span[1]:
        raise DatasetError(
            f"{onset_eV:.1f} eV is no onset of {inputs.element} {inputs.edge} ({span[0]:.0f} to {span[1]:.0f} eV)",
            where=where,
            hint="calibrate the energies: --shift EV",
        )


def _row(
    energies: FloatArray,
    intensity: FloatArray,
    onset_eV: float | None,
    options: Options,
    inputs: Inputs,
    where: str,
) -> tuple[npt.NDArray[np.float32], tuple[Step, ...]]:
    window, anchor = inputs.needed, 0.0 if onset_eV is None else onset_eV
    low, high = anchor + window.start_eV, anchor + window.stop_eV
    _refuse_uncovered(energies, low, high, where)
    apart = np.diff(energies[(energies >= low - inputs.sigma_eV) & (energies <= high + inputs.sigma_eV)])
    most = 0.5 * inputs.sigma_eV
    if not len(apart) or apart.max() > most + 1e-9:
        raise DatasetError(
            f"points are up to {apart.max() if len(apart) else math.inf:.2f} eV apart; sigma {inputs.sigma_eV:g} eV "
            f"needs at most {most:g} eV",
            where=where,
        )
    values = resample(energies, intensity, anchor, window, where=where, zero_below=False)
    text = (
        f"{window.points} points every {window.step_eV:g} eV from {low:.2f} to {high:.2f} eV, by a cubic spline "
        f"through points {apart.min():.3g} to {apart.max():.3g} eV apart"
    )
    numbers = {"from_eV": low, "to_eV": high, "points": window.points, "step_eV": window.step_eV}
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


def _refuse_uncovered(energies: FloatArray, low: float, high: float, where: str) -> None:
    slack = 1e-6
    lacking = []
    if low < energies[0] - slack:
        lacking.append(f"{low:.1f} to {energies[0]:.1f} eV")
    if high > energies[-1] + slack:
        lacking.append(f"{energies[-1]:.1f} to {high:.1f} eV")
    if lacking:
        raise DatasetError(
            f"the window goes from {low:.1f} to {high:.1f} eV; lacking: {' and '.join(lacking)}",
            where=where,
            hint="measure a wider range, or train with a smaller dataset.window",
        )
