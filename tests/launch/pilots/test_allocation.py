from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from htxas.launch.pilots.allocation import Allocation, Probes, _cgroup_MB, _slurm_end, places, read_allocation

NOW = 1_700_000_000.0


def machine(
    cores: int = 16, memory_MB: float | None = 64000.0, slurm_end: float | None = None, node: str = "n1"
) -> Probes:
    return Probes(lambda: tuple(range(cores)), lambda: node, lambda: memory_MB, lambda job_id: slurm_end)


def read(environ: dict[str, str], probes: Probes | None = None, **kwargs: object) -> Allocation:
    arguments: dict[str, object] = {"walltime_s": 3600.0, **kwargs}
    return read_allocation(environ, NOW, probes or machine(), **arguments)  # type: ignore[arg-type]


def test_outside_a_queue_the_machine_tells() -> None:
    found = read({}, walltime_s=None)
    assert (found.scheduler, found.job_id, found.array_task, found.restart) == ("local", None, None, 0)
    assert (found.granted, found.memory_MB, found.end) == (16, 64000.0, None)
    assert found.pinnable


SLURM = {
    "SLURM_JOB_ID": "812",
    "SLURM_CPUS_ON_NODE": "16",
    "SLURM_MEM_PER_NODE": "8000",
    "SLURMD_NODENAME": "c07",
}


def test_slurm_job() -> None:
    found = read(SLURM | {"SLURM_RESTART_COUNT": "2", "SLURM_JOB_END_TIME": str(int(NOW) + 500)})
    assert (found.job_id, found.array_task, found.restart, found.node) == ("812", None, 2, "c07")
    assert (found.granted, found.memory_MB) == (16, 8000.0)
    assert (found.end, found.end_source) == (NOW + 500, "SLURM_JOB_END_TIME")


def test_slurm_array_task_is_named_as_squeue_names_it() -> None:
    found = read(SLURM | {"SLURM_ARRAY_JOB_ID": "800", "SLURM_ARRAY_TASK_ID": "12"})
    assert (found.job_id, found.array_task) == ("800_12", 12)


def test_slurm_end_is_asked_for_where_the_environment_is_silent_or_stale() -> None:
    stale = SLURM | {"SLURM_JOB_END_TIME": str(int(NOW) - 5)}
    for environ in (SLURM, stale):
        found = read(environ, machine(slurm_end=NOW + 900))
        assert (found.end, found.end_source) == (NOW + 900, "squeue")


def test_without_an_answer_the_walltime_counts_from_the_start_of_the_script() -> None:
    found = read(SLURM | {"HTXAS_JOB_STARTED": str(int(NOW) - 100)})
    assert (found.end, found.end_source) == (NOW + 3500, "walltime asked for")
    assert read(SLURM | {"HTXAS_JOB_STARTED": "soon"}).end == NOW + 3600
    assert read(SLURM, walltime_s=None).end is None


@pytest.mark.parametrize(
    ("environ", "memory_MB"),
    [
        ({"SLURM_MEM_PER_NODE": "0"}, 64000.0),
        ({"SLURM_MEM_PER_NODE": "8G"}, 8192.0),
        ({"SLURM_MEM_PER_NODE": "", "SLURM_MEM_PER_CPU": "500"}, 8000.0),
        ({"SLURM_MEM_PER_NODE": "900000"}, 64000.0),
        ({"SLURM_MEM_PER_NODE": "lots"}, 64000.0),
    ],
)
def test_slurm_memory(environ: dict[str, str], memory_MB: float) -> None:
    assert read(SLURM | environ).memory_MB == memory_MB


def test_slurm_step_on_the_second_of_two_nodes() -> None:
    environ = {
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_CPUS_PER_NODE": "16(x2),8",
        "SLURM_NODEID": "2",
        "SLURM_JOB_NUM_NODES": "3",
    }
    found = read(environ)
    assert (found.node_index, found.nodes, found.granted) == (2, 3, 8)
    assert read(environ | {"SLURM_JOB_CPUS_PER_NODE": "?"}).granted == 16


@pytest.mark.parametrize(
    ("environ", "job_id", "task"),
    [
        ({"PBS_JOBID": "77.head", "NCPUS": "8"}, "77.head", None),
        ({"PBS_JOBID": "77[4].head", "PBS_ARRAY_INDEX": "4", "NCPUS": "8"}, "77[4].head", 4),
        ({"PBS_JOBID": "77-4.head", "PBS_ARRAYID": "4", "PBS_NUM_PPN": "8"}, "77-4.head", 4),
        ({"JOB_ID": "31", "SGE_TASK_ID": "undefined", "NSLOTS": "8"}, "31", None),
        ({"JOB_ID": "31", "SGE_TASK_ID": "3", "NSLOTS": "8"}, "31.3", 3),
        ({"LSB_JOBID": "9", "LSB_JOBINDEX": "0", "LSB_DJOB_NUMPROC": "8"}, "9", None),
        ({"LSB_JOBID": "9", "LSB_JOBINDEX": "2", "LSB_MCPU_HOSTS": "n0 4 n1.site 8"}, "9[2]", 2),
    ],
)
def test_other_schedulers(environ: dict[str, str], job_id: str, task: int | None) -> None:
    found = read(environ)
    assert (found.job_id, found.array_task, found.granted) == (job_id, task, 8)
    assert found.end == NOW + 3600


def test_a_shell_variable_called_job_id_is_no_grid_engine() -> None:
    assert read({"JOB_ID": "31"}).scheduler == "local"


def test_torque_tells_its_walltime() -> None:
    found = read({"PBS_JOBID": "77", "PBS_WALLTIME": "60"}, walltime_s=None)
    assert (found.end, found.end_source) == (NOW + 60, "PBS_WALLTIME")


def test_grid_engine_slots_of_this_host_alone(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("n0.site 12 all.q UNDEFINED\nn1.site 4 all.q UNDEFINED\n")
    environ = {"JOB_ID": "1", "SGE_TASK_ID": "undefined", "NSLOTS": "16", "PE_HOSTFILE": str(hosts)}
    assert read(environ).granted == 4
    assert read(environ | {"PE_HOSTFILE": str(tmp_path / "absent")}).granted == 16


def test_restarts_that_only_our_records_can_count() -> None:
    assert read({"PBS_JOBID": "7"}, earlier=2).restart == 2
    assert read({"JOB_ID": "1", "SGE_TASK_ID": "undefined", "RESTARTED": "1"}).restart == 1
    assert read({"LSB_JOBID": "1", "LSB_RESTART": "Y"}, earlier=3).restart == 3
    # A controller that came back from an old state counts from zero again.
    assert read(SLURM | {"SLURM_RESTART_COUNT": "1"}, earlier=4).restart == 4


def allocated(granted: int = 16, visible: int = 16, memory_MB: float | None = 64000.0) -> Allocation:
    return read(
        SLURM | {"SLURM_CPUS_ON_NODE": str(granted), "SLURM_MEM_PER_NODE": "0"}, machine(visible, memory_MB)
    )


def test_all_places_pinned() -> None:
    found = places(allocated(), workers=4, cores_per_worker=3, memory_per_worker_MB=4000)
    assert (found.workers, found.cores, found.notes) == (4, tuple(range(12)), ())


def test_fewer_workers_where_cores_do_not_suffice() -> None:
    found = places(allocated(granted=8, visible=8), workers=4, cores_per_worker=4, memory_per_worker_MB=100)
    assert found.workers == 2
    assert found.cores == tuple(range(8))
    assert found.notes == ("2 of 4 workers: 8 cores on c07, 4 each",)


def test_fewer_workers_where_memory_does_not_suffice() -> None:
    found = places(allocated(memory_MB=10000.0), workers=4, cores_per_worker=4, memory_per_worker_MB=4000)
    assert found.workers == 2
    assert found.notes == ("2 of 4 workers: 10,000 MB on c07, 4,000 MB each",)


def test_one_worker_at_least_and_told_so() -> None:
    found = places(
        allocated(granted=1, visible=1, memory_MB=100.0),
        workers=2,
        cores_per_worker=4,
        memory_per_worker_MB=4000,
    )
    assert (found.workers, found.cores) == (1, ())
    assert any("less than the 4,000 MB" in note for note in found.notes)
    assert any("less than the 4 that" in note for note in found.notes)


def test_not_pinned_on_cores_that_others_may_have() -> None:
    found = places(allocated(granted=4, visible=16), workers=2, cores_per_worker=2, memory_per_worker_MB=0)
    assert (found.workers, found.cores) == (2, ())
    assert found.notes == ("workers are not pinned: 16 CPUs are visible, 4 are the job's",)


def test_cgroups_of_both_versions(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    job = tmp_path / "fs" / "slurm" / "job_1"
    job.mkdir(parents=True)
    membership.write_text("0::/slurm/job_1\n")
    assert _cgroup_MB(tmp_path / "fs", membership) is None
    (job / "memory.max").write_text("max\n")
    (job.parent / "memory.max").write_text(f"{300 * 2**20}\n")
    assert _cgroup_MB(tmp_path / "fs", membership) == 300
    old = tmp_path / "fs" / "memory" / "job_2"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text(f"{200 * 2**20}\n")
    (old.parent / "memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    membership.write_text("9:cpu:/x\n4:memory:/job_2\n0::/slurm/job_1\n")
    assert _cgroup_MB(tmp_path / "fs", membership) == 200
    assert _cgroup_MB(tmp_path / "fs", tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 2033-05-18T03:33:20", True),
        ("echo N/A", False),
        ("echo", False),
        ("echo slurm_load_jobs error >&2; exit 1", False),
    ],
)
def test_squeue_that_answers_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: bool
) -> None:
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "UTC")
    found = _slurm_end("5")
    assert (found is not None) is expected


def test_this_machine_answers() -> None:
    found = read_allocation({}, NOW, Probes.of_this_machine(), walltime_s=60)
    assert found.granted == len(found.cores) >= 1
    assert found.memory_MB is None or found.memory_MB > 0
