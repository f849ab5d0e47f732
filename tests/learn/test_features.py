from __future__ import annotations

import numpy as np
import pytest

from htxas.domain.spectrum import Spectrum, Sticks, broaden
from htxas.errors import DatasetError
from htxas.learn.data.features import Standardiser, inputs, resample, window_row
from htxas.learn.data.recipe import Align, ModelKind, Scale, Window

STICKS = Sticks(np.array([287.03, 289.0, 312.0]), np.full((3, 3), 0.05))
WINDOW = Window()


@pytest.mark.parametrize("shift_eV", [0.0, 0.013, 0.05, 0.087])
def test_alignment_removes_any_shift_even_part_of_a_step(shift_eV: float) -> None:
    moved = Sticks(STICKS.energies_eV + shift_eV, STICKS.strengths)
    reference = window_row(broaden(STICKS), 287.03, WINDOW, where="a")
    row = window_row(broaden(moved), 287.03 + shift_eV, WINDOW, where="b")
    assert row.shape == (240,)
    assert row.dtype == np.float32
    assert np.abs(row - reference).max() < 4e-5 * reference.max()


def test_window_holds_the_exact_gaussians() -> None:
    row = window_row(broaden(STICKS), 287.03, WINDOW, where="a")
    grid = -4.0 + 0.1 * np.arange(240)
    lines = np.exp(-0.5 * ((grid[:, None] - (STICKS.energies_eV - 287.03)) / 0.5) ** 2).sum(axis=1)
    expected = 0.05 * lines / (0.5 * np.sqrt(2 * np.pi))
    # the spectrum's own grid starts three sigma times two below the first stick: zero before that
    assert np.abs(row - expected).max() < 3e-5 * expected.max()


def test_below_a_computed_spectrum_is_zero_but_a_measured_one_must_cover_it() -> None:
    spectrum = broaden(STICKS, margin_eV=2.0)
    row = window_row(spectrum, 287.03, WINDOW, where="a")
    first = spectrum.energies_eV[0] - 287.03
    assert (row[-4.0 + 0.1 * np.arange(240) < first - 1e-6] == 0).all()
    with pytest.raises(DatasetError, match="starts at"):
        resample(spectrum.energies_eV, spectrum.total, 287.03, WINDOW, where="x.csv", zero_below=False)


def test_a_window_beyond_the_end_is_refused_not_padded() -> None:
    short = broaden(Sticks(STICKS.energies_eV[:2], STICKS.strengths[:2]))
    with pytest.raises(DatasetError, match=r"ends at .* eV, the window at 19.9 eV"):
        window_row(short, 287.03, WINDOW, where="a")


@pytest.mark.parametrize(
    ("spectrum", "words"),
    [
        (broaden(STICKS, step_eV=0.05), "step of 0.05"),
        (broaden(STICKS, sigma_eV=0.2), "below three steps"),
        (Spectrum(2840, 0.1, np.full((400, 3), np.nan), 0.5), "not finite"),
    ],
)
def test_unfit_spectra_are_refused(spectrum: Spectrum, words: str) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        window_row(spectrum, 287.03, WINDOW, where="molecule m7")
    assert caught.value.where == "molecule m7"


def test_absolute_window_and_area_scale() -> None:
    window = Window(start_eV=285.0, points=100, align=Align.ABSOLUTE, scale=Scale.AREA)
    one = window_row(broaden(STICKS), 999.0, window, where="a")
    tenfold = window_row(broaden(Sticks(STICKS.energies_eV, 10 * STICKS.strengths)), 0.0, window, where="b")
    assert one.sum() * 0.1 == pytest.approx(1.0, abs=1e-5)
    assert np.allclose(one, tenfold, rtol=1e-5)


def test_standardiser_uses_given_rows_only_and_does_not_blow_up_empty_columns() -> None:
    rng = np.random.default_rng(0)
    train = np.column_stack([rng.normal(5, 2, 50), 1e-9 * rng.normal(size=50), np.ones(50)])
    scaler = Standardiser.fit(train, floor_columns=2)
    z = scaler.apply(train)
    assert z[:, 0].std() == pytest.approx(1.0)
    assert np.abs(z[:, 1]).max() < 1e-6
    assert (z[:, 2] == 0).all()
    assert np.allclose(scaler.invert(z), train)


def test_model_b_sees_the_ratios() -> None:
    x = inputs(ModelKind.B, np.zeros((2, 4)), np.ones((2, 3)))
    assert x.shape == (2, 7)
    assert inputs(ModelKind.A, np.zeros((2, 4)), np.ones((2, 3))).shape == (2, 4)
