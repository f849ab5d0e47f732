"""What a step of ours in the user's GPAW is told."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.gpaw.parameters import Ground, ground_from, hole_from
from htxas.engines.gpaw.recipes import RECIPES, Recipe

__all__ = ["INPUT", "STEPS", "Grid", "ground_of", "lay_grid", "recipes_of", "valence_of", "write_step"]

INPUT = "input.json"
STEPS = "steps.py"
_MULTIPLE = 4  # of points along each axis, for coarser grids between


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Points between walls: how many spacings along each axis, the cell (A) and the atoms in it (A, shape (n, 3))."""

    points: tuple[int, int, int]
    cell_A: tuple[float, float, float]
    positions_A: npt.NDArray[np.float64]


def lay_grid(structure: Structure, ground: Ground) -> Grid:
    """Return the grid of a molecule, which is in its middle; the spacing is the same along all axes, exactly."""
    extents = np.ptp(structure.positions_A, axis=0) + 2 * ground.margin_A
    a, b, c = (_MULTIPLE * math.ceil(x / ground.spacing_A / _MULTIPLE - 1e-6) for x in extents)
    cell = np.array((a, b, c)) * ground.spacing_A
    middle = (structure.positions_A.max(axis=0) + structure.positions_A.min(axis=0)) / 2
    x, y, z = cell.tolist()
    return Grid((a, b, c), (x, y, z), structure.positions_A - middle + cell / 2)


def ground_of(job: Job) -> Ground:
    """Return the parameters of the ground state that a job is or refers to."""
    c = job.calculation
    return ground_from(c.parameters if c.kind is Kind.GROUND else c.parameters["ground"])


def recipes_of(structure: Structure, ground: Ground) -> dict[str, Recipe]:
    """Return the recipes of a structure's elements; KeyError for one without."""
    return {e: RECIPES[ground.data_sets][e] for e in structure.composition}


def valence_of(structure: Structure, ground: Ground) -> int:
    """Return the valence electrons of the neutral molecule."""
    recipes = recipes_of(structure, ground)
    return sum(n * recipes[e].valence for e, n in structure.composition.items())


def write_step(job: Job, folder: Path, *, empty_bands: int | None = None) -> None:
    """Write ``input.json``, for all steps of a job, and the script of the steps.

    ``empty_bands``: of the ground state, if other than the job says; its energy does not depend on them.
    """
    c = job.calculation
    ground = ground_of(job)
    grid = lay_grid(job.structure, ground)
    told: dict[str, Any] = {
        "title": f"{job.structure.formula} {c.kind.value} htxas {c.key[:12]}",
        "key": c.key,
        "symbols": list(job.structure.symbols),
        "positions_A": grid.positions_A.tolist(),
        "cell_A": grid.cell_A,
        "gpts": grid.points,
        "absorber": c.atom,
        "recipes": {e: dict(r.options) for e, r in recipes_of(job.structure, ground).items()},
        "occupied": valence_of(job.structure, ground) // 2,
        "empty_bands": ground.empty_bands if empty_bands is None else empty_bands,
        "max_iterations": ground.max_iterations,
        "energy_tolerance_eV": ground.energy_tolerance_eV,
        "density_tolerance": ground.density_tolerance,
        "numerics": dict(job.numerics),
    }
    if c.kind is Kind.SITE:
        hole = hole_from(c.parameters["hole"])
        told |= {
            "window_eV": hole.window_eV,
            "resolution_eV": hole.resolution_eV,
            "recursion_tolerance": hole.tolerance,
            "max_recursions": hole.max_recursions,
        }
    (folder / INPUT).write_text(json.dumps(told, indent=1))
    (folder / STEPS).write_bytes(Path(__file__).with_name("inside.py").read_bytes())
