"""A profile made as a user would make it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from htxas.cluster.load import load_config
from htxas.cluster.profile import Profile

BASE: dict[str, Any] = {
    "scheduler": "slurm",
    "home": "/shared/me/htxas",
    "python": "/shared/me/venv/bin/python",
    "partitions": {"main": {"walltime": "24:00:00", "cores": 64, "memory_GB": 256}},
    "pilots": {"workers": 16, "cores_per_worker": 4},
}


def write_config(folder: Path, **changes: Any) -> Path:
    """Write an ``htxas.yaml`` with one cluster, ``mine``; a value of None removes the key."""
    cluster = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    path = folder / "htxas.yaml"
    yaml = YAML()
    yaml.default_flow_style = False
    with path.open("w") as stream:
        yaml.dump({"clusters": {"mine": cluster}}, stream)
    return path


def profile(folder: Path, **changes: Any) -> Profile:
    """Return the profile of :func:`write_config`."""
    return load_config(write_config(folder, **changes)).cluster("mine")
