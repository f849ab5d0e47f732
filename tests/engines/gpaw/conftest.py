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
def carbon_monoxide() -> Structure:
    return Structure.from_atoms(["C", "O"], [[0, 0, 0], [0, 0, 1.128]])[0]
