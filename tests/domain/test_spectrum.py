from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.domain.dos import Pdos
from htxas.domain.spectrum import Spectrum, Sticks, broaden, combine, dsf_A2, gaussians
from htxas.domain.units import BOHR_A, HARTREE_EV


def sticks(*energies: float) -> Sticks:
    e = np.array(sorted(energies))
    return Sticks(e, np.column_stack([e * 0 + 0.03, e * 0 + 0.06, e * 0]))


@given(st.lists(st.floats(280, 310), min_size=1, max_size=8))
def test_broadening_keeps_area_and_grid(energies: list[float]) -> None:
    spectrum = broaden(sticks(*energies), margin_eV=5)
    area = spectrum.intensity.sum(axis=0) * 0.1
    np.testing.assert_allclose(area, np.array([0.03, 0.06, 0.0]) * len(energies), rtol=1e-4)
    index = spectrum.energies_eV / 0.1
    np.testing.assert_allclose(index, np.round(index), atol=1e-6)
    assert spectrum.energies_eV[0] == pytest.approx(np.floor(min(energies) - 5))
    assert spectrum.energies_eV[-1] == pytest.approx(np.ceil(max(energies) + 5))


def test_gaussians_are_the_formula_and_never_too_small_to_be_fast() -> None:
    x = np.linspace(-60.0, 60.0, 2001)
    plain = np.exp(-0.5 * (x / 0.7) ** 2) / (0.7 * np.sqrt(2 * np.pi))
    made = gaussians(x, 0.7)
    np.testing.assert_allclose(made, plain, rtol=1e-13, atol=1e-250)
    assert made.min() > np.finfo(np.float64).tiny


def test_peak_is_where_the_stick_is() -> None:
    spectrum = broaden(sticks(285.3))
    assert spectrum.energies_eV[spectrum.total.argmax()] == pytest.approx(285.3)
    assert spectrum.columns.shape == (len(spectrum.total), 4)


def test_combination_is_the_weighted_mean_on_the_union() -> None:
    a, b = broaden(sticks(285.0)), broaden(sticks(292.4))
    both = combine([a, b], [3, 1])
    assert both.start == a.start
    energies = both.energies_eV
    assert energies[-1] == pytest.approx(b.energies_eV[-1])
    at = int(np.abs(energies - 285.0).argmin())
    assert both.total[at] == pytest.approx(0.75 * a.total.max())
    np.testing.assert_allclose(both.intensity, both.total[:, None].repeat(3, axis=1))  # no direction is left
    assert both.total.sum() == pytest.approx(0.75 * a.total.sum() + 0.25 * b.total.sum())


def test_nothing_is_resampled() -> None:
    a = broaden(sticks(285.0))
    with pytest.raises(ValueError, match="not combined"):
        combine([a, broaden(sticks(285.0), sigma_eV=0.3)], [1, 1])
    with pytest.raises(ValueError, match="not combined"):
        combine([a, broaden(sticks(285.0), step_eV=0.05)], [1, 1])
    with pytest.raises(ValueError, match="divide"):
        broaden(sticks(285.0), step_eV=0.3)
    with pytest.raises(ValueError, match="weight"):
        combine([a], [0])
    with pytest.raises(ValueError, match="no sticks"):
        broaden(Sticks(np.zeros(0), np.zeros((0, 3))))


def test_dsf_inverts_the_oscillator_strength() -> None:
    moment_au, energy_eV = 0.05, 285.0
    f = 4 * energy_eV / HARTREE_EV * moment_au**2
    s = Sticks(np.array([energy_eV]), np.array([[f, 0, 0]]))
    np.testing.assert_allclose(dsf_A2(s), [[(moment_au * BOHR_A) ** 2, 0, 0]])


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="shapes"):
        Sticks(np.zeros(3), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="shapes"):
        Pdos(np.zeros(2), np.zeros(2), np.zeros((2, 4)))


def test_dos_counts_states_of_the_chosen_atoms() -> None:
    weights = np.zeros((2, 2, 3))
    weights[0, 0, 0], weights[0, 1, 1] = 0.25, 0.75
    weights[1, 1, 2] = 1.0
    pdos = Pdos(np.array([-10.0, -5.0]), np.array([2.0, 0.0]), weights)
    grid = np.arange(-15, 10, 0.01)
    area = lambda **kw: pdos.curve(grid, zero_eV=-5.0, **kw).sum() * 0.01  # noqa: E731 - one line, used thrice
    assert area(atoms=[0, 1], angular=("s", "p", "d")) == pytest.approx(4.0)
    assert area(atoms=[0], angular=("s",)) == pytest.approx(0.5)
    assert area(atoms=[1], angular=("s", "p")) == pytest.approx(1.5)


def test_spectrum_energies_come_from_whole_steps() -> None:
    spectrum = Spectrum(2850, 0.1, np.zeros((3, 3)), 0.5)
    np.testing.assert_allclose(spectrum.energies_eV, [285.0, 285.1, 285.2])
