"""Jobs without a scheduler: real processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from htxas.cluster.jobs import Cancelled, JobInfo, JobState, Refused, Snapshot, Submitted, Unknown
from htxas.cluster.local import Local
from htxas.cluster.localjob import main
from htxas.cluster.queue import Job, Queue, open_queue
from tests.cluster.profiles import profile


def queue_of(folder: Path, script: str, walltime: int = 60, signal_s: int = 0) -> Queue:
    (folder / "mine.sh").write_text(f"#!/bin/bash\n{script}\n")
    p = profile(
        folder,
        scheduler="local",
        template="mine.sh",
        home=str(folder / "home"),
        python=sys.executable,
        partitions={"main": {"walltime": walltime, "cores": 2}},
        pilots={"workers": 1, "margin_s": 1, "signal_s": signal_s},
    )
    return open_queue(p)


def submit(queue: Queue, array: int = 1) -> list[str]:
    found = queue.submit(Job(queue.profile, queue.profile.partition(), "a1b2", array=array))
    assert isinstance(found, Submitted)
    return list(found.ids)


def jobs(queue: Queue, ids: list[str]) -> dict[str, JobInfo]:
    found = queue.snapshot(ids)
    assert isinstance(found, Snapshot)
    return dict(found.jobs)


def until(queue: Queue, job: str, holds: Callable[[JobInfo], bool]) -> JobInfo:
    end = time.monotonic() + 20
    while True:
        told = jobs(queue, [job])[job]
        if holds(told):
            return told
        assert time.monotonic() < end, told
        time.sleep(0.05)


def ended(job: JobInfo) -> bool:
    return job.state.ended


def running(job: JobInfo) -> bool:
    return job.state is JobState.RUNNING


def test_done_and_failed(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "echo task $HTXAS_ARRAY_TASK; exit $((HTXAS_ARRAY_TASK - 1))")
    first, second = submit(queue, 2)
    done, failed = until(queue, first, ended), until(queue, second, ended)
    assert (done.state, done.exit_code, done.name) == (JobState.DONE, 0, "htxas-a1b2")
    assert (failed.state, failed.exit_code) == (JobState.FAILED, 1)
    assert done.start is not None
    assert done.end is not None
    assert done.submitted is not None
    assert done.submitted <= done.start <= done.end
    out = Path(queue.profile.home) / "pilots/a1b2"
    assert (out / "local-2.out").read_text() == "task 2\n"


def test_a_walltime_is_warned_about_and_kept(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "trap 'echo warned' USR1\ntrap 'echo ended; exit 9' TERM\nwhile :; do sleep 0.1; done",
                     walltime=2, signal_s=1)  # fmt: skip
    (job,) = submit(queue)
    told = until(queue, job, ended)
    assert told.state is JobState.TIMEOUT
    said = (Path(queue.profile.home) / "pilots/a1b2/local.out").read_text().split()
    assert [word for word in said if word != "Terminated"] == ["warned", "ended"]  # bash, of its sleep


def test_cancelling_ends_the_whole_group(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "sleep 60 & echo $! > child; mv child pid; wait")
    (job,) = submit(queue)
    pid = Path(queue.profile.home) / "pilots/a1b2/pid"
    until(queue, job, lambda told: running(told) and pid.exists())
    child = int(pid.read_text())
    assert queue.cancel([job, "99"]) == {job: Cancelled.ASKED, "99": Cancelled.ENDED_BEFORE}
    assert until(queue, job, ended).state is JobState.CANCELLED
    assert queue.cancel([job]) == {job: Cancelled.ENDED_BEFORE}
    end = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_job_outlives_its_keeper_and_can_still_be_cancelled(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "sleep 60")
    (job,) = submit(queue)
    until(queue, job, running)
    folder = Path(queue.profile.home) / "queue" / job
    (keeper, _), (script, _) = json.loads((folder / "pids.json").read_text())["pids"]
    os.kill(keeper, signal.SIGKILL)
    time.sleep(0.2)
    assert jobs(queue, [job])[job].state is JobState.RUNNING
    assert queue.cancel([job]) == {job: Cancelled.ASKED}
    told = until(queue, job, ended)
    assert (told.state, told.reason) == (JobState.FAILED, "its processes vanished")
    assert not Path(f"/proc/{script}").exists() or " Z " in Path(f"/proc/{script}/stat").read_text()


def test_a_process_id_that_was_used_again_is_not_the_job(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "sleep 60")
    folder = Path(queue.profile.home) / "queue/7"
    folder.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (folder / "job.json").write_text(json.dumps({"name": "htxas-x", "submitted": 1.0}))
    pids: dict[str, Any] = {"pids": [[os.getpid(), 1]], "boot": boot, "start": 1.0, "end": 61.0}
    (folder / "pids.json").write_text(json.dumps(pids))
    assert jobs(queue, ["7"])["7"].state is JobState.FAILED
    (folder / "pids.json").write_text(json.dumps({**pids, "boot": "another"}))
    assert jobs(queue, ["7"])["7"].state is JobState.NODE_FAIL


def test_a_job_whose_keeper_never_came(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "sleep 60")
    folder = Path(queue.profile.home) / "queue/7"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"name": "htxas-x", "submitted": time.time()}))
    assert jobs(queue, ["7"])["7"].state is JobState.PENDING
    (folder / "job.json").write_text(json.dumps({"name": "htxas-x", "submitted": time.time() - 100}))
    assert jobs(queue, ["7"])["7"].state is JobState.FAILED


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, "true")
    ids = [submit(queue)[0] for _ in range(3)]
    assert ids == ["1", "2", "3"]
    found = queue.find_by_name("htxas-a1b2")
    assert not isinstance(found, Unknown)
    assert {job.id for job in found} == set(ids)
    for job in ids:
        until(queue, job, ended)
    told = queue.accounting([*ids, "9"])
    assert isinstance(told, Snapshot)
    assert set(told.jobs) == set(ids)
    assert told.absent == {"9"}


def test_no_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--folder",
        str(tmp_path),
        "submit",
        "--name",
        "x",
        "--walltime-s",
        "9",
        str(tmp_path / "none.sh"),
    ]
    assert main(words) == 1
    assert "there is no script" in capsys.readouterr().err
    queue = queue_of(tmp_path, "true")
    local = Local(sys.executable, str(tmp_path), walltime_s=9, signal_s=0)
    answer = queue.host.run(local.build_submit(str(tmp_path / "none.sh"), name="x", array=1))
    assert isinstance(local.parse_submit(answer, array=1), Refused)
