"""Writing to the terminal: tables that keep their columns in a pipe, and JSON that any parser reads."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

__all__ = ["console", "error_console", "to_json"]

_PIPE_WIDTH = 160


def console() -> Console:
    """Return a console on standard output; in a pipe it is wide enough for every table.

    Square brackets and colons are printed as they are: SMILES and messages are full of them.
    """
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def error_console() -> Console:
    """Return a console on standard error, for progress that must not mix with output."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def to_json(document: Any, *, indent: int | None = 1) -> str:
    """Return JSON text, on one line if ``indent`` is None. Numbers that are not finite become null: JSON has none."""
    return json.dumps(_finite(document), indent=indent, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
