from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
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
def diamond() -> Structure:
    cell = (np.ones((3, 3)) - np.eye(3)) * 3.567 / 2
    return Structure.from_atoms(["C", "C"], [[0, 0, 0], [0.89175] * 3], cell)[0]


@pytest.fixture
def magnesia() -> Structure:
    cell = (np.ones((3, 3)) - np.eye(3)) * 2.106
    return Structure.from_atoms(["Mg", "O"], [[0, 0, 0], [2.106] * 3], cell)[0]
