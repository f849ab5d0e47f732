"""The seam for runs that exist: what a code's own folder tells of a calculation that htxas did not start.

An engine that can read such folders has an :class:`Adopter`. It rebuilds structure, site and parameters from the
inputs, so that the calculation has the identity it would have had if htxas had made it, and reads the result with the
engine's own reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from htxas.domain.calculation import Calculation
from htxas.domain.result import Spectral
from htxas.domain.structure import Structure

__all__ = ["Adopted", "Adopter", "NotAdopted", "Why"]


class Why(StrEnum):
    """Why a folder gives nothing."""

    DEAD = "dead"  # the code was ended before its end, or never began; there is nothing to save
    UNCONVERGED = "unconverged"  # it ended by itself without potentials or a density
    DAMAGED = "damaged"  # its files are cut short or contradict each other
    UNSUPPORTED = "unsupported"  # sound perhaps, but not what htxas can say in its own terms
    NO_INPUT = "no_input"  # results without the input that made them


class NotAdopted(Exception):
    """A folder that gives nothing: why, in one word and in one line."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return NotAdopted, (self.why, self.message)


@dataclass(frozen=True, slots=True, eq=False)
class Adopted:
    """A calculation that somebody else ran.

    Attributes
    ----------
    calculation, structure
        What was computed, with the identity it would have here.
    order
        Canonical atom i is atom ``order[i]`` of the file the structure came from.
    name
        Of the structure, from its folder or file.
    origin
        Where the structure came from: ``POSCAR``, ``header``, ``cluster``; with path and checksum.
    result
        As the engine reads it; the gate has not seen it.
    """

    calculation: Calculation
    structure: Structure
    order: tuple[int, ...]
    name: str
    origin: Mapping[str, Any]
    result: Spectral


@runtime_checkable
class Adopter(Protocol):
    """What htxas asks of an engine that can adopt."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Names of files any one of which makes a folder one of this engine's."""
        ...

    def adopt(self, folder: Path, root: Path) -> Adopted:
        """Return what a folder holds.

        Parameters
        ----------
        folder
            The run folder.
        root
            What the user named: structure files are looked for from ``folder`` up to it.

        Raises
        ------
        NotAdopted
            With the reason.
        """
        ...
