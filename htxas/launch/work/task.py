"""A calculation on its way through an agent: all a worker needs, as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.identity import is_key
from htxas.domain.structure import Structure
from htxas.store.records import Lease

__all__ = ["Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """A leased calculation, without any need of a database.

    Attributes
    ----------
    key, attempt, owner
        The lease.
    batch, campaign
        Where it comes from; the campaign decides gate and grid.
    kind, engine, structure_key, parameters, element, edge, atom
        Identity; see :class:`htxas.domain.calculation.Calculation`.
    structure
        :meth:`Structure.to_dict`.
    estimate_s
        Expected seconds in one worker's place.
    timeout_s
        Clock limit of the engine.
    gate, sigma_eV, step_eV
        The campaign's gate limits and stored grid.
    ground_key, ground_directory
        For a site: its ground state, and where that was computed once it is known; empty if its folder is not.
    ground_energy_eV, ground_numerics
        Total energy of that ground state, and the numerics of the attempt that found it, as far as they are stored:
        what is computed again where its folder is not must be the same state.
    numerics, corrections
        What this attempt does differently, merged; names of the corrections, in order.
    rungs
        Corrections made so far, by cause.
    memory_factor, walltime_factor
        Theirs, multiplied; see :class:`htxas.launch.work.ladder.Step`.
    slots
        Workers' places it takes at once.
    safety
        It fits if so many times its estimate does.
    previous_directory
        Where the last attempt ran, if it left something to go on from.
    """

    key: str
    attempt: int
    owner: str
    batch: str
    campaign: str
    kind: Kind
    engine: str
    structure_key: str
    parameters: Mapping[str, Any]
    element: str | None
    edge: str | None
    atom: int | None
    structure: Mapping[str, Any]
    estimate_s: float
    timeout_s: float
    gate: Mapping[str, Any]
    sigma_eV: float
    step_eV: float
    ground_key: str | None = None
    ground_directory: str | None = None
    ground_energy_eV: float | None = None
    ground_numerics: Mapping[str, Any] = field(default_factory=dict)
    numerics: Mapping[str, Any] = field(default_factory=dict)
    corrections: tuple[str, ...] = ()
    rungs: Mapping[str, int] = field(default_factory=dict)
    memory_factor: float = 1.0
    walltime_factor: float = 1.0
    slots: int = 1
    safety: float = 1.25
    previous_directory: str | None = None

    @property
    def lease(self) -> Lease:
        """The lease this task is done under."""
        return Lease(self.key, self.attempt, self.owner)

    def calculation(self) -> Calculation:
        """Return the calculation; its key is recomputed, not taken on trust."""
        return Calculation(
            self.kind, self.structure_key, self.engine, self.parameters, self.element, self.edge, self.atom
        )

    def atoms(self) -> Structure:
        """Return the structure."""
        return Structure.from_dict(dict(self.structure))

    def to_dict(self) -> dict[str, Any]:
        """Return the task as a JSON document."""
        # Not asdict, which copies every number of the structure.
        return dict(zip(_NAMES, _VALUES(self), strict=True))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Task:
        """Rebuild a task.

        Raises
        ------
        TypeError, ValueError, KeyError
            If the document is not one of a task.
        """
        values = dict(document)
        key, attempt = values["key"], values["attempt"]
        if not (isinstance(key, str) and is_key(key)):  # both name the folder that is cleared for the attempt
            raise ValueError(f"{key!r} is not the key of a calculation")
        if type(attempt) is not int or attempt < 1:
            raise ValueError(f"{attempt!r} is not the number of an attempt")
        values["kind"] = Kind(values["kind"])
        values["corrections"] = tuple(values["corrections"])
        return cls(**values)


_NAMES = tuple(f.name for f in fields(Task))
_VALUES = attrgetter(*_NAMES)
