"""Notifications: when, once, without secrets, and whatever the user's command does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from htxas.cluster.load import load_config
from htxas.domain.calculation import Kind, State
from htxas.errors import CampaignFileError, Cause
from htxas.launch.disk.usage import DiskQuota, Room
from htxas.launch.watching import notify
from htxas.launch.watching.notify import (
    Condition,
    EventKind,
    Notifier,
    NotifyModel,
    campaign_conditions,
    send,
)
from htxas.store.outcomes import failed
from htxas.store.records import Control, ControlState
from htxas.store.store import Store
from htxas.store.watching import Ending

_TELL = """\
import json, os, sys
event = json.load(sys.stdin)
event["env"] = sorted(k for k in os.environ if k.startswith("HTXAS"))
event["named"] = os.environ["HTXAS_EVENT"]
with open({log!r}, "a") as log:
    log.write(json.dumps(event) + "\\n")
{then}
"""


def teller(tmp_path: Path, then: str = "") -> tuple[list[str], Callable[[], list[dict[str, Any]]]]:
    """Return a command and what it was told."""
    log = tmp_path / "told.jsonl"
    script = tmp_path / "tell.py"
    script.write_text(_TELL.format(log=str(log), then=then))

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    return [sys.executable, str(script)], told


def model(command: Sequence[str] = ("true",), **fields: Any) -> NotifyModel:
    return NotifyModel.model_validate({"command": list(command), **fields})


def ending(count: int, cause: Cause | None = None, state: State = State.FAILED) -> Ending:
    return Ending("c", State.DONE if cause is None else state, cause, Kind.SITE, count, 0, 0.0, 0.0, 60.0)


def progress(ready: int = 0, done: int = 0, failed: int = 0, wall_s: float = 0.0) -> dict[str, Any]:
    counts = {"ready": ready, "running": 0, "done": done, "failed": failed, "quarantined": 0}
    return {
        "campaign": "c", "total": sum(counts.values()), "counts": counts, "causes": {}, "done_wall_s": wall_s * done
    }  # fmt: skip


def conditions(
    progress: dict[str, Any],
    endings: Sequence[Ending] = (),
    control: Control | None = None,
    *,
    submitted: bool = True,
    unchanged_s: float = 0.0,
    **fields: Any,
) -> dict[str, bool | None]:
    found = campaign_conditions(
        model(**fields),
        progress,
        endings,
        control or Control(),
        submitted=submitted,
        unchanged_s=unchanged_s,
        agents=0,
    )
    return {c.name: c.holds for c in found}


@pytest.mark.parametrize(
    ("bad", "good", "holds"),
    [
        (20, 80, True),  # a fifth
        (15, 85, None),  # less, but not yet over
        (5, 95, False),
        (3, 10, False if 3 / 13 < 0.1 else None),  # a large share of too few
        (4, 16, True),
    ],
)
def test_a_cause_jumps_at_its_share_of_enough_endings(bad: int, good: int, holds: bool | None) -> None:
    found = conditions(progress(ready=9), [ending(good), ending(bad, Cause.WALLTIME)])
    assert found["failure_jump:c:walltime"] is holds


def test_failed_and_quarantined_of_one_cause_are_added() -> None:
    two = [ending(10, Cause.GATE_REJECTED), ending(10, Cause.GATE_REJECTED, State.QUARANTINED), ending(80)]
    assert conditions(progress(ready=9), two)["failure_jump:c:gate_rejected"]


def test_a_campaign_ends_when_it_is_submitted_and_nothing_is_left() -> None:
    assert conditions(progress(done=5, failed=1))["campaign_end:c"]
    assert not conditions(progress(done=5), submitted=False)["campaign_end:c"]
    assert not conditions(progress(done=5, ready=1))["campaign_end:c"]
    assert not conditions(progress())["campaign_end:c"]  # empty


def test_no_progress_knows_long_calculations_and_pauses() -> None:
    stuck = {"unchanged_s": 3600.0}
    assert conditions(progress(ready=1), **stuck)["no_progress:c"]
    assert not conditions(progress(ready=1), unchanged_s=600.0)["no_progress:c"]
    assert not conditions(progress(ready=1, done=5, wall_s=1000.0), **stuck)["no_progress:c"]
    assert not conditions(progress(ready=1), (), Control(ControlState.PAUSED), **stuck)["no_progress:c"]
    assert not conditions(progress(done=1), **stuck)["no_progress:c"]


def condition(**fields: Any) -> Condition:
    return Condition(
        "campaign_end:c", EventKind.CAMPAIGN_END, True, "c has ended", {"campaign": "c"}, **fields
    )


def test_the_command_gets_json_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_DB_URI", "mongodb://user:secret@host/")
    monkeypatch.setenv("HTXAS_DB_URI_FILE", "/secret")
    command, told = teller(tmp_path)
    assert send(model(command), condition())
    (event,) = told()
    assert (event["event"], event["named"]) == ("campaign_end", "campaign_end")
    assert (event["campaign"], event["message"]) == ("c", "c has ended")
    assert [k for k in event["env"] if k.startswith("HTXAS_DB")] == []


def test_a_command_that_fails_hangs_or_is_absent_is_no_disaster(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command, _ = teller(tmp_path, "sys.exit('no network')")
    assert not send(model(command), condition())
    assert "saying: no network" in caplog.text
    # its child holds our output open and outlives it
    command, _ = teller(
        tmp_path, "import subprocess, time; subprocess.Popen(['sleep', '30']); time.sleep(30)"
    )
    start = time.monotonic()
    assert not send(model(command, timeout_s=1.0), condition())
    assert time.monotonic() - start < 10
    assert not send(model(["/nowhere/at-all"]), condition())
    assert "cannot be run" in caplog.text
    assert not send(model(["false"]), condition())


def fail(store: Store, n: int) -> None:
    keys = [r.key for r in store.find(state=State.READY, limit=n)]
    leases = store.lease_many(keys, "tester")
    store.deliver([failed(x.lease, Cause.WALLTIME, "no", {}) for x in leases])


@pytest.mark.mongo
def test_each_event_is_told_once_and_again_after_it_was_over(
    store: Store, submitted: Callable[..., Any], tmp_path: Path
) -> None:
    submitted(sizes=(1, 2, 3))
    command, told = teller(tmp_path)
    rules = model(command, least=3)
    first, second = Notifier(store, rules), Notifier(store, rules)
    assert first.tick(every_s=0) == []
    fail(store, 4)
    assert first.tick(every_s=0) == ["failure_jump:chains:walltime"]
    assert second.tick(every_s=0) == []
    fail(store, 100)
    assert second.tick(every_s=0) == ["campaign_end:chains"]
    assert first.tick(every_s=0) == []
    store.retry(None)
    assert first.tick(every_s=0) == []
    fail(store, 100)
    assert first.tick(every_s=0) == ["campaign_end:chains", "failure_jump:chains:walltime"]
    events = [e["event"] for e in told()]
    assert events.count("campaign_end") == 2


@pytest.mark.mongo
def test_only_what_was_asked_for(store: Store, submitted: Callable[..., Any], tmp_path: Path) -> None:
    submitted(sizes=(1, 2))
    fail(store, 100)
    command, told = teller(tmp_path)
    Notifier(store, model(command, least=1, on=["disk_nearly_full"])).tick(every_s=0)
    assert told() == []
    assert Notifier(store, None).tick(every_s=0) == []


@pytest.mark.mongo
def test_a_campaign_that_ended_long_ago_is_not_news(
    store: Store, submitted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1, 2))
    fail(store, 100)
    command, _ = teller(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "endings", lambda *_, **__: [])  # the window has passed
        assert Notifier(store, model(command)).tick(every_s=0) == []
    store.retry(None)
    Notifier(store, model(command)).tick(every_s=0)  # sees it at work
    fail(store, 100)
    monkeypatch.setattr(Store, "endings", lambda *_, **__: [])
    assert Notifier(store, model(command)).tick(every_s=0) == ["campaign_end:chains"]


@pytest.mark.mongo
def test_no_progress_is_told_after_the_window(
    store: Store, submitted: Callable[..., Any], tmp_path: Path
) -> None:
    submitted(sizes=(1, 2))
    command, told = teller(tmp_path)
    notifier = Notifier(store, model(command, window_min=0.02))
    assert notifier.tick(every_s=0) == []
    time.sleep(1.4)
    assert notifier.tick(every_s=0) == ["no_progress:chains"]
    assert notifier.tick(every_s=0) == []
    store.set_control("chains", state=ControlState.PAUSED)
    notifier.tick(every_s=0)
    assert [e["event"] for e in told()] == ["no_progress"]


@pytest.mark.mongo
def test_a_failing_command_is_tried_three_times(
    store: Store, submitted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1, 2))
    fail(store, 100)
    command, told = teller(tmp_path, "sys.exit(1)")
    monkeypatch.setattr(notify, "_CLAIM_S", -100.0)  # claims end at once
    notifier = Notifier(store, model(command, on=["campaign_end"]))
    for _ in range(5):
        assert notifier.tick(every_s=0) == []
    assert len(told()) == 3


@pytest.mark.mongo
def test_who_is_killed_after_telling_tells_twice_rather_than_never(
    store: Store, submitted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(1, 2))
    fail(store, 100)
    command, told = teller(tmp_path)
    rules = model(command, on=["campaign_end"])

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    def killed_tick() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "notice_told", die)
            with pytest.raises(KeyboardInterrupt):
                Notifier(store, rules).tick(every_s=0)

    with monkeypatch.context() as patch:
        patch.setattr(notify, "_CLAIM_S", -100.0)  # this one's claim is over
        killed_tick()
    killed_tick()
    assert Notifier(store, rules).tick(every_s=0) == []  # this one's holds
    assert len(told()) == 2


@pytest.mark.mongo
def test_the_disk_is_told_of_and_again_only_after_it_had_room(
    store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, told = teller(tmp_path)
    notifier = Notifier(store, model(command))
    for share, news in ((0.5, 0), (0.92, 1), (0.88, 0), (0.93, 0), (0.5, 0), (0.95, 1)):
        monkeypatch.setattr(DiskQuota, "room", lambda _, share=share: Room(True, "95 of 100 GB", share))
        assert len(notifier.tick(every_s=0)) == news, share
    assert "95 of 100 GB" in told()[0]["message"]


@pytest.mark.mongo
def test_ticks_are_rare_and_outlast_the_database(
    store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = Notifier(store, model())
    calls = 0

    def count(_: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        raise OSError("away")

    monkeypatch.setattr(Store, "notices", count)
    for _ in range(3):
        assert notifier.tick() == []
    assert calls == 1


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "htxas.yaml"
    path.write_text(text)
    return path


@pytest.mark.mongo
def test_the_section_of_the_file_is_checked_with_its_line(store: Store, tmp_path: Path) -> None:
    good = config(tmp_path, "notify:\n  command: [mail, me]\n  failure_rate: 0.5\n")
    notifier = Notifier(store, load_config(good))
    assert notifier._model == NotifyModel(command=["mail", "me"], failure_rate=0.5)
    assert Notifier(store, load_config(config(tmp_path, "clusters: {}\n"))).tick() == []
    for text, where in (
        ("notify:\n  command: mail me\n", ":2"),
        ("notify:\n  command: [mail]\n  failure_rat: 1\n", ":3"),
        ("notify:\n  command: [mail]\n  on: [end]\n", ":3"),
        ("notify:\n  failure_rate: 0.1\n", ""),
    ):
        with pytest.raises(CampaignFileError) as error:
            Notifier(store, load_config(config(tmp_path, text)))
        assert where in str(error.value), str(error.value)
