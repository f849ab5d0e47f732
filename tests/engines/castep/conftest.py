from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.castep.engine import ENGINE

FAKE = Path(__file__).parent / "fake_castep.py"


def make_job(
    structure: Structure, element: str, preset: str = "published", *, kind: Kind = Kind.SITE, **overrides: Any
) -> Job:
    parameters = ENGINE.resolve(preset, overrides, element=element, edge="K")
    if kind is Kind.GROUND:
        assert parameters.ground is not None
        return Job(Calculation(kind, structure.key, "castep", parameters.ground), structure)
    atom = structure.indices_of(element)[0]
    site = Calculation(kind, structure.key, "castep", parameters.site, element, "K", atom)
    return Job(site, structure)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Return a function that writes a job into a new folder and runs it with the stand-in."""

    def go(job: Job, name: str, *, mode: str = "good", seed: str | None = None) -> tuple[int, Path]:
        folder = tmp_path / name
        folder.mkdir()
        ENGINE.write(job, folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_")}
        environment |= {"HTXAS_CASTEP": f"{sys.executable} {FAKE}", "FAKE_CASTEP": mode}
        if seed is not None:
            environment["FAKE_CASTEP_SEED"] = seed
        status = subprocess.run(ENGINE.command(folder), env=environment, check=False).returncode
        return status, folder

    return go


@pytest.fixture
def with_ground(run: Callable[..., tuple[int, Path]]) -> Callable[[Job], Job]:
    """Return a function that computes a site's ground state and returns the site that refers to it."""

    def go(site: Job) -> Job:
        c = site.calculation
        parameters = {**c.parameters["ground"], "pdos_window_eV": 15.0}
        ground = Job(Calculation(Kind.GROUND, c.structure_key, "castep", parameters), site.structure)
        _, folder = run(ground, "the-ground-state")
        found = ENGINE.read(ground, folder)
        return replace(site, ground_directory=folder, ground_energy_eV=found.total_energy_eV)  # type: ignore[union-attr]

    return go


@pytest.fixture
def formaldehyde() -> Structure:
    positions = [[0, 0, -0.53], [0, 0, 0.676], [0, 0.935, -1.12], [0, -0.935, -1.12]]
    return Structure.from_atoms(list("COHH"), positions)[0]


@pytest.fixture
def mgo() -> Structure:
    cell = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 4.212
    return Structure.from_atoms(["Mg", "O"], [[0, 0, 0], [2.106, 0, 0]], cell)[0]
