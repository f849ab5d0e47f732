from __future__ import annotations

from htxas.campaign.cost import Calibration, calibrate


def test_few_measurements_change_nothing() -> None:
    assert calibrate([(1.0, 5.0)] * 11) == Calibration(1.0, 0)
    assert "prior" in str(calibrate([]))


def test_the_median_decides() -> None:
    times = [(2.0, 3.0)] * 20 + [(2.0, 2000.0)] * 5 + [(0.0, 1.0)]
    assert calibrate(times) == Calibration(1.5, 25)
