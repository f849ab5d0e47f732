from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.dos import LocalDos
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult, Provenance
from htxas.domain.spectrum import Curve, Quantity, Spectrum, Sticks, broaden, combine, smear
from htxas.errors import Cause

PROVENANCE = Provenance("0", {}, "h", "t", "t", None, None, {}, "/d")
ENERGIES = np.concatenate([np.arange(275.0, 290.0, 0.07), np.arange(290.0, 330.0, 0.9)])


def curve(shape: Any) -> Curve:
    return Curve(ENERGIES, np.repeat(np.asarray(shape, dtype=float)[:, None], 3, axis=1))


STEP = curve(0.5 + np.arctan((ENERGIES - 280.0) / 0.3) / np.pi)
RESULT = CurveResult(
    convergence=Convergence.CONVERGED,
    curve=STEP,
    background=STEP.isotropic,
    edge_eV=280.0,
    fermi_eV=-6.0,
    lifetime_eV=0.1,
    normalisation="the atom",
    scale="as it is",
    doubts=(),
    dos=None,
    provenance=PROVENANCE,
)


def test_a_curve_is_smeared_exactly() -> None:
    rng = np.random.default_rng(1)
    ragged = curve(rng.uniform(0, 2, len(ENERGIES)))
    smooth = smear(ragged, sigma_eV=0.4, step_eV=0.1)
    assert smooth.quantity is Quantity.ABSORPTION
    for energy in (281.3, 288.0, 300.0, 320.0):
        x = np.linspace(energy - 3, energy + 3, 60_001)
        weight = np.exp(-0.5 * ((x - energy) / 0.4) ** 2)
        value = np.interp(x, ENERGIES, ragged.isotropic) @ weight / weight.sum()
        assert np.interp(energy, smooth.energies_eV, smooth.total) == pytest.approx(value, abs=1e-6)


def test_straight_lines_stay_as_they_are() -> None:
    line = curve(0.1 * (ENERGIES - 270.0))
    smooth = smear(line, sigma_eV=0.5)
    assert smooth.total == pytest.approx(0.1 * (smooth.energies_eV - 270.0), abs=1e-12)


def test_the_grid_ends_where_nothing_is_known() -> None:
    smooth = smear(STEP, sigma_eV=0.5, step_eV=0.1)
    assert smooth.energies_eV[0] == pytest.approx(277.0)
    assert smooth.energies_eV[-1] == pytest.approx(ENERGIES[-1] - 2.0, abs=0.1)
    assert smooth.step_eV * smooth.start == pytest.approx(277.0)
    with pytest.raises(ValueError, match="too short"):
        smear(STEP, sigma_eV=10.0)
    with pytest.raises(ValueError, match="does not divide"):
        smear(STEP, step_eV=0.3)


def test_continua_are_added_where_all_are_known() -> None:
    low = smear(STEP)
    high = smear(Curve(ENERGIES + 3.0, 2.0 * STEP.intensity))
    both = combine([low, high], [1.0, 3.0])
    assert both.energies_eV[0] == pytest.approx(280.0)
    assert both.energies_eV[-1] == pytest.approx(low.energies_eV[-1])
    at = [np.interp(300.0, s.energies_eV, s.total) for s in (low, high, both)]
    assert at[2] == pytest.approx((at[0] + 3 * at[1]) / 4)
    with pytest.raises(ValueError, match="no energy in common"):
        combine([low, smear(Curve(ENERGIES + 100.0, STEP.intensity))], [1.0, 1.0])


def test_different_quantities_are_not_added() -> None:
    sticks: Spectrum = broaden(Sticks(np.array([285.0]), np.ones((1, 3))))
    with pytest.raises(ValueError, match="are not added"):
        combine([smear(STEP), sticks], [1.0, 1.0])


def test_a_sound_continuum_passes() -> None:
    assert inspect(RESULT, GateLimits(), element="C", edge="K") is None
    assert RESULT.onset_eV == 280.0
    assert RESULT.window_eV == pytest.approx(ENERGIES[-1] - 280.0)


def with_point(value: float, place: int = 100) -> Curve:
    intensity = STEP.intensity.copy()
    intensity[place] = value
    return Curve(ENERGIES, intensity)


@pytest.mark.parametrize(
    ("change", "cause", "message"),
    [
        ({"convergence": Convergence.UNKNOWN}, Cause.SCF_UNCONVERGED, "unknown"),
        ({"doubts": ("bad counts in the end",)}, Cause.GATE_REJECTED, "bad counts in the end"),
        ({"curve": with_point(np.nan)}, Cause.GATE_REJECTED, "not finite"),
        ({"fermi_eV": np.inf}, Cause.GATE_REJECTED, "not finite"),
        ({"background": np.full(len(ENERGIES), np.nan)}, Cause.GATE_REJECTED, "not finite"),
        ({"background": np.zeros(len(ENERGIES))}, Cause.GATE_REJECTED, "absorbs nothing"),
        ({"curve": with_point(-0.1)}, Cause.GATE_REJECTED, "negative: -0.100"),
        ({"curve": Curve(ENERGIES, 3 * STEP.intensity)}, Cause.GATE_REJECTED, "of the atom's, not 0.5..2.0"),
        ({"curve": Curve(ENERGIES[::-1], STEP.intensity)}, Cause.GATE_REJECTED, "not in order"),
        ({"curve": Curve(ENERGIES[:1], STEP.intensity[:1])}, Cause.GATE_REJECTED, "1 points"),
        ({"edge_eV": 260.0}, Cause.GATE_REJECTED, "outside the spectrum"),
        ({"edge_eV": 318.0}, Cause.GATE_REJECTED, "318.00 eV is outside"),
    ],
)
def test_the_gate_names_what_is_wrong(change: dict[str, Any], cause: Cause, message: str) -> None:
    rejection = inspect(replace(RESULT, **change), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert (rejection.cause, message in rejection.message) == (cause, True), rejection.message


def test_a_short_window_is_refused() -> None:
    short = ENERGIES < 295.0
    result = replace(RESULT, curve=Curve(ENERGIES[short], STEP.intensity[short]))
    rejection = inspect(result, GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert "reaches 14." in rejection.message


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="a curve of shapes"):
        Curve(ENERGIES, STEP.isotropic)
    with pytest.raises(ValueError, match="a DOS of shapes"):
        LocalDos(ENERGIES, np.zeros((2, 3, 4)), ("C*", "H"), np.zeros(2), 0.1)
