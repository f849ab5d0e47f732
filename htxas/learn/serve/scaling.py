"""The scale of a measured intensity: what the training spectra's is, by area or by the bare atom's absorption."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from htxas.domain.edges import BINDING_EV
from htxas.domain.strength import bare_atom_density
from htxas.errors import DatasetError
from htxas.learn.data.recipe import Scale
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum
from htxas.learn.serve.options import Inputs, Normalise, Options, Step

__all__ = ["scaled"]

FloatArray = npt.NDArray[np.float64]


def scaled(
    spectrum: MeasuredSpectrum,
    energies: FloatArray,
    intensity: FloatArray,
    options: Options,
    inputs: Inputs,
    where: str,
) -> tuple[FloatArray, Step]:
    """Bring the intensity (n,) to the model's scale, as far as that does not need the window; say how.

    Raises
    ------
    DatasetError
        If it is in other units and no way was asked for, or the edge step that was asked for cannot be measured.
    """
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
    if inputs.unit is None:
        raise DatasetError(
            "the model takes squared dipole matrix elements, which no measurement tells",
            where=where,
            hint="--normalise area, or train with dataset.window.scale: area",
        )
    if asked is Normalise.EDGE_STEP:
        return _by_edge_step(spectrum, energies, intensity, options, inputs, where)
    if spectrum.scale is not inputs.unit:
        raise DatasetError(
            f"the intensity ({spectrum.column}) is in {spectrum.scale.value} units, the model takes "
            f"{inputs.unit.value}",
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
    binding = BINDING_EV.get((inputs.element, inputs.edge))
    density: FloatArray | None = None
    if inputs.continuum:
        density = np.ones(len(energies))
    elif binding is not None:
        density = bare_atom_density(inputs.element, inputs.edge, np.maximum(energies - binding, 0.0))
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
        f"atom's {density[inside].mean():.4g}{'' if inputs.continuum else ' per eV'} there: times {factor:.4g}"
    )
    numbers = {"scale": "edge-step", "post_edge_eV": [low, high], "step": step, "factor": factor}
    return intensity * factor, Step("scale", text, numbers)
