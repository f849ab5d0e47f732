"""Grid Engine's answers, recorded from Grid Engine 8.1.9 (Debian)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from htxas.cluster.jobs import Cancelled, JobState, Refused, Snapshot, Submitted, Unclear, Unknown
from htxas.cluster.sge import GridEngine
from tests.cluster.recordings import recorded

sge = GridEngine()


def states(name: str) -> dict[str, JobState]:
    found = sge.parse_query(recorded(f"sge/{name}"), None, user="root")
    assert isinstance(found, Snapshot)
    return {job.id: job.state for job in found.jobs.values()}


def test_the_recorded_command_is_the_one_that_is_built() -> None:
    assert list(recorded("sge/running").argv) == sge.build_query(None, user="root")[0]
    assert list(recorded("sge/accounting_done").argv) == sge.build_accounting(["1"])[0]
    assert list(recorded("sge/nodes").argv) == sge.build_nodes()


def test_an_empty_queue_is_a_document() -> None:
    found = sge.parse_query(recorded("sge/empty"), ["1"], user="root")
    assert found == Snapshot({}, frozenset({"1"}))


def test_tasks_of_an_array() -> None:
    found = states("running")
    assert {found[f"2.{i}"] for i in (1, 2, 3, 4, 5, 6)} <= {JobState.RUNNING, JobState.PENDING}
    assert found["2.1"] is JobState.RUNNING
    assert found["5"] is JobState.HELD


def test_where_and_since_when() -> None:
    found = sge.parse_query(recorded("sge/running"), ["2.1"], user="root")
    assert isinstance(found, Snapshot)
    job = found.jobs["2.1"]
    assert (job.name, job.nodes, job.start) == ("htxas-array", "sge1", 1795199262.0)


@pytest.mark.parametrize(
    ("recording", "job", "state"),
    [
        ("suspended", "2.1", JobState.SUSPENDED),
        ("error_state", "7", JobState.HELD),  # Eqw
        ("rescheduled", "3", JobState.REQUEUED),
        ("rerunning", "3", JobState.RUNNING),
    ],
)
def test_states(recording: str, job: str, state: JobState) -> None:
    assert states(recording)[job] is state


def test_every_cut_is_noticed() -> None:
    whole = recorded("sge/running")
    body = whole.stdout.rstrip()
    for end in range(0, len(body), 7):
        found = sge.parse_query(replace(whole, stdout=body[:end]), ["2.1"], user="root")
        assert isinstance(found, Unknown)


def test_a_master_that_is_down_tells_nothing() -> None:
    answer = replace(recorded("sge/master_down_submit"), argv=("qstat",))
    assert isinstance(sge.parse_query(answer, ["1"], user="root"), Unknown)
    assert isinstance(sge.parse_submit(recorded("sge/master_down_submit"), array=1), Unclear)
    assert sge.parse_cancel(recorded("sge/master_down_cancel"), ["5"]) == {"5": Cancelled.FAILED}


def test_submitting() -> None:
    assert sge.parse_submit(recorded("sge/submit_one"), array=1) == Submitted(("1",))
    assert sge.parse_submit(recorded("sge/submit_array"), array=3) == Submitted(("2.1", "2.2", "2.3"))


@pytest.mark.parametrize("name", ["submit_no_queue", "submit_no_file"])
def test_a_refusal(name: str) -> None:
    assert isinstance(sge.parse_submit(recorded(f"sge/{name}"), array=1), Refused)


def test_cancelling() -> None:
    found = sge.parse_cancel(recorded("sge/cancel"), ["2.2", "2.6", "2.1", "5", "777"])
    assert found == {
        "2.2": Cancelled.ASKED,
        "2.6": Cancelled.ASKED,
        "2.1": Cancelled.FAILED,  # not a word about it
        "5": Cancelled.ASKED,
        "777": Cancelled.ENDED_BEFORE,
    }
    again = sge.parse_cancel(recorded("sge/cancel_twice"), ["2.2", "5"])
    assert set(again.values()) == {Cancelled.ENDED_BEFORE}


@pytest.mark.parametrize(
    ("name", "job", "state", "code", "signal"),
    [
        ("done", "1", JobState.DONE, 0, None),
        ("failed", "4", JobState.FAILED, 3, None),
        ("limit", "1", JobState.TIMEOUT, None, 9),
        ("array", "2.1", JobState.FAILED, None, 9),
        ("deleted", "3", JobState.FAILED, None, 9),  # this version does not say who did it
    ],
)
def test_accounting(name: str, job: str, state: JobState, code: int | None, signal: int | None) -> None:
    found = sge.parse_accounting(recorded(f"sge/accounting_{name}"), [job])
    assert isinstance(found, Snapshot)
    told = found.jobs[job]
    assert (told.state, told.exit_code, told.exit_signal) == (state, code, signal)
    assert not found.absent


def test_a_job_without_an_account_is_absent() -> None:
    found = sge.parse_accounting(recorded("sge/accounting_none"), ["777"])
    assert found == Snapshot({}, frozenset({"777"}))


def test_nodes() -> None:
    nodes = sge.parse_nodes(recorded("sge/nodes"))
    assert not isinstance(nodes, Unknown)
    assert {n: i.up for n, i in nodes.items()} == {"sge1": True}
