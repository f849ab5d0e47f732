"""Transitions from the 1s level to the empty ones, by momentum matrix elements."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.domain.units import HARTREE_EV
from htxas.engines.elk.levels import Levels, read_levels
from htxas.engines.elk.output import OutputError, read_text

__all__ = [
    "check_potential",
    "filling_Ha",
    "final_states",
    "lowest_Ha",
    "read_momenta",
    "read_rotations",
    "read_transitions",
    "write_transitions",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int_]
ComplexArray = npt.NDArray[np.complex128]
# By self-consistency and beside a 1s orbital. In MgO without a hole 1s, 2s and the empty levels differed by up to
# 0.011, 0.0013 and 0.0004, with the hole by less than 0.0001. Why is not known: it depends on where the basis is
# linearised; where 1s was 0.003 off, strengths were 1 % off.
_SAME_CORE, _SAME_OCCUPIED_HA, _SAME_EMPTY_HA = 1e-3, 2e-3, 5e-4  # the first is relative
_FULL = 0.02  # electrons that may lack in the levels below the excited electron's


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


def write_transitions(path: Path, folder: Path, key: str, level_Ha: float) -> None:
    """Keep of the momentum matrix elements those of the level nearest to 1s.

    Parameters
    ----------
    path
        What is written.
    folder
        Where task 120 ran.
    key
        Of the calculation.
    level_Ha
        The 1s level.
    """
    levels = read_levels(folder)
    chosen = [int(i) for i in np.abs(levels.energies_Ha - level_Ha).argmin(axis=1)]
    points, momenta = read_momenta(folder, levels.energies_Ha.shape[1], chosen)
    document = {
        "key": key,
        "core": chosen,
        "points": points.tolist(),
        "real": momenta.real.tolist(),
        "imaginary": momenta.imag.tolist(),
    }
    path.write_text(json.dumps(document))


def read_transitions(path: Path, key: str, levels: Levels) -> tuple[ComplexArray, IntArray]:
    """Return ``<f|p|1s>`` (k, levels, 3) and the index of 1s at each k point."""
    try:
        document = json.loads(path.read_text())
        if document["key"] != key:
            raise OutputError(f"{path.name} belongs to calculation {document['key']}")
        momenta = np.array(document["real"]) + 1j * np.array(document["imaginary"])
        core, points = np.array(document["core"]), np.array(document["points"])
    except FileNotFoundError:
        raise OutputError(f"there is no {path.name}") from None
    except (KeyError, TypeError) as error:
        raise OutputError(f"{path.name} lacks something: {error}") from None
    except ValueError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path.name} cannot be read: {error}") from None
    if momenta.shape != (*levels.energies_Ha.shape, 3) or not np.allclose(points, levels.points, atol=1e-8):
        raise OutputError(f"{path.name} has other levels or k points than EIGVAL.OUT")
    return momenta, core


def read_rotations(folder: Path, cell_A: FloatArray) -> FloatArray:
    """Return the rotations of the crystal's symmetries, Cartesian, shape (n, 3, 3), from ``SYMCRYS.OUT``.

    Raises
    ------
    OutputError
        It is not there, cut short, or its rotations are none of this cell.
    """
    text = read_text(folder / "SYMCRYS.OUT")
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


def check_potential(
    levels: Levels, all_levels: Levels, core: IntArray, core_Ha: float, occupied: int
) -> None:
    """Refuse levels for the spectrum that are not those of self-consistency, with 1s beside them."""
    if not np.allclose(levels.points, all_levels.points, atol=1e-8):
        raise OutputError("the spectrum has other k points than self-consistency")
    points = np.arange(len(core))
    found = all_levels.energies_Ha[points, core]
    if np.abs(found - core_Ha).max() > _SAME_CORE * abs(core_Ha):
        raise OutputError(
            f"the 1s level is at {found[0]:.4f} Ha in the spectrum, at {core_Ha:.4f} Ha in the core"
        )
    others = np.array([np.delete(e, c) for e, c in zip(all_levels.energies_Ha, core, strict=True)])
    common = min(others.shape[1], levels.energies_Ha.shape[1])
    off = np.abs(others[:, :common] - levels.energies_Ha[:, :common])
    for part, limit in ((off[:, :occupied], _SAME_OCCUPIED_HA), (off[:, occupied:], _SAME_EMPTY_HA)):
        if part.size and part.max() > limit:
            raise OutputError(f"levels in the spectrum are {part.max():.1e} Ha off those of self-consistency")


def lowest_Ha(levels: Levels, first: int) -> float:
    """Return the lowest of the levels of one band."""
    return float(levels.energies_Ha[:, first].min())


def filling_Ha(levels: Levels, occupied: int) -> float:
    """Return how far above the lowest of its levels the excited electron is on average."""
    below, above = levels.occupations[:, :occupied], levels.occupations[:, occupied:]
    lacking = float(levels.weights @ (2.0 - below).sum(axis=1))
    if lacking > _FULL:
        raise OutputError(f"{lacking:.2f} electrons lack in the levels below the excited electron's: a metal")
    electrons = levels.weights[:, None] * above
    mean = float((electrons * levels.energies_Ha[:, occupied:]).sum() / electrons.sum())
    return mean - lowest_Ha(levels, occupied)


def final_states(
    levels: Levels,
    momenta: ComplexArray,
    core: IntArray,
    rotations: FloatArray,
    occupied: int,
) -> tuple[FloatArray, FloatArray, float]:
    """Return energies above the first final state (eV), squared dipole elements (bohr^2) and how far they are complete.

    In a local potential ``<f|r|i> = -i <f|p|i> / (E_f - E_i)`` with Kohn-Sham energies, atomic units. Both states are
    of the potential with the hole: its 1s orbital is narrower, and strengths in carbon are some 28 % less than with
    the ground state's. A k point stands for its star: the tensor of each level is averaged over the crystal's
    rotations.
    """
    first = occupied + 1  # 1s is one of the levels here, below them
    energies = levels.energies_Ha[:, first:]
    own = levels.energies_Ha[np.arange(len(core)), core]
    dipoles = momenta[:, first:] / (energies - own[:, None])[..., None]
    tensors = (
        np.real(dipoles[..., :, None].conj() * dipoles[..., None, :]) * levels.weights[:, None, None, None]
    )
    squares = np.einsum("rai,knij,raj->kna", rotations, tensors, rotations, optimize=True) / len(rotations)
    above = (energies - energies.min()) * HARTREE_EV
    order = np.argsort(above.ravel(), kind="stable")
    return above.ravel()[order], squares.reshape(-1, 3)[order], float(above.max(axis=1).min())
