"""The work that waits, as long as agents in the pilots of a cluster will think it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from htxas.cluster.profile import Profile
from htxas.launch.agent.policy import SAFETY
from htxas.launch.estimates import Estimator, lengths
from htxas.launch.pilots.settings import engines_of
from htxas.store.demand import ReadyWork
from htxas.store.store import Store

__all__ = ["ready_for"]


def ready_for(
    store: Store, profile: Profile, campaigns: Iterable[str], limits_s: Sequence[float]
) -> list[ReadyWork]:
    """Return the READY calculations of ``campaigns``, in classes cut at ``limits_s``, the useful times of partitions.

    A calculation belongs to the class in which an agent there would start it: with the same estimate and safety.
    """
    names = list(campaigns)
    busy = sorted({work.campaign for work in store.ready_work(names)})
    engines = engines_of(profile, profile.partition())
    learned = lengths(store, busy, Estimator(store, engines=engines), engines)
    return store.ready_work(names, limits_s, lengths=learned, safety=SAFETY) if busy else []
