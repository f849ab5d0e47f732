"""The inputs of Quantum ESPRESSO's programs for one calculation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.cells import Cell
from htxas.engines.qe.parameters import Ground, Hole
from htxas.engines.qe.recipes import RECIPES, Recipe, ld1_input
from htxas.engines.qe.scf import VACUUM_POINTS

__all__ = [
    "AXES",
    "EXCITED",
    "GROUND",
    "Layout",
    "Species",
    "ground_bands",
    "ground_inputs",
    "lay_out",
    "pseudo_inputs",
    "radius_a0",
    "recipe_of",
    "scale_layout",
    "site_inputs",
    "xspectra_input",
]

AXES: Mapping[str, tuple[float, float, float]] = {
    "x": (1.0, 0.0, 0.0),
    "y": (0.0, 1.0, 0.0),
    "z": (0.0, 0.0, 1.0),
}
GROUND = "ground"
"""Folder of a site's ground state if nobody has it any more."""
EXCITED = "excited"
"""Folder of the state of the energy scale, where the spectrum is made of another."""
_HOLE_SMEARING_RY = 0.002  # halves the last electron among degenerate levels; its entropy is taken off again
_MORE_BANDS = 8  # bound empty levels, and what free electrons get wrong
_ITERATIONS, _RECURSIONS = 100, 4000  # limits of a first attempt; a recursion takes 500 to 1500 steps
_BEFORE_EV, _BEYOND_EV = 1.0, 10.0  # of the spectrum the recursion is judged by, beside the window


@dataclass(frozen=True, slots=True)
class Species:
    """A kind of atom: label, element, electrons of its pseudopotential, electrons missing in its 1s shell."""

    label: str
    element: str
    electrons: float
    hole: float = 0.0

    @property
    def name(self) -> str:
        """Name of its pseudopotential."""
        return self.element + {0.0: "", 0.5: "-half", 1.0: "-hole"}[self.hole]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What is computed: the cell, its species (the absorber first), the label of each atom, the cell's charge."""

    cell: Cell
    species: tuple[Species, ...]
    labels: tuple[str, ...]
    charge: float = 0.0

    @property
    def electrons(self) -> float:
        """Valence electrons of the cell."""
        count = {s.label: s.electrons for s in self.species}
        return sum(count[label] for label in self.labels) - self.charge

    @property
    def pairs(self) -> int:
        """Levels that are full: those of the cell without a hole."""
        return round(self.electrons + self.charge - self.species[0].hole) // 2


def recipe_of(ground: Ground, element: str) -> Recipe:
    """Return the recipe of an element; KeyError if the set has none."""
    return RECIPES[ground.pseudopotentials][element]


def radius_a0(ground: Ground, hole: Hole, element: str) -> float:
    """Return the cutoff radius of the absorber's pseudopotential, bohr."""
    if hole.hole_upf is not None:
        return hole.hole_upf.radius_a0
    return recipe_of(ground, element).radius_a0


def _valence(ground: Ground, element: str) -> float:
    if element in ground.upf:
        return ground.upf[element].electrons
    return sum(electrons for _, _, electrons, _ in recipe_of(ground, element).channels)


def lay_out(
    structure: Structure, ground: Ground, absorber: int | None = None, hole: Hole | None = None
) -> Layout:
    """Return the cell of a structure with its species; the absorber is one of its own, first, with or without a hole.

    Raises
    ------
    UnsupportedInput
        The cell cannot be built, see :mod:`htxas.engines.cells`.
    KeyError
        An element without a recipe.
    """
    builder = ground.box or ground.supercell
    assert builder is not None
    cell = builder.build(structure)
    labels = list(cell.symbols)
    species = [Species(e, e, _valence(ground, e)) for e in structure.composition]
    charge = 0.0
    if absorber is not None:
        assert hole is not None
        element = structure.symbols[absorber]
        label = f"{element}1"
        labels[absorber] = label  # the first cell's own
        species.insert(0, Species(label, element, _valence(ground, element) + hole.electrons, hole.electrons))
        charge = 0.0 if hole.excited_electron else hole.electrons
    used = set(labels)
    return Layout(cell, tuple(s for s in species if s.label in used), tuple(labels), charge)


def scale_layout(layout: Layout) -> Layout:
    """Return the same with a full hole and its electron in the lowest empty level: the state of the energy scale."""
    first = layout.species[0]
    full = replace(first, electrons=first.electrons - first.hole + 1, hole=1.0)
    return replace(layout, species=(full, *layout.species[1:]), charge=0.0)


def pseudo_inputs(layout: Layout, ground: Ground, absorber: str | None) -> dict[str, str]:
    """Return ``ld1.x`` inputs by the name of their file: of each species; of the absorber with a full hole and without.

    None for elements with files of the user's.
    """
    needed = {(s.element, s.hole) for s in layout.species}
    if absorber is not None:  # their energies fix the scale
        needed |= {(absorber, 0.0), (absorber, 1.0)}
    texts = {}
    for element, missing in sorted(needed):
        if element not in ground.upf:
            name = Species("", element, 0.0, missing).name
            texts[f"{name}.ld1.in"] = ld1_input(name, element, recipe_of(ground, element), hole=missing)
    return texts


def _pw(
    title: str, layout: Layout, ground: Ground, numerics: Mapping[str, Any], system: list[str], k: str
) -> str:
    cell = layout.cell
    iterations = round(_ITERATIONS * numerics.get("iterations_factor", 1.0))
    electrons = [
        f" conv_thr={ground.energy_tolerance_Ry:.6e}, electron_maxstep={iterations}",
        f" mixing_beta={numerics.get('mixing_beta', 0.7)}, mixing_mode='{numerics.get('mixing_mode', 'plain')}'",
        f" mixing_ndim={numerics.get('mixing_ndim', 8)}, diagonalization='{numerics.get('diagonalization', 'david')}'",
    ]
    dense = "" if ground.density_cutoff_Ry is None else f", ecutrho={ground.density_cutoff_Ry:g}"
    rows = [
        f"{label:4s} {x:14.8f} {y:14.8f} {z:14.8f}"
        for label, (x, y, z) in zip(layout.labels, cell.positions_A, strict=True)
    ]
    return "\n".join(
        [
            "&control",
            f" title='{title}', calculation='scf', prefix='pw', outdir='.', pseudo_dir='.', disk_io='low'",
            "/",
            "&system",
            f" ibrav=0, nat={len(cell)}, ntyp={len(layout.species)}, ecutwfc={ground.cutoff_Ry:g}{dense}",
            *([f" tot_charge={layout.charge:g}"] if layout.charge else []),
            *system,
            "/",
            "&electrons",
            *electrons,
            "/",
            "ATOMIC_SPECIES",
            *(f"{s.label:4s} 1.0 {s.name}.UPF" for s in layout.species),
            "CELL_PARAMETERS angstrom",
            *(" ".join(f"{v:14.8f}" for v in vector) for vector in cell.cell_A),
            "ATOMIC_POSITIONS angstrom",
            *rows,
            k,
            "",
        ]
    )


def _mesh(layout: Layout, ground: Ground) -> tuple[int, int, int, int]:
    if ground.kpoints is None:
        return 1, 1, 1, 0
    return (*ground.kpoints.build(layout.cell.cell_A), int(ground.kpoints.shifted))


def _all_points(ground: Ground) -> str:
    """Return what keeps a crystal's k points as they are.

    Projections at those that symmetry leaves are not those of all, and ``xspectra.x`` takes a mesh as it stands.
    """
    return "" if ground.supercell is None else ", nosym=.true., noinv=.true."


def _automatic(layout: Layout, ground: Ground) -> str:
    a, b, c, shift = _mesh(layout, ground)
    return f"K_POINTS automatic\n{a} {b} {c} {shift} {shift} {shift}"


def ground_bands(layout: Layout, ground: Ground) -> int:
    """Return how many levels a ground state has for its PDOS.

    As many as free electrons have: in a molecule's box up to the window above the vacuum, in a crystal up to the window
    above the energy that its valence electrons fill.
    """
    volume_a03 = abs(float(np.linalg.det(layout.cell.cell_A))) / BOHR_A**3
    full_Ha = 0.0 if ground.box is not None else (6 * np.pi**2 * layout.pairs / volume_a03) ** (2 / 3) / 2
    below = volume_a03 * (2 * (full_Ha + ground.pdos_window_eV / HARTREE_EV)) ** 1.5 / (6 * np.pi**2)
    bound = layout.pairs if ground.box is not None else 0
    return bound + math.ceil(float(below)) + _MORE_BANDS


def ground_inputs(title: str, layout: Layout, ground: Ground, numerics: Mapping[str, Any]) -> dict[str, str]:
    """Return the inputs of a ground state: ``pw.x``, ``projwfc.x`` and, for a molecule, ``pp.x`` twice."""
    bands = ground_bands(layout, ground)
    molecule = ground.box is not None
    k = "K_POINTS gamma" if molecule else _automatic(layout, ground)
    system = [f" nbnd={bands}, occupations='fixed'{_all_points(ground)}"]
    texts = {
        "pw.in": _pw(title, layout, ground, numerics, system, k),
        "projwfc.in": "&projwfc\n prefix='pw', outdir='.', filpdos='pdos'\n/\n",
    }
    if molecule:
        texts["pp1.in"] = "&inputpp\n prefix='pw', outdir='.', filplot='potential', plot_num=11\n/\n"
        edges = np.eye(3)
        for name, edge in zip("xyz", edges, strict=True):
            line = ", ".join(f"e1({i + 1})={v:.1f}" for i, v in enumerate(edge))
            texts[f"pp2{name}.in"] = (
                "&inputpp\n/\n&plot\n nfile=1, filepp(1)='potential', weight(1)=1.0, iflag=1, output_format=0,\n"
                f" fileout='vacuum-{name}.dat', {line}, x0(1)=0.0, x0(2)=0.0, x0(3)=0.0, nx={VACUUM_POINTS}\n/\n"
            )
    return texts


def site_inputs(
    title: str, layout: Layout, ground: Ground, hole: Hole, numerics: Mapping[str, Any]
) -> dict[str, str]:
    """Return the ``pw.x`` input of the state the spectrum is made of and, if another one fixes the scale, of that.

    Their k points are listed even if there is one: after ``K_POINTS gamma`` xspectra.x goes on without a word and gives
    about half of the intensity (QE 6.7).
    """

    def pw(layout: Layout) -> str:
        occupied = (math.ceil(layout.electrons) + 1) // 2
        is_open = layout.species[0].hole > layout.charge  # the electron is there, and halves a level
        system = [
            f" nbnd={occupied + max(4, occupied // 4)}{_all_points(ground)}",
            f" occupations='smearing', smearing='gaussian', degauss={_HOLE_SMEARING_RY}"
            if is_open
            else " occupations='fixed'",
        ]
        return _pw(title, layout, ground, numerics, system, _automatic(layout, ground))

    texts = {"pw.in": pw(layout)}
    if hole.electrons and not hole.is_scale:
        texts[f"{EXCITED}/pw.in"] = pw(scale_layout(layout))
    return texts


def xspectra_input(
    axis: str,
    layout: Layout,
    ground: Ground,
    hole: Hole,
    *,
    first_eV: float,
    numerics: Mapping[str, Any],
) -> str:
    """Return the input of ``xspectra.x`` for one polarisation.

    Parameters
    ----------
    axis
        ``x``, ``y`` or ``z``.
    first_eV
        The first final state, on the scale of ``pw.x``: the spectrum that decides when to stop is about it.
    """
    radius = hole.paw_radius * radius_a0(ground, hole, layout.species[0].element)
    limit = round(_RECURSIONS * numerics.get("recursions_factor", 1.0))
    vector = ", ".join(f"xepsilon({i + 1})={v:.1f}" for i, v in enumerate(AXES[axis]))
    a, b, c, shift = _mesh(layout, ground)
    return "\n".join(
        [
            "&input_xspectra",
            f" calculation='xanes_dipole', prefix='pw', outdir='.', x_save_file='lanczos-{axis}.sav',",
            f" xniter={limit}, xcheck_conv=20, xerror={hole.tolerance:g}, xiabs=1, xcoordcrys=.false.,",
            f" {vector}, xe0=0.0",
            "/",
            "&plot",
            f" xnepoint=1000, xgamma={hole.resolution_eV:g}, xemin={first_eV - _BEFORE_EV:.4f},"
            f" xemax={first_eV + hole.window_eV + _BEYOND_EV:.4f},",
            " terminator=.false., cut_occ_states=.false.",
            "/",
            "&pseudos",
            f" filecore='core.dat', r_paw(1)={radius:.4f}",
            "/",
            "&cut_occ",
            "/",
            f"{a} {b} {c} {shift} {shift} {shift}",
            "",
        ]
    )
