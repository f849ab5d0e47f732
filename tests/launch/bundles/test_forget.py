from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.domain.calculation import State
from htxas.errors import NotFound, UserError
from htxas.launch.bundles import site as bundle_site
from htxas.launch.bundles.forget import forget, forget_unfinished
from htxas.launch.bundles.make import Wish, make_bundle
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


@pytest.fixture
def folder(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return the bundle of the pilot p1, of cluster c."""
    submitted(sizes=(1, 2))
    store.put_pilots([pilot(PilotState.QUEUED)])
    made = tmp_path / "scratch" / "bundles" / "p1"
    assert make_bundle(store, launchpad, made, Wish(1.0, 1, cluster="c", pilot="p1")) is not None
    monkeypatch.setattr(bundle_site, "refresh", lambda *_: None)
    return made


def pilot(state: PilotState) -> PilotRecord:
    return PilotRecord(
        id="p1",
        cluster="c",
        job_id="7",
        array_task=None,
        state=state,
        campaign=None,
        partition="main",
        nodes=1,
        cores=1,
        walltime_s=3600.0,
        submitted=datetime.now(UTC),
        script_sha256="",
    )


def collect_all(store: Store, launchpad: LaunchPad, home: Path, host: str | None = None) -> list[Any]:
    profile: Any = SimpleNamespace(name="c", host=host, home=str(home))
    return bundle_site.collect_all(store, launchpad, profile, SimpleNamespace(host=None))  # type: ignore[arg-type]


def owner(store: Store) -> str:
    (worker,) = store.workers()
    return str(worker["owner"])


def test_a_bundle_out_of_sight_is_not_gone(
    store: Store,
    launchpad: LaunchPad,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    def refused(why: str, host: str | None = None) -> None:
        caplog.clear()
        assert collect_all(store, launchpad, folder.parent.parent, host) == []
        assert why in caplog.text
        assert f"htxas collect --forget {owner(store)}" in caplog.text
        assert store.counts()[State.RUNNING] == 5

    away = tmp_path / "unmounted"
    folder.parent.parent.rename(away)
    store.update_pilot("p1", state=PilotState.ENDED)
    refused("bundles is not there, or not mounted")
    away.rename(folder.parent.parent)
    with monkeypatch.context() as patch:  # a second workstation, whose home has no copy of it
        patch.setattr(platform, "node", lambda: "elsewhere")
        shutil.move(folder, tmp_path / "kept")
        refused("it was made on", host="login")
        shutil.move(tmp_path / "kept", folder)
    (folder / "bundle.json").unlink()
    store.update_pilot("p1", state=PilotState.RUNNING)
    refused("its pilot p1 is running")
    store.update_pilot("p1", state=PilotState.ENDED)
    assert collect_all(store, launchpad, folder.parent.parent) == []
    assert store.counts()[State.READY] == 5
    assert store.workers() == []


def test_a_bundle_is_forgotten_by_name(
    store: Store, launchpad: LaunchPad, folder: Path, tally: Callable[[], dict[str, int]]
) -> None:
    with pytest.raises(NotFound, match="no open bundle is called so"):
        forget(store, launchpad, "nobody")
    with pytest.raises(UserError, match=f"htxas collect {folder} --close"):
        forget(store, launchpad, owner(store))
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="its pilot p1 is queued"):
        forget(store, launchpad, owner(store))
    store.update_pilot("p1", state=PilotState.ENDED)
    assert forget(store, launchpad, owner(store)) == 5
    assert store.counts()[State.READY] == 5
    assert "RUNNING" not in tally()
    assert store.workers() == []


def test_a_folder_that_was_carried_away_is_not_gone(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tmp_path: Path
) -> None:
    submitted(sizes=(1,))
    folder = tmp_path / "b"
    assert make_bundle(store, launchpad, folder, Wish(1.0, 1)) is not None
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="carried elsewhere"):
        forget_unfinished(store, launchpad, folder)
    folder.mkdir()  # its making was killed
    assert forget_unfinished(store, launchpad, folder)
    assert not forget_unfinished(store, launchpad, folder)
