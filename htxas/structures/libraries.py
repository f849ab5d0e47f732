"""Formats that a library reads for us: crystals (pymatgen), SDF (RDKit), everything else (ASE)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from htxas.errors import StructureError
from htxas.structures.moments import (
    ase_moments_muB,
    pymatgen_moments_muB,
    refuse_spin_labels,
    refuse_unreadable_moments,
)
from htxas.structures.source import Origin, Record, open_bytes

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure as PymatgenStructure

__all__ = ["read_ase", "read_cif", "read_poscar", "read_sdf"]

Floats = npt.NDArray[np.float64]

# Parsers document no exceptions; these are what a malformed file makes them raise. MemoryError,
# KeyboardInterrupt and our own errors pass.
_PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    Warning,
)


def _unreadable(kind: str, error: BaseException, origin: Origin) -> StructureError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return StructureError(
        f"not readable as {kind}: {reason}", where=origin.where(), hint="check the file and its name"
    )


def _into_cell(positions_A: Floats, cell_A: Floats) -> Floats:
    """Move atoms into the cell: a crystal is the same however the file wraps it. Within 1e-9 of 1 is 0."""
    fractional = positions_A @ np.linalg.inv(cell_A)
    fractional -= np.floor(fractional + 1e-9)
    inside: Floats = fractional @ cell_A
    return inside


def read_cif(path: Path, origin: Origin) -> Iterator[Record]:
    """Yield the crystals of a CIF, conventional cells as written.

    Raises
    ------
    StructureError
        Not a CIF, no structure in it, a site that is only partly occupied, or magnetic moments that are not
        collinear or not understood.
    """
    from pymatgen.io.cif import CifParser

    try:
        with open_bytes(path) as stream, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            text = stream.read().decode("utf-8", errors="replace")
            refuse_spin_labels(text, origin.where())
            parser = CifParser.from_str(text)
            crystals = parser.parse_structures(primitive=False, check_occu=True, on_error="raise")
            refuse_unreadable_moments(parser.as_dict(), origin.where())
    except _PARSE_ERRORS as error:
        raise _unreadable("CIF", error, origin) from error
    if not crystals:
        raise StructureError("no structure in this CIF", where=origin.where(), hint="check the file")
    for index, crystal in enumerate(crystals):
        yield _from_pymatgen(crystal, index, "cif", origin, said)


def read_poscar(path: Path, origin: Origin) -> Iterator[Record]:
    """Yield the crystal of a VASP POSCAR or CONTCAR.

    Raises
    ------
    StructureError
        Not a POSCAR, or one whose elements are not named (pymatgen would make them up).
    """
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    try:
        with open_bytes(path) as stream, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warnings.simplefilter("error", BadPoscarWarning)
            text = stream.read().decode("utf-8")
            refuse_spin_labels(text, origin.where())
            poscar = Poscar.from_str(text)
    except _PARSE_ERRORS as error:
        raise _unreadable("POSCAR", error, origin) from error
    yield _from_pymatgen(poscar.structure, 0, "poscar", origin, said)


def _from_pymatgen(
    crystal: PymatgenStructure,
    index: int,
    file_format: str,
    origin: Origin,
    said: list[warnings.WarningMessage],
) -> Record:
    if not crystal.is_ordered:
        raise StructureError(
            "a site is partly occupied, or by several elements",
            where=origin.where(index),
            hint="make an ordered cell first: a calculation needs one element per site",
        )
    cell = np.array(crystal.lattice.matrix, dtype=np.float64)
    movable = np.array(crystal.site_properties.get("selective_dynamics", True), dtype=bool)
    return Record(
        index=index,
        line=None,
        file_format=file_format,
        name=None,
        symbols=[site.specie.symbol for site in crystal],
        positions_A=_into_cell(np.array(crystal.cart_coords, dtype=np.float64), cell),
        cell_A=cell,
        extra={"warnings": sorted({str(w.message) for w in said})} if said else {},
        moments_muB=pymatgen_moments_muB(crystal, origin.where(index)),
        constraints=() if movable.all() else ("selective dynamics",),
    )


def read_ase(path: Path, origin: Origin, file_format: str | None = None) -> Iterator[Record]:
    """Yield the images of any file ASE reads; periodic in three directions is a crystal, in none a molecule.

    Raises
    ------
    StructureError
        Not readable, a format ASE does not know, periodic in one or two directions, or magnetic moments that are not
        collinear or not understood.
    """
    from ase.io import iread
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    try:
        kind = file_format or filetype(str(path))
        get_ioformat(kind)  # filetype falls back to the suffix, known or not
    except (UnknownFileTypeError, *_PARSE_ERRORS):
        raise StructureError(
            "the kind of this file is not known",
            where=origin.where(),
            hint="xyz, extxyz, SDF, CIF, POSCAR, a SMILES list (.smi, .csv, .txt), or anything ASE reads",
        ) from None
    images = iread(str(path), index=":", format=kind)
    index = 0
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a parser that is in doubt is not believed
                atoms = next(images, None)
        except _PARSE_ERRORS as error:
            raise StructureError(
                f"not readable as {kind}: {' '.join(str(error).split())[:200] or type(error).__name__}",
                where=origin.where(index),
                hint="the record is malformed or cut short: check the file",
            ) from error
        if atoms is None:
            return
        try:
            record = _from_ase(atoms, index, kind, origin)
        except StructureError as problem:
            record = Record(index, None, kind, None, problem=problem)
        yield record
        index += 1


def _from_ase(atoms: Any, index: int, kind: str, origin: Origin) -> Record:
    info = {str(k).lower(): v for k, v in atoms.info.items()}
    cell = None
    positions = np.array(atoms.get_positions(), dtype=np.float64)
    if atoms.pbc.any():
        if not atoms.pbc.all() or abs(atoms.cell.volume) < 1e-3:
            raise StructureError(
                "periodic in some directions only, or without a full cell",
                where=origin.where(index),
                hint='give three lattice vectors and pbc="T T T", or pbc="F F F" for a molecule',
            )
        cell = np.array(atoms.cell.array, dtype=np.float64)
        positions = _into_cell(positions, cell)
    _refuse_charge(info, origin.where(index))
    energy = atoms.calc.results.get("energy") if atoms.calc is not None else None
    name = next((str(info[k]) for k in ("name", "label", "id") if k in info), None)
    return Record(
        index=index,
        line=None,
        file_format=kind,
        name=name,
        smiles=str(info["smiles"]) if "smiles" in info else None,
        symbols=atoms.get_chemical_symbols(),
        positions_A=positions,
        cell_A=cell,
        geometry={} if energy is None else {"energy_eV": float(energy)},
        moments_muB=ase_moments_muB(atoms, origin.where(index)),
        constraints=_constraints(atoms),
    )


_NEUTRAL = {"charge": 0.0, "total_charge": 0.0, "multiplicity": 1.0, "spin_multiplicity": 1.0}


def _refuse_charge(info: Mapping[str, Any], where: str) -> None:
    """Refuse what a file says of itself that no engine here computes: it would be computed as neutral and closed."""
    from htxas.structures.smiles import CLOSED_SHELL_ONLY

    for name, neutral in _NEUTRAL.items():
        if name not in info:
            continue
        try:
            plain = float(info[name]) == neutral
        except (TypeError, ValueError):
            plain = False
        if not plain:
            raise StructureError(
                f"{name}={info[name]}: a charged molecule or a radical", where=where, hint=CLOSED_SHELL_ONLY
            )


def _constraints(atoms: Any) -> tuple[str, ...]:
    """Return the kinds of the constraints that hold anything, without doubles."""
    kinds = (type(c).__name__ for c in atoms.constraints if not _holds_nothing(c))
    return tuple(dict.fromkeys(kinds))


def _holds_nothing(constraint: Any) -> bool:
    """Whether it is one of those that extended xyz makes of a column ``move_mask`` of atoms that may all move."""
    index, mask = getattr(constraint, "index", None), getattr(constraint, "mask", None)
    return (index is not None and len(index) == 0) or (mask is not None and not np.any(mask))


def read_sdf(path: Path, origin: Origin) -> Iterator[Record]:
    """Yield the molecules of an SDF or MOL file. A flat (2D) one comes without positions, as a SMILES.

    Raises
    ------
    StructureError
        A record RDKit refuses, a charged molecule, a radical, or a 3D geometry without its hydrogens.
    """
    from rdkit import Chem

    from htxas.structures.smiles import quiet_rdkit

    with open_bytes(path) as stream, quiet_rdkit():
        supplier = Chem.ForwardSDMolSupplier(stream, removeHs=False)
        try:
            for index, mol in enumerate(supplier):
                try:
                    record = _from_rdkit(mol, index, origin)
                except StructureError as problem:
                    record = Record(index, None, "sdf", None, problem=problem)
                yield record
        except (OSError, RuntimeError, EOFError, UnicodeDecodeError) as error:
            raise _unreadable("SDF", error, origin) from error


def _from_rdkit(mol: Any, index: int, origin: Origin) -> Record:
    from rdkit import Chem

    from htxas.structures.smiles import CLOSED_SHELL_ONLY

    where = origin.where(index)
    if mol is None:
        raise StructureError(
            "RDKit refuses this record", where=where, hint="check its counts line, valences and its end"
        )
    if mol.GetNumAtoms() == 0:
        raise StructureError("the molecule has no atoms", where=where)
    if Chem.GetFormalCharge(mol) or any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()):
        raise StructureError("a charged molecule or a radical", where=where, hint=CLOSED_SHELL_ONLY)
    title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
    smiles = Chem.MolToSmiles(Chem.RemoveHs(mol))
    name = title or None
    if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
        return Record(index, None, "sdf-2d", name, smiles)
    if any(a.GetNumImplicitHs() or a.GetNumExplicitHs() for a in mol.GetAtoms()):
        raise StructureError(
            "a 3D geometry without all its hydrogens", where=where, hint="add them, or give a 2D record"
        )
    positions = np.array(mol.GetConformer().GetPositions(), dtype=np.float64)
    return Record(index, None, "sdf", name, smiles, [a.GetSymbol() for a in mol.GetAtoms()], positions)
