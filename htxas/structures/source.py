"""What the readers give: molecules with their names, atom order and provenance; and how files are opened."""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, Any

import numpy.typing as npt

from htxas.domain.structure import Structure
from htxas.errors import StructureError

__all__ = [
    "Origin",
    "Record",
    "SourceMolecule",
    "archive_members",
    "file_sha256",
    "is_archive",
    "open_bytes",
    "plain_name",
    "text_lines",
]

_WRONG_FILE = "is this the right file?"
_COMPRESSED = (".gz", ".bz2", ".xz")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".zip")
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class SourceMolecule:
    """One molecule or crystal as read.

    Attributes
    ----------
    name
        Unique within its source.
    structure
        Canonical structure.
    order
        Canonical atom i is atom ``order[i]`` of the file, counted from 0.
    smiles
        As in the file, or None.
    provenance
        ``file``, ``file_sha256``, ``record`` (from 0), ``format`` and ``geometry`` with at least ``method``
        (None: the file does not say) and ``energy_eV`` (None: not known).
    constraints
        What the file holds in place when the geometry is relaxed, by the name of each constraint; empty: nothing.
    """

    name: str
    structure: Structure
    order: tuple[int, ...]
    smiles: str | None
    provenance: Mapping[str, Any]
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """The file a record comes from.

    Attributes
    ----------
    file
        Recorded: its name, in a folder the path from there, in an archive ``archive/member``.
    sha256
        Checksum of the file (of the archive).
    path
        Shown in errors: the path as the user gave it.
    """

    file: str
    sha256: str
    path: str

    def where(self, record: int | None = None, line: int | None = None) -> str:
        """Return the text that locates an error."""
        parts = [self.path]
        if line is not None:
            parts.append(f"line {line}")
        if record is not None:
            parts.append(f"record {record + 1}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a file as parsed, before it is checked.

    Attributes
    ----------
    index, line
        Number of the record from 0; line where it starts from 1, or None for a format without lines.
    file_format
        What the file was read as.
    name, smiles
        None where the file gives none.
    symbols, positions_A, cell_A
        Atoms in file order, positions in Angstrom, shape (n, 3); None: a SMILES still without geometry.
    geometry
        What the file says of how the geometry was made: ``method``, ``energy_eV``.
    extra
        More to record as provenance.
    moments_muB
        Collinear magnetic moments in Bohr magnetons in file order, length n; None: the file has none.
    constraints
        As of :class:`SourceMolecule`.
    problem
        Why this entry cannot be used, where the reader could still find the next one; nothing else counts then.
    """

    index: int
    line: int | None
    file_format: str
    name: str | None
    smiles: str | None = None
    symbols: Sequence[str] = ()
    positions_A: npt.ArrayLike | None = None
    cell_A: npt.ArrayLike | None = None
    geometry: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    moments_muB: npt.ArrayLike | None = None
    constraints: tuple[str, ...] = ()
    problem: StructureError | None = None


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    StructureError
        The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StructureError(
            f"cannot be read: {error.strerror}", where=str(path), hint="check the path and its permissions"
        ) from None


def plain_name(path: PurePath) -> PurePath:
    """Return ``path`` without a compression suffix."""
    return path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, through gzip, bzip2 or xz if its suffix says so."""
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(path.suffix.lower(), open)
    with opener(path, "rb") as stream:
        yield stream


def text_lines(stream: IO[bytes], where: str) -> Iterator[str]:
    """Yield the lines of a binary stream without their ends.

    Raises
    ------
    StructureError
        Damaged compression, a read error, or not UTF-8 text.
    """
    count = 0
    try:
        for raw in stream:  # no text wrapper: it would close the stream behind the owner's back
            if count == 0:
                raw = raw.removeprefix(codecs.BOM_UTF8)  # a spreadsheet puts it in front
            text = raw.decode("utf-8")
            count += 1
            yield text.rstrip("\r\n")
    except UnicodeDecodeError:
        raise StructureError(f"not text after line {count}", where=where, hint=_WRONG_FILE) from None
    except _DAMAGED as error:
        raise StructureError(
            f"damaged after line {count}: {error}", where=where, hint="fetch or write the file again"
        ) from None


def is_archive(path: Path) -> bool:
    """Whether the name is that of a tar or zip archive."""
    return path.name.lower().endswith(_ARCHIVES)


def archive_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and stream of each file in a tar or zip archive, one by one, nothing unpacked to disk.

    Raises
    ------
    StructureError
        The archive is damaged.
    """
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        with archive.open(entry) as stream:
                            yield entry.filename, stream
        else:
            with tarfile.open(path, "r|*") as tar:
                for member in tar:
                    data = tar.extractfile(member) if member.isfile() else None
                    if data is not None:
                        yield member.name, data
                    tar.members.clear()  # type: ignore[attr-defined]  # 130,000 headers need not stay in memory
    except _DAMAGED as error:
        raise StructureError(
            f"damaged archive: {error}", where=str(path), hint="fetch or write the file again"
        ) from None
