"""Sites whose result is not what their surroundings say: for a look, not a verdict.

A site is flagged only if it lies outside twice: far from what a model of other molecules says
(:mod:`htxas.learn.choose.expected`), and far from the sites with the most similar surroundings in other molecules. Each
view (the energies, the energies beside those of the same molecule, the shape of the spectrum) has its own threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from htxas.errors import DatasetError
from htxas.learn.choose.expected import Expected, expect
from htxas.learn.choose.sites import SiteTable

__all__ = ["FALSE_FLAGS", "Judgement", "View", "judge", "threshold"]

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

FALSE_FLAGS = 2.0
"""Over all views, so many sites of the bulk are expected above their thresholds, however many sites there are."""

_MIN_SITES = 100
_MIN_MOLECULES = 20
_NORMAL = 1.4826  # median absolute deviation -> standard deviation of a Gaussian
_BULK = 0.95
_FLOOR = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One property of all sites, found and expected.

    Attributes
    ----------
    name
        ``onset``, ``ionization``, these ``beside its molecule``, and ``shape``.
    by_model, by_neighbours
        Robust z-scores, shape (n,): how far the site is from what model and neighbours say, in units of how far such
        sites usually are.
    threshold
        Sites with both above it are flagged.
    found, model_value, neighbour_value, usual
        For people, shape (n,). Energies: found, what model and neighbours say, how far off sites with such a
        spread usually are; eV. Shape: nan, distance from the two, how far off it usually is; in units of the spread of
        all spectra.
    """

    name: str
    by_model: FloatArray
    by_neighbours: FloatArray
    threshold: float
    found: FloatArray
    model_value: FloatArray
    neighbour_value: FloatArray
    usual: FloatArray

    @property
    def score(self) -> FloatArray:
        """The smaller of the two z-scores, shape (n,)."""
        return np.minimum(self.by_model, self.by_neighbours)


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What was found.

    Attributes
    ----------
    views
        Each way to look at the sites.
    nearest
        Row of the site with the most similar surroundings in another molecule, shape (n,).
    """

    views: tuple[View, ...]
    nearest: Rows

    @property
    def excess(self) -> FloatArray:
        """The largest score in units of its threshold, shape (n,): above 1 is flagged."""
        return np.asarray(np.max([v.score / v.threshold for v in self.views], axis=0))

    @property
    def flagged(self) -> list[int]:
        """Flagged rows, the worst first."""
        excess = self.excess
        return [int(i) for i in np.argsort(-excess, kind="stable") if excess[i] > 1.0]


def judge(table: SiteTable, *, seed: int = 0) -> Judgement:
    """Judge every site by those of other molecules.

    Raises
    ------
    DatasetError
        With too few sites or molecules: they do not tell what is usual.
    """
    groups = np.unique(np.array(table.groups), return_inverse=True)[1]
    molecules = int(groups.max()) + 1
    if len(table) < _MIN_SITES or molecules < _MIN_MOLECULES:
        raise DatasetError(
            f"{len(table)} sites of {molecules} molecules do not tell what is usual",
            hint=f"it takes {_MIN_SITES} sites of {_MIN_MOLECULES} molecules",
        )
    with threadpool_limits(limits=1):  # the order of every sum, and so every digit, is then fixed
        expected = expect(table, groups, seed=seed)
    share = FALSE_FLAGS / (2 * len(table.energies_eV) + 1)
    views = []
    for name, energies in table.energies_eV.items():
        views += _energy_views(name, energies, expected, groups, share)
    usual = _usual(expected.distance, expected.shape_spread)
    usual_beside = _usual(expected.neighbour_distance, expected.neighbour_shape_spread)
    by_model = expected.distance / usual
    by_neighbours = expected.neighbour_distance / usual_beside
    views.append(
        View(
            "shape",
            by_model,
            by_neighbours,
            threshold(np.minimum(by_model, by_neighbours), share),
            np.full(len(table), np.nan),
            expected.distance,
            expected.neighbour_distance,
            usual,
        )
    )
    return Judgement(tuple(views), expected.neighbours[:, 0])


def _energy_views(name: str, found: FloatArray, expected: Expected, groups: Rows, share: float) -> list[View]:
    by_model_eV, spread = expected.energies_eV[name], expected.spread_eV[name]
    by_neighbour, width = expected.neighbour_eV[name], expected.neighbour_spread_eV[name]
    off, off_neighbours = found - by_model_eV, found - by_neighbour
    alone = (off, off_neighbours)
    beside = (_beside(off, groups), _beside(off_neighbours, groups))
    views = []
    for label, (by_model, by_neighbours) in (("", alone), (" beside its molecule", beside)):
        usual, usual_neighbours = _usual(by_model, spread), _usual(by_neighbours, width)
        z, z_neighbours = np.abs(by_model) / usual, np.abs(by_neighbours) / usual_neighbours
        limit = threshold(np.minimum(z, z_neighbours), share)
        views.append(View(name + label, z, z_neighbours, limit, found, by_model_eV, by_neighbour, usual))
    return views


def _beside(off: FloatArray, groups: Rows) -> FloatArray:
    """Return how far each site is off once what it shares with the other sites of its molecule is taken out.

    What the model does not see of a molecule (how far its empty levels extend) shifts all its sites together. The
    others' median, times the slope with which it predicts the site's, is subtracted; of this and the plain value the
    one nearer to zero counts, zero if they differ in sign: a wrong site does not make its neighbours look wrong.
    """
    shared = np.zeros_like(off)
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        for k, i in enumerate(rows):
            if len(rows) > 1:
                shared[i] = np.median(np.delete(off[rows], k))
    bulk = (np.abs(off) <= np.quantile(np.abs(off), _BULK)) & (
        np.abs(shared) <= np.quantile(np.abs(shared), _BULK)
    )
    power = float((shared[bulk] ** 2).sum())
    slope = float((off[bulk] * shared[bulk]).sum()) / power if power else 0.0
    rest = off - slope * shared
    nearer = np.where(np.abs(rest) < np.abs(off), rest, off)
    return np.where(np.sign(rest) == np.sign(off), nearer, 0.0)


def _usual(off: FloatArray, spread: FloatArray) -> FloatArray:
    """Return how far off a site with such a spread usually is: ``sqrt(spread^2 + floor^2)``, scaled to the data.

    The floor is a quarter of the median spread (models or neighbours may agree by chance); the scale makes the median
    of ``|off| / usual`` that of a Gaussian with standard deviation 1.
    """
    width = np.sqrt(spread**2 + (_FLOOR * float(np.median(spread)) or 1e-12) ** 2)
    return np.asarray(width * (_NORMAL * float(np.median(np.abs(off) / width)) or 1e-12))


def threshold(score: FloatArray, false_flags: float = FALSE_FLAGS) -> float:
    """Return the score that ``false_flags`` sites of the bulk would pass.

    The tail of the bulk is taken to fall exponentially, as it does between its 90% and 99% quantiles: a few wrong
    sites among hundreds do not move these much. More than one wrong in a hundred raise the threshold.
    """
    high, higher = np.quantile(score, [0.90, 0.99])
    return float(high + (higher - high) * np.log10(max(0.1 * len(score) / false_flags, 1.0)))
