"""How an attempt ended, as a value that needs no database: a worker makes it, a journal keeps it, the store takes it.

The document of arrays is made and encoded here, where the result is; on the way into the database it is copied, not
encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import bson
import numpy as np
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.gate import Rejection
from htxas.domain.result import CurveResult, GroundResult, Provenance, Result, SiteResult, Spectral
from htxas.domain.spectrum import Spectrum
from htxas.domain.structure import Structure
from htxas.errors import Cause, InternalError, StoreError
from htxas.store.documents import ground_document, plain, site_document
from htxas.store.records import Lease

if TYPE_CHECKING:  # workers come here, too, and need no client of the database
    from htxas.store.connection import Document

__all__ = ["CLEARED", "Outcome", "decode", "done", "encode", "failed", "quarantined", "size", "unstorable"]

CLEARED: Document = {"cause": None, "message": None, "evidence": {}}
"""Fields of a calculation that nothing is wrong with."""

_FORMAT = 1
# A journal may come from anywhere: an outcome says how an attempt ended, and can change nothing else.
_STATES = (State.DONE, State.FAILED, State.QUARANTINED, State.READY)
_COLLECTIONS = ("spectra", "dos")
_ORIGIN = ("wall_s", "host", "directory")
_FIELDS = frozenset({*CLEARED, *_ORIGIN, "provenance", "scalars", "ladder", "state"})
_ENTRY = frozenset({"attempt", "state", "cause", "message", "corrections", "worker", *_ORIGIN, "ended"})
_OPTIONS: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt.

    Attributes
    ----------
    lease
        What was leased.
    state
        DONE, FAILED or QUARANTINED; READY if it is to be tried again with a correction.
    fields
        New fields of the calculation's document, ``state`` included.
    arrays
        Collection (``spectra`` or ``dos``) and document of arrays, or None.
    entry
        What the calculation's history gets: attempt, state, cause, message, corrections, worker, host, wall_s,
        directory, ended.
    """

    lease: Lease
    state: State
    fields: Mapping[str, Any]
    arrays: tuple[str, Mapping[str, Any]] | None
    entry: Mapping[str, Any]


def done(
    lease: Lease,
    calculation: Calculation,
    structure: Structure,
    result: Result,
    *,
    sigma_eV: float,
    step_eV: float,
    corrections: tuple[str, ...] = (),
) -> Outcome:
    """Return the outcome of a result that passed the gate.

    Parameters
    ----------
    lease
        What was leased.
    calculation, structure
        What was computed, checked against the lease and the shapes of the result.
    result
        :class:`SiteResult` or :class:`CurveResult` for a site, :class:`GroundResult` for a ground state.
    sigma_eV, step_eV
        Broadening and step of the stored grid.
    corrections
        Names of those this attempt made.

    Raises
    ------
    InternalError
        If the result is not of this calculation or cannot be stored.
    StoreError
        If its curve is too short for the broadening: it could never be added to others.
    """
    _check(lease, calculation, structure, result)
    fields = {**CLEARED, "scalars": _scalars(result), **_origin(result.provenance)}
    arrays = _arrays(lease, result, sigma_eV, step_eV, accepted=True)
    return _outcome(lease, State.DONE, fields, arrays, None, corrections)


def quarantined(
    lease: Lease,
    calculation: Calculation,
    structure: Structure,
    result: Result,
    rejection: Rejection,
    *,
    sigma_eV: float,
    step_eV: float,
    corrections: tuple[str, ...] = (),
    again: Mapping[str, Any] | None = None,
) -> Outcome:
    """Return the outcome of a result that the gate refused, which is kept as evidence.

    With ``again``, the correction to try next, it is READY and only its history tells of the refusal. Raises like
    :func:`done`.
    """
    _check(lease, calculation, structure, result)
    wrong = _wrong(rejection.cause, rejection.message, rejection.evidence)
    origin = _origin(result.provenance)
    if again is not None:
        return _again(lease, wrong, origin, again, corrections)
    fields = {**wrong, "scalars": _scalars(result), **origin}
    arrays = _arrays(lease, result, sigma_eV, step_eV, accepted=False)
    return _outcome(lease, State.QUARANTINED, fields, arrays, wrong, corrections)


def failed(
    lease: Lease,
    cause: Cause,
    message: str,
    evidence: Mapping[str, Any],
    provenance: Provenance | Mapping[str, Any] | None = None,
    *,
    corrections: tuple[str, ...] = (),
    again: Mapping[str, Any] | None = None,
) -> Outcome:
    """Return the outcome of an attempt without a result; with ``again``, the correction to try next: READY.

    Parameters
    ----------
    lease
        What was leased.
    cause, message, evidence
        As in :class:`htxas.errors.EngineFailure`.
    provenance
        Of the attempt, or as much as is known: ``host``, ``directory``, ``wall_s``.
    corrections
        Names of those this attempt made.
    again
        State of the ladder after this failure: see :class:`htxas.launch.work.ladder.Step`.
    """
    wrong, origin = _wrong(cause, message, evidence), _origin(provenance)
    if again is not None:
        return _again(lease, wrong, origin, again, corrections)
    return _outcome(lease, State.FAILED, {**wrong, **origin}, None, wrong, corrections)


def unstorable(outcome: Outcome, why: str) -> Outcome:
    """Return the failure that takes the place of an outcome which the database refuses."""
    wrong = _wrong(Cause.BAD_OUTPUT, f"the result cannot be stored: {why}", {"state": outcome.state.value})
    origin = {name: outcome.entry[name] for name in ("wall_s", "host", "directory")}
    state = {"state": State.FAILED.value}
    entry = {**outcome.entry, **state, "cause": wrong["cause"], "message": wrong["message"]}
    return Outcome(outcome.lease, State.FAILED, {**wrong, "provenance": None, **origin, **state}, None, entry)


def encode(outcome: Outcome) -> bytes:
    """Return the outcome as BSON.

    Raises
    ------
    InternalError
        If BSON cannot hold a value.
    """
    lease, arrays = outcome.lease, outcome.arrays
    document = {
        "format": _FORMAT,
        "lease": {"key": lease.key, "attempt": lease.attempt, "owner": lease.owner},
        "state": outcome.state.value,
        "fields": outcome.fields,
        "collection": None if arrays is None else arrays[0],
        "arrays": None if arrays is None else arrays[1],
        "entry": outcome.entry,
    }
    try:
        return bson.encode(document)
    except (BSONError, OverflowError) as error:
        raise InternalError(f"an outcome cannot be stored: {error}", where=lease.key) from error


def decode(data: bytes) -> Outcome:
    """Return the outcome of :func:`encode`.

    Raises
    ------
    StoreError
        If these bytes are not one, or one of a newer htxas, or it would change more than an outcome may.
    """
    try:
        raw = RawBSONDocument(data)
        if raw["format"] != _FORMAT:
            raise StoreError(
                f"an outcome is written in format {raw['format']}, this htxas knows {_FORMAT}",
                hint="use a newer htxas",
            )
        collection = raw["collection"]
        outcome = Outcome(
            lease=Lease(**_inflated(raw["lease"])),
            state=State(raw["state"]),
            fields=_inflated(raw["fields"]),
            arrays=None if collection is None else (collection, raw["arrays"]),
            entry=_inflated(raw["entry"]),
        )
        _check_scope(outcome)
        return outcome
    except (BSONError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"an outcome cannot be read: {type(error).__name__}: {error}") from error


def _check_scope(outcome: Outcome) -> None:
    state, fields, entry, arrays = outcome.state, outcome.fields, outcome.entry, outcome.arrays
    if state not in _STATES or fields.get("state") != state.value or entry.get("state") != state.value:
        raise ValueError(f"an attempt cannot end as {state.value}")
    if strange := (fields.keys() - _FIELDS) | (entry.keys() ^ _ENTRY):
        raise ValueError(f"fields that an outcome has not, or lacks: {', '.join(sorted(strange))}")
    if arrays is None:
        return
    collection, document = arrays
    if collection not in _COLLECTIONS or document["_id"] != outcome.lease.key:
        raise ValueError(f"arrays that are not its own: {collection}/{document['_id']}")


def size(outcome: Outcome) -> int:
    """Return how many bytes its arrays take."""
    if outcome.arrays is None:
        return 0
    document = outcome.arrays[1]
    return len(document.raw) if isinstance(document, RawBSONDocument) else len(bson.encode(document))


def _inflated(document: RawBSONDocument) -> Document:
    return bson.decode(document.raw, _OPTIONS)


def _outcome(
    lease: Lease,
    state: State,
    fields: Mapping[str, Any],
    arrays: tuple[str, Mapping[str, Any]] | None,
    wrong: Mapping[str, Any] | None,
    corrections: tuple[str, ...],
) -> Outcome:
    entry = {
        "attempt": lease.attempt,
        "state": state.value,
        "cause": None if wrong is None else wrong["cause"],
        "message": None if wrong is None else wrong["message"],
        "corrections": list(corrections),
        "worker": lease.owner,
        "host": fields["host"],
        "wall_s": fields["wall_s"],
        "directory": fields["directory"],
        "ended": _ended(fields["provenance"]),
    }
    return Outcome(lease, state, {**fields, "state": state.value}, arrays, entry)


def _again(
    lease: Lease,
    wrong: Document,
    origin: Document,
    again: Mapping[str, Any],
    corrections: tuple[str, ...],
) -> Outcome:
    fields = {**CLEARED, **origin, "ladder": plain(again)}
    return _outcome(lease, State.READY, fields, None, wrong, corrections)


def _ended(provenance: Mapping[str, Any] | None) -> datetime:
    """Return when the attempt ended, to the millisecond: what BSON keeps, so that a replay is recognised."""
    text = (provenance or {}).get("ended")
    when = datetime.now(UTC)
    if isinstance(text, str):
        try:
            when = datetime.fromisoformat(text)
        except ValueError as error:
            raise InternalError(f"an engine's time of ending is not ISO 8601: {text}") from error
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def _wrong(cause: Cause, message: str, evidence: Mapping[str, Any]) -> Document:
    return {"cause": cause.value, "message": message, "evidence": plain(evidence)}


def _origin(provenance: Provenance | Mapping[str, Any] | None) -> Document:
    if provenance is None:
        return {"provenance": None, "wall_s": None, "host": None, "directory": None}
    if isinstance(provenance, Provenance):
        provenance = {name: getattr(provenance, name) for name in Provenance.__slots__}
    document = plain(provenance)
    return {"provenance": document, **{name: document.get(name) for name in ("wall_s", "host", "directory")}}


def _scalars(result: Result) -> dict[str, float]:
    match result:
        case SiteResult():
            scalars = {
                "excitation_energy_eV": float(result.excitation_energy_eV),
                "strength_sum": float(result.sticks.isotropic.sum()),
                "hole_overlap": float(result.hole_overlap),
            }
            if result.ionization_eV is not None:
                scalars["ionization_eV"] = float(result.ionization_eV)
        case CurveResult():
            scalars = {"edge_eV": float(result.edge_eV), "fermi_eV": float(result.fermi_eV)}
            if len(result.curve.energies_eV):  # a refused result may have no points
                scalars["white_line"] = float(result.curve.isotropic.max())
        case GroundResult():
            scalars = {
                "total_energy_eV": float(result.total_energy_eV),
                "gap_eV": float(result.gap_eV),
            }
            if result.reference == "vacuum":  # others cannot be compared
                scalars |= {"homo_eV": float(result.homo_eV), "lumo_eV": float(result.lumo_eV)}
            if result.dipole_norm_D is not None:
                scalars["dipole_D"] = result.dipole_norm_D
    return scalars


def _arrays(
    lease: Lease, result: Result, sigma_eV: float, step_eV: float, *, accepted: bool
) -> tuple[str, RawBSONDocument]:
    if isinstance(result, GroundResult):
        return "dos", RawBSONDocument(bson.encode(ground_document(lease.key, lease.attempt, result)))
    grid = _grid(result, sigma_eV, step_eV, accepted=accepted) if _sound(result) else None
    return "spectra", RawBSONDocument(bson.encode(site_document(lease.key, lease.attempt, result, grid)))


def _grid(result: Spectral, sigma_eV: float, step_eV: float, *, accepted: bool) -> Spectrum | None:
    try:
        return result.spectrum(sigma_eV=sigma_eV, step_eV=step_eV)
    except ValueError as error:
        if accepted:
            raise StoreError(
                f"the spectrum cannot be broadened by {sigma_eV} eV: {error}",
                hint="choose a smaller spectrum: sigma_eV, or a larger range of the engine",
            ) from error
        return None


def _sound(result: Spectral) -> bool:
    """Return whether the numbers can be broadened; those of a refused result may be anything."""
    if isinstance(result, SiteResult):
        energies, values, least = result.sticks.energies_eV, result.sticks.strengths, 1
    else:
        energies, values, least = result.curve.energies_eV, result.curve.intensity, 2
    finite = bool(np.isfinite(energies).all() and np.isfinite(values).all())
    ascending = isinstance(result, SiteResult) or bool((np.diff(energies) > 0).all())
    return len(energies) >= least and finite and ascending


def _check(lease: Lease, calculation: Calculation, structure: Structure, result: Result) -> None:
    right = isinstance(result, GroundResult) == (calculation.kind is Kind.GROUND)
    if calculation.key != lease.key or structure.key != calculation.structure_key or not right:
        raise InternalError("a result was reported for another calculation", where=lease.key)
    if isinstance(result, GroundResult) and result.pdos.weights.shape[1] != len(structure):
        raise InternalError(
            f"PDOS of {result.pdos.weights.shape[1]} atoms for a structure of {len(structure)}",
            where=lease.key,
        )
