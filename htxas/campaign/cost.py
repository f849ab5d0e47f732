"""What calculations are expected to cost: the engine's prior, corrected by what finished calculations took.

The prior is a stated formula of the engine. From :data:`ENOUGH_MEDIAN` finished calculations on, the median of measured
over prior seconds corrects it; from :data:`ENOUGH_REGRESSION` on, that correction may depend on the prior itself and on
the number of atoms:

``log(measured / prior) = a + b log(prior / typical prior) + c log(atoms / typical atoms)``

by Huber's robust regression (Ann. Math. Statist. 35, 73 (1964)), the slopes held near zero by a ridge, and used only if
they predict calculations left out of the fit better than the median does. Nothing is extrapolated: outside the range
of what has been measured the correction of the nearest end holds, and it never leaves the range of ratios seen.

The residuals of calculations left out of the fit say how far off a prediction may be. They give the quantiles by which
it is decided whether something fits the time left. Among few calculations one that took fifty times as long, on a node
that swapped, would be a tail of its own: below :data:`ENOUGH_REGRESSION` the spread of the prior is assumed, or that of
the bulk where it is wider; residuals count as a factor 4 at most, and so does the safety.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, ResolvedParameters

__all__ = [
    "ENOUGH_MEDIAN",
    "ENOUGH_REGRESSION",
    "Calibration",
    "CostModel",
    "Fit",
    "Timing",
    "fit",
    "left_out",
]

ENOUGH_MEDIAN = 12
"""Finished calculations before their times are believed more than the engine's prior."""

ENOUGH_REGRESSION = 40
"""Finished calculations before the correction may depend on size."""

_PRIOR_SPREAD = 0.5  # of log seconds, where nothing has been measured: a factor 1.6 up or down is ordinary
_SLOPE_SPREAD = 0.5  # slopes are expected within this of zero: the prior's own powers are not far off
_HUBER = 1.345  # times the scale of the residuals; beyond it an observation pulls with constant force
_FOLDS = 5
_PSEUDO = 8  # made-up residuals, wider than those seen, so that few samples do not promise narrow tails
_FARTHEST = math.log(
    4.0
)  # a residual beyond it says that something went wrong, not how far off predictions are
_PROBABILITIES = (0.01, 0.02, 0.05, *(0.1 * i for i in range(1, 10)), 0.95, 0.98, 0.99, 0.995)
FloatArray = npt.NDArray[np.float64]


class Timing(NamedTuple):
    """A finished calculation: seconds by the prior, atoms, seconds it took."""

    prior_s: float
    atoms: int
    measured_s: float


@dataclass(frozen=True, slots=True)
class Fit:
    """The correction of a prior; without samples, none.

    Attributes
    ----------
    samples
        Finished calculations it rests on; 0 means the prior is taken as it is.
    level
        log(measured / prior) of a typical calculation.
    slope_prior, slope_atoms
        How it changes with log(prior) and log(atoms); 0 where the median decides.
    typical
        log(prior) and log(atoms) of a typical calculation.
    prior_range, atoms_range
        Smallest and largest logarithms seen.
    ratio_range
        Those of the ratio, 2 % at either end left out.
    quantiles
        Quantiles of log(measured / predicted) of calculations left out of the fit.
    """

    samples: int = 0
    level: float = 0.0
    slope_prior: float = 0.0
    slope_atoms: float = 0.0
    typical: tuple[float, float] = (0.0, 0.0)
    prior_range: tuple[float, float] = (0.0, 0.0)
    atoms_range: tuple[float, float] = (0.0, 0.0)
    ratio_range: tuple[float, float] = (0.0, 0.0)
    quantiles: tuple[float, ...] = tuple(NormalDist(0, _PRIOR_SPREAD).inv_cdf(p) for p in _PROBABILITIES)

    @property
    def factor(self) -> float:
        """Measured over prior seconds of a typical calculation."""
        return math.exp(self.level)

    @property
    def depends_on_size(self) -> bool:
        """Whether the correction is more than one factor."""
        return self.slope_prior != 0.0 or self.slope_atoms != 0.0

    def seconds(self, prior_s: float, atoms: int | None = None) -> float:
        """Return the expected seconds; those of half of such calculations are more.

        Parameters
        ----------
        prior_s
            By the engine's prior.
        atoms
            Of the structure; None: as many as is typical.
        """
        if self.samples == 0 or prior_s <= 0:
            return prior_s
        prior = _within(math.log(prior_s), self.prior_range) - self.typical[0]
        size = _within(math.log(atoms), self.atoms_range) - self.typical[1] if atoms else 0.0
        correction = self.level + self.slope_prior * prior + self.slope_atoms * size
        return prior_s * math.exp(_within(correction, self.ratio_range))

    def safety(self, probability: float = 0.95) -> float:
        """Return the factor on the expected seconds within which this share of calculations ends; 4 at most."""
        return math.exp(min(float(np.interp(probability, _PROBABILITIES, self.quantiles)), _FARTHEST))

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as a document."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Fit:
        """Return the fit of a document."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return cls(**fields)

    def __str__(self) -> str:
        if not self.samples:
            return "by the engine's prior"
        how = ", depending on size" if self.depends_on_size else ""
        return f"measured on {self.samples}, {self.factor:.2f} x the prior{how}"


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def fit(timings: Iterable[Timing]) -> Fit:
    """Return the correction that these calculations tell; fewer than 12 change nothing."""
    data = _table(timings)
    if len(data) < ENOUGH_MEDIAN:
        return Fit()
    found = _median(data)
    residuals = _left_out(data, regression=False)
    if len(data) >= ENOUGH_REGRESSION:
        of_regression = _left_out(data, regression=True)
        if np.abs(of_regression).mean() < np.abs(residuals).mean():
            found, residuals = _regression(data), of_regression
    return replace(found, quantiles=_quantiles(residuals))


def _quantiles(residuals: FloatArray) -> tuple[float, ...]:
    """Return the quantiles that residuals of calculations left out of the fit tell, cautious where they are few."""
    if len(residuals) < ENOUGH_REGRESSION:
        spread = max(_PRIOR_SPREAD, _scale(residuals))
        return tuple(NormalDist(0, spread).inv_cdf(p) for p in _PROBABILITIES)
    residuals = np.clip(residuals, -_FARTHEST, _FARTHEST)
    scale = max(1.5 * _scale(residuals), 0.05)
    made_up = [NormalDist(0, scale).inv_cdf((i + 0.5) / _PSEUDO) for i in range(_PSEUDO)]
    widen = 1.0 + _PSEUDO / len(residuals)
    quantiles = np.quantile(np.concatenate([residuals, made_up]), _PROBABILITIES) * widen
    return tuple(float(q) for q in quantiles)


def left_out(timings: Sequence[Timing]) -> list[float]:
    """Return for each calculation the seconds predicted by a fit to the others: how good predictions really are."""
    predicted = [0.0] * len(timings)
    for fold in range(_FOLDS):
        rest = fit(t for i, t in enumerate(timings) if i % _FOLDS != fold)
        for i in range(fold, len(timings), _FOLDS):
            predicted[i] = rest.seconds(timings[i].prior_s, timings[i].atoms)
    return predicted


def _table(timings: Iterable[Timing]) -> FloatArray:
    """Return logarithms of prior, atoms and measured / prior, shape (n, 3)."""
    rows = [
        (math.log(t.prior_s), math.log(t.atoms), math.log(t.measured_s / t.prior_s))
        for t in timings
        if t.prior_s > 0 and t.atoms > 0 and t.measured_s > 0
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _describe(data: FloatArray, level: float, slopes: tuple[float, float]) -> Fit:
    typical = np.median(data, axis=0)
    ranges = [(float(low), float(high)) for low, high in zip(data.min(axis=0), data.max(axis=0), strict=True)]
    low, high = np.quantile(data[:, 2], (0.02, 0.98))
    return Fit(
        samples=len(data),
        level=level,
        slope_prior=slopes[0],
        slope_atoms=slopes[1],
        typical=(float(typical[0]), float(typical[1])),
        prior_range=ranges[0],
        atoms_range=ranges[1],
        ratio_range=(float(low), float(high)),
    )


def _median(data: FloatArray) -> Fit:
    return _describe(data, float(np.median(data[:, 2])), (0.0, 0.0))


def _regression(data: FloatArray) -> Fit:
    x = np.column_stack([np.ones(len(data)), data[:, :2] - np.median(data[:, :2], axis=0)])
    y = data[:, 2]
    coefficients = np.array([np.median(y), 0.0, 0.0])
    for _ in range(15):
        residuals = y - x @ coefficients
        scale = max(_scale(residuals), 1e-3)
        weights = np.minimum(1.0, _HUBER * scale / np.maximum(np.abs(residuals), 1e-12))
        ridge = np.diag([0.0, 1.0, 1.0]) * (scale / _SLOPE_SPREAD) ** 2
        coefficients = np.linalg.solve(x.T @ (weights[:, None] * x) + ridge, x.T @ (weights * y))
    level, slope_prior, slope_atoms = (float(c) for c in coefficients)
    return _describe(data, level, (slope_prior, slope_atoms))


def _scale(residuals: FloatArray) -> float:
    """Return the standard deviation of a normal distribution with the same median of absolute values."""
    return 1.4826 * float(np.median(np.abs(residuals)))


def _left_out(data: FloatArray, *, regression: bool) -> FloatArray:
    """Return log(measured / predicted) of each row by a fit to the other folds."""
    out = np.empty(len(data))
    for fold in range(_FOLDS):
        held = np.arange(len(data)) % _FOLDS == fold
        found = (_regression if regression else _median)(data[~held])
        for i in np.flatnonzero(held):
            prior_s = math.exp(data[i, 0])
            predicted = found.seconds(prior_s, round(math.exp(data[i, 1])))
            out[i] = data[i, 2] - math.log(predicted / prior_s)
    return out


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the machines that computed so far compare with the engine's prior; no ground: there are none."""

    ground: Fit | None = field(default_factory=Fit)
    site: Fit = field(default_factory=Fit)

    def of(self, kind: Kind) -> Fit:
        """Return the fit of a kind of calculation."""
        return (self.ground or Fit()) if kind is Kind.GROUND else self.site

    def seconds(self, kind: Kind, prior_s: float, atoms: int | None = None) -> float:
        """Return the expected seconds of a calculation from those of the prior."""
        return self.of(kind).seconds(prior_s, atoms)

    def total_s(self, ground_s: float, sites_s: float) -> float:
        """Return the expected seconds of ground states and sites together from the sums of the prior."""
        return ground_s * self.of(Kind.GROUND).factor + sites_s * self.site.factor

    def __str__(self) -> str:
        if not self.of(Kind.GROUND).samples and not self.site.samples:
            return "by the engine's prior; too few finished with these parameters to measure"
        return (
            f"sites {self.site}" if self.ground is None else f"ground states {self.ground}; sites {self.site}"
        )


@dataclass(frozen=True, slots=True)
class CostModel:
    """The engine's prior for one set of parameters."""

    engine: Engine
    parameters: ResolvedParameters

    def ground_s(self, structure: Structure) -> float:
        """Return the expected seconds of the ground state; 0 where the engine has none."""
        parameters = self.parameters.ground
        return 0.0 if parameters is None else self.engine.estimate_s(structure, Kind.GROUND, parameters)

    def site_s(self, structure: Structure) -> float:
        """Return the expected seconds of one site, its ground state not included."""
        return self.engine.estimate_s(structure, Kind.SITE, self.parameters.site)
