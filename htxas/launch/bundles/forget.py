"""Bundles given up whose folder nobody will see again: its making was killed, or scratch was cleaned.

Not to see a folder says little: it may be on another machine, or not mounted just now. What it leased may be being
computed, and would be computed twice.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fireworks import LaunchPad

from htxas.errors import NotFound, UserError
from htxas.launch.bundles.folder import BUNDLE_FILE
from htxas.launch.recovery.recover import free_fireworks
from htxas.store.records import PilotState
from htxas.store.store import Store

__all__ = ["forget", "forget_unfinished", "why_not_gone"]


def forget_unfinished(store: Store, launchpad: LaunchPad, folder: Path) -> bool:
    """Give back what was leased into a folder without a bundle; return whether there was anything.

    Raises
    ------
    UserError
        If the bundle may be there, seen from elsewhere.
    """
    found = [w for w in store.workers() if w["info"].get("bundle") == str(folder.absolute())]
    for worker in found:
        if why := why_not_gone(store, worker):
            raise UserError(f"its bundle is not seen here: {why}", where=str(folder), hint=_hint(worker))
        _give_back(store, launchpad, worker["owner"])
    return bool(found)


def forget(store: Store, launchpad: LaunchPad, owner: str) -> int:
    """Give back what a bundle leased, wherever its folder is or was; return how many calculations.

    Results that come all the same are taken if nobody has begun the calculation again, and refused otherwise.

    Raises
    ------
    NotFound
        If no open bundle is called so.
    UserError
        If it can be collected, or its pilot has not ended.
    """
    worker = next((w for w in store.workers() if w["owner"] == owner and w["info"].get("bundle")), None)
    if worker is None:
        raise NotFound(
            "no open bundle is called so", where=owner, hint="htxas reconcile names those in doubt"
        )
    info = worker["info"]
    if info.get("made_on") in (None, platform.node()) and (Path(info["bundle"]) / BUNDLE_FILE).exists():
        raise UserError(
            "this bundle is not gone", where=info["bundle"], hint=f"htxas collect {info['bundle']} --close"
        )
    if why := _pilot_lives(store, info):
        raise UserError(why, where=owner, hint="htxas queue cancel ends it")
    return _give_back(store, launchpad, owner)


def why_not_gone(store: Store, worker: Mapping[str, Any]) -> str:
    """Return why a bundle that is not seen may be there all the same; empty if it is gone for good."""
    info = worker["info"]
    made_on = info.get("made_on")
    if made_on is None:
        return "it is not known on which machine it was made"
    if made_on != platform.node():
        return f"it was made on {made_on}"
    if not Path(info["bundle"]).parent.is_dir():
        return f"{Path(info['bundle']).parent} is not there, or not mounted"
    if not info.get("for_pilot") and not Path(info["bundle"]).is_dir():
        return "it may have been carried elsewhere"
    return _pilot_lives(store, info)


def _hint(worker: Mapping[str, Any]) -> str:
    return f"collect it there; if it is gone for good: htxas collect --forget {worker['owner']}"


def _pilot_lives(store: Store, info: Mapping[str, Any]) -> str:
    if not info.get("for_pilot"):
        return ""
    try:
        pilot = store.pilot(str(info["for_pilot"]))
    except NotFound:
        return ""
    return "" if pilot.state is PilotState.ENDED else f"its pilot {pilot.id} is {pilot.state.value}"


def _give_back(store: Store, launchpad: LaunchPad, owner: str) -> int:
    leases = store.held(owner)
    store.release(leases)
    free_fireworks(launchpad, {owner})
    store.forget_worker(owner)
    return len(leases)
