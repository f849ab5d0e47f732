"""Codes that must be installed: a test with their mark skips loudly without, or fails if HTXAS_REQUIRE_ENGINES=1."""

from __future__ import annotations

import os
import shutil

import pytest

PROGRAMS = {"qe": ("pw.x", "xspectra.x"), "cp2k": ("cp2k",), "elk": ("elk-lapw",)}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, programs in PROGRAMS.items():
        if item.get_closest_marker(mark) is None:
            continue
        lacking = [p for p in programs if shutil.which(p) is None]
        if lacking and os.environ.get("HTXAS_REQUIRE_ENGINES") == "1":
            pytest.fail(f"HTXAS_REQUIRE_ENGINES=1, but there is no {lacking[0]}")
        if lacking:
            pytest.skip(f"needs {lacking[0]} on the path")
