from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.olcao.engine import ENGINE

FAKE = Path(__file__).parent / "fake_olcao.py"
SMALL: dict[str, Any] = {"supercell": {"repeats": [2, 2, 1]}, "kpoints": {"divisions": [2, 2, 3]}}


def make_job(structure: Structure, element: str = "O", **overrides: Any) -> Job:
    parameters = ENGINE.resolve("crystal", {**SMALL, **overrides}, element=element, edge="K")
    atom = structure.indices_of(element)[0]
    site = Calculation(Kind.SITE, structure.key, "olcao", parameters.site, element, "K", atom)
    return Job(site, structure)


def install(root: Path) -> Path:
    """Put the stand-in into a folder under the names of OLCAO's scripts; return that folder."""
    (root / "bin").mkdir(parents=True)
    for name in ("makeinput", "olcao"):
        script = root / "bin" / name
        script.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
        script.chmod(0o755)
    for name in ("atomicBDB", "atomicPDB", "spaceDB"):
        (root / "share" / name).mkdir(parents=True)
    return root / "bin"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return install(tmp_path / "olcao")


@pytest.fixture
def run(tmp_path: Path, programs: Path) -> Callable[..., tuple[int, Path]]:
    """Return a function that writes a job into a new folder and runs it with the stand-in."""

    def go(job: Job, name: str, *, mode: str = "good") -> tuple[int, Path]:
        folder = tmp_path / name
        folder.mkdir()
        ENGINE.write(job, folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HTXAS_", "OLCAO_"))}
        environment |= {"HTXAS_OLCAO": str(programs), "FAKE_OLCAO": mode}
        status = subprocess.run(ENGINE.command(folder), env=environment, check=False).returncode
        return status, folder

    return go


def rock_salt() -> Structure:
    cell = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 4.212
    return Structure.from_atoms(["Mg", "O"], [[0, 0, 0], [2.106, 0, 0]], cell)[0]


def two_sites() -> Structure:
    """Return a made-up crystal with two inequivalent nitrogens."""
    cell = np.diag([3.0, 3.2, 6.5])
    return Structure.from_atoms(list("CNN"), [[0, 0, 0], [0, 0, 1.5], [0, 0, 4.0]], cell)[0]


@pytest.fixture
def mgo() -> Structure:
    return rock_salt()
