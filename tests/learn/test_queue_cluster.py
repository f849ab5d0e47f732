"""Training jobs: what each scheduler is given. The jobs themselves run in tests/slurm/test_train.py."""

from __future__ import annotations

from pathlib import Path

import dask
import dask_jobqueue  # noqa: F401  its defaults come before what the test sets
import pytest

from htxas.cluster.load import Config, load_config
from htxas.errors import CampaignFileError, UserError
from htxas.learn.runs.parallel import WORKER_ENVIRONMENT
from htxas.learn.runs.queue_cluster import job_script, queue_workers

HEAD = {
    "slurm": (
        "#SBATCH -p gpu",
        "#SBATCH -A abc",
        "#SBATCH -t 02:00:00",
        "#SBATCH --export=NONE",
        "#SBATCH --mem=",
    ),
    "pbs": ("#PBS -q gpu", "#PBS -A abc", "#PBS -l walltime=02:00:00", "#PBS -l select=1:ncpus=8:mem="),
    "sge": ("#$ -q gpu", "#$ -P abc", "#$ -l h_rt=02:00:00", "#$ -pe smp 8", "#$ -l h_vmem=2000M"),
    "lsf": ("#BSUB -q gpu", '#BSUB -P "abc"', "#BSUB -W 02:00", "#BSUB -n 8"),
}
SGE = "\n    parallel_environment: smp\n    memory_resource: h_vmem"


def config(folder: Path, scheduler: str = "slurm", dask: str = "", extra: str = "") -> Config:
    path = folder / "htxas.yaml"
    path.write_text(
        f"""clusters:
  mini:
    scheduler: {scheduler}{SGE if scheduler == "sge" else ""}
    account: abc
    setup: [module load gcc]{extra}
    partitions:
      main: {{walltime: 04:00:00, cores: 8}}
      train: {{queue: gpu, walltime: 02:00:00, cores: 8}}
    pilots: {{workers: 8}}
    dask: {{partition: train, memory_per_worker_GB: 2{dask}}}
"""
    )
    return load_config(path)


@pytest.mark.parametrize("scheduler", HEAD)
def test_the_script_of_each_scheduler(scheduler: str, tmp_path: Path) -> None:
    with dask.config.set({"jobqueue.lsf.lsf-units": "mb"}):  # elsewhere read from LSF's own configuration
        script = job_script(
            queue_workers("mini", config(tmp_path, scheduler)), WORKER_ENVIRONMENT, tmp_path / "jobs"
        )
    for line in HEAD[scheduler]:
        assert line in script
    assert "module load gcc" in script
    assert '"OMP_NUM_THREADS": "1"' in script
    assert "--lifetime 7020s --lifetime-stagger 60s" in script  # 2 h less 120 s and 60 s
    assert "tls://" in script
    assert "BEGIN" not in script  # keys stay in files


def test_without_time_for_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves no time beside margin_s"):
        queue_workers("mini", config(tmp_path, dask=", margin_s: 7200"))


def test_a_mistyped_key(tmp_path: Path) -> None:
    with pytest.raises(
        CampaignFileError, match=r"htxas\.yaml:10: clusters\.mini\.dask\.stager_s: unknown key"
    ):
        queue_workers("mini", config(tmp_path, dask=", stager_s: 3"))


def test_a_cluster_behind_ssh_is_refused(tmp_path: Path) -> None:
    host = "\n    host: login\n    home: /shared/me\n    python: /usr/bin/python3"
    with pytest.raises(UserError, match="run htxas train --cluster mini on login"):
        queue_workers("mini", config(tmp_path, extra=host))
