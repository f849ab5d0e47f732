from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from htxas.domain.structure import Structure

RUNS = Path(__file__).parent / "runs"


@pytest.fixture
def runs() -> Path:
    """Return the folder of committed runs."""
    return RUNS


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a run to where it may be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(RUNS / name, tmp_path / name))

    return copy


@pytest.fixture
def methane() -> Structure:
    d = 0.629118
    positions = [[0, 0, 0], [d, d, d], [-d, -d, d], [d, -d, -d], [-d, d, -d]]
    return Structure.from_atoms(list("CHHHH"), positions)[0]


@pytest.fixture
def acetic_acid() -> Structure:
    """Two C, two O, none of them alike; not a relaxed geometry."""
    positions = [[0, 0, 0], [1.5, 0, 0], [2.1, 1.05, 0], [2.15, -1.2, 0], [3.1, -1.1, 0]]
    methyl = [[-0.4, 1.0, 0], [-0.4, -0.5, 0.9], [-0.4, -0.5, -0.9]]
    return Structure.from_atoms(list("CCOOHHHH"), [*positions, *methyl])[0]
