"""A calculation: what is computed, and its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from htxas.domain.identity import content_key

__all__ = ["Calculation", "Convergence", "Kind", "State"]

_IDENTITY_SCHEMA = 1


class Kind(StrEnum):
    """What a calculation is for."""

    GROUND = "ground"  # no hole: energies, PDOS; shared by all sites of a structure
    SITE = "site"  # one core hole on one atom: the spectrum


class State(StrEnum):
    """Where a calculation stands. Each member says how it differs from its neighbour."""

    READY = "ready"  # known and wanted; nobody works on it
    RUNNING = "running"  # leased by a worker; back to READY if the worker vanishes
    DONE = "done"  # result stored and accepted by the gate; never recomputed
    FAILED = "failed"  # ended without a result (see cause); `htxas retry` makes it READY
    QUARANTINED = "quarantined"  # gave a result the science gate refused; kept as evidence, not served


class Convergence(StrEnum):
    """What the engine says of its own convergence. Only CONVERGED passes the gate."""

    CONVERGED = "converged"
    UNCONVERGED = "unconverged"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Calculation:
    """One unit of work and the one document that tells about it.

    Attributes
    ----------
    kind
        Ground state or site.
    structure_key
        :attr:`htxas.domain.structure.Structure.key`.
    engine
        Registered engine name.
    parameters
        Resolved parameters, JSON-able, with content hashes of basis sets or pseudopotentials in them.
        For a ground state: only what the ground state depends on.
    element, edge, atom
        Absorber: element symbol, edge name, index in the canonical atom order. None for a ground state.
    """

    kind: Kind
    structure_key: str
    engine: str
    parameters: Mapping[str, Any]
    element: str | None = None
    edge: str | None = None
    atom: int | None = None

    def __post_init__(self) -> None:
        absorber = (self.element, self.edge, self.atom)
        if self.kind is Kind.SITE and None in absorber:
            raise ValueError("a site calculation names element, edge and atom")
        if self.kind is Kind.GROUND and absorber != (None, None, None):
            raise ValueError("a ground state has no absorber")

    @cached_property
    def key(self) -> str:
        """The calculation's identity: a content hash of everything that decides its result."""
        return content_key(
            {
                "schema": _IDENTITY_SCHEMA,
                "kind": self.kind.value,
                "structure": self.structure_key,
                "engine": self.engine,
                "parameters": self.parameters,
                "element": self.element,
                "edge": self.edge,
                "atom": self.atom,
            }
        )

    @cached_property
    def parameters_key(self) -> str:
        """Content hash of the parameters alone; calculations of a campaign share it."""
        return content_key(self.parameters)
