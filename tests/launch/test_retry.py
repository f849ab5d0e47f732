"""Retries with and without other numerics, and the list of failures, on a real mongod with real agents."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fireworks import LaunchPad

from htxas.cli.main import cli
from htxas.domain.calculation import Kind, State
from htxas.errors import Cause, NotFound, UserError
from htxas.launch import control
from htxas.launch.agent.maker import cut_short
from htxas.launch.agent.source import Source
from htxas.launch.retry import Settings, parse_settings, preview_retry, retry
from htxas.launch.run import run_workers
from htxas.launch.work.task import Task
from htxas.store.outcomes import failed
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

Tally = Callable[[], dict[str, int]]
Submit = Callable[..., Any]


@pytest.fixture
def htxas(store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command on the test's own database."""
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


# ---- settings


def test_settings_are_what_the_engine_declares() -> None:
    done = parse_settings("fake", ["damping=0.7", "hole=follow", "memory_factor=4", "walltime_factor=1.5"])
    assert done == Settings(
        {"damping": 0.7, "hole": "follow"}, {"memory_factor": 4.0, "walltime_factor": 1.5}
    )
    assert parse_settings("pyscf", []) == Settings()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("basis=sto-3g", "never changes the physics"),
        ("xc=pbe", "never changes the physics"),
        ("seconds=0", "never changes the physics"),
        ("dampng=0.5", "did you mean 'damping'"),
        ("memoryfactor=2", "did you mean 'memory_factor'"),
        ("damping=2", "a number within 0..0.95"),
        ("damping=true", "a number within"),
        ("hole=sideways", "one of lowest follow"),
        ("memory_factor=many", "a number within 0.1..64"),
        ("memory_factor=-1", "a number within 0.1..64"),
        ("memory_factor=NaN", "a number within 0.1..64"),
        ("damping", "is not key=value"),
        ("=3", "is not key=value"),
        ("damping=", "is not key=value"),
    ],
)
def test_other_settings_are_refused(pair: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_settings("fake", [pair])


# ---- retries


def test_numerics_reach_the_engine_and_the_record(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    """Damping alone cures it, in the first attempt, and the ladder's own rungs were used up before."""
    submitted(sizes=(2,), fail={"C2F:0": "unconverged:hole"})
    run_workers(store, launchpad, jobs=1)
    (wrong,) = [*store.find(state=State.FAILED), *store.find(state=State.QUARANTINED)]
    attempts = wrong.attempts
    assert attempts == 3
    first = retry(store, launchpad, "chains")
    assert (first.calculations, first.fireworks, first.causes) == (1, 1, {"scf_unconverged": 1})
    assert store.calculation(wrong.key).ladder is None
    run_workers(store, launchpad, jobs=1)
    assert store.calculation(wrong.key).attempts == attempts + 3  # all its attempts were before it again
    settings = parse_settings("fake", ["hole=follow"])
    assert retry(store, launchpad, "chains", Cause.SCF_UNCONVERGED, settings=settings).calculations == 1
    run_workers(store, launchpad, jobs=1)
    record = store.calculation(wrong.key)
    assert (record.state, record.attempts) == (State.DONE, attempts + 4)
    assert record.history[-1]["corrections"] == ["set hole=follow"]
    assert retry(store, launchpad, "chains").calculations == 0
    assert tally() == {"COMPLETED": 1}


def test_after_a_retry_nothing_goes_on_from_an_old_checkpoint(store: Store, submitted: Submit) -> None:
    """It was written with the old numerics; with others the way begins at the beginning."""
    submitted(sizes=(1,))
    key = next(store.find(kind=Kind.GROUND)).key

    def interrupted() -> str | None:
        (leased,) = store.lease_many([key], "agent")
        before = cut_short(leased.record)
        store.release(
            [leased.lease], cause=Cause.LOST, message="x", evidence={"directory": "/r"}, in_hand=[key]
        )
        return before

    assert [interrupted() for _ in range(3)] == [None, "/r", "/r"]
    assert store.calculation(key).state is State.FAILED
    store.retry("chains", cause=Cause.LOST)
    assert [interrupted() for _ in range(2)] == [None, "/r"]


def test_memory_factor_gives_more_places(store: Store, launchpad: LaunchPad, submitted: Submit) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "oom:x8"})
    run_workers(store, launchpad, jobs=1)
    assert store.progress("chains")["causes"] == {"out_of_memory": 1}
    settings = parse_settings("fake", ["memory_factor=8"])
    retry(store, launchpad, "chains", settings=settings)
    ladder = next(store.find(state=State.READY)).ladder
    assert ladder is not None
    assert (ladder["memory_factor"], ladder["corrections"]) == (8.0, ["set memory_factor=8.0"])


def test_sites_come_along_with_their_ground_state(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally
) -> None:
    submitted(sizes=(3,), fail={"C3F:ground": "bad_output:4"})
    run_workers(store, launchpad, jobs=1)
    causes = store.progress("chains")["causes"]
    assert causes == {"bad_output": 1, "ground_failed": 3}
    before = preview_retry(store, launchpad, "chains", Cause.BAD_OUTPUT)
    assert (before.calculations, before.causes) == (4, causes)
    assert preview_retry(store, launchpad, "chains", Cause.GROUND_FAILED).calculations == 4
    assert store.progress("chains")["causes"] == causes
    done = retry(store, launchpad, "chains", Cause.BAD_OUTPUT)
    assert (done.calculations, done.causes) == (4, causes)
    ground = next(store.find(kind=Kind.GROUND))
    assert ground.state is State.READY


def test_a_retry_while_an_agent_has_the_batch(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally, home: Path
) -> None:
    """The agent had seen the end of it and would complete the Firework without another look."""
    submitted(sizes=(2,), batch={"at_least": 1})
    store.heartbeat("agent", {})
    agent = Source(store, launchpad, "agent", home, None, 1)
    held = agent.checkout(math.inf)
    assert held is not None
    one, *rest = agent.lease(held, sorted(held.open), exact=False).tasks

    def end(task: Task, cause: Cause) -> None:
        store.deliver([failed(task.lease, cause, "no", {})])
        held.conclude(task, State.FAILED)

    end(one, Cause.ENGINE_CRASH)
    for _ in range(2):  # the second finds nothing to do, but what the first asked for still stands
        retry(store, launchpad, "chains")
    assert tally() == {"RUNNING": 1}
    for task in rest:
        end(task, Cause.BAD_INPUT)
    assert not held.open
    agent.complete([held])
    assert (store.counts()[State.READY], tally()) == (1, {"READY": 1})
    again = Source(store, launchpad, "another", home, None, 1).checkout(math.inf)
    assert again is not None
    agent.complete([again])
    assert tally() == {"COMPLETED": 1}


def test_killed_half_way_and_done_again(
    store: Store, launchpad: LaunchPad, submitted: Submit, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(sizes=(2, 3), fail={"C2F:0": "nan", "C3F:1": "nan"}, batch={"at_least": 2, "target_s": 0.01})
    run_workers(store, launchpad, jobs=1)
    assert tally() == {"COMPLETED": 2}

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> int:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("htxas.launch.retry.make_ready", kill)
        with pytest.raises(Killed):
            retry(store, launchpad, "chains")
    assert store.counts()[State.READY] == 2
    assert tally() == {"COMPLETED": 2}
    done = retry(store, launchpad, "chains")
    assert (done.calculations, done.fireworks) == (0, 2)
    assert tally() == {"READY": 2}


def test_a_retry_of_a_cancelled_campaign_waits(
    store: Store, launchpad: LaunchPad, submitted: Submit, htxas: Callable[..., str]
) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "nan"})
    run_workers(store, launchpad, jobs=1)
    control.cancel(store, launchpad, "chains")
    assert "is cancelled: htxas campaign resume chains" in htxas("retry", "chains")


def test_many(store: Store, launchpad: LaunchPad, submitted: Submit) -> None:
    """What a hundred thousand would take: one failure in each of many batches is the worst case."""
    submitted(sizes=tuple(range(1, 41)), batch={"at_least": 40, "target_s": 0.01})
    run_ids = [f["fw_id"] for f in launchpad.fireworks.find({}, {"fw_id": 1})]
    launchpad.fireworks.update_many({}, {"$set": {"state": "COMPLETED"}})
    wrong = {"$set": {"state": "failed", "cause": "walltime", "interrupted": {"walltime": 3}}}
    store._db["calculations"].update_many({}, wrong)
    began = time.perf_counter()
    done = retry(store, launchpad, "chains", Cause.WALLTIME)
    assert (done.calculations, done.fireworks) == (860, len(run_ids))
    assert time.perf_counter() - began < 5.0
    assert {r.interrupted.get("walltime") for r in store.find()} == {None}


# ---- commands


def test_failures_tell_site_log_attempts_and_command(
    store: Store, launchpad: LaunchPad, submitted: Submit, htxas: Callable[..., str]
) -> None:
    submitted(sizes=(2, 3), fail={"C2F:0": "unconverged", "C3F:1": "unconverged:damping"}, seconds=0.01)
    assert "nothing failed" in htxas("failures")
    run_workers(store, launchpad, jobs=1)
    shown = htxas("failures", "chains")
    assert (
        "scf_unconverged: 1 calculation quarantined" in shown
        or "scf_unconverged: 1 calculation failed" in shown
    )
    assert "(site of c2, atom 0)" in shown
    assert "attempt 1: as planned -> scf_unconverged" in shown
    assert "attempt 3: level_shift, damping -> scf_unconverged" in shown
    assert "htxas retry chains --cause scf_unconverged" in shown
    assert "--set KEY=VALUE" in shown
    assert "level_shift_Ha" in shown
    assert "repeated by themselves" in shown
    (found,) = json.loads(htxas("failures", "--json"))
    (row,) = found["failures"]
    assert (found["campaign"], row["count"], row["site"]) == ("chains", 1, "c2, atom 0")
    (repeated,) = found["repeated"]
    assert {k: repeated[k] for k in ("cause", "attempts", "calculations", "done", "wrong", "left")} == {
        "cause": "scf_unconverged", "attempts": 4, "calculations": 2, "done": 1, "wrong": 1, "left": 0,
    }  # fmt: skip
    assert json.loads(htxas("failures", "chains", "--cause", "walltime", "--json"))[0]["failures"] == []
    told = json.loads(htxas("retry", "chains", "--cause", "scf_unconverged", "--dry-run", "--json"))
    assert (told["calculations"], told["fireworks"], told["dry_run"]) == (1, 1, True)
    assert "would be ready again" in htxas("retry", "chains", "--dry-run")
    assert "(1 scf_unconverged)" in htxas("retry", "chains", "--key", row["key"][:10], "--set", "damping=0.2")
    assert "nothing to retry" in htxas("retry", "chains")
    with pytest.raises(NotFound):
        htxas("retry", "chains", "--key", "0123456789")
    with pytest.raises(UserError, match="never changes the physics"):
        htxas("retry", "chains", "--set", "basis=sto-3g")
