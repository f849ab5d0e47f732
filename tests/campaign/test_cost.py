from __future__ import annotations

import pytest

from htxas.campaign.cost import Calibration, Ratio, ratio
from htxas.domain.calculation import Kind


def test_few_measurements_change_nothing() -> None:
    assert ratio([(1.0, 5.0)] * 11) == Ratio(1.0, 0)
    assert "engine's prior" in str(Calibration())


def test_the_median_decides() -> None:
    times = [(2.0, 3.0)] * 20 + [(2.0, 2000.0)] * 5 + [(0.0, 1.0)]
    assert ratio(times) == Ratio(1.5, 25)


def test_each_kind_has_its_own() -> None:
    found = Calibration(ground=Ratio(), site=Ratio(3.0, 40))
    assert found.seconds(Kind.GROUND, 10.0) == 10.0
    assert found.seconds(Kind.SITE, 10.0) == 30.0
    assert found.total_s(10.0, 10.0) == pytest.approx(40.0)
    assert str(found) == "ground states by the engine's prior; sites measured on 40, 3.00 x the prior"
