"""Slurm's answers, recorded from Slurm 22.05.8 (``sacct`` after its documentation)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from htxas.cluster.host import Completed
from htxas.cluster.jobs import Cancelled, JobState, Refused, Snapshot, Submitted, Unclear, Unknown
from htxas.cluster.slurm import Slurm
from tests.cluster.recordings import recorded

slurm = Slurm()


def jobs(name: str, *ids: str) -> Snapshot:
    found = slurm.parse_query(recorded(f"slurm/{name}"), ids, user="root")
    assert isinstance(found, Snapshot)
    return found


def states(name: str) -> dict[str, JobState]:
    return {job.id: job.state for job in jobs(name).jobs.values()}


def test_the_recorded_command_is_the_one_that_is_built() -> None:
    assert list(recorded("slurm/running").argv) == slurm.build_query([], user="root")[0]
    assert list(recorded("slurm/sacct").argv) == slurm.build_accounting(["5_1", "5_2", "7", "8", "9"])[0]
    assert list(recorded("slurm/jobcomp").argv) == slurm.build_accounting(["1"])[1]
    assert list(recorded("slurm/nodes").argv) == slurm.build_nodes()


def test_tasks_of_an_array_are_jobs_of_their_own() -> None:
    found = states("running")
    assert (found["5_1"], found["5_3"]) == (JobState.RUNNING, JobState.PENDING)


def test_running_and_waiting_jobs() -> None:
    found = jobs("running", "5_1", "5_4", "999")
    running, waiting = found.jobs["5_1"], found.jobs["5_4"]
    assert (running.nodes, running.name, running.restarts) == ("n1", "htxas-array", 0)
    assert running.start == 1795198876.0
    assert running.end == running.start + 300
    assert running.exit_code is None
    assert waiting.reason == "Resources"
    assert found.absent == {"999"}


def test_a_job_held_by_its_user_is_not_pending() -> None:
    assert jobs("running").jobs["6"].state is JobState.HELD


def test_ended_jobs_are_told_for_a_while() -> None:
    failed = jobs("running").jobs["1"]
    assert (failed.state, failed.exit_code, failed.exit_signal) == (JobState.FAILED, 3, None)


def test_an_empty_queue_has_a_header() -> None:
    assert jobs("empty", "5") == Snapshot({}, frozenset({"5"}))


@pytest.mark.parametrize(
    ("recording", "job", "state"),
    [
        ("completing", "18", JobState.COMPLETING),
        ("completing", "19", JobState.SUSPENDED),
        ("completing", "5_1", JobState.CANCELLED),
        ("preempted", "20", JobState.PREEMPTED),
        ("preempted", "21", JobState.PENDING),
        ("preempted", "22", JobState.HELD),
        ("node_fail", "16", JobState.NODE_FAIL),
        ("node_fail", "7", JobState.TIMEOUT),
        ("timeout_and_restarted", "17", JobState.RUNNING),
    ],
)
def test_states(recording: str, job: str, state: JobState) -> None:
    assert states(recording)[job] is state


@pytest.mark.parametrize(("recording", "job"), [("preempted", "21"), ("timeout_and_restarted", "17")])
def test_a_requeued_job_keeps_its_id_and_counts(recording: str, job: str) -> None:
    assert jobs(recording).jobs[job].restarts == 1


def test_a_timeout_is_a_signal() -> None:
    assert jobs("node_fail").jobs["7"].exit_signal == 9


def test_a_long_name_is_cut_and_keeps_its_beginning() -> None:
    assert jobs("running").jobs["8"].name.startswith("htxas-000000")


@pytest.mark.parametrize("name", ["controller_down_query", "purged_by_id"])
def test_a_failing_squeue_tells_nothing(name: str) -> None:
    found = slurm.parse_query(recorded(f"slurm/{name}"), ["1"], user="root")
    assert isinstance(found, Unknown)
    assert "squeue ended with 1" in found.reason


def test_every_cut_is_noticed_but_one_between_lines() -> None:
    whole = recorded("slurm/running")
    assert whole.stdout
    for end in range(len(whole.stdout)):
        found = slurm.parse_query(replace(whole, stdout=whole.stdout[:end]), ["5_1"], user="root")
        if whole.stdout[:end].endswith("\n"):
            assert isinstance(found, Snapshot)  # and then the job is absent at most, which is not gone
        else:
            assert isinstance(found, Unknown)


def with_row(row: str) -> Completed:
    """Return the recorded answer with one more row, of the user's own job, before its last."""
    whole = recorded("slurm/running")
    *lines, last = whole.stdout.splitlines(keepends=True)
    return replace(whole, stdout="".join([*lines, row, last]))


def row_of(identity: str, name: str, state: str = "RUNNING") -> str:
    values = [identity, state, "0", "0", "1795198876", "1795198876", "1795199176", "n1", name, "None"]
    widths = [48, 24, 14, 12, 24, 24, 24, 256, 128, 128]
    return "".join(f"{v:{w}}|" for v, w in zip(values, widths, strict=True)) + "\n"


@pytest.mark.parametrize("row", [row_of("123+0", "coupled"), row_of("77", "a|b"), row_of("77_4", "|a||b|")])
def test_an_odd_job_of_the_user_spoils_nothing(row: str) -> None:
    before = jobs("running", "5_1", "999")
    found = slurm.parse_query(with_row(row), ["5_1", "999"], user="root")
    assert found == before


@pytest.mark.parametrize(
    "row",
    [
        row_of("12x", "a"),
        row_of("12+", "a"),
        row_of("123+0", "a", state=""),
        row_of("5_[1-3]", "a|b"),
        row_of("77", "htxas-a1b2|x"),  # might be ours
        row_of("77", "a|b").replace(" ", "", 1),
        row_of("77", "a")[:-200] + row_of("5_1", "a"),  # ran into each other
        row_of("77", "a|b")[:-1] + row_of("5_1", "a"),
        row_of("77", "a|b")[:-40] + "\n",
    ],
)
def test_a_row_that_is_no_job_at_all_spoils_the_answer(row: str) -> None:
    assert isinstance(slurm.parse_query(with_row(row), ["5_1"], user="root"), Unknown)


def test_a_torn_last_line_spoils_the_answer_whoever_it_is_about() -> None:
    whole = recorded("slurm/running")
    for row in (row_of("123+0", "coupled"), row_of("77", "a|b|c")):
        for end in range(1, len(row)):
            torn = replace(whole, stdout=whole.stdout + row[:end])
            assert isinstance(slurm.parse_query(torn, ["5_1"], user="root"), Unknown)


def test_an_unknown_word_is_neither_alive_nor_ended() -> None:
    whole = recorded("slurm/running")
    odd = replace(whole, stdout=whole.stdout.replace("RUNNING ", "DREAMING"))
    found = slurm.parse_query(odd, ["5_1"], user="root")
    assert isinstance(found, Snapshot)
    state = found.jobs["5_1"].state
    assert state is JobState.UNKNOWN
    assert not any((state.ended, state.on_nodes, state.waiting))


def test_submitting() -> None:
    assert slurm.parse_submit(recorded("slurm/submit_one"), array=1) == Submitted(("1",))
    assert slurm.parse_submit(recorded("slurm/submit_array"), array=3) == Submitted(("2_1", "2_2", "2_3"))


def test_a_federation_names_its_cluster() -> None:
    answer = Completed(("sbatch",), 0, "12;east\n")
    assert slurm.parse_submit(answer, array=1) == Submitted(("12",))


@pytest.mark.parametrize("name", ["submit_no_file", "submit_no_partition"])
def test_a_refusal(name: str) -> None:
    assert isinstance(slurm.parse_submit(recorded(f"slurm/{name}"), array=1), Refused)


@pytest.mark.parametrize(
    "answer",
    [
        recorded("slurm/controller_down_submit"),
        Completed(("sbatch",), None, "", "", "no answer within 60 s"),
        Completed(("sbatch",), None, "17\n", "", "no answer within 60 s"),
        Completed(("sbatch",), 255, "", "", "login: Connection reset by peer"),
        Completed(("sbatch",), 1, "", "sbatch: error: Batch job submission failed: Socket timed out"),
        Completed(("sbatch",), 0, "", ""),
        Completed(("sbatch",), 0, "Welcome!\n", ""),
    ],
)  # fmt: skip
def test_whether_a_job_exists_can_be_unclear(answer: Completed) -> None:
    assert isinstance(slurm.parse_submit(answer, array=1), Unclear)


def test_cancelling() -> None:
    found = slurm.parse_cancel(recorded("slurm/cancel"), ["5_1", "5_4", "777"])
    assert found == {"5_1": Cancelled.ASKED, "5_4": Cancelled.ASKED, "777": Cancelled.ENDED_BEFORE}
    assert slurm.parse_cancel(recorded("slurm/cancel_held"), ["6"]) == {"6": Cancelled.ASKED}
    assert slurm.parse_cancel(recorded("slurm/cancel_completing"), ["18"]) == {"18": Cancelled.ENDED_BEFORE}


def test_a_cancel_that_reached_nobody() -> None:
    found = slurm.parse_cancel(recorded("slurm/controller_down_cancel"), ["1"])
    assert found == {"1": Cancelled.FAILED}


def test_accounting() -> None:
    found = slurm.parse_accounting(recorded("slurm/sacct"), ["5_1", "5_2", "7", "8", "9"])
    assert isinstance(found, Snapshot)
    assert {i: j.state for i, j in found.jobs.items()} == {
        "5_1": JobState.CANCELLED,
        "5_2": JobState.DONE,
        "7": JobState.TIMEOUT,
        "8": JobState.OUT_OF_MEMORY,
    }
    assert found.jobs["5_1"].exit_signal == 15
    assert found.absent == {"9"}


def test_no_accounting_is_unknown_and_the_completion_log_is_asked() -> None:
    assert isinstance(slurm.parse_accounting(recorded("slurm/sacct_disabled"), ["1"]), Unknown)
    found = slurm.parse_accounting(recorded("slurm/jobcomp"), ["12", "16", "5_1"])
    assert isinstance(found, Snapshot)
    assert {i: j.state for i, j in found.jobs.items()} == {"12": JobState.PREEMPTED, "16": JobState.NODE_FAIL}
    assert found.absent == {"5_1"}  # the log has no array ids


def test_nodes() -> None:
    before, after = (slurm.parse_nodes(recorded(f"slurm/{n}")) for n in ("nodes", "nodes_down"))
    assert not isinstance(before, Unknown)
    assert not isinstance(after, Unknown)
    assert {n: i.up for n, i in before.items()} == {"n1": True, "n2": True, "n3": True}
    assert {n: i.up for n, i in after.items()} == {"n1": False, "n2": False, "n3": True}
    assert isinstance(slurm.parse_nodes(recorded("slurm/controller_down_nodes")), Unknown)
