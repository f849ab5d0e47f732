"""LSF's answers, written after public documentation and maintainers' threads. No LSF was run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from htxas.cluster.jobs import Cancelled, JobState, Refused, Snapshot, Submitted, Unclear, Unknown
from htxas.cluster.lsf import Lsf
from tests.cluster.recordings import recorded

lsf = Lsf()


def test_states() -> None:
    found = lsf.parse_query(recorded("lsf/mixed"), ["806290[1]", "806290[3]"], user="ann")
    assert isinstance(found, Snapshot)
    assert {i: j.state for i, j in found.jobs.items()} == {
        "806290[1]": JobState.RUNNING,
        "806290[2]": JobState.PENDING,
        "806291": JobState.TIMEOUT,
        "806292": JobState.CANCELLED,  # without an exit code, which is no success
        "806293": JobState.DONE,
        "806294": JobState.UNKNOWN,  # its host does not answer: it may be alive
        "806295": JobState.HELD,
        "806296": JobState.SUSPENDED,
        "806297": JobState.OUT_OF_MEMORY,
        "806298": JobState.FAILED,
    }
    assert found.absent == {"806290[3]"}
    running = found.jobs["806290[1]"]
    assert (running.name, running.start) == ("htxas-a1b2", 1795198200.0)
    assert found.jobs["806291"].start is None  # told without a year
    assert found.jobs["806297"].exit_signal == 9
    assert found.jobs["806298"].exit_code == 3


def test_no_jobs_is_a_document_too() -> None:
    assert lsf.parse_query(recorded("lsf/empty"), ["1"], user="ann") == Snapshot({}, frozenset({"1"}))


@pytest.mark.parametrize("name", ["fewer_than_said", "daemon_down"])
def test_other_answers_tell_nothing(name: str) -> None:
    assert isinstance(lsf.parse_query(recorded(f"lsf/{name}"), ["1"], user="ann"), Unknown)


def test_every_cut_is_noticed() -> None:
    whole = recorded("lsf/mixed")
    body = whole.stdout.rstrip()
    for end in range(0, len(body), 7):
        found = lsf.parse_query(replace(whole, stdout=body[:end]), ["806290[1]"], user="ann")
        assert isinstance(found, Unknown)


def test_submitting() -> None:
    assert lsf.parse_submit(recorded("lsf/submit_one"), array=1) == Submitted(("806291",))
    assert lsf.parse_submit(recorded("lsf/submit_array"), array=2) == Submitted(("806290[1]", "806290[2]"))
    assert isinstance(lsf.parse_submit(recorded("lsf/submit_no_queue"), array=1), Refused)
    assert isinstance(lsf.parse_submit(recorded("lsf/submit_daemon_down"), array=1), Unclear)


def test_the_script_goes_through_standard_input() -> None:
    assert lsf.script_on_stdin
    assert lsf.build_submit("script.sh", name="htxas-a1b2", array=2)[-1] == "htxas-a1b2[1-2]"


def test_cancelling() -> None:
    found = lsf.parse_cancel(recorded("lsf/cancel"), ["806290[1]", "806291", "99", "806290[2]"])
    assert found == {
        "806290[1]": Cancelled.ASKED,
        "806291": Cancelled.ENDED_BEFORE,
        "99": Cancelled.ENDED_BEFORE,
        "806290[2]": Cancelled.FAILED,
    }


def test_nodes() -> None:
    nodes = lsf.parse_nodes(recorded("lsf/nodes"))
    assert not isinstance(nodes, Unknown)
    assert {n: i.up for n, i in nodes.items()} == {"node7": True, "node8": False, "node9": True}
