"""CASTEP's binary files of matrix elements and projections.

They are Fortran's unformatted sequential files, big-endian. Their layout is that of OptaDOS's readers
(``electronic.f90`` of optados-developers/optados: ``elec_read_elnes_mat``, ``elec_pdos_read``; ``od2od.f90`` for the
formatted form).

``.elnes_bin``
    Version, header (80 characters), orbitals, bands, k points, spins; of each orbital its species, rank in the species,
    shell and channel (1 s, 2 to 4 p, 5 to 9 d); then for each k point and spin all elements <orbital|r_a|band> in Bohr,
    orbitals running fastest, then bands, then a.
``.eels_mat``
    The same of older versions: without version and header; one record of three elements for each k point, spin, orbital
    and band, bands fastest.
``.pdos_bin``, ``.pdos_weights`` (older, without version and header)
    k points, spins, orbitals, bands; species, rank and l of each orbital; then for each k point its number and
    coordinates, for each spin its number, the number of bands, and for each band the weights of all orbitals.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.engines.castep.bands import OutputError

__all__ = ["CoreElements", "Projections", "parse_elnes_fmt", "read_core_elements", "read_projections"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
_VERSION = 1.0
_HEADER_BYTES = 80


@dataclass(frozen=True, slots=True, eq=False)
class CoreElements:
    """Dipole matrix elements between core orbitals and bands.

    Attributes
    ----------
    species, rank, shell, channel
        Of each core orbital, shape (orbitals,), as CASTEP counts, from 1: shell is n, channel 1 is s.
    elements_Bohr
        Complex, shape (k, orbitals, bands, 3); k points in the order of ``.bands``.
    """

    species: IntArray
    rank: IntArray
    shell: IntArray
    channel: IntArray
    elements_Bohr: npt.NDArray[np.complex128]

    def squared_1s(self, species: int, rank: int) -> FloatArray:
        """Return ``|<f|r_a|1s>|^2`` of an atom in Bohr^2, shape (k, bands, 3).

        Raises
        ------
        OutputError
            There is not exactly one such orbital.
        """
        is_it = (self.species == species) & (self.rank == rank) & (self.shell == 1) & (self.channel == 1)
        found = np.flatnonzero(is_it)
        if len(found) != 1:
            raise OutputError(f"has {len(found)} orbitals 1s of atom {rank} of species {species}")
        return np.asarray(np.abs(self.elements_Bohr[:, found[0]]) ** 2)


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """Weights of the bands on orbitals of atoms.

    Attributes
    ----------
    species, rank, angular
        Of each orbital, shape (orbitals,): as CASTEP counts, from 1, and l.
    kpoints
        Shape (k, 3).
    weights
        Shape (k, bands, orbitals).
    """

    species: IntArray
    rank: IntArray
    angular: IntArray
    kpoints: FloatArray
    weights: FloatArray


class _Records:
    """Records one after the other, each of an expected form."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def whole(self, count: int = 1) -> IntArray:
        return self._read(">i4", count).astype(np.intp)

    def one(self) -> int:
        return int(self.whole()[0])

    def real(self, count: int = 1) -> FloatArray:
        return self._read(">f8", count).astype(np.float64)

    def complex(self, count: int) -> npt.NDArray[np.complex128]:
        return self._read(">c16", count).astype(np.complex128)

    def raw(self) -> bytes:
        return bytes(self._file.read_record("u1"))

    def kpoint(self) -> FloatArray:
        record = self._file.read_record(np.dtype([("number", ">i4"), ("at", ">f8", (3,))]))
        if len(record) != 1:
            raise OutputError("has a k point that is none")
        return np.asarray(record["at"][0], dtype=np.float64)

    def end(self) -> None:
        from scipy.io import FortranEOFError

        try:
            self._file.read_record("u1")
        except FortranEOFError:
            return
        raise OutputError("goes on after its end")

    def _read(self, kind: str, count: int) -> npt.NDArray[Any]:
        record: npt.NDArray[Any] = self._file.read_record(kind)
        if record.shape != (count,):
            raise OutputError(f"has a record of {record.size} numbers where there should be {count}")
        return record


@contextmanager
def _records(path: Path) -> Iterator[_Records]:
    from scipy.io import FortranEOFError, FortranFile, FortranFormattingError

    try:
        # An empty file has no first record: scipy says so only once it is asked for one.
        with FortranFile(path, "r", header_dtype=">u4") as file:
            yield _Records(file)
    except (FortranEOFError, FortranFormattingError):
        raise OutputError(f"{path.suffix} is cut short") from None
    except OutputError as error:
        raise OutputError(f"{path.suffix} {error}") from None
    except (ValueError, MemoryError, OverflowError) as error:
        raise OutputError(f"{path.suffix} is damaged: {error}") from None


def _version(records: _Records) -> None:
    version = float(records.real()[0])
    if not 0 < version <= _VERSION + 1e-3:
        raise OutputError(f"is of version {version:g}, known is {_VERSION:g}")
    header = records.raw()
    if len(header) != _HEADER_BYTES:
        raise OutputError(f"has a header of {len(header)} bytes")


def read_core_elements(path: Path) -> CoreElements:
    """Return the matrix elements in an ``.elnes_bin`` or, of older versions, an ``.eels_mat``.

    Raises
    ------
    OutputError
        Cut short, damaged, of a newer version, or spin-polarised.
    """
    legacy = path.suffix == ".eels_mat"
    with _records(path) as records:
        if not legacy:
            _version(records)
        orbitals, bands, points, spins = (records.one() for _ in range(4))
        _refuse_spin(spins)
        species, rank, shell, channel = (records.whole(orbitals) for _ in range(4))
        elements = np.empty((points, orbitals, bands, 3), dtype=np.complex128)
        for k in range(points):
            if legacy:
                for orbital in range(orbitals):
                    for band in range(bands):
                        elements[k, orbital, band] = records.complex(3)
            else:
                flat = records.complex(orbitals * bands * 3)
                elements[k] = flat.reshape(3, bands, orbitals).transpose(2, 1, 0)
        records.end()
    return _finite(CoreElements(species, rank, shell, channel, elements))


def parse_elnes_fmt(text: str) -> CoreElements:
    """Return the matrix elements in an ``.elnes_fmt``, as OptaDOS's ``od2od`` writes it.

    Raises
    ------
    OutputError
        Cut short or damaged.
    """
    lines = text.splitlines()
    try:
        orbitals, bands, points, spins = (int(lines[i].split()[1]) for i in range(2, 6))
        _refuse_spin(spins)
        names = [np.array([int(x) for x in lines[i].split()[1:]], dtype=np.intp) for i in range(6, 10)]
        species, rank, shell, channel = names
        rows = [np.array([float(x) for x in line.split()]) for line in lines[10:] if line.strip()]
        numbers = np.concatenate(rows)
        if any(len(n) != orbitals for n in names) or numbers.size != 2 * points * orbitals * bands * 3:
            raise OutputError("is cut short")
    except OutputError as error:
        raise OutputError(f".elnes_fmt {error}") from None
    except (ValueError, IndexError) as error:
        raise OutputError(f".elnes_fmt cannot be read: {error}") from None
    flat = (numbers[::2] + 1j * numbers[1::2]).reshape(points, 3, bands, orbitals)
    return _finite(CoreElements(species, rank, shell, channel, flat.transpose(0, 3, 2, 1)))


def read_projections(path: Path) -> Projections:
    """Return the weights in a ``.pdos_bin`` or, of older versions, a ``.pdos_weights``.

    Raises
    ------
    OutputError
        Cut short, damaged, of a newer version, or spin-polarised.
    """
    with _records(path) as records:
        if path.suffix == ".pdos_bin":
            _version(records)
        points, spins, orbitals, bands = (records.one() for _ in range(4))
        _refuse_spin(spins)
        species, rank, angular = (records.whole(orbitals) for _ in range(3))
        kpoints, weights = np.empty((points, 3)), np.empty((points, bands, orbitals))
        for k in range(points):
            kpoints[k] = records.kpoint()
            spin, count = records.one(), records.one()
            if (spin, count) != (1, bands):
                raise OutputError(f"has {count} of {bands} bands at a k point")
            for band in range(bands):
                weights[k, band] = records.real(orbitals)
        records.end()
    if not np.isfinite(weights).all():
        raise OutputError(f"{path.suffix} has weights that are no numbers")
    return Projections(species, rank, angular, kpoints, weights)


def _refuse_spin(spins: int) -> None:
    if spins != 1:
        raise OutputError("is spin-polarised, which was not asked for")


def _finite(found: CoreElements) -> CoreElements:
    if not np.isfinite(found.elements_Bohr).all():
        raise OutputError("has matrix elements that are no numbers")
    return found
