from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.structure import Structure

RUNS = Path(__file__).parent / "runs"
_ROCK_SALT_A = 4.212


@pytest.fixture
def runs() -> Path:
    """Return the folder of committed runs."""
    return RUNS


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a run to where it may be changed."""
    import shutil

    def copy(name: str) -> Path:
        return Path(shutil.copytree(RUNS / name, tmp_path / name))

    return copy


@pytest.fixture
def ethylene() -> Structure:
    x, y = 0.9289, 1.2321
    positions = [[0, 0, 0.6695], [0, 0, -0.6695], [0, x, y], [0, -x, y], [0, x, -y], [0, -x, -y]]
    return Structure.from_atoms(list("CCHHHH"), positions)[0]


@pytest.fixture
def mgo() -> Structure:
    cell = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * _ROCK_SALT_A
    return Structure.from_atoms(["Mg", "O"], [[0, 0, 0], [_ROCK_SALT_A / 2, 0, 0]], cell)[0]
