"""A continuous spectrum becomes a row: read at the window's energies, or convolved, and never beyond its ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from htxas.domain.spectrum import Curve
from htxas.errors import DatasetError
from htxas.learn.data.curve_window import curve_row, known_eV, refuse_unknown
from htxas.learn.data.recipe import Align, Recipe, Rows, Scale, Window
from htxas.learn.data.records import Continuum

EDGE = 8987.589
WINDOW = Window(start_eV=-3.5, points=101, step_eV=0.25, align=Align.EDGE)
RECIPE = Recipe((), window=WINDOW, rows=Rows.SITE)


def uneven(lowest: float = -3.8, highest: float = 60.0) -> np.ndarray:
    """Return energies as FEFF spaces them: even in the wave number."""
    k = np.linspace(-1, 1, 170)
    return np.where(k < 0, -lowest * -(k**2), highest * k**2)


def continuum(scale: float = 1.0) -> Continuum:
    energies = uneven()
    step = 1 / (1 + np.exp(-energies / 0.9))
    values = scale * step * (1 + 0.4 * np.sin(energies / 3) * np.exp(-np.abs(energies) / 30))
    xyz = np.column_stack([0.5 * values, values, 1.5 * values])
    return Continuum(Curve(energies + EDGE, xyz), EDGE, 1.73, "as computed")


def test_the_window_follows_the_straight_lines_between_the_codes_points() -> None:
    one = continuum()
    row = curve_row(one, RECIPE, "x")
    assert row is not None
    assert row.dtype == np.float32
    grid = EDGE + WINDOW.start_eV + np.arange(101) * 0.25
    np.testing.assert_allclose(row, np.interp(grid, one.curve.energies_eV, one.curve.isotropic), rtol=1e-6)


def test_another_threshold_moves_the_axis_and_nothing_else() -> None:
    one = continuum()
    other = replace(
        one, edge_eV=EDGE + 1.0137, curve=Curve(one.curve.energies_eV + 1.0137, one.curve.intensity)
    )
    for recipe in (RECIPE, replace(RECIPE, sigma_eV=0.8, window=replace(WINDOW, start_eV=-0.5))):
        first, second = curve_row(one, recipe, "x"), curve_row(other, recipe, "y")
        assert first is not None
        assert second is not None
        np.testing.assert_allclose(first, second, atol=2e-6)


def test_absolute_energies_keep_the_position_of_the_edge() -> None:
    window = Window(start_eV=8985.0, points=101, step_eV=0.25, align=Align.ABSOLUTE)
    one = continuum()
    row = curve_row(one, replace(RECIPE, window=window), "x")
    assert row is not None
    assert row[10] == pytest.approx(np.interp(8987.5, one.curve.energies_eV, one.curve.isotropic), rel=1e-6)


def test_a_gaussian_is_convolved_at_the_windows_own_energies() -> None:
    recipe = replace(RECIPE, sigma_eV=0.8, window=replace(WINDOW, start_eV=-0.513))
    row = curve_row(continuum(), recipe, "x")
    assert row is not None
    fine = np.arange(-3.8, 60.0, 0.002)
    one = continuum()
    values = np.interp(fine, one.curve.energies_eV - EDGE, one.curve.isotropic)
    for at in (0, 7, 100):
        energy = -0.513 + 0.25 * at
        weights = np.exp(-0.5 * ((fine - energy) / 0.8) ** 2)
        assert row[at] == pytest.approx(float((weights * values).sum() / weights.sum()), abs=2e-4)


def test_beyond_its_ends_nothing_is_known() -> None:
    one = continuum()
    assert known_eV(one, RECIPE) == pytest.approx((-3.8, 60.0))
    assert known_eV(one, replace(RECIPE, sigma_eV=0.5)) == pytest.approx((-1.8, 58.0))
    for start, points in ((-4.0, 101), (-3.5, 256)):
        assert (
            curve_row(one, replace(RECIPE, window=replace(WINDOW, start_eV=start, points=points)), "x")
            is None
        )
    with pytest.raises(
        DatasetError, match=r"1 of 7 sites are not known in all of the window, -4 to 21 eV"
    ) as told:
        refuse_unknown({"m/0": (-3.8, 60.0)}, 7, replace(WINDOW, start_eV=-4.0))
    assert "window.start_eV: -3.75 with points: 100" in str(told.value.hint)


def test_area_one() -> None:
    recipe = replace(RECIPE, window=replace(WINDOW, scale=Scale.AREA))
    first, second = curve_row(continuum(), recipe, "x"), curve_row(continuum(7.0), recipe, "x")
    assert first is not None
    assert second is not None
    assert first.sum() * 0.25 == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(first, second, rtol=1e-5)


def _nan() -> Continuum:
    one = continuum()
    values = one.curve.intensity.copy()
    values[90] = np.nan
    return replace(one, curve=Curve(one.curve.energies_eV, values))


REFUSED = {
    "excitation energy": (continuum, {"align": Align.EXCITATION_ENERGY}, None, "no excitation energy"),
    "coarse": (continuum, {"step_eV": 2.0, "points": 20}, None, "steps of 2 eV miss"),
    "narrow": (continuum, {"start_eV": 0.0}, 0.5, "sigma 0.5 eV is below three steps of 0.25 eV"),
    "odd step": (continuum, {"step_eV": 0.3, "start_eV": 1.0}, 0.9, "does not divide 1 eV"),
    "not finite": (_nan, {}, None, "not finite"),
    "no area": (lambda: continuum(0.0), {"scale": Scale.AREA}, None, "no area"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    make, changes, sigma, words = REFUSED[case]
    recipe = replace(RECIPE, sigma_eV=sigma, window=replace(WINDOW, **changes))
    with pytest.raises(DatasetError, match=words):
        curve_row(make(), recipe, "site x")
