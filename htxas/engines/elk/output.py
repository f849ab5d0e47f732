"""What Elk left: ``INFO.OUT``, levels, k points, symmetries, core levels, charges in spheres, momentum matrix elements.

Every reader refuses a file that is cut short. Energies of Elk are hartree, lengths bohr.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence

__all__ = [
    "Levels",
    "OutputError",
    "Scf",
    "read_characters",
    "read_core_level_Ha",
    "read_equivalent",
    "read_levels",
    "read_momenta",
    "read_rotations",
    "read_scf",
    "refusal",
    "trouble",
]

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
_ERROR = re.compile(r"Error\((\w+)\)\s*:?[ \t]*(.*)")
_RUNTIME = re.compile(r"^(?:Fortran runtime error|Error allocating|Operating system error).*", re.MULTILINE)
_CHANGED = re.compile(r"Info\(checkmt\): .*")
_WARNING = re.compile(r"(Warning\(\w+\): [^()]*?(?:\n[^()]*?)?s\.c\. loop\s+(\d+))")
_L_COLUMNS = 4  # s, p, d, f


class OutputError(ValueError):
    """A file is not there, cut short, or not what it should be."""


@dataclass(frozen=True, slots=True)
class Scf:
    """A self-consistent state as ``INFO.OUT`` tells it.

    Attributes
    ----------
    version
        Of the code.
    convergence
        As it says itself.
    energy_Ha
        Total energy without the entropy of the occupations.
    nuclear_charge, core_charge, valence_charge
        That it began with.
    charge_error
        Share of the electrons that the density lacks before it is normalised.
    atoms
        In the cell.
    loops
        Of self-consistency.
    """

    version: str
    convergence: Convergence
    energy_Ha: float
    nuclear_charge: float
    core_charge: float
    valence_charge: float
    charge_error: float
    atoms: int
    loops: int


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Levels at the k points Elk keeps.

    Attributes
    ----------
    points
        In units of the reciprocal vectors, shape (k, 3).
    weights
        Adding up to 1, shape (k,).
    energies_Ha, occupations
        Shape (k, levels); occupations from 0 to 2.
    """

    points: FloatArray
    weights: FloatArray
    energies_Ha: FloatArray
    occupations: FloatArray


def _text(path: Path) -> str:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        raise OutputError(f"there is no {path.name}") from None
    if not text.endswith("\n"):
        raise OutputError(f"{path.name} is cut short")
    return text


def refusal(output: str) -> tuple[str, str] | None:
    """Return the routine and the words of the error that ended Elk, or None; Elk's status is 0 all the same."""
    found = _ERROR.search(output)
    if found is not None:
        return found[1], found[2].strip()
    found = _RUNTIME.search(output)
    return None if found is None else ("", found[0].strip())


def trouble(output: str, loops: int) -> str | None:
    """Return what Elk did otherwise than it was told, or says of its last iteration; None if nothing.

    Warnings of earlier iterations are of a density that was still moving.
    """
    changed = _CHANGED.search(output)
    if changed is not None:
        return changed[0]
    for words, loop in _WARNING.findall(output):
        if int(loop) >= loops:
            return " ".join(words.split())
    return None


def read_scf(folder: Path) -> Scf:
    """Return the state ``INFO.OUT`` tells.

    Raises
    ------
    OutputError
        It is not there, cut short, or lacks something.
    """
    text = _text(folder / "INFO.OUT")
    version = re.search(r"Elk version (\S+) started", text)
    if version is None or f"Elk version {version[1]} stopped" not in text:
        raise OutputError("INFO.OUT ends before its end")

    def last(label: str) -> float:
        found = re.findall(rf"^\s*{label}\s*:\s*(\S+)", text, re.MULTILINE)
        if not found:
            raise OutputError(f"INFO.OUT says nothing of {label}")
        return float(found[-1])

    try:
        converged = "Convergence targets achieved" in text
        exhausted = "Reached self-consistent loops maximum" in text
        total = last("total charge")
        return Scf(
            version=version[1],
            convergence=Convergence.CONVERGED
            if converged
            else Convergence.UNCONVERGED
            if exhausted
            else Convergence.UNKNOWN,
            energy_Ha=last("total energy") - last("electron entropic"),
            nuclear_charge=last("Total nuclear charge"),
            core_charge=last("Total core charge"),
            valence_charge=last("Total valence charge"),
            charge_error=abs(last("total calculated charge") / total - 1.0),
            atoms=int(last("Total number of atoms per unit cell")),
            loops=len(re.findall(r"Loop number :", text)),
        )
    except ValueError as error:
        raise OutputError(str(error)) from None


def read_levels(folder: Path) -> Levels:
    """Return ``EIGVAL.OUT`` with the weights of ``KPOINTS.OUT``.

    Raises
    ------
    OutputError
        One of them is not there, cut short, or not of the other.
    """
    lines = _text(folder / "EIGVAL.OUT").splitlines()
    try:
        points, levels = _count(lines[0], "nkpt"), _count(lines[1], "nstsv")
        rows = [line.split() for line in lines[2:] if line.strip() and not line.lstrip().startswith("(")]
        if len(rows) != points * (levels + 1):
            raise OutputError("EIGVAL.OUT is cut short")
        blocks = [rows[i * (levels + 1) : (i + 1) * (levels + 1)] for i in range(points)]
        vectors = np.array([[float(x) for x in block[0][1:4]] for block in blocks])
        values = np.array([[[float(x) for x in row[1:3]] for row in block[1:]] for block in blocks])
        table = [line.split() for line in _text(folder / "KPOINTS.OUT").splitlines() if line.strip()]
        if len(table) != int(table[0][0]) + 1 or int(table[0][0]) != points:
            raise OutputError("KPOINTS.OUT has other k points than EIGVAL.OUT, or is cut short")
        kept = np.array([[float(x) for x in row[1:5]] for row in table[1:]])
    except (IndexError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"EIGVAL.OUT or KPOINTS.OUT: {error}") from None
    if not np.allclose(kept[:, :3], vectors, atol=1e-8) or abs(kept[:, 3].sum() - 1) > 1e-6:
        raise OutputError("KPOINTS.OUT has other k points than EIGVAL.OUT")
    return Levels(vectors, kept[:, 3] / kept[:, 3].sum(), values[..., 0], values[..., 1])


def _count(line: str, name: str) -> int:
    number, _, label = line.partition(":")
    if label.strip() != name:
        raise OutputError(f"there is no {name} where it should be")
    return int(number)


def read_core_level_Ha(folder: Path) -> float:
    """Return the 1s level of the first atom, from ``EVALCORE.OUT``.

    Raises
    ------
    OutputError
        It is not there.
    """
    text = _text(folder / "EVALCORE.OUT")
    found = re.search(r"Species :\s+1 \(.*\), atom :\s+1\s*\n\s*n =\s+1, l =\s+0, k =\s+1 :\s+(-\S+)", text)
    if found is None:
        raise OutputError("EVALCORE.OUT has no 1s level of the first atom")
    return float(found[1])


def read_rotations(folder: Path, cell_A: FloatArray) -> FloatArray:
    """Return the rotations of the crystal's symmetries, Cartesian, shape (n, 3, 3), from ``SYMCRYS.OUT``.

    Raises
    ------
    OutputError
        It is not there, cut short, or its rotations are none of this cell.
    """
    text = _text(folder / "SYMCRYS.OUT")
    count = re.search(r"^\s*(\d+) : nsymcrys", text, re.MULTILINE)
    found = re.findall(r"spatial rotation :\s*\n((?:\s*-?\d+\s+-?\d+\s+-?\d+\s*\n){3})", text)
    if count is None or len(found) != int(count[1]) or not found:
        raise OutputError("SYMCRYS.OUT is cut short")
    lattice = np.array([[int(x) for x in block.split()] for block in found], dtype=np.float64).reshape(
        -1, 3, 3
    )
    columns = cell_A.T
    rotations = columns @ lattice @ np.linalg.inv(columns)
    if not np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-4):
        raise OutputError("SYMCRYS.OUT has rotations that are none of this cell")
    return rotations


def read_equivalent(folder: Path, kinds: list[int]) -> list[list[int]]:
    """Return for each atom those it is equivalent to by symmetry, itself included, from ``EQATOMS.OUT``.

    Parameters
    ----------
    folder
        Where it is.
    kinds
        Atoms of each kind; atoms are counted from 0 in Elk's order, over all kinds.

    Raises
    ------
    OutputError
        It is not there, cut short, or of other atoms.
    """
    text = _text(folder / "EQATOMS.OUT")
    groups: list[list[int]] = []
    blocks = re.split(r"^Species :.*$", text, flags=re.MULTILINE)[1:]
    if len(blocks) != len(kinds):
        raise OutputError("EQATOMS.OUT has other kinds of atoms, or is cut short")
    for block, atoms in zip(blocks, kinds, strict=True):
        start = len(groups)
        entries = re.split(r"^ atom +\d+ is equivalent to atom\(s\)$", block, flags=re.MULTILINE)[1:]
        groups += [[start + int(x) - 1 for x in entry.split()] for entry in entries]
        members = groups[start:]
        if len(members) != atoms or any(start + i not in g for i, g in enumerate(members)):
            raise OutputError("EQATOMS.OUT has other atoms, or is cut short")
        if any(members[j - start] != g for g in members for j in g):
            raise OutputError("EQATOMS.OUT contradicts itself")
    return groups


def read_characters(folder: Path, kinds: list[int], points: int) -> tuple[FloatArray, FloatArray]:
    """Return levels and their charge in each sphere, from ``BAND_Sss_Aaaaa.OUT``.

    Parameters
    ----------
    folder
        Where task 21 ran.
    kinds
        Atoms of each kind, in Elk's order.
    points
        How many k points.

    Returns
    -------
    energies_Ha
        From the Fermi level, shape (k, levels).
    charges
        Shape (k, levels, atoms, 4) for s, p, d, f; atoms in Elk's order.

    Raises
    ------
    OutputError
        A file is not there, cut short, or of other levels.
    """
    tables: list[FloatArray] = []
    for kind, atoms in enumerate(kinds, start=1):
        for atom in range(1, atoms + 1):
            name = f"BAND_S{kind:02d}_A{atom:04d}.OUT"
            rows = [line.split() for line in _text(folder / name).splitlines() if line.strip()]
            try:
                table = np.array(rows, dtype=np.float64).reshape(-1, points, 3 + _L_COLUMNS)
            except ValueError:
                raise OutputError(f"{name} is cut short, or no table") from None
            if tables and (
                table.shape != tables[0].shape or not np.array_equal(table[..., :2], tables[0][..., :2])
            ):
                raise OutputError(f"{name} has other levels than BAND_S01_A0001.OUT")
            if np.abs(table[..., 3:].sum(axis=-1) - table[..., 2]).max() > 1e-4:
                raise OutputError(f"{name}: charges by angular momentum are not those of the sphere")
            tables.append(table)
    stacked = np.array(tables)  # atoms, levels, k, columns
    return stacked[0, ..., 1].T, stacked[..., 3:].transpose(2, 1, 0, 3)


def read_momenta(folder: Path, levels: int, chosen: list[int]) -> tuple[FloatArray, ComplexArray]:
    """Return momentum matrix elements of one level with all, at each k point, from ``PMAT.OUT``.

    Each record has the k point (3 doubles), the number of levels (an integer) and ``<i|p_a|j>``, i fastest, then j,
    then x, y, z.

    Parameters
    ----------
    folder
        Where task 120 ran.
    levels
        How many there are.
    chosen
        The level at each k point, from 0.

    Returns
    -------
    points
        Shape (k, 3).
    momenta
        ``<i|p_a|chosen>`` in atomic units, shape (k, levels, 3).

    Raises
    ------
    OutputError
        It is not there, or of another size.
    """
    record = np.dtype(
        {"names": ["point", "levels", "p"], "formats": [("<f8", 3), "<i4", ("<c16", (3, levels, levels))],
         "offsets": [0, 24, 28], "itemsize": 28 + 48 * levels**2}
    )  # fmt: skip
    path = folder / "PMAT.OUT"
    if not path.is_file() or path.stat().st_size != record.itemsize * len(chosen):
        raise OutputError("PMAT.OUT is not there, or is of another size")
    found = np.memmap(path, dtype=record, mode="r")
    if (found["levels"] != levels).any():
        raise OutputError("PMAT.OUT has another number of levels")
    momenta = np.array([found["p"][k][:, level, :].T for k, level in enumerate(chosen)])
    return np.array(found["point"]), momenta
