from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import wasserstein_distance

from htxas.errors import DatasetError
from htxas.learn.nets.device import deterministic
from htxas.learn.nets.domain import Domain
from htxas.learn.nets.fit import Fitted, fit_network, predict_network
from htxas.learn.nets.intervals import Intervals, grouped_quantile
from htxas.learn.nets.losses import Criterion, information_divergence, wasserstein
from htxas.learn.nets.metrics import Bootstrap, score, score_curve
from htxas.learn.nets.models import Outputs, build
from htxas.learn.nets.network import Head, Loss, Network, Share
from htxas.learn.nets.noise import Distortion, Noise, smoothing_matrix

GRID_eV = np.arange(-5.0, 5.0, 0.1)


def _gaussian(centre: float, width: float = 0.5) -> np.ndarray:
    y = np.exp(-0.5 * ((GRID_eV - centre) / width) ** 2)
    return np.asarray(y / (y.sum() * 0.1))


def test_wasserstein_is_the_distance_of_moved_peaks_and_scipys() -> None:
    p, q = _gaussian(0.0), 0.5 * _gaussian(-1.0) + 0.5 * _gaussian(2.0)
    ours = float(wasserstein(torch.from_numpy(p - q), 0.1))
    assert ours == pytest.approx(wasserstein_distance(GRID_eV, GRID_eV, p, q), rel=1e-9)
    moved = float(wasserstein(torch.from_numpy(_gaussian(0.0) - _gaussian(1.3)), 0.1))
    assert moved == pytest.approx(1.3, abs=1e-6)
    scores = score_curve(np.stack([p, q]), np.stack([p, p]), Bootstrap.of(["a", "b"]), step=0.1, zero=None)
    assert scores["wasserstein"] == pytest.approx(ours / 2)


def test_information_divergence_is_symmetric_zero_for_equals_and_blind_to_scale() -> None:
    p, q = (torch.from_numpy(_gaussian(c)) for c in (0.0, 0.4))
    d = float(information_divergence(p, q))
    assert d == pytest.approx(float(information_divergence(q, p)))
    assert d == pytest.approx(float(information_divergence(3 * p, q)))
    # of two Gaussians sum p ln(p/q) is shift^2 / 2 width^2, and twice it for both directions
    assert d == pytest.approx(0.4**2 / 0.5**2, rel=0.01)
    assert float(information_divergence(p, p)) == 0


@pytest.mark.parametrize("loss", list(Loss))
def test_curves_are_learned_with_every_loss_and_densities_stay_densities(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(-2, 2, 120)
    y = np.stack([_gaussian(c) for c in centres])
    x = np.column_stack([centres, centres**2, rng.normal(size=120)])
    net = Network(
        widths=(32,), members=2, epochs=150, dropout=0.0, learning_rate=5e-3, loss=loss, head=Head.DENSITY
    )
    scale = 0.1
    outputs = Outputs(100, separate=False, total=1 / (0.1 * scale), start=tuple(y.mean(axis=0) / scale))
    with deterministic():
        fitted = fit_network(
            x[:80],
            y[:80] / scale,
            x[80:100],
            y[80:100] / scale,
            net,
            outputs,
            seed=1,
            criterion=Criterion(net, step=0.1, scale=scale),
        )
        got = predict_network(fitted.state, x[100:], net, outputs).mean(axis=0) * scale
    assert got.min() >= 0
    assert got.sum(axis=1) * 0.1 == pytest.approx(1.0, abs=1e-4)
    scores = score_curve(y[100:], got, Bootstrap.of([str(i) for i in range(20)]), step=0.1, zero=50)
    assert scores["wasserstein"] < 0.4
    assert scores["r2"] > 0.6
    assert scores["mse"] == pytest.approx((scores["mse_below"] + scores["mse_above"]) / 2)


def test_a_head_begins_at_the_mean_curve() -> None:
    mean = tuple(_gaussian(0.0) + 0.01)
    net = Network(widths=(4,), members=3, head=Head.POSITIVE)
    model = build(2, net, Outputs(100, separate=False, start=mean), torch.Generator().manual_seed(0))
    got = model(torch.zeros(1, 2))
    assert torch.allclose(got, torch.tensor(mean, dtype=torch.float32).expand_as(got), atol=1e-5)


def test_stacked_targets_are_what_each_target_is_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = np.column_stack([x[:, 0], -x[:, 0], x[:, 1] * x[:, 2]])
    net = Network(widths=(16,), members=2, epochs=60, dropout=0.0, learning_rate=0.02)
    with deterministic():
        for share in Share:
            outputs = Outputs(3, separate=share is Share.NONE)
            fitted = fit_network(x[:40], y[:40], x[40:50], y[40:50], net, outputs, seed=1)
            got = predict_network(fitted.state, x, net, outputs)
            assert got.shape == (2, 60, 3)
            assert len(fitted.best_epoch) == (6 if share is Share.NONE else 2)
            for column in (0, 1):
                error = got.mean(axis=0)[50:, column] - y[50:, column]
                assert (error**2).mean() < 0.1 * y[50:, column].var()


def test_each_member_stops_by_its_own_rows() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 2))
    net = Network((8,), members=2, epochs=60, patience=60, dropout=0.0, learning_rate=0.05)
    outputs = Outputs(2, separate=True)
    halves = np.repeat([[True, False], [False, True]], 10, axis=1)

    def fit(stop_by: npt.NDArray[np.bool_] | None) -> Fitted:
        return fit_network(x[:40], y[:40], x[40:], y[40:], net, outputs, seed=1, stop_by=stop_by)

    crossed = fit(halves)
    for member, rows in enumerate(halves):
        alone = fit(np.tile(rows, (2, 1)))
        # Nets come output by output: every second one is this member's.
        assert crossed.best_epoch[member::2] == alone.best_epoch[member::2]
        assert torch.equal(crossed.state["weights.0"][member::2], alone.state["weights.0"][member::2])
    assert fit(np.ones((2, 20), dtype=np.bool_)).best_epoch == fit(None).best_epoch
    assert crossed.best_epoch != fit(None).best_epoch


def test_poisson_noise_has_the_dose_it_says() -> None:
    spectra = torch.from_numpy(np.tile(3.0 * _gaussian(0.0).astype(np.float32), (4000, 1)))
    out, log_dose = Distortion(Noise(50), 0.1, 100, unit_area=False).draw(
        spectra, torch.Generator().manual_seed(0)
    )
    top = int(spectra[0].argmax())
    peak = out[:, top] / float(spectra[0, top])
    assert float(peak.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(peak.var()) == pytest.approx(1 / 50, rel=0.1)
    assert (log_dose == np.log10(50)).all()
    drawn = Distortion(Noise(10, 1000), 0.1, 100, unit_area=True).draw(
        spectra, torch.Generator().manual_seed(0)
    )
    assert float(drawn[1].min()) >= 1
    assert float(drawn[1].max()) <= 3
    assert float(drawn[1].mean()) == pytest.approx(2.0, abs=0.05)
    assert torch.allclose(drawn[0].sum(dim=1) * 0.1, torch.ones(4000), atol=1e-4)


def test_smoothing_keeps_parabolas_and_takes_noise_away() -> None:
    matrix = smoothing_matrix(0.5, 0.1, 100)
    parabola = 1 + GRID_eV - 0.3 * GRID_eV**2
    assert np.allclose(parabola @ matrix, parabola)
    noise = np.random.default_rng(0).normal(size=(500, 100))
    assert (noise @ matrix).std() < 0.75
    assert (noise @ smoothing_matrix(0.3, 0.1, 100)).std() < 0.65
    for width in (0.4, 0.1, 0.35, 30.1):
        with pytest.raises(DatasetError, match="odd number of steps"):
            smoothing_matrix(width, 0.1, 100)


@pytest.mark.parametrize("per_group", [1, 5])
def test_intervals_cover_new_molecules(per_group: int) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        # all sites of a molecule err alike: as rows they would look like far more evidence than they are
        size = rng.integers(1, 2 * per_group, 41)
        group = np.repeat(np.arange(41), size)
        wide = rng.uniform(0.2, 2.0, 41)[group]
        error = wide * (rng.normal(size=41)[group] + 0.2 * rng.normal(size=len(group)))
        old = group < 40
        made = Intervals.calibrate(
            error[old, None],
            np.zeros((old.sum(), 1)),
            wide[old, None],
            group[old].astype(str).tolist(),
            floor=np.array([0.1]),
        )
        half = made.half_width(wide[~old, None])[:, 0]
        covered.append(float((np.abs(error[~old]) <= half).mean()))
    assert 0.87 <= np.mean(covered) <= 0.95


def test_too_few_molecules_calibrate_nothing() -> None:
    assert grouped_quantile(np.arange(8.0), np.arange(8), 0.9) == np.inf
    assert grouped_quantile(np.arange(9.0), np.arange(9), 0.9) == 8.0
    assert (
        grouped_quantile(np.arange(90.0), np.repeat(np.arange(8), [20, 10, 10, 10, 10, 10, 10, 10]), 0.9)
        == np.inf
    )
    # of many groups of one row, the ordinary quantile
    assert grouped_quantile(np.arange(999.0), np.arange(999), 0.9) == 899.0


def test_the_bootstrap_draws_molecules() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(rng.normal(size=20), 10)
    p = y + np.repeat(rng.normal(0, 0.5, 20), 10)
    by_molecule = score(y, p, Bootstrap.of(np.repeat(np.arange(20), 10).astype(str).tolist()))
    by_row = score(y, p, Bootstrap.of([str(i) for i in range(200)]))
    assert by_molecule["r2"] == by_row["r2"]
    assert by_molecule["r2_high"] - by_molecule["r2_low"] > 2 * (by_row["r2_high"] - by_row["r2_low"])


def test_the_domain_knows_strange_rows_and_names_neighbours() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 30))
    groups = [str(i) for i in range(200)]
    domain = Domain.fit(z, groups)
    assert domain.components.shape == (30, 3)
    inside = domain.percentile(0.9 * z[:100])
    assert np.median(inside) < 75
    assert domain.percentile(z[:1] * 20)[0] == 100
    distance, place = domain.nearest(z[:5])
    assert place[:, 0].tolist() == list(range(5))
    assert np.allclose(distance[:, 0], 0, atol=1e-4)
    # twins of one molecule are not each other's neighbours
    twins = Domain.fit(np.repeat(z, 2, axis=0), [g for g in groups for _ in "ab"])
    assert twins.own.min() > 0
