"""The work that waits, as long as agents in the pilots of a cluster will think it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from htxas.cluster.profile import Profile
from htxas.launch.agent.policy import SAFETY
from htxas.launch.estimates import Estimator, lengths
from htxas.launch.pilots.settings import engines_of
from htxas.launch.work.engine_run import Engines
from htxas.store.demand import ReadyWork
from htxas.store.store import Store

__all__ = ["ready_for"]

# Of each cluster, the last one that had learned something of all it was asked about.
_kept: dict[str, tuple[Store, Engines, Estimator]] = {}


def ready_for(
    store: Store, profile: Profile, campaigns: Iterable[str], limits_s: Sequence[float]
) -> list[ReadyWork]:
    """Return the READY calculations of ``campaigns``, in classes cut at ``limits_s``, the useful times of partitions.

    A calculation belongs to the class in which an agent there would start it: with the same estimate and safety.
    """
    names = list(campaigns)
    busy = sorted({work.campaign for work in store.ready_work(names)})
    engines = engines_of(profile, profile.partition())
    estimator = _estimator(store, profile.name, engines)
    learned = lengths(store, busy, estimator, engines)
    # Where nothing is known yet it is asked each time: the first that finish shall not wait to be heard.
    if learned and all(one.fit["samples"] for one in learned):
        _kept[profile.name] = store, engines, estimator
    return store.ready_work(names, limits_s, lengths=learned, safety=SAFETY) if busy else []


def _estimator(store: Store, cluster: str, engines: Engines) -> Estimator:
    """Return the one kept, if nothing has changed: who asks every minute need not learn anew each time."""
    kept = _kept.get(cluster)
    if kept is not None and kept[0] is store and kept[1] == engines:
        return kept[2]
    return Estimator(store, engines=engines)
