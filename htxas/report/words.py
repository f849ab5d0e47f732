"""Words for numbers."""

from __future__ import annotations

__all__ = ["duration", "plural", "size"]


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


def size(n_bytes: float) -> str:
    """Return bytes in decimal units, as disks and quotas are sold.

    >>> size(512), size(20_480), size(3.2e9)
    ('512 B', '20.5 kB', '3.2 GB')
    """
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
