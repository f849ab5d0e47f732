"""Codes that must be installed: a test with their mark skips loudly without, or fails if HTXAS_REQUIRE_ENGINES=1."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import pytest

PROGRAMS = {"qe": ("pw.x", "xspectra.x"), "cp2k": ("cp2k",), "elk": ("elk-lapw",)}
MODULES = {"gpaw": "HTXAS_GPAW"}  # in this Python, or in the one that is named there


def lacking(mark: str) -> str | None:
    """Return what a code with this mark lacks here, or None."""
    if mark in MODULES:
        there = MODULES[mark] in os.environ or find_spec(mark) is not None
        return None if there else f"a Python with {mark} ({MODULES[mark]})"
    return next((p for p in PROGRAMS[mark] if shutil.which(p) is None), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in (*PROGRAMS, *MODULES):
        if item.get_closest_marker(mark) is None:
            continue
        missing = lacking(mark)
        if missing is not None and os.environ.get("HTXAS_REQUIRE_ENGINES") == "1":
            pytest.fail(f"HTXAS_REQUIRE_ENGINES=1, but there is no {missing}")
        if missing is not None:
            pytest.skip(f"needs {missing}")
