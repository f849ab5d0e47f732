"""What the services that watch do besides: tell the user, and keep the run folders of their host small."""

from __future__ import annotations

from pathlib import Path

from htxas.cluster.load import Config, load_config
from htxas.errors import NotFound
from htxas.launch.disk.keeper import Keeper
from htxas.launch.disk.usage import DiskQuota
from htxas.launch.watching.notify import Notifier
from htxas.settings import home
from htxas.store.store import Store

__all__ = ["Upkeep", "local_quota"]

_TIDY_S = 2.0


def local_quota(config: Config | None) -> DiskQuota:
    """Return the limits of the cluster whose home of htxas is the one of this process; none if there is no such."""
    for profile in config.clusters.values() if config is not None else ():
        if profile.host is None and Path(profile.home).expanduser() == home():
            return DiskQuota(profile.disk.most_bytes, profile.disk.most_files)
    return DiskQuota()


class Upkeep:
    """Notifications and packing, for ``htxas reconcile --watch`` and ``htxas queue submit --watch``.

    Parameters
    ----------
    store
        The store.

    Raises
    ------
    CampaignFileError
        If ``htxas.yaml`` is wrong.
    """

    def __init__(self, store: Store) -> None:
        try:
            config = load_config()
        except NotFound:
            config = None
        quota = local_quota(config)
        self._notifier = Notifier(store, config, quota)
        self._keeper = Keeper(store, quota)

    def tick(self) -> None:
        """Do what is due; never raises for the user's command, the disk or the database."""
        self._notifier.tick()
        self._keeper.tick(_TIDY_S)
