"""Expected seconds, learned from what finished: for submissions, for agents, and for whoever asks how good they are."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from htxas.campaign.comparison import FITS, Comparison
from htxas.campaign.cost import Calibration, Fit, Timing, fit
from htxas.campaign.file import CampaignFile
from htxas.domain.calculation import Calculation, Kind
from htxas.domain.identity import content_key
from htxas.domain.structure import Structure
from htxas.engines.registry import get_engine
from htxas.errors import DatabaseUnavailable
from htxas.launch.work.engine_run import Engines
from htxas.store.demand import Length
from htxas.store.store import Store

__all__ = ["Estimate", "Estimator", "compare", "lengths", "machine_class", "measured", "safety_of"]

_MOST = 400
_REFRESH_S = 300.0


def machine_class(host: str | None, cluster: str | None = None, threads: int | None = None) -> str:
    """Return the kind of machine a calculation ran on, whose times compare.

    The cluster, where it is known; else the host's name without domain and number, so that nodes of a cluster are one.
    With more than one thread, their number as well.
    """
    name = cluster or re.sub(r"[-_.]?\d+$", "", (host or "").split(".")[0])
    return f"{name}, {threads} threads" if threads is not None and threads > 1 else name


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected seconds of one calculation.

    Attributes
    ----------
    seconds
        Expected; half of such calculations take longer.
    safety
        Within this times ``seconds``, 95 of 100 end; what an attempt has shown is not multiplied.
    samples
        Finished calculations behind it; 0: the engine's prior.
    """

    seconds: float
    safety: float
    samples: int


@dataclass(frozen=True, slots=True)
class _Finished:
    """Timings with the class of the machine each was taken on, newest first."""

    timings: tuple[Timing, ...]
    machines: tuple[str, ...]

    def of(self, machine: str | None) -> Sequence[Timing]:
        """Return those of a class; of all if nobody asks or there are too few for a fit."""
        own = [t for t, m in zip(self.timings, self.machines, strict=True) if m == machine]
        return own if fit(own).samples else self.timings


def _finished(store: Store, engine: str, kind: Kind, parameters: Mapping[str, Any]) -> _Finished:
    rows = store.timings(engine=engine, kind=kind, parameters_key=content_key(parameters), limit=_MOST)
    structures = store.structures({row.structure_key for row in rows})
    code = get_engine(engine)
    prior = {k: code.estimate_s(r.structure, kind, parameters) for k, r in structures.items()}
    known = [row for row in rows if row.structure_key in structures]
    return _Finished(
        tuple(
            Timing(prior[r.structure_key], len(structures[r.structure_key].structure), r.wall_s)
            for r in known
        ),
        tuple(machine_class(row.host, row.cluster, row.threads) for row in known),
    )


def measured(store: Store, campaign: CampaignFile) -> Calibration:
    """Return how the last finished calculations with these parameters compare with the engine's prior of today."""

    def of(kind: Kind, parameters: Mapping[str, Any]) -> Fit:
        return fit(_finished(store, campaign.engine, kind, parameters).timings)

    ground = campaign.parameters.ground
    return Calibration(
        ground=None if ground is None else of(Kind.GROUND, ground),
        site=of(Kind.SITE, campaign.parameters.site),
    )


class Estimator:
    """Estimates for one machine, fitted anew every few minutes.

    While the database is away, what was learned before is used on.

    Parameters
    ----------
    store
        Where finished calculations are; None: the engines' priors.
    host, engines
        The machine asked about, and how engines are started on it; times of its class decide where there are enough,
        else those of all. No class is asked for without a host or a cluster.
    refresh_s
        Age at which a fit is made anew.
    clock
        Seconds that never run backwards.
    """

    def __init__(
        self,
        store: Store | None,
        *,
        host: str | None = None,
        engines: Engines | None = None,
        refresh_s: float = _REFRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._host = host
        self._engines = engines or Engines()
        self._refresh_s = refresh_s
        self._clock = clock
        self._fits: dict[tuple[str, Kind, str], tuple[float, Fit]] = {}

    def estimate(
        self, calculation: Calculation, structure: Structure, *, at_least_s: float = 0.0
    ) -> Estimate:
        """Return what to expect of a calculation.

        Parameters
        ----------
        calculation, structure
            Which.
        at_least_s
            What an attempt cut short has shown already: as much must be left, with no safety on top, for a whole
            allocation may have no more.
        """
        found = self.fit(calculation.engine, calculation.kind, calculation.parameters)
        prior_s = get_engine(calculation.engine).estimate_s(
            structure, calculation.kind, calculation.parameters
        )
        expected_s = found.seconds(prior_s, len(structure))
        safety = safety_of(found)
        if at_least_s > expected_s:
            return Estimate(at_least_s, max(1.0, expected_s * safety / at_least_s), found.samples)
        return Estimate(expected_s, safety, found.samples)

    def fit(self, engine: str, kind: Kind, parameters: Mapping[str, Any]) -> Fit:
        """Return how the prior compares with what such calculations took on this machine."""
        key = (engine, kind, content_key(parameters))
        made, found = self._fits.get(key, (-math.inf, Fit()))
        if self._store is not None and self._clock() - made > self._refresh_s:
            with contextlib.suppress(
                DatabaseUnavailable
            ):  # the old one is better than none; the next refresh comes
                found = fit(_finished(self._store, engine, kind, parameters).of(self._machine(engine)))
            self._fits[key] = (self._clock(), found)
        return found

    def _machine(self, engine: str) -> str | None:
        cluster = self._engines.cluster
        if self._host is None and cluster is None:
            return None
        return machine_class(self._host, cluster, self._engines.of(engine).threads)


def _parameters(document: Mapping[str, Any]) -> Iterator[tuple[Kind, Mapping[str, Any]]]:
    """Yield the kinds of calculations that a campaign has, with their parameters."""
    for kind in Kind:
        parameters = document["parameters"][kind.value]
        if parameters is not None:
            yield kind, parameters


def lengths(store: Store, campaigns: Iterable[str], estimator: Estimator, engines: Engines) -> list[Length]:
    """Return what has been learned of the calculations of campaigns, for the database to reckon with.

    Agents and whoever plans for them ask here: what one calls too long must be so for the other.
    """
    found: dict[tuple[str, Kind, str], Length] = {}
    for name in campaigns:
        document = store.campaign(name)
        engine = document["engine"]
        for kind, parameters in _parameters(document):
            key = content_key(parameters)
            if (engine, kind, key) not in found:
                known = estimator.fit(engine, kind, parameters)
                slots = engines.of(engine).slots
                found[engine, kind, key] = Length(engine, kind, key, known.to_dict(), safety_of(known), slots)
    return list(found.values())


def safety_of(found: Fit) -> float:
    """Return the factor on expected seconds that must be left: agents and whoever plans for them ask here."""
    return max(1.0, found.safety(FITS))


def compare(store: Store, campaign: str | None = None) -> list[Comparison]:
    """Return how good the estimates are, for the calculations of a campaign or of all.

    Raises
    ------
    NotFound
        If there is no such campaign.
    """
    documents = [store.campaign(campaign)] if campaign is not None else [*store.campaigns()]
    groups: dict[tuple[str, Kind, str], tuple[Mapping[str, Any], list[str]]] = {}
    for document in documents:
        for kind, parameters in _parameters(document):
            group = (document["engine"], kind, content_key(parameters))
            groups.setdefault(group, (parameters, []))[1].append(document["name"])
    found: list[Comparison] = []
    for (engine, kind, key), (parameters, names) in groups.items():
        finished = _finished(store, engine, kind, parameters)
        for machine in sorted(set(finished.machines)):
            timings = [t for t, m in zip(finished.timings, finished.machines, strict=True) if m == machine]
            found.append(
                Comparison.of(
                    timings,
                    engine=engine,
                    kind=kind,
                    parameters_key=key,
                    machine=machine,
                    campaigns=names,
                )
            )
    return sorted(found, key=lambda c: (c.engine, c.kind.value, c.machine, c.parameters_key))
