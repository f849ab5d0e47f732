"""The folders of a calculation's states, what is written into each, and how far up levels are computed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from htxas.domain.structure import Structure
from htxas.domain.units import HARTREE_EV
from htxas.engines.wien2k.inputs import kgen_answers
from htxas.engines.wien2k.parameters import Wien2kParameters
from htxas.engines.wien2k.structure import (
    Layout,
    StructError,
    guess_spheres,
    lay_out,
    read_struct,
    write_struct,
)

__all__ = [
    "EXCITED",
    "GROUND",
    "HOLE",
    "bands_up_to",
    "cases",
    "divisions_of",
    "layout_of",
    "texts",
    "title",
    "window_Ry",
]

GROUND, EXCITED, HOLE = "ground", "excited", "hole"
"""States, folders and cases: without the hole; the state of the energy scale, if it is another than the spectrum's; the
spectrum's. WIEN2k's files of a case are called like its folder."""

_RYDBERG_EV = HARTREE_EV / 2
_BEYOND_RY = 0.3  # levels above the window: the last ones are incomplete
_MORE_THAN_FREE = 1.3
_SPARE_BANDS = 20


def title(key: str, formula: str) -> str:
    """Return the first line of a calculation's ``case.struct``, which its ``case.scf`` repeats."""
    return f"htxas {key[:12]} {formula}"[:60]


def layout_of(structure: Structure, atom: int, parameters: Wien2kParameters) -> Layout:
    """Return the cells of a site, see :func:`htxas.engines.wien2k.structure.lay_out`."""
    return lay_out(structure, atom, parameters.supercell, parameters.kpoints)


def texts(key: str, structure: Structure, atom: int, parameters: Wien2kParameters) -> dict[str, str]:
    """Return the input files by name, those that ``init_lapw`` does not make."""
    layout = layout_of(structure, atom, parameters)
    radii = {**guess_spheres(layout.unit), **parameters.spheres_a0}
    line = title(key, structure.formula)
    ground = write_struct(line, layout.unit, split=layout.split, spheres_a0=radii)
    hole = write_struct(line, layout.hole, split=True, spheres_a0=radii)
    found = {
        f"{GROUND}/{GROUND}.struct": ground,
        f"{GROUND}/kgen.answers": kgen_answers(layout.unit_mesh),
        f"{HOLE}/{HOLE}.struct": hole,
        f"{HOLE}/kgen.answers": kgen_answers(layout.hole_mesh),
    }
    if parameters.electron == "background":
        found |= {
            f"{EXCITED}/{EXCITED}.struct": hole,
            f"{EXCITED}/kgen.answers": kgen_answers(layout.hole_mesh),
        }
    return found


def cases(directory: Path) -> list[str]:
    """Return the states of a run directory in the order they are computed."""
    return [name for name in (GROUND, EXCITED, HOLE) if (directory / name).is_dir()]


def divisions_of(answers: str) -> tuple[int, int, int]:
    """Return the divisions that ``kgen`` is told."""
    a, b, c = (int(n) for n in answers.splitlines()[1].split())
    return a, b, c


def window_Ry(window_eV: float, fermi_Ry: float) -> float:
    """Return what ``case.in1`` must say for levels up to ``window_eV`` above the Fermi level.

    Newer versions count it from the Fermi level, older ones from zero: it is enough for both.
    """
    return math.ceil(10 * (window_eV / _RYDBERG_EV + _BEYOND_RY + max(fermi_Ry, 0.0))) / 10


def bands_up_to(struct: str, above_Ry: float) -> int:
    """Return how many bands a cell may have up to ``above_Ry`` above the valence bands.

    Electrons of all shells, and free ones: ``V k^3 / 6 pi^2`` states below ``k^2`` Ry; some more are allowed.

    Raises
    ------
    StructError
        The file is no ``case.struct``.
    """
    found = read_struct(struct)
    if found.lattice not in ("P", "H"):
        raise StructError(f"case.struct has another lattice than was written: {found.lattice}")
    cosines = np.cos(np.radians(found.angles_degrees))
    squared = float(1 + 2 * cosines.prod() - (cosines**2).sum())
    volume_a03 = float(found.lengths_a0.prod() * math.sqrt(max(squared, 0.0)))
    electrons = sum(z * len(p) for z, p in zip(found.numbers, found.positions, strict=True))
    free: float = volume_a03 * above_Ry**1.5 / (6 * math.pi**2)
    return math.ceil(electrons / 2 + _MORE_THAN_FREE * free) + _SPARE_BANDS
