"""What watching services do besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from htxas.cluster.load import load_config
from htxas.errors import CampaignFileError
from htxas.launch.watching.upkeep import Upkeep, local_quota
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

_CLUSTER = """
  {name}:
    scheduler: slurm
    {host}
    home: {home}
    python: /usr/bin/python3
    database: none
    partitions: {{main: {{walltime: "01:00:00", cores: 4}}}}
    pilots: {{workers: 2}}
    disk: {{most_GB: {most}, most_files: 1000}}
"""


def config(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, rest: str = "") -> Path:
    path = folder / "htxas.yaml"
    here = _CLUSTER.format(name="here", host="account: me", home=home, most=2)
    there = _CLUSTER.format(name="there", host="host: login", home=home, most=1)
    path.write_text(f"clusters:{there}{here}{rest}")
    monkeypatch.setenv("HTXAS_CONFIG", str(path))
    return path


def test_the_limits_are_those_of_the_cluster_that_has_this_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = local_quota(load_config(config(tmp_path, home, monkeypatch)))
    assert (quota.most_bytes, quota.most_files) == (2_000_000_000, 1000)
    other = local_quota(load_config(config(tmp_path, tmp_path / "other", monkeypatch)))
    assert (other.most_bytes, other.most_files) == (None, None)
    assert local_quota(None).most_bytes is None


def test_it_runs_without_a_configuration_and_refuses_a_wrong_one(
    store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HTXAS_CONFIG", raising=False)
    Upkeep(store).tick()
    config(tmp_path, home, monkeypatch, "\nnotify:\n  comand: [mail]\n")
    with pytest.raises(CampaignFileError, match="comand"):
        Upkeep(store)
