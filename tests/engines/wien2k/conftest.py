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
from htxas.engines.wien2k.engine import ENGINE

FAKE = Path(__file__).parent / "fake_wien2k.py"
SMALL: dict[str, Any] = {"supercell": {"repeats": [2, 2, 1]}, "kpoints": {"divisions": [2, 2, 3]}}


def make_job(structure: Structure, element: str = "O", preset: str = "crystal", **overrides: Any) -> Job:
    parameters = ENGINE.resolve(preset, {**SMALL, **overrides}, element=element, edge="K")
    atom = structure.indices_of(element)[0]
    site = Calculation(Kind.SITE, structure.key, "wien2k", parameters.site, element, "K", atom)
    return Job(site, structure)


def install(root: Path) -> Path:
    """Put the stand-in into a folder under the names of WIEN2k's scripts."""
    root.mkdir()
    for name in ("init_lapw", "run_lapw", "x_lapw"):
        script = root / name
        script.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
        script.chmod(0o755)
    return root


@pytest.fixture
def wienroot(tmp_path: Path) -> Path:
    """Return a folder with the stand-in under the names of WIEN2k's scripts."""
    return install(tmp_path / "wienroot")


@pytest.fixture
def run(tmp_path: Path, wienroot: Path) -> Callable[..., tuple[int, Path]]:
    """Return a function that writes a job into a new folder and runs it with the stand-in."""

    def go(
        job: Job, name: str, *, mode: str = "good", case: str | None = None, words: str = ""
    ) -> tuple[int, Path]:
        folder = tmp_path / name
        folder.mkdir()
        ENGINE.write(job, folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_")}
        environment |= {"HTXAS_WIEN2K": f"{wienroot} {words}".strip(), "FAKE_WIEN2K": mode}
        environment |= {"SCRATCH": "/nowhere/shared"}
        if case is not None:
            environment["FAKE_WIEN2K_CASE"] = case
        status = subprocess.run(ENGINE.command(folder), env=environment, check=False).returncode
        return status, folder

    return go


def rock_salt_primitive() -> Structure:
    cell = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 4.212
    return Structure.from_atoms(["Mg", "O"], [[0, 0, 0], [2.106, 0, 0]], cell)[0]


def hexagonal() -> Structure:
    """Return a made-up crystal of layers like boron nitride's, with carbon for boron."""
    a, c = 2.504, 6.661
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    third = 1 / 3
    fractions = np.array(
        [
            [third, 2 * third, 0.25],
            [2 * third, third, 0.75],
            [2 * third, third, 0.25],
            [third, 2 * third, 0.75],
        ]
    )
    return Structure.from_atoms(list("CCNN"), fractions @ cell, cell)[0]


@pytest.fixture
def mgo() -> Structure:
    return rock_salt_primitive()


@pytest.fixture
def layers() -> Structure:
    return hexagonal()


@pytest.fixture
def rock_salt() -> Structure:
    """Return the conventional cell of MgO: not a primitive one."""
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 4.212
    positions = np.concatenate([corners, corners + np.array([2.106, 0, 0])])
    return Structure.from_atoms(["Mg"] * 4 + ["O"] * 4, positions, np.eye(3) * 4.212)[0]
