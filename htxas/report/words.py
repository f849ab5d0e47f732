"""Words for numbers."""

from __future__ import annotations

__all__ = ["duration", "plural"]


def duration(seconds: float) -> str:
    """Return seconds in the unit a person would use.

    >>> duration(7.3), duration(150), duration(9000), duration(1e6)
    ('7 s', '2.5 min', '2.5 h', '11.6 days')
    """
    for unit, size, until in (("s", 1.0, 100.0), ("min", 60.0, 6000.0), ("h", 3600.0, 200_000.0)):
        if seconds < until:
            value = seconds / size
            return f"{value:.0f} {unit}" if unit == "s" else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def plural(count: int, noun: str) -> str:
    """Return count and noun: ``1 molecule``, ``2 molecules``, ``1,234 batches``."""
    ending = "es" if noun.endswith(("ch", "s")) else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"
