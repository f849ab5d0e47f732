"""Words for numbers, shared by commands."""

from __future__ import annotations

from htxas.report.words import duration, plural

__all__ = ["duration", "names", "plural"]


def names(shown: list[str], count: int) -> str:
    """Return a few names and how many more there are."""
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return ", ".join(shown) + more
