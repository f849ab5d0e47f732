"""Content hashes. The identity of a calculation is what it computes, never where its file lay."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["KEY_LENGTH", "canonical_json", "content_key", "is_key", "tidy_float"]

KEY_LENGTH = 32
_HEX = frozenset("0123456789abcdef")
"""Hex digits in a key: 128 bits, so a collision among 1e9 calculations has odds below 1e-20."""

_SIGNIFICANT_DIGITS = 12


def tidy_float(value: float) -> float | int:
    """Return ``value`` rounded to 12 significant digits; whole numbers become ``int``.

    ``0.1 + 0.2`` and ``0.3``, ``500`` and ``500.0``, ``1e-6`` and ``0.000001`` are the same number to a user,
    so they are the same number in an identity.

    Raises
    ------
    ValueError
        If ``value`` is not finite: NaN and infinity identify nothing.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be part of an identity")
    if value.is_integer() and abs(value) < 1e11:  # has no more digits than are kept
        return int(value)
    rounded = float(f"{value:.{_SIGNIFICANT_DIGITS - 1}e}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _tidy(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        return tidy_float(value)
    if kind is str or kind is int:
        return value
    if kind is list:
        return [_tidy(v) for v in value]
    if kind is dict:
        return {str(k): _tidy(v) for k, v in value.items()}
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return tidy_float(value)
    if isinstance(value, Mapping):
        return {str(k): _tidy(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_tidy(v) for v in value]
    raise TypeError(f"{type(value).__name__} cannot be part of an identity")


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, tidy floats, no white space."""
    return _encode(_tidy(value))


def content_key(value: Any) -> str:
    """Return the identity of ``value``: the first 32 hex digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:KEY_LENGTH]


def is_key(text: str) -> bool:
    """Return whether a text can be a key: nothing else may name a folder that is written to or removed."""
    return len(text) == KEY_LENGTH and set(text) <= _HEX
