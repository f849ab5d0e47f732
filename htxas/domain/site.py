"""A symmetry-unique site: the atom that stands for its orbit."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Site"]


@dataclass(frozen=True, slots=True)
class Site:
    """One symmetry-unique atom of a structure.

    Attributes
    ----------
    atom
        Canonical index of the representative: the lowest of ``equivalent``.
    element
        Element symbol.
    equivalent
        Canonical indices of all atoms that a symmetry operation maps onto this one, itself included, sorted.
    """

    atom: int
    element: str
    equivalent: tuple[int, ...]

    @property
    def multiplicity(self) -> int:
        """Number of equivalent atoms."""
        return len(self.equivalent)
