"""The facade over a host that replays recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from htxas.cluster.host import Completed, LocalHost
from htxas.cluster.jobs import Cancelled, JobState, Refused, Snapshot, Submitted, Unclear, Unknown
from htxas.cluster.queue import Job, Queue, open_host, open_queue
from tests.cluster.profiles import profile
from tests.cluster.recordings import recorded

LATE = Completed(("x",), None, problem="no answer within 60 s")


class Replay:
    """A host whose commands are answered by ``answers``; the first that fits, by a word of the command."""

    name = "replay"

    def __init__(self, **answers: str | Completed | Callable[[list[str]], Completed]) -> None:
        self.answers = {"id": Completed(("id",), 0, "root\n"), **answers}
        self.commands: list[list[str]] = []
        self.stdin: list[str | None] = []
        self.files: dict[str, str] = {}
        self.folders: list[str] = []

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, stdin: str | None = None
    ) -> Completed:
        self.commands.append(list(argv))
        self.stdin.append(stdin)
        program = next(w for w in argv if w != "env" and "=" not in w)
        answer = self.answers[program]
        if callable(answer):
            return answer(list(argv))
        done = recorded(answer) if isinstance(answer, str) else answer
        return replace(done, argv=tuple(argv))

    def put(self, text: str, path: str, mode: int = 0o600) -> None:
        self.files[path] = text
        assert mode == 0o700

    def get(self, path: str) -> str | None:
        return self.files.get(path)

    def mkdir(self, paths: Sequence[str]) -> None:
        self.folders += paths


def queue_of(folder: Path, host: Replay, **changes: Any) -> Queue:
    return open_queue(profile(folder, **changes), host)


def test_submitting_writes_the_script_first(tmp_path: Path) -> None:
    host = Replay(sbatch="slurm/submit_array")
    queue = queue_of(tmp_path, host)
    done = queue.submit(Job(queue.profile, queue.profile.partition(), "a1b2", array=3))
    assert done == Submitted(("2_1", "2_2", "2_3"))
    (path,) = host.files
    assert path == "/shared/me/htxas/pilots/a1b2/script.sh"
    assert host.files[path].startswith("#!/bin/bash\n#SBATCH --job-name=htxas-a1b2\n")
    assert host.commands[-1][-1] == path
    assert host.folders == ["/shared/me/htxas/pilots/a1b2"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("slurm/submit_no_partition", Refused), ("slurm/controller_down_submit", Unclear), (LATE, Unclear)],
)
def test_submissions_that_fail(tmp_path: Path, answer: str | Completed, kind: type) -> None:
    queue = queue_of(tmp_path, Replay(sbatch=answer))
    assert isinstance(queue.submit(Job(queue.profile, queue.profile.partition(), "a1b2")), kind)


def test_after_an_unclear_submission_the_job_is_found_by_name(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Replay(squeue="slurm/running"))
    found = queue.find_by_name("htxas-array")
    assert not isinstance(found, Unknown)
    assert [job.id for job in found] == ["5_3", "5_4", "5_1", "5_2"]
    assert queue.find_by_name("htxas-nothing") == []
    lost = queue_of(tmp_path, Replay(squeue="slurm/controller_down_query")).find_by_name("htxas-array")
    assert isinstance(lost, Unknown)


def test_any_number_of_jobs_is_one_squeue(tmp_path: Path) -> None:
    host = Replay(squeue="slurm/running")
    queue = queue_of(tmp_path, host)
    ids = [f"9_{i}" for i in range(1, 1001)]
    found = queue.snapshot([*ids, "5_1"])
    assert isinstance(found, Snapshot)
    assert set(found.jobs) == {"5_1"}
    assert found.absent == set(ids)
    assert [c[0] for c in host.commands] == ["id", "env"]
    queue.snapshot(ids)
    assert len(host.commands) == 3  # the user's name is asked for once


def test_nobody_is_asked_about_nothing(tmp_path: Path) -> None:
    host = Replay()
    queue = queue_of(tmp_path, host)
    assert queue.snapshot([]) == Snapshot()
    assert queue.accounting([]) == Snapshot()
    assert queue.cancel([]) == {}
    assert host.commands == []


@pytest.mark.parametrize(
    "answer", [LATE, Completed(("squeue",), 0, ""), Completed(("squeue",), 0, "hello\n")]
)
def test_a_queue_that_does_not_answer(tmp_path: Path, answer: Completed) -> None:
    found = queue_of(tmp_path, Replay(squeue=answer)).snapshot(["5_1"])
    assert isinstance(found, Unknown)
    assert "squeue" in found.reason


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    down = Completed(("id",), 255, problem="login: Connection refused")
    found = queue_of(tmp_path, Replay(id=down)).snapshot(["5_1"])
    assert isinstance(found, Unknown)
    assert "Connection refused" in found.reason


def test_accounting_asks_on_until_all_are_known(tmp_path: Path) -> None:
    def sacct(argv: list[str]) -> Completed:
        name = "slurm/jobcomp" if "--completion" in argv else "slurm/sacct_disabled"
        return replace(recorded(name), argv=tuple(argv))

    found = queue_of(tmp_path, Replay(sacct=sacct)).accounting(["12", "5_1"])
    assert isinstance(found, Snapshot)
    assert found.jobs["12"].state is JobState.PREEMPTED
    assert found.absent == {"5_1"}
    assert isinstance(queue_of(tmp_path, Replay(sacct=sacct)).accounting(["5_1"]), Unknown)


def test_grid_engine_accounts_for_one_job_at_a_time(tmp_path: Path) -> None:
    def qacct(argv: list[str]) -> Completed:
        name = {"1": "done", "2": "array"}.get(argv[-1], "none")
        return replace(recorded(f"sge/accounting_{name}"), argv=tuple(argv))

    host = Replay(qacct=qacct)
    queue = queue_of(tmp_path, host, scheduler="sge", parallel_environment="smp")
    found = queue.accounting(["1", "2.1", "2.2", "777"])
    assert isinstance(found, Snapshot)
    assert set(found.jobs) == {"1", "2.1", "2.2"}
    assert found.absent == {"777"}
    assert len(host.commands) == 3


def test_pbs_without_history_is_asked_again(tmp_path: Path) -> None:
    def qstat(argv: list[str]) -> Completed:
        if "-x" in argv:
            return Completed(tuple(argv), 1, "", "qstat: PBS is not configured to maintain job history\n")
        return replace(recorded("openpbs/finished_without_x"), argv=tuple(argv))

    host = Replay(qstat=qstat)
    found = queue_of(tmp_path, host, scheduler="pbs").snapshot(["18.pbs1"])
    assert found == Snapshot({}, frozenset({"18.pbs1"}))


def test_pbs_is_asked_in_parts_and_one_bad_part_spoils_all(tmp_path: Path) -> None:
    def qstat(argv: list[str]) -> Completed:
        ids = [w for w in argv if w.endswith(".pbs1")]
        if "150.pbs1" in ids:
            return Completed(tuple(argv), 255, "", "Connection refused\n")
        text = "".join(f"Job Id: {i}\n    job_state = R\n\n" for i in ids)
        return Completed(tuple(argv), 0, text)

    queue = queue_of(tmp_path, Replay(qstat=qstat), scheduler="pbs")
    good = queue.snapshot([f"{i}.pbs1" for i in range(200, 450)])
    assert isinstance(good, Snapshot)
    assert len(good.jobs) == 250
    assert isinstance(queue.snapshot([f"{i}.pbs1" for i in range(100, 350)]), Unknown)


def test_lsf_gets_the_script_on_standard_input(tmp_path: Path) -> None:
    host = Replay(bsub="lsf/submit_one")
    queue = queue_of(tmp_path, host, scheduler="lsf")
    assert queue.submit(Job(queue.profile, queue.profile.partition(), "a1b2")) == Submitted(("806291",))
    assert host.stdin[-1] == host.files["/shared/me/htxas/pilots/a1b2/script.sh"]


def test_cancelling(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Replay(scancel="slurm/cancel"))
    assert queue.cancel(["5_1", "777", "5_1"]) == {"5_1": Cancelled.ASKED, "777": Cancelled.ENDED_BEFORE}
    assert queue_of(tmp_path, Replay(scancel=LATE)).cancel(["5_1"]) == {"5_1": Cancelled.FAILED}


def test_nodes(tmp_path: Path) -> None:
    nodes = queue_of(tmp_path, Replay(sinfo="slurm/nodes_down")).node_states()
    assert not isinstance(nodes, Unknown)
    assert nodes["n1"].up is False
    assert isinstance(queue_of(tmp_path, Replay(), scheduler="local").node_states(), Unknown)


def test_which_host(tmp_path: Path) -> None:
    assert isinstance(open_host(profile(tmp_path)), LocalHost)
    assert open_host(profile(tmp_path, host="login.example.org")).name == "login.example.org"
