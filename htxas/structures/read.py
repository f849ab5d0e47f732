"""Molecules and crystals from files, one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from htxas.domain.site import Site
from htxas.domain.structure import Structure
from htxas.errors import StructureError
from htxas.structures.smiles_list import read_smiles_csv, read_smiles_lines
from htxas.structures.source import (
    Origin,
    Record,
    SourceMolecule,
    archive_members,
    file_sha256,
    is_archive,
    open_bytes,
    plain_name,
    text_lines,
)
from htxas.structures.symmetry import DEFAULT_TOLERANCE_A, unique_sites
from htxas.structures.xyz import read_xyz

if TYPE_CHECKING:
    from htxas.structures.geometry import GeometryMaker

__all__ = ["Kind", "OnError", "expand", "read_molecules"]

Kind = Literal["record", "structure", "geometry"]
"""What of a molecule is wrong: its entry in the file, its atoms, or the making of its geometry."""
OnError = Callable[[str, Kind, StructureError], None]

_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\x00-\x1f\x7f]{1,200}\Z")  # also a path in an HDF5 export
_POSCAR = re.compile(r"(?:POSCAR|CONTCAR)(?:[._-](?P<label>.+))?\Z", re.IGNORECASE)


def read_molecules(
    path: str | Path,
    *,
    geometry: GeometryMaker | None = None,
    relax: bool = False,
    geometry_method: str | None = None,
    wanted: Callable[[str], bool] | None = None,
    on_error: OnError | None = None,
) -> Iterator[SourceMolecule]:
    """Yield the molecules of a file, a folder or an archive in its order, holding no more than two.

    Read are: xyz and QM9's native xyz; extended xyz and whatever else ASE reads; CIF and POSCAR; SDF and MOL;
    SMILES lists (``.smi``, ``.txt``: ``SMILES name`` per line; ``.csv`` with a ``smiles`` column). Any may be
    compressed (``.gz``, ``.bz2``, ``.xz``); a folder is read file by file; a ``.tar.*`` or ``.zip`` may hold
    xyz files.

    Collinear magnetic moments come from extended xyz and other files of ASE's (initial or calculated ones), and from
    magnetic CIFs (``.mcif``, ``.cif``). Others are refused.

    Parameters
    ----------
    path
        The file or folder.
    geometry
        Makes the geometry of a molecule given as SMILES or flat; needed only then and for ``relax``.
    relax
        Relax geometries that the file gives, too.
    geometry_method
        What the file's geometries were made with, where the file itself does not say; recorded.
    wanted
        Names to keep. Others are parsed but get no geometry.
    on_error
        Called with name, kind and error for a molecule that cannot be used; reading goes on with the next. Without it
        the error is raised. What is not about one molecule is always raised: a missing or damaged file, an entry after
        which the next one cannot be found, a name used twice, a full disk.

    Raises
    ------
    StructureError
        Anything wrong, with file, line and record: missing, empty or damaged file, malformed record, two atoms in one
        place, a name used twice, a SMILES without a ``geometry``, moments that are not collinear; moments or
        atoms held in place in a geometry that is to be relaxed.
    """
    source = Path(path)
    if not source.exists():
        raise StructureError("no such file or folder", where=str(source), hint="check the path")
    if relax and geometry is None:
        raise StructureError(
            "relaxation was asked for, but not how", where=str(source), hint="give a geometry recipe"
        )
    return _molecules(source, geometry, relax, geometry_method, wanted, on_error or _stop)


def expand(
    source: SourceMolecule, element: str, tolerance_A: float = DEFAULT_TOLERANCE_A
) -> tuple[Site, ...]:
    """Return the unique ``element`` sites of a molecule; errors name it.

    Raises
    ------
    StructureError
        As :func:`htxas.structures.symmetry.unique_sites`.
    """
    try:
        return unique_sites(source.structure, element, tolerance_A)
    except StructureError as error:
        where = f"{source.provenance.get('file')}, {source.name}"
        raise StructureError(error.message, where=where, hint=error.hint) from None


def _molecules(
    source: Path,
    geometry: GeometryMaker | None,
    relax: bool,
    geometry_method: str | None,
    wanted: Callable[[str], bool] | None,
    on_error: OnError,
) -> Iterator[SourceMolecule]:
    seen: set[str] = set()
    skipped = False
    for origin, stem, records in _files(source, source.name):
        for name, record in _named(records, stem):
            where = origin.where(record.index, record.line)
            problem = record.problem
            if problem is None and not _NAME.match(name):
                problem = StructureError(
                    f"{name!r} cannot be a name", where=where, hint="no slashes or control characters"
                )
            if problem is not None:
                skipped = True
                if on_error is _stop or wanted is None or wanted(name):
                    on_error(name, "record", problem)
                continue
            if name in seen:
                raise StructureError(
                    f"the name {name!r} is used twice", where=where, hint="give every molecule its own"
                )
            seen.add(name)
            if wanted is not None and not wanted(name):
                continue
            given = record.positions_A is not None
            if not given and geometry is None and record.smiles:
                raise StructureError(
                    "a SMILES has no geometry",
                    where=f"{where} ({name})",
                    hint="say in the campaign how geometries are made, or give xyz",
                )
            kind: Kind = "structure" if given else "geometry"
            try:
                molecule = _molecule(name, record, origin, geometry, geometry_method)
                if relax and given and geometry is not None:
                    kind = "geometry"
                    molecule = geometry.relax(molecule)
            except StructureError as error:
                on_error(name, kind, error)
                continue
            yield molecule
    if not seen and not skipped:
        raise StructureError("no molecules in it", where=str(source), hint="is this the right file?")


def _stop(_name: str, _kind: Kind, error: StructureError) -> None:
    raise error


def _named(records: Iterator[Record], stem: str) -> Iterator[tuple[str, Record]]:
    """Name the nameless after the file, numbered unless alone."""
    head = list(islice(records, 2))
    for record in chain(head, records):
        yield record.name or (stem if len(head) == 1 else f"{stem}-{record.index + 1}"), record


def _molecule(
    name: str, record: Record, origin: Origin, geometry: GeometryMaker | None, geometry_method: str | None
) -> SourceMolecule:
    where = f"{origin.where(record.index, record.line)} ({name})"
    provenance = {
        "file": origin.file,
        "file_sha256": origin.sha256,
        "record": record.index,
        "format": record.file_format,
        **record.extra,
    }
    if record.positions_A is not None:
        structure, order = Structure.from_atoms(
            record.symbols,
            record.positions_A,
            record.cell_A,
            moments_muB=record.moments_muB,
            where=where,
        )
        provenance["geometry"] = {"method": geometry_method, "energy_eV": None, **record.geometry}
        return SourceMolecule(name, structure, order, record.smiles, provenance, record.constraints)
    if not record.smiles:
        raise StructureError("no SMILES", where=where, hint="mend the line")
    assert geometry is not None  # the caller made sure
    made = geometry.from_smiles(record.smiles, where=where)
    structure, order = Structure.from_atoms(made.symbols, made.positions_A, where=where)
    provenance["geometry"] = dict(made.provenance)
    return SourceMolecule(name, structure, order, record.smiles, provenance)


def _files(source: Path, label: str) -> Iterator[tuple[Origin, str, Iterator[Record]]]:
    """Yield origin, stem for names, and records of every file in ``source``, recorded under ``label``."""
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
        for path in files:
            yield from _files(path, path.relative_to(source).as_posix())
        return
    if source.stat().st_size == 0:
        raise StructureError("the file is empty", where=str(source), hint="is this the right file?")
    checksum = file_sha256(source)
    if is_archive(source):
        for member, stream in archive_members(source):
            origin = Origin(f"{label}/{member}", checksum, f"{source}/{member}")
            if PurePath(member).suffix.lower() != ".xyz":
                raise StructureError(
                    "only .xyz files are read from an archive",
                    where=origin.path,
                    hint="unpack it and name the folder",
                )
            yield origin, PurePath(member).stem, read_xyz(text_lines(stream, origin.path), origin)
        return
    origin = Origin(label, checksum, str(source))
    yield origin, _stem(source), _records(source, origin)


def _stem(path: Path) -> str:
    plain = plain_name(path)
    match = _POSCAR.match(plain.name)
    if match:
        return match["label"] or path.resolve().parent.name or plain.name
    return plain.stem


def _records(path: Path, origin: Origin) -> Iterator[Record]:
    plain = plain_name(path)
    suffix = plain.suffix.lower()
    if suffix == ".xyz" and not _is_extended(path):
        return _from_text(path, origin, read_xyz)
    if suffix in (".smi", ".smiles", ".txt"):
        return _from_text(path, origin, read_smiles_lines)
    if suffix == ".csv":
        return _from_text(path, origin, read_smiles_csv)

    from htxas.structures.libraries import read_ase, read_cif, read_poscar, read_sdf

    if suffix in (".cif", ".mcif"):
        return read_cif(path, origin)
    if suffix in (".sdf", ".sd", ".mol"):
        return read_sdf(path, origin)
    if suffix in (".vasp", ".poscar") or _POSCAR.match(plain.name):
        return read_poscar(path, origin)
    return read_ase(path, origin, "extxyz" if suffix in (".xyz", ".extxyz") else None)


def _from_text(
    path: Path, origin: Origin, parse: Callable[[Iterator[str], Origin], Iterator[Record]]
) -> Iterator[Record]:
    with open_bytes(path) as stream:
        yield from parse(text_lines(stream, origin.path), origin)


def _is_extended(path: Path) -> bool:
    """Whether the second line declares the columns or the cell, as extended xyz does."""
    with open_bytes(path) as stream:
        second = next(islice(text_lines(stream, str(path)), 1, None), "")
    return "Properties=" in second or "Lattice=" in second
