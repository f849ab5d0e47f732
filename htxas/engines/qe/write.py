"""The inputs of Quantum ESPRESSO's programs for one calculation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from htxas.domain.structure import Structure
from htxas.engines.cells import Cell
from htxas.engines.qe.parameters import Ground, Hole
from htxas.engines.qe.recipes import RECIPES, Recipe, ld1_input
from htxas.engines.qe.scf import VACUUM_POINTS

__all__ = [
    "AXES",
    "Layout",
    "Species",
    "ground_inputs",
    "lay_out",
    "pseudo_inputs",
    "site_inputs",
    "xspectra_input",
]

AXES: Mapping[str, tuple[float, float, float]] = {
    "x": (1.0, 0.0, 0.0),
    "y": (0.0, 1.0, 0.0),
    "z": (0.0, 0.0, 1.0),
}
_HOLE_SMEARING_RY = 0.002  # halves the last electron among degenerate levels; its entropy is taken off again
_REACH_EV = 10.0  # of the spectrum the recursion is judged by, beyond the window on both sides


@dataclass(frozen=True, slots=True)
class Species:
    """A kind of atom: label, element, electrons of its pseudopotential, whether it has the hole."""

    label: str
    element: str
    electrons: float
    hole: bool = False

    @property
    def file(self) -> str:
        """Name of its pseudopotential file."""
        return f"{self.element}-hole.UPF" if self.hole else f"{self.element}.UPF"


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What is computed: the cell, its species (the one with the hole first), and the label of each atom."""

    cell: Cell
    species: tuple[Species, ...]
    labels: tuple[str, ...]

    @property
    def electrons(self) -> float:
        """Valence electrons of the neutral cell."""
        count = {s.label: s.electrons for s in self.species}
        return sum(count[label] for label in self.labels)


def recipe_of(ground: Ground, element: str) -> Recipe:
    """Return the recipe of an element; KeyError if the set has none."""
    return RECIPES[ground.pseudopotentials][element]


def lay_out(structure: Structure, ground: Ground, absorber: int | None, *, hole_electrons: int = 1) -> Layout:
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
    valence = {
        e: sum(electrons for _, _, electrons, _ in recipe_of(ground, e).channels)
        for e in structure.composition
    }
    labels = list(cell.symbols)
    species = [Species(e, e, n) for e, n in valence.items()]
    if absorber is not None:
        element = structure.symbols[absorber]
        label = f"{element}1"
        labels[absorber] = label  # the first cell's own
        species.insert(0, Species(label, element, valence[element] + hole_electrons, hole=hole_electrons > 0))
    used = set(labels)
    return Layout(cell, tuple(s for s in species if s.label in used), tuple(labels))


def pseudo_inputs(layout: Layout, ground: Ground) -> dict[str, str]:
    """Return ``ld1.x`` inputs by the name of their file: one for each species, and the absorber's own element."""
    texts: dict[str, str] = {}
    for species in layout.species:
        recipe = recipe_of(ground, species.element)
        if species.label != species.element:  # without a hole, too: its energy fixes the scale
            name = f"{species.element}-hole"
            texts[f"{name}.ld1.in"] = ld1_input(name, species.element, recipe, hole=True)
        texts[f"{species.element}.ld1.in"] = ld1_input(species.element, species.element, recipe, hole=False)
    return texts


def _pw(
    title: str, layout: Layout, ground: Ground, numerics: Mapping[str, Any], system: list[str], k: str
) -> str:
    cell = layout.cell
    iterations = round(ground.max_iterations * numerics.get("iterations_factor", 1.0))
    electrons = [
        f" conv_thr={ground.energy_tolerance_Ry:.3e}, electron_maxstep={iterations}",
        f" mixing_beta={numerics.get('mixing_beta', 0.7)}, mixing_mode='{numerics.get('mixing_mode', 'plain')}'",
        f" mixing_ndim={numerics.get('mixing_ndim', 8)}, diagonalization='{numerics.get('diagonalization', 'david')}'",
    ]
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
            f" ibrav=0, nat={len(cell)}, ntyp={len(layout.species)}, ecutwfc={ground.cutoff_Ry:g}",
            *system,
            "/",
            "&electrons",
            *electrons,
            "/",
            "ATOMIC_SPECIES",
            *(f"{s.label:4s} 1.0 {s.file}" for s in layout.species),
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


def _automatic(layout: Layout, ground: Ground) -> str:
    a, b, c, shift = _mesh(layout, ground)
    return f"K_POINTS automatic\n{a} {b} {c} {shift} {shift} {shift}"


def ground_inputs(title: str, layout: Layout, ground: Ground, numerics: Mapping[str, Any]) -> dict[str, str]:
    """Return the inputs of a ground state: ``pw.x``, ``projwfc.x`` and, for a molecule, ``pp.x`` twice."""
    bands = round(layout.electrons) // 2 + ground.empty_bands
    molecule = ground.box is not None
    k = "K_POINTS gamma" if molecule else _automatic(layout, ground)
    texts = {
        "pw.in": _pw(title, layout, ground, numerics, [f" nbnd={bands}, occupations='fixed'"], k),
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


def site_inputs(title: str, layout: Layout, ground: Ground, numerics: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``pw.x`` input of the state with a core hole.

    Its k points are listed even if there is one: after ``K_POINTS gamma`` xspectra.x goes on without a word and gives
    about half of the intensity (QE 6.7).
    """
    occupied = (round(layout.electrons) + 1) // 2
    levels = (
        f" occupations='smearing', smearing='gaussian', degauss={_HOLE_SMEARING_RY}"
        if layout.species[0].hole
        else " occupations='fixed'"
    )
    system = [
        f" nbnd={occupied + max(4, occupied // 4)}, nosym=.{str(ground.supercell is not None).lower()}.",
        levels,
    ]
    return {"pw.in": _pw(title, layout, ground, numerics, system, _automatic(layout, ground))}


def xspectra_input(
    axis: str,
    layout: Layout,
    ground: Ground,
    hole: Hole,
    *,
    first_eV: float,
    radius_a0: float,
    numerics: Mapping[str, Any],
) -> str:
    """Return the input of ``xspectra.x`` for one polarisation.

    Parameters
    ----------
    axis
        ``x``, ``y`` or ``z``.
    first_eV
        The first final state, on the scale of ``pw.x``: the spectrum that decides when to stop is about it.
    radius_a0
        Cutoff radius of the absorber's pseudopotential, bohr.
    """
    limit = round(hole.max_recursions * numerics.get("recursions_factor", 1.0))
    vector = ", ".join(f"xepsilon({i + 1})={v:.1f}" for i, v in enumerate(AXES[axis]))
    a, b, c, shift = _mesh(layout, ground)
    return "\n".join(
        [
            "&input_xspectra",
            f" calculation='xanes_dipole', prefix='pw', outdir='.', x_save_file='lanczos-{axis}.sav',",
            f" xniter={limit}, xcheck_conv=20, xerror={hole.tolerance:g}, xiabs=1, xcoordcrys=.false.,",
            f" {vector}, xe0={first_eV:.6f}",
            "/",
            "&plot",
            f" xnepoint=1000, xgamma={hole.resolution_eV:g}, xemin={-_REACH_EV}, xemax={hole.window_eV + _REACH_EV},",
            " terminator=.false., cut_occ_states=.false.",
            "/",
            "&pseudos",
            f" filecore='core.dat', r_paw(1)={hole.paw_radius * radius_a0:.4f}",
            "/",
            "&cut_occ",
            "/",
            f"{a} {b} {c} {shift} {shift} {shift}",
            "",
        ]
    )
