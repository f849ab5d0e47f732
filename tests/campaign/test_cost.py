from __future__ import annotations

import json
import math

import numpy as np
import pytest

from htxas.campaign.comparison import Comparison
from htxas.campaign.cost import Calibration, Fit, Timing, fit, left_out
from htxas.domain.calculation import Kind


def timings(
    n: int, *, power: float = 0.0, noise: float = 0.1, factor: float = 2.0, seed: int = 0
) -> list[Timing]:
    """Calculations whose true time is ``factor prior (atoms/15)^power`` with log-normal noise."""
    random = np.random.default_rng(seed)
    out = []
    for atoms in random.integers(4, 30, n):
        prior = 1.6 * (atoms / 10) ** 2.1
        measured = factor * prior * (atoms / 15) ** power * math.exp(random.normal(0, noise))
        out.append(Timing(float(prior), int(atoms), float(measured)))
    return out


def test_few_measurements_change_nothing() -> None:
    assert fit([Timing(1.0, 5, 5.0)] * 11) == Fit()
    assert Fit().seconds(7.0, 3) == 7.0
    assert "engine's prior" in str(Calibration())
    assert 1.5 < Fit().safety(0.95) < 4


def test_the_median_decides_first() -> None:
    found = fit([Timing(2.0, 5, 3.0)] * 20 + [Timing(2.0, 5, 2000.0)] * 5 + [Timing(0.0, 5, 1.0)])
    assert found.factor == pytest.approx(1.5)
    assert found.samples == 25
    assert not found.depends_on_size
    assert found.seconds(2.0, 5) == pytest.approx(3.0)


def test_a_wrong_power_of_the_prior_is_learned() -> None:
    found = fit(timings(200, power=-0.8))
    assert found.depends_on_size
    for atoms in (6, 15, 28):
        prior = 1.6 * (atoms / 10) ** 2.1
        assert found.seconds(prior, atoms) == pytest.approx(2.0 * prior * (atoms / 15) ** -0.8, rel=0.1)


def test_a_right_prior_stays_one_factor_or_nearly() -> None:
    found = fit(timings(200))
    assert found.seconds(10.0, 24) == pytest.approx(20.0, rel=0.05)


def test_outliers_do_not_pull() -> None:
    clean = timings(200, power=-0.8)
    dirty = [t._replace(measured_s=t.measured_s * 50) if i % 20 == 0 else t for i, t in enumerate(clean)]
    assert fit(dirty).seconds(10.0, 24) == pytest.approx(fit(clean).seconds(10.0, 24), rel=0.1)


def test_nothing_is_extrapolated() -> None:
    data = timings(200, power=-0.8)
    found = fit(data)
    ratios = [t.measured_s / t.prior_s for t in data]
    for prior, atoms in ((1e-6, 1), (1e7, 5000), (1e7, 1), (1e-6, 5000)):
        assert min(ratios) <= found.seconds(prior, atoms) / prior <= max(ratios)


def test_the_safety_factor_is_kept_by_calculations_never_seen() -> None:
    found = fit(timings(300, power=-0.8, noise=0.25))
    others = timings(2000, power=-0.8, noise=0.25, seed=1)
    for probability in (0.8, 0.95):
        reserved = [found.seconds(t.prior_s, t.atoms) * found.safety(probability) for t in others]
        ended = np.mean([t.measured_s <= r for t, r in zip(others, reserved, strict=True)])
        assert probability - 0.04 < ended <= 1.0
    assert found.safety(0.95) < 1.9  # but no more than it needs


def test_few_samples_promise_less() -> None:
    few = [fit(timings(14, seed=seed)).safety(0.95) for seed in range(9)]
    assert np.median(few) > 1.05 * fit(timings(400)).safety(0.95)


@pytest.mark.parametrize(
    ("samples", "slow", "times"), [(12, 1, 50), (12, 2, 50), (12, 3, 10), (40, 3, 50), (400, 24, 20)]
)
def test_a_few_that_took_far_too_long_do_not_shut_pilots_out(samples: int, slow: int, times: float) -> None:
    random = np.random.default_rng(1)
    seconds = 60.0 * random.uniform(0.9, 1.1, samples)
    seconds[random.permutation(samples)[:slow]] *= times
    found = fit([Timing(60.0, 10, float(s)) for s in seconds])
    assert found.seconds(60.0, 10) == pytest.approx(60.0, rel=0.1)
    assert 1.0 < found.safety(0.95) <= 4.0
    if samples < 40:
        assert found.safety(0.95) == pytest.approx(Fit().safety(0.95))


def test_a_fit_survives_json() -> None:
    found = fit(timings(60, power=0.5))
    assert Fit.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_each_kind_has_its_own() -> None:
    found = Calibration(ground=Fit(), site=fit([Timing(1.0, 4, 3.0)] * 40))
    assert found.seconds(Kind.GROUND, 10.0) == 10.0
    assert found.seconds(Kind.SITE, 10.0, 4) == pytest.approx(30.0)
    assert found.total_s(10.0, 10.0) == pytest.approx(40.0)
    assert str(found) == "ground states by the engine's prior; sites measured on 40, 3.00 x the prior"


def test_a_comparison_judges_by_what_was_left_out() -> None:
    data = timings(150, power=-0.8, noise=0.2)
    found = Comparison.of(
        data, engine="e", kind=Kind.SITE, parameters_key="k", machine="node", campaigns=["c"]
    )
    assert found.learned_s == tuple(left_out(data))
    low, middle, high = found.ratios(found.learned_s)
    assert middle == pytest.approx(1.0, abs=0.1)
    spread = found.ratios(found.prior_s)
    assert high / low < 0.8 * spread[2] / spread[0]
    assert 0.9 <= found.within_safety <= 1.0
    document = json.loads(json.dumps(found.to_dict()))
    assert document["samples"] == 150
    assert document["actual_over_learned"]["p90"] == pytest.approx(high)


def test_without_ground_states_nothing_is_said_of_them() -> None:
    alone = Calibration(ground=None, site=fit(timings(100, noise=0.0)))
    assert alone.total_s(0.0, 10.0) == pytest.approx(20.0)
    assert alone.seconds(Kind.SITE, 1.0, 10) == pytest.approx(2.0)
    assert "ground" not in str(alone)
    assert "ground" in str(Calibration(site=alone.site))
