"""PBS' answers, written after public documentation and maintainers' threads. No PBS was run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from htxas.cluster.host import Completed
from htxas.cluster.jobs import Cancelled, JobState, Refused, Snapshot, Submitted, Unclear, Unknown
from htxas.cluster.pbs import OpenPbs, Torque
from tests.cluster.recordings import recorded

pbs, torque = OpenPbs(), Torque()
IDS = [
    "17[1].pbs1",
    "17[2].pbs1",
    "17[3].pbs1",
    "18.pbs1",
    "19.pbs1",
    "20.pbs1",
    "21.pbs1",
    "22.pbs1",
    "99.pbs1",
]


def test_arrays_are_asked_for_as_a_whole() -> None:
    assert list(recorded("openpbs/mixed").argv) == pbs.build_query(IDS, user="ann")[0]


def test_servers_without_history_are_asked_again() -> None:
    assert ["-x" in argv for argv in pbs.build_query(IDS, user="ann")] == [True, False]
    assert ["-x" in argv for argv in torque.build_query(IDS, user="ann")] == [False]  # XML there


def test_states() -> None:
    found = pbs.parse_query(recorded("openpbs/mixed"), IDS, user="ann")
    assert isinstance(found, Snapshot)
    assert {i: j.state for i, j in found.jobs.items()} == {
        "17[1].pbs1": JobState.DONE,
        "17[2].pbs1": JobState.RUNNING,
        "17[3].pbs1": JobState.PENDING,
        "18.pbs1": JobState.HELD,
        "19.pbs1": JobState.TIMEOUT,  # 271, and its time was over
        "20.pbs1": JobState.CANCELLED,  # 271, and it was not
        "21.pbs1": JobState.OUT_OF_MEMORY,
        "22.pbs1": JobState.CANCELLED,  # never ran
    }
    assert found.absent == {"99.pbs1"}
    running = found.jobs["17[2].pbs1"]
    assert (running.name, running.nodes) == ("htxas-a1b2", "node7/0*16")
    assert found.jobs["19.pbs1"].exit_signal == 15
    assert found.jobs["19.pbs1"].end == 1654681213.0


def test_a_count_of_tries_to_start_is_no_count_of_restarts() -> None:
    """``run_count`` grows with every try, also with those that failed before the script ran."""
    whole = recorded("openpbs/mixed")
    assert "run_count = 2" in whole.stdout
    found = pbs.parse_query(whole, IDS, user="ann")
    assert isinstance(found, Snapshot)
    assert {job.restarts for job in found.jobs.values()} == {None}


def test_an_answer_that_leaves_out_a_job_tells_nothing() -> None:
    found = pbs.parse_query(recorded("openpbs/one_of_two"), ["18.pbs1", "19.pbs1"], user="ann")
    assert isinstance(found, Unknown)
    assert "19.pbs1" in found.reason


@pytest.mark.parametrize("end", range(0, 9000, 97))
def test_a_cut_answer_never_makes_a_job_absent(end: int) -> None:
    whole = recorded("openpbs/mixed")
    found = pbs.parse_query(replace(whole, stdout=whole.stdout[:end]), IDS, user="ann")
    if isinstance(found, Snapshot):
        # where the array itself was told, tasks may be missing
        assert {i for i in found.absent if not i.startswith("17[")} <= {"99.pbs1"}


def test_finished_jobs_of_a_server_without_history_are_absent() -> None:
    found = pbs.parse_query(recorded("openpbs/finished_without_x"), ["18.pbs1"], user="ann")
    assert found == Snapshot({}, frozenset({"18.pbs1"}))


def test_a_server_that_is_down_tells_nothing() -> None:
    assert isinstance(pbs.parse_query(recorded("openpbs/server_down"), ["18.pbs1"], user="ann"), Unknown)
    assert isinstance(pbs.parse_query(Completed(("qstat",), 0), ["18.pbs1"], user="ann"), Unknown)
    assert isinstance(pbs.parse_query(Completed(("qstat",), 0), None, user="ann"), Unknown)


def test_all_jobs_of_a_user() -> None:
    mine = pbs.parse_query(replace(recorded("openpbs/mixed"), returncode=0, stderr=""), None, user="ann")
    other = pbs.parse_query(replace(recorded("openpbs/mixed"), returncode=0, stderr=""), None, user="bob")
    assert isinstance(mine, Snapshot)
    assert isinstance(other, Snapshot)
    assert len(mine.jobs) == 8
    assert not other.jobs


def test_submitting() -> None:
    assert pbs.parse_submit(recorded("openpbs/submit_one"), array=1) == Submitted(("18.pbs1",))
    assert pbs.parse_submit(recorded("openpbs/submit_array"), array=2) == Submitted(
        ("17[1].pbs1", "17[2].pbs1")
    )
    assert isinstance(pbs.parse_submit(recorded("openpbs/submit_no_queue"), array=1), Refused)


@pytest.mark.parametrize("name", ["submit_cut", "submit_server_down"])
def test_a_broken_connection_leaves_it_unclear(name: str) -> None:
    assert isinstance(pbs.parse_submit(recorded(f"openpbs/{name}"), array=1), Unclear)


def test_cancelling() -> None:
    found = pbs.parse_cancel(recorded("openpbs/cancel"), ["17[2].pbs1", "19.pbs1", "99.pbs1"])
    assert found["19.pbs1"] is found["99.pbs1"] is Cancelled.ENDED_BEFORE
    assert found["17[2].pbs1"] is Cancelled.FAILED  # not a word about it while others failed: ask again
    assert pbs.parse_cancel(Completed(("qdel",), 0), ["1.pbs1"]) == {"1.pbs1": Cancelled.ASKED}


def test_nodes() -> None:
    nodes = pbs.parse_nodes(recorded("openpbs/nodes"))
    assert not isinstance(nodes, Unknown)
    assert {n: i.up for n, i in nodes.items()} == {"node7": True, "node8": False, "node9": True}


def test_torque() -> None:
    ids = ["179[1].torque1", "179[2].torque1", "180.torque1"]
    assert list(recorded("torque/array").argv) == torque.build_query(ids, user="ann")[0]
    found = torque.parse_query(recorded("torque/array"), ids, user="ann")
    assert isinstance(found, Snapshot)
    assert {i: j.state for i, j in found.jobs.items()} == {ids[0]: JobState.DONE, ids[1]: JobState.RUNNING}
    assert found.absent == {"180.torque1"}
    assert "-t" in torque.build_submit("script.sh", name="htxas-a1b2", array=3)
