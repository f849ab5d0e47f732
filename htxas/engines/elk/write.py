"""The inputs of Elk for one calculation: ``elk.in`` and its species files, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.cells import Cell, Supercell
from htxas.engines.elk.parameters import Ground
from htxas.engines.elk.species import SPECIES, Role, Species, species_file

__all__ = [
    "AtomKind",
    "Layout",
    "bands_inputs",
    "lay_out",
    "scf_inputs",
    "spectrum_inputs",
    "wanted_levels",
]

FloatArray = npt.NDArray[np.float64]
_GAP_A0 = 0.06  # between spheres: at less than 0.05 Elk makes them smaller, each run in its own way
_FUNCTIONALS = {"PBE": 20, "LDA": 3}
_MIXERS = {"broyden": 3, "adaptive": 1}


@dataclass(frozen=True, slots=True)
class AtomKind:
    """A kind of atom: element, role, radius of its sphere (bohr), and which atoms of the cell it is."""

    element: str
    species: Species
    role: Role
    radius_a0: float
    atoms: tuple[int, ...]

    @property
    def file(self) -> str:
        """Name of its species file."""
        return f"{self.element}.in" if self.role is Role.PLAIN else f"{self.element}-{self.role.value}.in"


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What is computed.

    Attributes
    ----------
    cell
        Of the crystal.
    kinds
        Of its atoms, the absorber first if there is one.
    mesh
        Divisions of its Brillouin zone.
    copies
        How many of the structure's own cells the supercell has, be it ``cell`` or not.
    """

    cell: Cell
    kinds: tuple[AtomKind, ...]
    mesh: tuple[int, int, int]
    copies: int

    @property
    def order(self) -> tuple[int, ...]:
        """Index in the cell of each of Elk's atoms, in Elk's order."""
        return tuple(a for k in self.kinds for a in k.atoms)

    @property
    def occupied(self) -> int:
        """Levels that the valence electrons of the cell fill without a hole, two in each."""
        return round(self._sum(lambda s: s.valence_electrons)) // 2

    @property
    def core_electrons(self) -> float:
        """Electrons in core shells, the hole's and the probe's counted as Elk counts them."""
        lacking = {Role.PLAIN: 0.0, Role.HOLE: 1.0, Role.PROBE: 2.0}
        return self._sum(lambda s: s.core_electrons) - sum(lacking[k.role] * len(k.atoms) for k in self.kinds)

    @property
    def electrons(self) -> float:
        """All electrons of the neutral cell."""
        return self._sum(lambda s: s.core_electrons + s.valence_electrons)

    @property
    def volume_a03(self) -> float:
        """Of the cell, bohr^3."""
        return abs(float(np.linalg.det(self.cell.cell_A))) / BOHR_A**3

    def waves(self, rgkmax: float) -> float:
        """Return the number of plane waves in the basis."""
        largest_inva0 = rgkmax / min(k.radius_a0 for k in self.kinds)
        return self.volume_a03 * largest_inva0**3 / (6 * math.pi**2)

    def _sum(self, count: Callable[[Species], float]) -> float:
        return float(sum(count(k.species) * len(k.atoms) for k in self.kinds))


def lay_out(structure: Structure, ground: Ground, absorber: int | None, *, role: Role = Role.PLAIN) -> Layout:
    """Return the cell of a structure and its kinds of atoms; the absorber is alone in its kind.

    Without an absorber it is the structure's own cell, with as many more k points as the supercell has cells: the same
    points of the crystal, and as good a reference. Elk refuses the many symmetries of a supercell that repeats itself.

    Raises
    ------
    UnsupportedInput
        The cell cannot be built, see :mod:`htxas.engines.cells`.
    KeyError
        An element without species.
    """
    supercell = ground.supercell.build(structure)
    repeats = np.rint(
        np.linalg.norm(supercell.cell_A, axis=1) / np.linalg.norm(np.asarray(structure.cell_A), axis=1)
    )
    mesh = ground.kpoints.build(supercell.cell_A)
    cell = supercell
    if absorber is None:
        cell = Supercell(distance_A=None, repeats=(1, 1, 1)).build(structure)
        a, b, c = (round(n * r) for n, r in zip(mesh, repeats, strict=True))
        mesh = (a, b, c)
    known = SPECIES[ground.species]
    radii = _radii_a0(structure, known)
    kinds = []
    if absorber is not None:
        element = structure.symbols[absorber]
        kinds.append(AtomKind(element, known[element], role, radii[element], (absorber,)))
    for element in structure.composition:
        atoms = tuple(i for i, s in enumerate(cell.symbols) if s == element and i != absorber)
        if atoms:
            kinds.append(AtomKind(element, known[element], Role.PLAIN, radii[element], atoms))
    return Layout(cell, tuple(kinds), mesh, supercell.copies)


def _radii_a0(structure: Structure, known: Mapping[str, Species]) -> dict[str, float]:
    """Return the radius of each element's spheres, bohr: the set's, by one factor smaller where they would touch."""
    assert structure.cell_A is not None
    heights = 1.0 / np.linalg.norm(np.linalg.inv(structure.cell_A), axis=0)
    radii = {e: known[e].radius_a0 for e in structure.composition}
    reach_A = (2 * max(radii.values()) + _GAP_A0) * BOHR_A
    most = [math.ceil(reach_A / h) + 1 for h in heights]
    shifts = np.array(list(np.ndindex(*(2 * n + 1 for n in most)))) - most
    delta = (
        structure.positions_A[None, :, None]
        - structure.positions_A[None, None]
        + (shifts @ structure.cell_A)[:, None, None]
    )
    distance_a0 = np.linalg.norm(delta, axis=-1) / BOHR_A
    distance_a0[distance_a0 < 1e-6] = np.inf
    sums = np.array([[radii[a] + radii[b] for b in structure.symbols] for a in structure.symbols])
    factor = min(1.0, float(((distance_a0.min(axis=0) - _GAP_A0) / sums).min()))
    return {e: math.floor(r * factor * 1e4) / 1e4 for e, r in radii.items()}


def wanted_levels(layout: Layout, window_eV: float) -> int:
    """Return how many empty levels reach so far above the first, by free electrons in the cell and a margin."""
    free = layout.volume_a03 * (2 * window_eV / HARTREE_EV) ** 1.5 / (6 * math.pi**2)
    return math.ceil(1.35 * float(free)) + 2 * len(layout.cell)


def _elk(
    title: str,
    tasks: Sequence[int],
    layout: Layout,
    ground: Ground,
    blocks: Mapping[str, Sequence[object]],
) -> str:
    """Return ``elk.in``: one block after the other, each with an empty line at its end."""
    cell = layout.cell
    shift = 0.5 if ground.kpoints.shifted else 0.0
    fractional = cell.positions_A @ np.linalg.inv(cell.cell_A)
    atoms: list[object] = [len(layout.kinds)]
    for kind in layout.kinds:
        atoms += [f"'{kind.file}'", len(kind.atoms)]
        atoms += [" ".join(f"{x:.10f}" for x in fractional[i]) + " 0.0 0.0 0.0" for i in kind.atoms]
    document: dict[str, Sequence[object]] = {
        "tasks": tasks,
        "sppath": ["'./'"],
        "xctype": [_FUNCTIONALS[ground.functional]],
        "ngridk": [" ".join(str(n) for n in layout.mesh)],
        "vkloff": [f"{shift} {shift} {shift}"],
        "isgkmax": [-3],
        "rgkmax": [f"{ground.rgkmax:.6f}"],
        "swidth": [f"{ground.smearing_Ha:.6e}"],
        "epsengy": [f"{ground.energy_tolerance_Ha:.3e}"],
        "epspot": [f"{ground.potential_tolerance_Ha:.3e}"],
        **blocks,
        "avec": [" ".join(f"{x / BOHR_A:.12f}" for x in vector) for vector in cell.cell_A],
        "atoms": atoms,
    }
    text = "\n".join(f"{name}\n" + "".join(f" {row}\n" for row in rows) for name, rows in document.items())
    return f"! {title}\n\n{text}\n"


def _files(layout: Layout, level_Ha: float | None = None) -> dict[str, str]:
    return {
        k.file: species_file(k.element, k.species, k.role, radius_a0=k.radius_a0, level_Ha=level_Ha)
        for k in layout.kinds
    }


def scf_inputs(title: str, layout: Layout, ground: Ground, numerics: Mapping[str, Any]) -> dict[str, str]:
    """Return the inputs of self-consistency."""
    mixing = numerics.get("mixing", "broyden")
    iterations = round(ground.max_iterations * numerics.get("iterations_factor", 1.0))
    blocks: dict[str, Sequence[object]] = {"mixtype": [_MIXERS[mixing]], "maxscl": [iterations]}
    if "mixing_beta" in numerics:
        beta = f"{numerics['mixing_beta']:.4f}"
        name, row = ("broydpm", f"{beta} 0.15") if mixing == "broyden" else ("amixpm", f"{beta} 0.5")
        blocks[name] = [row]
    return {"elk.in": _elk(title, [0], layout, ground, blocks)} | _files(layout)


def bands_inputs(title: str, layout: Layout, ground: Ground, points: FloatArray) -> dict[str, str]:
    """Return the inputs of the charges in spheres of all levels at k points (shape (k, 3), of the reciprocal cell)."""
    blocks: dict[str, Sequence[object]] = {
        "nempty": [_empty(layout, wanted_levels(layout, ground.pdos_window_eV))],
        "plot1d": [f"{len(points)} {len(points)}", *(" ".join(f"{x:.10f}" for x in p) for p in points)],
    }
    return {"elk.in": _elk(title, [21], layout, ground, blocks)} | _files(layout)


def spectrum_inputs(
    title: str, layout: Layout, ground: Ground, *, window_eV: float, level_Ha: float
) -> dict[str, str]:
    """Return the inputs of the momentum matrix elements in the potential of ``STATE.OUT``.

    One iteration alone: Elk then leaves ``STATE.OUT`` as it is, and the levels are those of its potential.

    Parameters
    ----------
    layout
        With the absorber as a probe.
    window_eV
        How far above the first final state levels are wanted.
    level_Ha
        The 1s level.
    """
    blocks: dict[str, Sequence[object]] = {
        "maxscl": [1],
        "nempty": [_empty(layout, wanted_levels(layout, window_eV))],
    }
    return {"elk.in": _elk(title, [1, 120], layout, ground, blocks)} | _files(layout, level_Ha)


def _empty(layout: Layout, levels: int) -> str:
    """Return Elk's word for empty levels: so many for each atom."""
    return f"{levels / len(layout.cell):.6f}"
