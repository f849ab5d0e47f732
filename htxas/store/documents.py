"""Records to documents and back. Arrays are packed: one Binary, its type and its shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from bson.binary import Binary

from htxas.domain.calculation import Calculation, Convergence, Kind, State
from htxas.domain.dos import LocalDos, Pdos
from htxas.domain.result import CurveResult, GroundResult, Provenance, SiteResult, Spectral
from htxas.domain.spectrum import Curve, Quantity, Spectrum, Sticks
from htxas.domain.structure import Structure
from htxas.errors import Cause, InternalError, StoreError
from htxas.store.records import (
    Batch,
    CalculationRecord,
    MoleculeRecord,
    PilotRecord,
    PilotState,
    SiteRef,
    StructureRecord,
)

if TYPE_CHECKING:  # workers come here, too, and need no client of the database
    from htxas.store.connection import Document

__all__ = [
    "batch_from",
    "calculation_from",
    "curve_from",
    "ground_document",
    "ground_from",
    "molecule_document",
    "molecule_from",
    "pack",
    "pilot_document",
    "pilot_from",
    "plain",
    "record_from",
    "site_document",
    "site_from",
    "spectrum_document",
    "spectrum_from",
    "sticks_from",
    "structure_document",
    "structure_from",
    "unpack",
]

FloatArray = npt.NDArray[np.float64]
SINGLE, DOUBLE = "<f4", "<f8"  # little-endian on every machine


def pack(array: npt.ArrayLike, dtype: str = SINGLE) -> Document:
    """Return ``array`` as ``{"dtype", "shape", "data"}`` with the numbers in one Binary.

    Raises
    ------
    InternalError
        If a finite number leaves the range of the type.
    """
    values = np.asarray(array, dtype=np.float64)
    with np.errstate(over="ignore"):
        packed = values.astype(dtype)
    if not (np.isfinite(packed).all() or np.array_equal(np.isfinite(values), np.isfinite(packed))):
        raise InternalError(f"a number is too large for {dtype}: {np.nanmax(np.abs(values)):.3g}")
    return {"dtype": dtype, "shape": list(values.shape), "data": Binary(packed.tobytes())}


def unpack(document: Mapping[str, Any]) -> FloatArray:
    """Return the array of :func:`pack` as float64, read-only.

    Raises
    ------
    StoreError
        If type, shape and length do not fit each other.
    """
    dtype, shape, data = document["dtype"], tuple(document["shape"]), document["data"]
    if dtype not in (SINGLE, DOUBLE) or len(data) != np.dtype(dtype).itemsize * int(np.prod(shape)):
        raise StoreError(f"a stored array is damaged: {dtype} of shape {shape} in {len(data)} bytes")
    array = np.frombuffer(data, dtype=dtype).astype(np.float64).reshape(shape)
    array.flags.writeable = False
    return array


def plain(value: Any) -> Any:
    """Return ``value`` in types that BSON knows: numpy scalars and arrays, enums, paths and tuples are unwrapped.

    Raises
    ------
    InternalError
        For anything else.
    """
    kind = type(value)
    if kind is str or kind is float or value is None:
        return value
    if kind is dict:
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool | int | str | bytes | datetime):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    raise InternalError(f"{type(value).__name__} cannot be stored")


def structure_document(record: StructureRecord) -> Document:
    """Document of a structure; positions in float64, so that the key can be checked on reading."""
    s = record.structure
    return {
        "_id": s.key,
        "symbols": list(s.symbols),
        "positions_A": pack(s.positions_A, DOUBLE),
        "cell_A": None if s.cell_A is None else pack(s.cell_A, DOUBLE),
        **({} if s.moments_muB is None else {"moments_muB": pack(s.moments_muB, DOUBLE)}),
        "formula": s.formula,
        "composition": s.composition,
        "n_atoms": len(s),
        "smiles": record.smiles,
        "provenance": plain(record.provenance),
    }


def structure_from(document: Document) -> StructureRecord:
    """Rebuild a structure.

    Raises
    ------
    StoreError
        If its content no longer has its key.
    """
    cell, moments = document["cell_A"], document.get("moments_muB")
    structure = Structure(
        tuple(document["symbols"]),
        unpack(document["positions_A"]),
        None if cell is None else unpack(cell),
        None if moments is None else unpack(moments),
    )
    if structure.key != document["_id"]:
        raise StoreError("a stored structure is not what its key says", where=document["_id"])
    return StructureRecord(structure, document["smiles"], document["provenance"])


def molecule_document(record: MoleculeRecord) -> Document:
    """Document of a molecule, without ``_id``."""
    return {
        **asdict(record),
        "file_order": list(record.file_order),
        "sites": [asdict(s) for s in record.sites],
    }


def molecule_from(document: Document) -> MoleculeRecord:
    """Rebuild a molecule."""
    sites = tuple(
        SiteRef(**{**s, "equivalent_file_atoms": tuple(s["equivalent_file_atoms"])})
        for s in document["sites"]
    )
    return MoleculeRecord(
        campaign=document["campaign"],
        name=document["name"],
        structure_key=document["structure_key"],
        ground_key=document["ground_key"],
        smiles=document["smiles"],
        file_order=tuple(document["file_order"]),
        sites=sites,
    )


def batch_from(document: Document) -> Batch:
    """Rebuild a batch."""
    return Batch(
        id=document["_id"],
        campaign=document["campaign"],
        keys=tuple(document["keys"]),
        estimate_s=document["estimate_s"],
        after=document["after"],
        fw_id=document["fw_id"],
        shortest_s=document.get("shortest_s"),
        longest_s=document.get("longest_s"),
    )


def record_from(document: Document) -> CalculationRecord:
    """Rebuild where a calculation stands."""
    cause = document["cause"]
    return CalculationRecord(
        key=document["_id"],
        kind=Kind(document["kind"]),
        structure_key=document["structure_key"],
        engine=document["engine"],
        parameters_key=document["parameters_key"],
        element=document["element"],
        edge=document["edge"],
        atom=document["atom"],
        state=State(document["state"]),
        cause=None if cause is None else Cause(cause),
        message=document["message"],
        evidence=document["evidence"],
        attempts=document["attempts"],
        batch=document["batch"],
        estimate_s=document["estimate_s"],
        wall_s=document["wall_s"],
        host=document["host"],
        directory=document["directory"],
        worker=document["worker"],
        campaigns=tuple(document["campaigns"]),
        scalars=document["scalars"],
        updated=document["updated"],
        provenance=document["provenance"],
        ladder=document["ladder"],
        history=tuple(document["history"]),
        interrupted=document["interrupted"],
    )


def pilot_document(record: PilotRecord) -> Document:
    """Document of a pilot."""
    document: Document = plain(asdict(record))
    return {"_id": document.pop("id"), **document}


def pilot_from(document: Document) -> PilotRecord:
    """Rebuild a pilot."""
    fields = dict(document)
    return PilotRecord(id=fields.pop("_id"), **{**fields, "state": PilotState(fields["state"])})


def calculation_from(document: Document, parameters: Mapping[str, Any]) -> Calculation:
    """Rebuild the calculation itself.

    Raises
    ------
    StoreError
        If its content no longer has its key.
    """
    calculation = Calculation(
        kind=Kind(document["kind"]),
        structure_key=document["structure_key"],
        engine=document["engine"],
        parameters=parameters,
        element=document["element"],
        edge=document["edge"],
        atom=document["atom"],
    )
    if calculation.key != document["_id"]:
        raise StoreError("a stored calculation is not what its key says", where=document["_id"])
    return calculation


def spectrum_document(spectrum: Spectrum) -> Document:
    """Document of a gridded spectrum."""
    return {
        "start": int(spectrum.start),
        "step_eV": float(spectrum.step_eV),
        "sigma_eV": float(spectrum.sigma_eV),
        "intensity": pack(spectrum.intensity),
        "quantity": spectrum.quantity.value,
    }


def spectrum_from(document: Document) -> Spectrum:
    """Rebuild a gridded spectrum; what older versions stored were oscillator strengths, without saying so."""
    return Spectrum(
        document["start"],
        document["step_eV"],
        unpack(document["intensity"]),
        document["sigma_eV"],
        Quantity(document.get("quantity", Quantity.OSCILLATOR_STRENGTH)),
    )


def site_document(key: str, attempt: int, result: Spectral, grid: Spectrum | None) -> Document:
    """Document of a site's result, without its provenance, which is the calculation's.

    That of a continuous spectrum has a ``curve``, the other one ``sticks``.
    """
    return {
        "_id": key,
        "attempt": attempt,
        "convergence": result.convergence.value,
        "grid": None if grid is None else spectrum_document(grid),
        "scale": result.scale,
        **(_curve_fields(result) if isinstance(result, CurveResult) else _stick_fields(result)),
    }


def _stick_fields(result: SiteResult) -> Document:
    return {
        "sticks": {
            "energies_eV": pack(result.sticks.energies_eV, DOUBLE),
            "strengths": pack(result.sticks.strengths),
        },
        "excitation_energy_eV": float(result.excitation_energy_eV),
        "ionization_eV": None if result.ionization_eV is None else float(result.ionization_eV),
        "energies_eV": {k: float(v) for k, v in result.energies_eV.items()},
        "hole_overlap": float(result.hole_overlap),
        "window_eV": float(result.window_eV),
    }


def _curve_fields(result: CurveResult) -> Document:
    dos = result.dos
    return {
        "curve": {
            "energies_eV": pack(result.curve.energies_eV, DOUBLE),
            "intensity": pack(_distinct(result.curve.intensity)),
            "background": pack(result.background),
        },
        "edge_eV": float(result.edge_eV),
        "fermi_eV": float(result.fermi_eV),
        "lifetime_eV": float(result.lifetime_eV),
        "normalisation": result.normalisation,
        "doubts": list(result.doubts),
        "dos": None
        if dos is None
        else {
            "energies_eV": pack(dos.energies_eV, DOUBLE),
            "density": pack(dos.density),
            "kinds": list(dos.kinds),
            "charges": pack(dos.charges),
            "broadening_eV": float(dos.broadening_eV),
        },
    }


def _distinct(intensity: FloatArray) -> FloatArray:
    """Return x, y and z, or one column where they are the same: most curves are averages over orientations."""
    one = intensity[:, :1]
    return (
        one if np.array_equal(np.broadcast_to(one, intensity.shape), intensity, equal_nan=True) else intensity
    )


def sticks_from(document: Mapping[str, Any]) -> Sticks:
    """Rebuild the sticks of a site from its document."""
    sticks = document["sticks"]
    return Sticks(unpack(sticks["energies_eV"]), unpack(sticks["strengths"]))


def curve_from(document: Mapping[str, Any]) -> Curve:
    """Rebuild the continuous spectrum of a site from its document."""
    curve = document["curve"]
    intensity = unpack(curve["intensity"])
    return Curve(unpack(curve["energies_eV"]), np.broadcast_to(intensity, (len(intensity), 3)))


def site_from(document: Document, provenance: Mapping[str, Any]) -> Spectral:
    """Rebuild a site's result."""
    if "curve" in document:
        return _curve_result(document, provenance)
    return SiteResult(
        convergence=Convergence(document["convergence"]),
        sticks=sticks_from(document),
        excitation_energy_eV=document["excitation_energy_eV"],
        ionization_eV=document["ionization_eV"],
        scale=document["scale"],
        energies_eV=document["energies_eV"],
        hole_overlap=document["hole_overlap"],
        window_eV=document["window_eV"],
        provenance=Provenance(**provenance),
    )


def _curve_result(document: Document, provenance: Mapping[str, Any]) -> CurveResult:
    dos = document["dos"]
    return CurveResult(
        convergence=Convergence(document["convergence"]),
        curve=curve_from(document),
        background=unpack(document["curve"]["background"]),
        edge_eV=document["edge_eV"],
        fermi_eV=document["fermi_eV"],
        lifetime_eV=document["lifetime_eV"],
        normalisation=document["normalisation"],
        scale=document["scale"],
        doubts=tuple(document["doubts"]),
        dos=None
        if dos is None
        else LocalDos(
            unpack(dos["energies_eV"]),
            unpack(dos["density"]),
            tuple(dos["kinds"]),
            unpack(dos["charges"]),
            dos["broadening_eV"],
        ),
        provenance=Provenance(**provenance),
    )


def ground_document(key: str, attempt: int, result: GroundResult) -> Document:
    """Document of a ground state, without its provenance."""
    pdos = result.pdos
    return {
        "_id": key,
        "attempt": attempt,
        "convergence": result.convergence.value,
        "total_energy_eV": float(result.total_energy_eV),
        "homo_eV": float(result.homo_eV),
        "lumo_eV": float(result.lumo_eV),
        "dipole_D": None if result.dipole_D is None else [float(d) for d in result.dipole_D],
        "reference": result.reference,
        "pdos": {
            "energies_eV": pack(pdos.energies_eV, DOUBLE),
            "occupations": pack(pdos.occupations),
            "weights": pack(pdos.weights),
            "shares": None if pdos.shares is None else pack(pdos.shares, DOUBLE),
            "complete": pdos.complete,
            "complete_to_eV": None if pdos.complete_to_eV is None else float(pdos.complete_to_eV),
            "spheres": pdos.spheres,
        },
    }


def ground_from(document: Document, provenance: Mapping[str, Any]) -> GroundResult:
    """Rebuild a ground state."""
    pdos, dipole = document["pdos"], document["dipole_D"]
    shares = pdos.get("shares")  # this, what follows it, and reference: not in documents of older versions
    return GroundResult(
        convergence=Convergence(document["convergence"]),
        total_energy_eV=document["total_energy_eV"],
        homo_eV=document["homo_eV"],
        lumo_eV=document["lumo_eV"],
        dipole_D=None if dipole is None else np.asarray(dipole, dtype=np.float64),
        pdos=Pdos(
            unpack(pdos["energies_eV"]),
            unpack(pdos["occupations"]),
            unpack(pdos["weights"]),
            None if shares is None else unpack(shares),
            pdos.get("complete", True),
            pdos.get("complete_to_eV"),
            pdos.get("spheres", False),
        ),
        provenance=Provenance(**provenance),
        reference=document.get("reference", "vacuum"),
    )
