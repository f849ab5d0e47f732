"""A small campaign on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MOLECULES = """\
2
nitrogen
N 0.0 0.0 0.0
N 1.1 0.0 0.0
5
methane
C 0.0 0.0 0.0
H 0.629 0.629 0.629
H -0.629 -0.629 0.629
H -0.629 0.629 -0.629
H 0.629 -0.629 -0.629
4
ethyne
C 0.0 0.0 0.6
C 0.0 0.0 -0.6
H 0.0 0.0 1.66
H 0.0 0.0 -1.66
3
hcn
N 0.0 0.0 1.156
C 0.0 0.0 0.0
H 0.0 0.0 -1.064
"""

CAMPAIGN = """\
campaign: tiny
structures:
  file: molecules.xyz
site: {element: C, edge: K}
engine: {name: fake, preset: instant}
spectrum: {sigma_eV: 0.5}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the campaign file with replacements, and its molecules; return the file."""

    def make(*replacements: tuple[str, str], molecules: str = MOLECULES) -> Path:
        (tmp_path / "molecules.xyz").write_text(molecules)
        text = CAMPAIGN
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return path

    return make
