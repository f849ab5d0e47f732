"""The same facade on a real Slurm and a real Grid Engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from htxas.cluster.check import Verdict, check
from htxas.cluster.host import Completed, LocalHost
from htxas.cluster.jobs import Cancelled, JobInfo, JobState, Refused, Snapshot, Submitted
from htxas.cluster.queue import Job, Queue, open_queue
from tests.cluster.profiles import profile
from tests.slurm.fixtures import MiniSlurm
from tests.slurm.gridengine import GridEngine

# Stands for the interpreter: says which pilot it is, and stays until it is asked to end.
PYTHON = """\
#!/bin/bash
[ "$1" = -c ] && exit 1
echo "$4 $$ ${SLURM_PROCID:-} database=$HTXAS_DB_URI_FILE secret=$SECRET" >> FOLDER/began
trap 'echo "$4 USR1" >> FOLDER/began' USR1
trap 'exit 0' TERM USR2
while :; do sleep 0.2; done
"""


class Inside(LocalHost):
    """A host whose commands run where Grid Engine is."""

    def __init__(self, engine: GridEngine) -> None:
        super().__init__(30.0)
        self.engine = engine

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, stdin: str | None = None
    ) -> Completed:
        values = [f"{k}={v}" for k, v in self.engine.environment.items() if k.startswith("SGE_")]
        done = super().run([*self.engine.prefix(), "env", *values, *argv], timeout_s=timeout_s, stdin=stdin)
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr, done.problem)


def made(folder: Path, **changes: Any) -> Any:
    program = folder / "python"
    program.write_text(PYTHON.replace("FOLDER", str(folder)))
    program.chmod(0o755)
    pilots = {"workers": 1, "memory_per_worker_GB": 0.1, "margin_s": 10, "signal_s": 1}
    return profile(
        folder,
        **{
            "home": str(folder / "home"),
            "python": str(program),
            "database": "none",
            "pilots": pilots,
            **changes,
        },
    )


def submit(queue: Queue, array: int, partition: str | None = None) -> list[str]:
    found = queue.submit(Job(queue.profile, queue.profile.partition(partition), "a1b2", array=array))
    assert isinstance(found, Submitted)
    return list(found.ids)


def until(
    queue: Queue, ids: list[str], holds: Callable[[JobInfo], bool], seconds: float = 40
) -> dict[str, JobInfo]:
    end = time.monotonic() + seconds
    while True:
        found = queue.snapshot(ids)
        assert isinstance(found, Snapshot), found
        if not found.absent and all(holds(job) for job in found.jobs.values()):
            return dict(found.jobs)
        assert time.monotonic() < end, found
        time.sleep(0.2)


def began(folder: Path, lines: int) -> list[str]:
    end = time.monotonic() + 30
    path = folder / "began"
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < end
        time.sleep(0.1)
    return sorted(path.read_text().splitlines())


@pytest.fixture
def slurm_queue(slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setenv("SECRET", "of the submitting shell")
    partitions = {
        "main": {"walltime": 120, "cores": 4},
        "wide": {"queue": "main", "walltime": 120, "cores": 4, "nodes": 2},
        "nowhere": {"walltime": 120, "cores": 4},
    }
    return open_queue(made(tmp_path, partitions=partitions))


@pytest.mark.slurm
def test_an_array_on_a_real_slurm(slurm_queue: Queue, tmp_path: Path) -> None:
    ids = submit(slurm_queue, 2)
    jobs = until(slurm_queue, ids, lambda job: job.state is JobState.RUNNING)
    assert [line.split()[0] for line in began(tmp_path, 2)] == ["a1b2-1", "a1b2-2"]
    assert all(line.endswith("database= secret=") for line in began(tmp_path, 2))
    for job in jobs.values():
        assert job.start is not None
        assert job.end == job.start + 120
        assert abs(job.start - time.time()) < 60  # whatever the time zone
    assert [job.id for job in slurm_queue.find_by_name("htxas-a1b2")] == ids  # type: ignore[union-attr]
    assert set(slurm_queue.cancel([*ids, "999999"]).values()) == {Cancelled.ASKED, Cancelled.ENDED_BEFORE}
    ended = until(slurm_queue, ids, lambda job: job.state.ended)
    assert {job.state for job in ended.values()} == {JobState.CANCELLED}


@pytest.mark.slurm
def test_an_agent_on_each_node_of_a_real_slurm(slurm_queue: Queue, tmp_path: Path) -> None:
    ids = submit(slurm_queue, 1, "wide")
    lines = began(tmp_path, 2)
    assert {line.split()[2] for line in lines} == {"0", "1"}
    slurm_queue.host.run(["scancel", "--batch", "--signal=USR1", *ids])  # as --signal=B:USR1@N does
    assert began(tmp_path, 4).count("a1b2 USR1") == 2
    slurm_queue.cancel(ids)
    until(slurm_queue, ids, lambda job: job.state.ended)


@pytest.mark.slurm
def test_a_real_slurm_refuses(slurm_queue: Queue) -> None:
    job = Job(slurm_queue.profile, slurm_queue.profile.partition("nowhere"), "a1b2")
    refused = slurm_queue.submit(job)
    assert isinstance(refused, Refused)
    assert "invalid partition" in refused.reason
    found = {f.what: f.verdict for f in check(slurm_queue)}
    assert (
        found["partition main"] is found["partition wide"] is found["nodes"] is found["queue"] is Verdict.OK
    )
    assert found["partition nowhere"] is Verdict.PROBLEM


@pytest.mark.sge
def test_an_array_on_a_real_grid_engine(grid_engine: GridEngine, tmp_path: Path) -> None:
    partitions = {"all.q": {"walltime": 120, "cores": 4}, "nowhere": {"walltime": 120, "cores": 4}}
    p = made(tmp_path, scheduler="sge", parallel_environment="smp", partitions=partitions)
    queue = open_queue(p, Inside(grid_engine))
    ids = submit(queue, 2)
    until(queue, ids, lambda job: job.state is JobState.RUNNING)
    assert [line.split()[0] for line in began(tmp_path, 2)] == ["a1b2-1", "a1b2-2"]
    assert len(queue.find_by_name("htxas-a1b2")) == 2  # type: ignore[arg-type]
    nodes = queue.node_states()
    assert [node.up for node in nodes.values()] == [True]  # type: ignore[union-attr]
    assert set(queue.cancel([*ids, "999999"]).values()) == {Cancelled.ASKED, Cancelled.ENDED_BEFORE}
    end = time.monotonic() + 40
    while not isinstance(told := queue.accounting(ids), Snapshot) or told.absent:
        assert time.monotonic() < end, told
        time.sleep(0.5)
    assert all(job.state.ended for job in told.jobs.values())
    gone = queue.snapshot(ids)
    assert isinstance(gone, Snapshot)
    assert gone.absent == set(ids)
    refused = queue.submit(Job(p, p.partition("nowhere"), "a1b2"))
    assert isinstance(refused, Refused)
    found = {f.what: f.verdict for f in check(queue)}
    assert found["partition all.q"] is Verdict.OK
    assert found["partition nowhere"] is Verdict.PROBLEM
