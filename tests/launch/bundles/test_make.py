from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.cluster.host import Completed, LocalHost
from htxas.domain.calculation import Kind, State
from htxas.errors import Busy, Cause, NotFound, UserError
from htxas.launch.agent.agent import AgentConfig
from htxas.launch.agent.liveness import new_owner
from htxas.launch.agent.offline import OfflineClerk
from htxas.launch.bundles import collect as bundle_collect
from htxas.launch.bundles import run as bundle_run
from htxas.launch.bundles.collect import Fate, collect
from htxas.launch.bundles.folder import (
    Run,
    alone,
    is_closed,
    progress,
    read_bundle,
    read_tasks,
    runs,
    write_run,
)
from htxas.launch.bundles.forget import forget_unfinished
from htxas.launch.bundles.make import Wish, make_bundle
from htxas.launch.bundles.run import open_tasks, run_bundle
from htxas.launch.bundles.site import fetch
from htxas.launch.recovery.recover import recover
from htxas.launch.run import run_workers
from htxas.launch.work.journal import JournalWriter, read_journal
from htxas.launch.work.stop import Stop
from htxas.store.outcomes import Outcome, failed
from htxas.store.records import Lease
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Tally = Callable[[], dict[str, int]]
WISH = Wish(hours=1.0, workers=2)


def compute(folder: Path, workers: int = 2, stop: Stop | None = None, **config: Any) -> dict[str, int]:
    settings = AgentConfig(new_owner(), folder, workers=workers, **config)
    return run_bundle(folder, settings, stop or Stop()).ended


@contextmanager
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be on a node where nothing is known of a database."""
    with monkeypatch.context() as patch:
        patch.delenv("HTXAS_DB_URI")
        patch.setenv("HTXAS_HOME", "/nonexistent")
        yield


def test_there_and_back(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    tally: Tally,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(1, 2, 3, 4))
    folder = tmp_path / "bundle"
    made = make_bundle(store, launchpad, folder, WISH)
    assert made is not None
    assert made.tasks == 14
    assert store.counts()[State.RUNNING] == 14
    assert set(tally()) == {"RUNNING"}
    secret = os.environ["HTXAS_DB_URI"]
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert secret not in path.read_text()
        assert str(tmp_path) not in path.read_text()
    with away(monkeypatch):
        assert compute(folder) == {"done": 14}
    done = collect(store, launchpad, folder)
    assert (done.stored, done.ended, done.left, done.released, done.closed) == (14, 14, 0, 0, True)
    assert store.counts()[State.DONE] == 14
    assert set(tally()) == {"COMPLETED"}
    assert store.workers() == []
    assert len(list(store.molecular_spectra("chains"))) == 4
    assert {r.attempts for r in store.find()} == {1}
    again = collect(store, launchpad, folder)
    assert (again.stored, again.closed) == (0, True)
    assert store.spent()["chains"] > 0
    assert sum(store.spent().values()) * 3600 == pytest.approx(runs(folder)[0].wall_s, rel=0.01)
    with pytest.raises(UserError, match="collected to its end"):
        compute(folder)


def test_curves_without_ground_states_go_there_and_back(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(1, 2, 3), spectrum="curve", ground=False)
    folder = tmp_path / "bundle"
    made = make_bundle(store, launchpad, folder, WISH)
    assert made is not None
    assert made.tasks == 6
    assert {t.ground_key for t in read_tasks(folder)} == {None}
    with away(monkeypatch):
        assert compute(folder) == {"done": 6}
    done = collect(store, launchpad, folder)
    assert (done.stored, done.left, done.closed) == (6, 0, True)
    assert len(list(store.molecular_spectra("chains"))) == 3


def test_only_as_much_as_the_hours(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally, tmp_path: Path
) -> None:
    submitted(sizes=(1, 2, 3, 4, 5, 6), seconds=100.0, batch={"target_s": 300.0, "at_least": 1})
    made = make_bundle(store, launchpad, tmp_path / "one", Wish(hours=0.2, workers=1))
    assert made is not None
    assert 720 <= made.estimate_s <= 1400  # whole batches
    assert store.counts()[State.READY] == 27 - made.tasks
    other = make_bundle(store, launchpad, tmp_path / "two", Wish(hours=0.2, workers=1))
    assert other is not None
    ours = {t.key for t in read_tasks(tmp_path / "one")} & {t.key for t in read_tasks(tmp_path / "two")}
    assert ours == set()


def test_what_does_not_fit_stays(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tally: Tally, tmp_path: Path
) -> None:
    submitted(sizes=(1, 2), seconds=5000.0)
    assert make_bundle(store, launchpad, tmp_path / "b", WISH) is None
    assert not (tmp_path / "b").exists()
    assert store.counts()[State.READY] == 5
    assert set(tally()) <= {"READY", "WAITING"}
    assert store.workers() == []


def test_refusals(store: Store, launchpad: LaunchPad, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="not empty"):
        make_bundle(store, launchpad, tmp_path / "full", WISH)
    with pytest.raises(NotFound):
        make_bundle(store, launchpad, tmp_path / "b", Wish(1.0, 1, campaign="nope"))
    with pytest.raises(UserError, match="no time"):
        make_bundle(store, launchpad, tmp_path / "b", Wish(0.01, 1, margin_s=100))
    with pytest.raises(NotFound):
        collect(store, launchpad, tmp_path / "full")


@pytest.fixture
def made(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Path:
    """Return a bundle of 14 calculations: of a fifth of a second where the test starts a process and watches it."""
    seconds = 0.2 if "start" in request.fixturenames else 0.0
    submitted(sizes=(1, 2, 3, 4), seconds=seconds)
    folder = tmp_path / "bundle"
    assert make_bundle(store, launchpad, folder, WISH) is not None
    return folder


def test_another_database_refuses_it(store: Store, launchpad: LaunchPad, made: Path) -> None:
    document = json.loads((made / "bundle.json").read_text())
    (made / "bundle.json").write_text(json.dumps({**document, "database": "other"}))
    with pytest.raises(UserError, match="belongs to the database 'other'"):
        collect(store, launchpad, made)
    (made / "bundle.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_bundle(made)


def test_one_at_a_time(made: Path) -> None:
    with alone(made), pytest.raises(Busy):
        compute(made)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Start `htxas bundle run` on a folder; its output is in `said`."""
    started = []

    def begin(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "htxas.cli.main", "bundle", "run", str(folder), "-j", "2"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_DB")}
        with (tmp_path / "said").open("wb") as said:
            started.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


Start = Callable[[Path], subprocess.Popen[bytes]]


def ended(folder: Path) -> int:
    return len(progress(folder, list(read_tasks(folder))).ended)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_killed_and_started_again_while_results_are_brought_in(
    store: Store, launchpad: LaunchPad, made: Path, tally: Tally, start: Start, tmp_path: Path
) -> None:
    process = start(made)
    wait_for(lambda: ended(made) >= 4)
    first = collect(store, launchpad, made)
    assert first.stored >= 4
    assert (first.running, first.closed) == (True, False)
    process.kill()
    process.wait()
    left = len(open_tasks(made))
    assert 0 < left <= 10
    process = start(made)
    assert process.wait(60) == 0
    assert "0 left" in (tmp_path / "said").read_text()
    last = collect(store, launchpad, made)
    assert last.closed
    assert first.stored + last.stored == 14
    assert store.counts()[State.DONE] == 14
    assert {r.attempts for r in store.find()} == {1}
    assert set(tally()) == {"COMPLETED"}
    assert len(runs(made)) == 2


def test_terminated_gives_back_without_charge(
    store: Store, launchpad: LaunchPad, made: Path, tally: Tally, start: Start
) -> None:
    process = start(made)
    wait_for(lambda: ended(made) >= 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    done = collect(store, launchpad, made, close=Fate(Cause.LOST, "its pilot has ended"))
    assert done.closed
    assert done.charged == 0
    assert done.released == done.left > 0
    counts = store.counts()
    assert counts[State.DONE] + counts[State.READY] == 14
    assert {r.attempts for r in store.find(state=State.DONE)} == {1}
    assert not any(r.interrupted for r in store.find())
    assert set(tally()) <= {"COMPLETED", "READY", "WAITING"}
    run_workers(store, launchpad, jobs=2)
    assert store.counts()[State.DONE] == 14


def test_killed_and_closed_charges_what_was_in_hand(
    store: Store, launchpad: LaunchPad, made: Path, start: Start
) -> None:
    process = start(made)
    wait_for(lambda: ended(made) >= 2)
    process.kill()
    process.wait()
    in_hand = progress(made, list(read_tasks(made))).in_hand
    done = collect(store, launchpad, made, close=Fate(Cause.NODE_FAILURE, "NODE_FAIL"))
    assert done.charged == len(in_hand) > 0
    charged = {r.key for r in store.find() if r.interrupted}
    assert charged == in_hand
    record = store.calculation(min(charged))
    assert record.interrupted == {"node_failure": 1}
    assert record.history[-1]["message"] == "NODE_FAIL"


def test_what_the_end_of_time_stops_is_too_long_for_it(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tmp_path: Path
) -> None:
    submitted(sizes=(1,), seconds=30.0)
    folder = tmp_path / "b"
    assert make_bundle(store, launchpad, folder, WISH) is not None
    # The estimate is wrong: what should take a second takes longer than there is.
    lines = [json.loads(line) for line in (folder / "tasks.jsonl").read_text().splitlines()]
    (folder / "tasks.jsonl").write_text("".join(json.dumps({**t, "estimate_s": 0.1}) + "\n" for t in lines))
    compute(folder, 1, end=time.time() + 4.0, margin_s=2.0)
    assert runs(folder)[0].why == "deadline"
    done = collect(store, launchpad, folder, close=Fate(None, "closed"))
    assert done.charged == 1
    (record,) = (r for r in store.find() if r.interrupted)
    assert record.interrupted == {"walltime": 1}
    assert record.estimate_s >= 30.0


def test_carried_away_and_back(
    store: Store, launchpad: LaunchPad, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "elsewhere" / "b"
    shutil.copytree(made, there)
    shutil.rmtree(made)
    with away(monkeypatch):
        assert sum(compute(there, 1).values()) == 14
    back = tmp_path / "back"
    shutil.copytree(there, back)
    shutil.rmtree(there)
    done = collect(store, launchpad, back)
    assert (done.stored, done.closed) == (14, True)
    for record in store.find():
        assert record.directory is not None
        assert Path(record.directory).is_relative_to(back)
        assert Path(record.directory).is_dir()


def test_ground_states_of_an_earlier_run_are_used(
    store: Store, launchpad: LaunchPad, made: Path, tmp_path: Path
) -> None:
    tasks = list(read_tasks(made))
    grounds = [t for t in tasks if t.kind is Kind.GROUND]
    (made / "tasks.jsonl").write_text("".join(json.dumps(t.to_dict()) + "\n" for t in grounds))
    compute(made)
    (made / "tasks.jsonl").write_text("".join(json.dumps(t.to_dict()) + "\n" for t in tasks))
    moved = tmp_path / "moved"
    made.rename(moved)
    left = open_tasks(moved)
    assert len(left) == 10
    for task in left:
        assert Path(task.ground_directory or "").is_relative_to(moved)
    assert compute(moved) == {"done": 10}
    assert collect(store, launchpad, moved).closed


def test_failures_and_corrections_travel_too(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tmp_path: Path, tally: Tally
) -> None:
    submitted(sizes=(1, 2, 3), fail={"C2F:ground": "bad_output", "C3F:0": "unconverged:level_shift_Ha"})
    folder = tmp_path / "b"
    assert make_bundle(store, launchpad, folder, WISH) is not None
    # A ground state that is to be tried again keeps its two sites waiting: no new attempt without the database.
    assert compute(folder) == {"ready": 2, "done": 5}
    assert open_tasks(folder) == []
    done = collect(store, launchpad, folder)
    assert (done.ended, done.released, done.charged, done.closed) == (7, 2, 0, True)
    assert store.counts()[State.READY] == 4
    run_workers(store, launchpad, jobs=1)
    assert store.counts()[State.DONE] == 6
    causes = sorted(r.cause.value for r in store.find() if r.cause)
    assert causes == ["bad_output", "ground_failed", "ground_failed"]
    (cured,) = (r for r in store.find(state=State.DONE) if r.attempts == 2)
    assert cured.ladder is not None
    assert set(tally()) == {"COMPLETED"}


@pytest.mark.parametrize("step", ["close_folder", "free_fireworks", "assemble"])
def test_collecting_killed_anywhere_is_completed_by_the_next(
    store: Store, launchpad: LaunchPad, made: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    compute(made)

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bundle_collect, step, die)
        with pytest.raises(KeyboardInterrupt):
            collect(store, launchpad, made)
    done = collect(store, launchpad, made)
    assert done.closed
    assert is_closed(made)
    assert store.counts()[State.DONE] == 14
    assert set(tally()) == {"COMPLETED"}
    assert store.workers() == []
    assert len(list(store.molecular_spectra("chains"))) == 4


def test_a_making_that_is_killed_is_freed(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(sizes=(1, 2))
    code = (
        "import os, sys; from pathlib import Path; from htxas.store.store import Store; "
        "from htxas.launch.bundles import make as bundle; from htxas.launch.pad.launchpad import open_launchpad; "
        "bundle.write_bundle = bundle.heartbeat_of = lambda *a: os._exit(9); "
        f"s = Store.open(name={store.name!r}); "
        f"bundle.make_bundle(s, open_launchpad(s), Path({str(tmp_path / 'b')!r}), bundle.Wish(1.0, 1))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert store.counts()[State.RUNNING] == 5
    recover(store, launchpad)
    assert store.counts()[State.READY] == 5
    # Later than that the folder is the owner, and whoever collects it frees what it holds.
    code = code.replace("bundle.write_bundle = bundle.heartbeat_of =", "bundle.write_bundle =")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    recover(store, launchpad)
    assert store.counts()[State.RUNNING] == 5
    assert forget_unfinished(store, launchpad, tmp_path / "b")
    assert store.counts()[State.READY] == 5


def test_a_calculation_that_kills_its_worker_is_charged_each_time(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], tmp_path: Path
) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "kill_worker"}, batch={"at_least": 1})
    for n in (1, 2, 3):
        folder = tmp_path / f"b{n}"
        assert make_bundle(store, launchpad, folder, Wish(hours=1.0, workers=1)) is not None
        compute(folder, 1)
        assert runs(folder)[0].why == "finished"
        assert collect(store, launchpad, folder, close=Fate(None, "its pilot has ended")).charged == 1
        record = next(r for r in store.find(kind=Kind.SITE) if r.atom == 0)
        assert record.interrupted == {"lost": n}
    assert (record.state, record.cause) == (State.FAILED, Cause.LOST)
    assert "its worker ended without a word" in (record.message or "")
    assert record.evidence["signal"] == "SIGKILL"


def test_a_full_disk_ends_no_run(
    store: Store, launchpad: LaunchPad, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, run: Run, **changes: Any) -> Run:
        if changes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_run(folder, run)

    monkeypatch.setattr(bundle_run, "write_run", full)
    monkeypatch.setattr(bundle_run, "_SEEN_EVERY_S", 0.0)
    assert compute(made) == {"done": 14}


def test_what_a_full_journal_could_not_take_is_said_later(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = list(read_tasks(made))
    (tmp_path / "o").mkdir()
    clerk = OfflineClerk(tmp_path / "o", tasks, lambda: None)
    ground = next(t for t in tasks if t.kind is Kind.GROUND)
    clerk.news()
    with JournalWriter(tmp_path / "o" / "journal-1.bin") as journal:
        journal.outcome(failed(ground.lease, Cause.BAD_OUTPUT, "no", {}))
    with monkeypatch.context() as patch:

        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "write", full)
        clerk.concluded()
    path = tmp_path / "o" / "journal-0.bin"
    assert path.stat().st_size == 0
    clerk.news()
    sites = {t.key for t in tasks if t.ground_key == ground.key}
    assert {r.lease.key for r, _ in read_journal(path) if isinstance(r, Outcome)} == sites
    clerk.finish()


def test_a_run_that_was_killed_is_paid_for_when_the_bundle_is_closed(
    store: Store, launchpad: LaunchPad, made: Path
) -> None:
    compute(made, 1)
    (run,) = runs(made)
    own = made / "runs" / "workers" / run.owner
    write_run(own, run, ended=None, started=run.started - 3600.0, seen=run.started)
    for _ in range(2):
        assert collect(store, launchpad, made).closed
        assert store.spent() == {"chains": pytest.approx(1.0)}


def test_a_file_system_without_locks(made: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with alone(made):
            pass
    assert "Function not implemented" in caplog.text


def test_a_bundle_that_others_can_change_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (made, made / "bundle.json", made / "tasks.jsonl"):
        mode = part.stat().st_mode
        part.chmod(mode | stat.S_IWGRP)
        with pytest.raises(UserError, match=f"changed by other users .*chmod go-w {part}"):
            read_bundle(made)
        part.chmod(mode)
    read_bundle(made)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UserError, match="another user"):
        read_bundle(made)


@pytest.mark.parametrize(
    "changes",
    [{"key": "../../../../victim"}, {"key": 1}, {"attempt": ".."}, {"attempt": 0}, {"attempt": True}],
)
def test_a_task_names_no_folder_but_its_own(made: Path, changes: dict[str, Any]) -> None:
    first, *_ = (made / "tasks.jsonl").read_text().splitlines()
    (made / "tasks.jsonl").write_text(json.dumps({**json.loads(first), **changes}) + "\n")
    with pytest.raises(UserError, match=r"tasks\.jsonl:1: a task cannot be read"):
        list(read_tasks(made))


def test_a_task_under_the_key_of_another_clears_no_folder(
    store: Store, launchpad: LaunchPad, made: Path
) -> None:
    tasks = [t for t in read_tasks(made) if t.kind is Kind.GROUND][:2]
    other = replace(tasks[0], key=tasks[1].key)
    (made / "tasks.jsonl").write_text(json.dumps(other.to_dict()) + "\n")
    kept = made / "runs" / other.key[:2] / other.key / "1" / "result"
    kept.parent.mkdir(parents=True)
    kept.touch()
    compute(made, 1)
    assert kept.exists()
    (cause,) = progress(made, [other]).causes.values()
    assert cause == ("bad_input", "the task is not of the calculation that its key says")


def test_only_its_own_leases_are_brought_in(store: Store, launchpad: LaunchPad, made: Path) -> None:
    tasks = list(read_tasks(made))
    compute(made, 1)
    (run,) = runs(made)
    with JournalWriter(made / "runs" / "workers" / run.owner / "journal-9.bin") as journal:
        stranger = Lease(tasks[0].key, 1, "somebody-else")
        journal.outcome(failed(stranger, Cause.BAD_OUTPUT, "no", {}))
        journal.outcome(failed(replace(stranger, key="0" * 32), Cause.BAD_OUTPUT, "no", {}))
    done = collect(store, launchpad, made)
    assert (done.stored, done.refused, done.foreign, done.closed) == (14, 0, 2, True)
    assert store.counts()[State.DONE] == 14


def test_a_late_copy_cannot_overwrite(store: Store, launchpad: LaunchPad, made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    assert collect(store, launchpad, made, close=Fate(None, "lost on the way")).released == 14
    run_workers(store, launchpad, jobs=1)
    compute(copy)
    done = collect(store, launchpad, copy)
    assert (done.stored, done.refused) == (0, 14)
    assert {r.attempts for r in store.find()} == {2}


def test_journals_are_fetched_from_where_the_last_fetch_ended(
    store: Store, launchpad: LaunchPad, made: Path, tmp_path: Path, start: Start
) -> None:
    there = tmp_path / "there"
    shutil.copytree(made, there)
    host = LocalHost()
    assert fetch(host, str(there), made) == 0
    process = start(there)
    wait_for(lambda: ended(there) >= 3)
    assert fetch(host, str(there), made) > 0
    assert collect(store, launchpad, made).stored >= 3
    process.wait(60)
    assert fetch(host, str(there), made) > 0
    assert fetch(host, str(there), made) == 0
    done = collect(store, launchpad, made)
    assert done.closed
    assert store.counts()[State.DONE] == 14


def test_a_host_cannot_have_files_written_elsewhere(tmp_path: Path) -> None:
    names = [
        "../../../../.bashrc",
        "o/.profile",
        "o/x/journal-1.bin",
        ".ssh/run.json",
        "../run.json",
        "o/journal-1.bin",
    ]

    class Crooked(LocalHost):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            listed = "".join(f"4 ./{name}\n" for name in names)
            return Completed(
                tuple(argv), 0, listed if "find" in argv[2] else base64.b64encode(b"evil").decode()
            )

    folder = tmp_path / "home" / "bundles" / "mine" / "p1"
    assert fetch(Crooked(), "/there", folder) == 4
    written = [p.relative_to(folder) for p in tmp_path.rglob("*") if p.is_file()]
    assert written == [Path("runs/workers/o/journal-1.bin")]


def test_a_run_that_stopped_showing_signs_is_not_running(
    store: Store, launchpad: LaunchPad, made: Path
) -> None:
    compute(made, 1)
    (run,) = runs(made)
    own = made / "runs" / "workers" / run.owner
    write_run(own, run, ended=None, seen=time.time() - 1000)
    assert not collect(store, launchpad, made).running
