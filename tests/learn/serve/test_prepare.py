"""Every step of the preparation, on spectra whose answer is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from htxas.domain.strength import bare_atom_density
from htxas.errors import DatasetError
from htxas.learn.data.recipe import Align, Scale, Window
from htxas.learn.serve.background import Background, fit_background
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum
from htxas.learn.serve.onset import LEVEL, find_onset, learn_landmark
from htxas.learn.serve.options import Inputs, Normalise, Options
from htxas.learn.serve.prepare import Prepared, prepare

FloatArray = npt.NDArray[np.float64]
SIGMA = 0.5
ENERGIES = np.arange(270.0, 330.0, 0.1)
ONSET = 286.0
INPUTS = Inputs(Window(points=200), slice(0, 200), SIGMA, "C", "K", 0.25)
AREA = dataclasses.replace(INPUTS, window=Window(points=200, scale=Scale.AREA))


def line(energies: FloatArray, centre: float = ONSET, sigma: float = SIGMA) -> FloatArray:
    return 0.1 * np.exp(-0.5 * ((energies - centre) / sigma) ** 2) * SIGMA / sigma


def spectrum(intensity: FloatArray, **fields: Any) -> MeasuredSpectrum:
    known = {"scale": Intensity.STRENGTH, "column": "mu", "energy_unit": "eV", **fields}
    return MeasuredSpectrum(Path("s.csv"), "CSV", ENERGIES, intensity, **known)


def step(prepared: Prepared, name: str) -> dict[str, Any]:
    return next(s.to_dict() for s in prepared.steps if s.name == name)


GIVEN = Options(excitation_energy_eV=ONSET)


def test_without_options_the_window_is_read_off_and_every_assumption_is_named() -> None:
    got = prepare(spectrum(line(ENERGIES)), GIVEN, INPUTS)
    grid = np.arange(200) * 0.1 - 4.0
    assert got.row == pytest.approx(line(grid + ONSET), abs=1e-6)
    assert [s.name for s in got.steps] == ["background", "scale", "broadening", "onset", "resampling"]
    assert step(got, "broadening")["instrument_sigma_eV"] is None
    assert "taken to be the model's, sigma 0.5 eV" in step(got, "broadening")["text"]
    assert step(got, "resampling")["from_eV"] == pytest.approx(282.0)
    assert "cubic spline" in step(got, "resampling")["text"]


def test_a_shift_moves_the_file_and_is_told() -> None:
    moved = dataclasses.replace(spectrum(line(ENERGIES)), energies_eV=ENERGIES - 1.25)
    got = prepare(moved, dataclasses.replace(GIVEN, shift_eV=1.25), INPUTS)
    assert got.row == pytest.approx(prepare(spectrum(line(ENERGIES)), GIVEN, INPUTS).row, abs=1e-6)
    assert step(got, "shift")["shift_eV"] == 1.25


@pytest.mark.parametrize(
    ("kind", "under"),
    [
        (Background.LINEAR, 3.0 - 0.01 * (ENERGIES - 280)),
        (Background.POLYNOMIAL, 3.0 - 0.01 * (ENERGIES - 280) + 1e-4 * (ENERGIES - 280) ** 2),
        (Background.VICTOREEN, 2.0 * (280 / ENERGIES) ** 3 + 0.5 * (280 / ENERGIES) ** 4),
        (Background.POWER, 3.0 * (ENERGIES / 280) ** -3.1),
    ],
)
def test_a_background_of_its_own_form_is_taken_away_wholly(kind: Background, under: FloatArray) -> None:
    options = dataclasses.replace(GIVEN, background=kind, pre_edge_eV=(271.05, 282.05))
    got = prepare(spectrum(line(ENERGIES) + under), options, INPUTS)
    assert got.row == pytest.approx(prepare(spectrum(line(ENERGIES)), GIVEN, INPUTS).row, abs=1e-5)
    told = step(got, "background")
    assert (told["background"], told["pre_edge_eV"], told["points"]) == (kind, [271.05, 282.05], 110)
    assert told["rms"] < 1e-9
    if kind is Background.POWER:
        assert told["coefficients"]["r"] == pytest.approx(3.1)


def test_backgrounds_that_cannot_be_fitted() -> None:
    for kind, values, span, words in [
        (Background.LINEAR, line(ENERGIES), (270.0, 270.25), "3 points before the edge.*needs 5"),
        (Background.POLYNOMIAL, line(ENERGIES), (200.0, 210.0), "0 points .*covers 270.0 to 329.9 eV"),
        (Background.POWER, line(ENERGIES) - 0.1, (271.0, 281.0), "intensities above zero"),
    ]:
        with pytest.raises(DatasetError, match=words):
            fit_background(kind, ENERGIES, values, span, "s.csv")
    with pytest.raises(DatasetError, match="energies above zero"):
        fit_background(Background.VICTOREEN, ENERGIES - 280, ENERGIES, (-9.0, 0.0), "s.csv")


def test_a_sharper_file_is_broadened_to_the_models_sigma() -> None:
    got = prepare(
        spectrum(line(ENERGIES, sigma=0.3)), dataclasses.replace(GIVEN, instrument_sigma_eV=0.3), INPUTS
    )
    expected = prepare(spectrum(line(ENERGIES)), GIVEN, INPUTS).row
    assert got.row == pytest.approx(expected, abs=5e-4)  # straight lines between the file's points
    assert step(got, "broadening")["added_sigma_eV"] == pytest.approx(0.4)
    same = prepare(spectrum(line(ENERGIES)), dataclasses.replace(GIVEN, instrument_sigma_eV=SIGMA), INPUTS)
    assert same.row == pytest.approx(expected)
    with pytest.raises(
        DatasetError, match=r"sigma 0.8 eV, the model's spectra by 0.5 eV: it cannot be made sharper"
    ):
        prepare(spectrum(line(ENERGIES)), dataclasses.replace(GIVEN, instrument_sigma_eV=0.8), INPUTS)


def test_broadening_takes_the_ends_of_the_file() -> None:
    short = dataclasses.replace(spectrum(line(ENERGIES)), energies_eV=ENERGIES + 12.0)
    options = Options(excitation_energy_eV=ONSET, instrument_sigma_eV=0.0)
    with pytest.raises(DatasetError, match=r"282.0 to 301.9 eV; lacking: 282.0 to 284.0 eV"):
        prepare(short, options, INPUTS)
    assert prepare(short, GIVEN, INPUTS).row[0] == pytest.approx(line(np.array([270.0]))[0])


def test_arbitrary_units_need_a_scale_for_models_of_absolute_scale() -> None:
    raw = spectrum(7 * line(ENERGIES), scale=Intensity.ARBITRARY)
    with pytest.raises(
        DatasetError, match=r"\(mu\) is in arbitrary units.*--normalise edge-step.*scale: area"
    ):
        prepare(raw, GIVEN, INPUTS)
    got = prepare(raw, dataclasses.replace(GIVEN, normalise=Normalise.AREA), INPUTS)
    assert got.row.sum() * 0.1 == pytest.approx(0.25, rel=1e-5)
    assert "differences in area are lost" in step(got, "scale")["text"]
    by_area = prepare(raw, GIVEN, AREA)
    assert by_area.row.sum() * 0.1 == pytest.approx(1.0, rel=1e-5)
    dipoles = dataclasses.replace(INPUTS, unit=None)
    with pytest.raises(DatasetError, match="squared dipole matrix elements, which no measurement tells"):
        prepare(spectrum(line(ENERGIES)), GIVEN, dipoles)
    by = prepare(raw, dataclasses.replace(GIVEN, normalise=Normalise.AREA), dipoles)
    assert by.row == pytest.approx(got.row)
    with pytest.raises(DatasetError, match="an edge step is lost"):
        prepare(raw, dataclasses.replace(GIVEN, normalise=Normalise.EDGE_STEP), AREA)


def test_an_edge_step_is_the_bare_atoms_absorption() -> None:
    density = bare_atom_density("C", "K", np.maximum(ENERGIES - 284.2, 0.0))
    assert density is not None
    truth = line(ENERGIES) + np.where(ENERGIES > 295, density, 0.0)
    expected = prepare(spectrum(truth), GIVEN, INPUTS).row
    asked = Options(excitation_energy_eV=ONSET, normalise=Normalise.EDGE_STEP, post_edge_eV=(310.0, 325.0))
    got = prepare(spectrum(33 * truth, scale=Intensity.ARBITRARY), asked, INPUTS)
    assert got.row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert step(got, "scale")["factor"] == pytest.approx(1 / 33, rel=1e-4)
    normalised = spectrum(truth / density, scale=Intensity.NORMALISED)
    without = prepare(normalised, dataclasses.replace(asked, post_edge_eV=None), INPUTS)
    assert without.row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for options, words in [
        (dataclasses.replace(asked, post_edge_eV=None), "--post-edge LOW HIGH"),
        (dataclasses.replace(asked, post_edge_eV=(400.0, 410.0)), "no edge step above zero from 400 to 410"),
    ]:
        with pytest.raises(DatasetError, match=words):
            prepare(spectrum(truth, scale=Intensity.ARBITRARY), options, INPUTS)
    copper = dataclasses.replace(INPUTS, element="Cu", edge="L3")
    with pytest.raises(DatasetError, match="known at K edges only, not Cu L3"):
        prepare(spectrum(truth, scale=Intensity.ARBITRARY), asked, copper)


def test_the_window_must_be_covered_and_sampled() -> None:
    both = spectrum(line(ENERGIES))
    inside = (ENERGIES > 283) & (ENERGIES < 300)
    cut = dataclasses.replace(both, energies_eV=ENERGIES[inside], intensity=both.intensity[inside])
    with pytest.raises(
        DatasetError, match=r"from 282.0 to 301.9 eV; lacking: 282.0 to 283.0 eV and 299.9 to 301.9 eV"
    ):
        prepare(cut, GIVEN, INPUTS)
    coarse = dataclasses.replace(both, energies_eV=ENERGIES[::5], intensity=both.intensity[::5])
    with pytest.raises(
        DatasetError, match=r"points are up to 0.50 eV apart; sigma 0.5 eV needs at most 0.25 eV"
    ):
        prepare(coarse, GIVEN, INPUTS)
    # far from the window points may be as far apart as they like
    thinned = np.concatenate([ENERGIES[ENERGIES < 275][::10], ENERGIES[ENERGIES >= 275]])
    sparse = dataclasses.replace(both, energies_eV=thinned, intensity=line(thinned))
    assert prepare(sparse, GIVEN, INPUTS).row == pytest.approx(prepare(both, GIVEN, INPUTS).row, abs=1e-6)


def test_only_the_points_that_the_model_sees_must_be_covered() -> None:
    part = dataclasses.replace(INPUTS, columns=slice(20, 100))
    inside = (ENERGIES > 283.5) & (ENERGIES < 293)
    cut = dataclasses.replace(
        spectrum(line(ENERGIES)), energies_eV=ENERGIES[inside], intensity=line(ENERGIES)[inside]
    )
    row = prepare(cut, GIVEN, part).row
    assert row[20:100] == pytest.approx(
        prepare(spectrum(line(ENERGIES)), GIVEN, INPUTS).row[20:100], abs=1e-5
    )
    assert not row[:20].any()


def test_another_absorber_is_refused() -> None:
    for fields in ({"element": "N", "edge": "K"}, {"element": "C", "edge": "L1"}):
        with pytest.raises(DatasetError, match=r"says it is . .*, the model was trained on C K"):
            prepare(spectrum(line(ENERGIES), **fields), GIVEN, INPUTS)
    with pytest.raises(DatasetError, match=r"330.0 eV is no onset of C K \(261 to 307 eV\).*--shift"):
        prepare(spectrum(line(ENERGIES)), Options(excitation_energy_eV=330.0), INPUTS)


def test_smoothing_is_that_of_the_models_grid() -> None:
    got = prepare(spectrum(line(ENERGIES)), dataclasses.replace(GIVEN, smooth_eV=0.5), INPUTS)
    assert step(got, "smoothing")["smooth_eV"] == 0.5
    assert got.row == pytest.approx(prepare(spectrum(line(ENERGIES)), GIVEN, INPUTS).row, abs=2e-3)
    with pytest.raises(DatasetError, match="not an odd number of steps"):
        prepare(spectrum(line(ENERGIES)), dataclasses.replace(GIVEN, smooth_eV=0.4), INPUTS)


def test_options_that_contradict_each_other() -> None:
    for options, words in [
        ({"background": Background.LINEAR}, "--background and --pre-edge"),
        ({"pre_edge_eV": (1.0, 2.0)}, "--background and --pre-edge"),
        ({"background": Background.LINEAR, "pre_edge_eV": (2.0, 1.0)}, "--pre-edge goes from 2 to 1 eV"),
        ({"post_edge_eV": (1.0, 2.0)}, "--post-edge goes with"),
        ({"auto_onset": True, "excitation_energy_eV": 1.0}, "one of --excitation-energy and --onset"),
    ]:
        with pytest.raises(DatasetError, match=words):
            Options(**options)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="give --excitation-energy EV, or --onset auto"):
        prepare(spectrum(line(ENERGIES)), Options(), INPUTS)
    absolute = dataclasses.replace(INPUTS, window=Window(280.0, 200, 0.1, Align.ABSOLUTE))
    with pytest.raises(DatasetError, match="no onset is needed"):
        prepare(spectrum(line(ENERGIES)), GIVEN, absolute)
    assert prepare(spectrum(line(ENERGIES)), Options(), absolute).anchor_eV is None


def rows_of(weak: float, gaps: FloatArray) -> FloatArray:
    grid = np.arange(200) * 0.1 - 4.0
    return np.array([weak * line(grid, 0.0) + line(grid, gap) for gap in gaps])


def test_the_onset_is_found_as_training_spectra_teach() -> None:
    window = INPUTS.window
    gaps = np.linspace(0.8, 1.2, 41)
    landmark = learn_landmark(rows_of(0.01, gaps), window)  # the first state is hardly there
    assert landmark.spectra == 41
    assert landmark.low_eV < landmark.median_eV < landmark.high_eV
    values = 0.01 * line(ENERGIES) + line(ENERGIES, ONSET + 1.0)
    rise, onset = find_onset(ENERGIES, values, landmark, window, "s.csv")
    assert onset == pytest.approx(ONSET, abs=0.02)
    assert np.interp(rise, ENERGIES, values) == pytest.approx(LEVEL * values.max(), rel=0.05)
    got = prepare(spectrum(values), Options(auto_onset=True), INPUTS, landmark)
    told = step(got, "onset")
    assert told["onset_eV"] == pytest.approx(ONSET, abs=0.02)
    assert told["range_eV"][0] < ONSET < told["range_eV"][1]
    assert "5% of its maximum at" in told["text"]
    assert list(got.others) == told["range_eV"]


def test_an_onset_that_cannot_be_found() -> None:
    window = INPUTS.window
    landmark = learn_landmark(rows_of(1.0, np.linspace(0.8, 1.2, 41)), window)
    for values in (np.full(len(ENERGIES), 1.0), -line(ENERGIES), line(ENERGIES) + 0.02):
        with pytest.raises(DatasetError, match=r"no onset is seen|no onset agrees"):
            find_onset(ENERGIES, values, landmark, window, "s.csv")
    with pytest.raises(DatasetError, match="above the rise of its training spectra"):
        learn_landmark(rows_of(1.0, np.full(20, -4.5)), window)
    with pytest.raises(DatasetError, match="they have gone"):
        prepare(spectrum(line(ENERGIES)), Options(auto_onset=True), INPUTS)


def test_the_onset_of_a_part_of_the_window_is_measured_against_that_part() -> None:
    part = dataclasses.replace(INPUTS, columns=slice(20, 65))  # 2 eV below the first state to 2.5 eV above it
    grid = np.arange(200) * 0.1 - 4.0
    gaps = np.linspace(0.0, 0.2, 41)
    rows = np.array(
        [line(grid, gap) + 8.0 * line(grid, 9.0) for gap in gaps]
    )  # what is outside is far stronger
    values = line(ENERGIES, ONSET + 0.1) + 8.0 * line(ENERGIES, ONSET + 9.0)
    landmark = learn_landmark(rows[:, part.columns], part.needed)
    got = prepare(spectrum(values), Options(auto_onset=True), part, landmark)
    assert step(got, "onset")["onset_eV"] == pytest.approx(ONSET, abs=0.02)
    whole = learn_landmark(rows, part.window)
    off = prepare(spectrum(values), Options(auto_onset=True), part, whole)
    assert abs(step(off, "onset")["onset_eV"] - ONSET) > 0.2  # why the two must be the same part
