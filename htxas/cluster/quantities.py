"""Walltimes and memory as people and schedulers write them."""

from __future__ import annotations

import re

__all__ = ["clock", "memory_MB", "parse_clock", "parse_walltime_s"]

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d)")
_DAYS = re.compile(r"(\d+)-(\d{1,2})(?::([0-5]?\d))?")


def parse_walltime_s(value: str | int) -> int:
    """Return seconds.

    Examples
    --------
    >>> (
    ...     parse_walltime_s("24:00:00"),
    ...     parse_walltime_s("1-00:00:00"),
    ...     parse_walltime_s("2-12"),
    ...     parse_walltime_s(90),
    ... )
    (86400, 86400, 216000, 90)

    Raises
    ------
    ValueError
        For anything else: ``1:30`` is minutes to one scheduler and hours to another.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        seconds: int | None = value
    else:
        seconds = parse_clock(str(value).strip())
    if seconds is None or seconds <= 0:
        raise ValueError("a time as hours:minutes:seconds, days-hours:minutes:seconds, or seconds is needed")
    return seconds


def parse_clock(text: str) -> int | None:
    """Return seconds of ``[D-]H:MM:SS``, ``D-H`` or ``D-H:MM``, or None if it is none of them."""
    if found := _CLOCK.fullmatch(text):
        days, hours, minutes, seconds = (int(g or 0) for g in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if found := _DAYS.fullmatch(text):
        days, hours, minutes = (int(g or 0) for g in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60
    return None


def clock(seconds: int) -> str:
    """Return ``HH:MM:SS``; hours may pass 99, which all five schedulers take.

    Examples
    --------
    >>> clock(90), clock(360000)
    ('00:01:30', '100:00:00')
    """
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"


def memory_MB(memory_GB: float) -> int:
    """Return whole MB of decimal GB: a "256 GB" node rarely offers 256 GiB to jobs."""
    return max(1, int(memory_GB * 1000))
