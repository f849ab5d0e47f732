from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, Job
from htxas.engines.registry import get_engine

MOLECULES = {
    "methanol": (
        "C O H H H H".split(),
        [
            [-0.0466, 0.6632, 0],
            [-0.0466, -0.7584, 0],
            [-1.0867, 0.9792, 0],
            [0.4376, 1.0710, 0.8898],
            [0.4376, 1.0710, -0.8898],
            [0.8764, -1.0571, 0],
        ],
    ),
    "ethyne": ("C C H H".split(), [[0, 0, 0.6015], [0, 0, -0.6015], [0, 0, 1.663], [0, 0, -1.663]]),
    "formaldehyde": (
        "C O H H".split(),
        [[0, 0, -0.6], [0, 0, 0.605], [0, 0.943, -1.187], [0, -0.943, -1.187]],
    ),
}


def molecule(name: str) -> Structure:
    return Structure.from_atoms(*MOLECULES[name])[0]


def jobs(
    engine: Engine, structure: Structure, directory: Path, *, preset: str = "published", **overrides: object
) -> tuple[Job, Job]:
    """Written ground-state and first-carbon jobs below ``directory``."""
    p = engine.resolve(preset, overrides, element="C", edge="K")
    ground = Calculation(Kind.GROUND, structure.key, engine.name, p.ground)
    site = Calculation(Kind.SITE, structure.key, engine.name, p.site, "C", "K", structure.indices_of("C")[0])
    pair = (Job(ground, structure), Job(site, structure, directory / "ground"))
    for name, job in zip(("ground", "site"), pair, strict=True):
        (directory / name).mkdir()
        engine.write(job, directory / name)
    return pair


def run(engine: Engine, directory: Path) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(engine.command(directory), env=environment, check=False, timeout=300).returncode


@pytest.fixture
def engine() -> Engine:
    return get_engine("pyscf")


@pytest.fixture(scope="session")
def methanol_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job, Job, Result, Result]:
    """Methanol, ground state and carbon site, run as a user's job would be."""
    engine = get_engine("pyscf")
    directory = tmp_path_factory.mktemp("methanol")
    ground, site = jobs(engine, molecule("methanol"), directory)
    assert run(engine, directory / "ground") == 0
    assert run(engine, directory / "site") == 0
    return (
        directory,
        ground,
        site,
        engine.read(ground, directory / "ground"),
        engine.read(site, directory / "site"),
    )
