"""From a job to ``.cell``, ``.param`` and ``.odi``.

ASE 3.29 writes the same lines, by way of a calculator that is told to take any keyword unseen where no CASTEP is
installed to ask for them, and to six decimals. The few lines are written here, and a test reads them with ASE. All
keywords are those of CASTEP 18 and later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from htxas.domain.elements import atomic_number
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.castep.corrections import DEFAULTS
from htxas.engines.castep.parameters import CastepParameters, Ground, State
from htxas.engines.castep.pseudopotentials import hole_string, site_label
from htxas.engines.cells import Cell

__all__ = [
    "GROUND",
    "SITE",
    "Layout",
    "extra_bands",
    "ground_texts",
    "lay_out",
    "site_texts",
    "state_texts",
    "title",
    "valence_electrons",
]

GROUND, SITE = "ground", "site"
"""Seeds: the first part of all file names of a run."""

_SCF_EXTRA_BANDS = 10  # at least: room for smeared occupations
_MORE_THAN_FREE = 1.25
_SPARE_BANDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The cell of a run, and what its atoms are called.

    Attributes
    ----------
    cell
        The cell.
    labels
        Species of each atom.
    """

    cell: Cell
    labels: tuple[str, ...]


def lay_out(structure: Structure, ground: State, atom: int | None) -> Layout:
    """Return the cell with ``atom`` (canonical index; its first copy) as the absorber, or without one.

    Raises
    ------
    UnsupportedInput
        As :meth:`Box.build` and :meth:`Supercell.build`.
    """
    cell = ground.cell.build(structure)
    labels = list(cell.symbols)
    if atom is not None:
        labels[atom] = site_label(labels[atom])
    return Layout(cell, tuple(labels))


def title(*keys: str) -> str:
    """Return the comment that tells whose files a run's are."""
    return " ".join(("htxas", *keys))


def extra_bands(cell: Cell, window_eV: float) -> int:
    """Return how many empty bands there shall be in a cell, to reach ``window_eV`` above its filled ones.

    Free electrons have ``V k^3 / 6 pi^2`` states below ``k^2 / 2`` (atomic units). The filled ones end at k_F: the
    window begins there, and a quarter more states than free electrons have in it are asked for. Within 22 eV of the
    conduction band's minimum diamond has 1.22 times as many as free electrons, quartz 0.84, MgO 0.74 (Quantum ESPRESSO,
    PBE, no hole). Counted from zero, free electrons have about half as many. In a molecule's box k_F is small, and so
    is the difference. CASTEP counts the bands from those of self-consistency, some of which are empty too.
    """
    per_volume = abs(float(np.linalg.det(cell.cell_A))) / BOHR_A**3 / (6 * math.pi**2)
    filled = valence_electrons(cell) / 2
    top = math.sqrt(math.cbrt(filled / per_volume) ** 2 + 2 * window_eV / HARTREE_EV)
    return math.ceil(_MORE_THAN_FREE * (per_volume * top**3 - filled)) + _SPARE_BANDS


def valence_electrons(cell: Cell) -> int:
    """Return how many electrons a cell has beyond noble gases' shells, roughly what pseudopotentials leave."""
    return sum(_beyond_noble_gas(symbol) for symbol in cell.symbols)


def _beyond_noble_gas(symbol: str) -> int:
    number = atomic_number(symbol)
    return number - max((z for z in (2, 10, 18, 36, 54, 86) if z < number), default=0)


def ground_texts(
    comment: str, structure: Structure, ground: Ground, numerics: Mapping[str, Any]
) -> dict[str, str]:
    """Return the input files of a ground state with its PDOS, by name."""
    layout = lay_out(structure, ground, None)
    bands = extra_bands(layout.cell, ground.pdos_window_eV)
    lines = [
        *_param(comment, ground, layout.cell, numerics),
        *_spectral("dos", bands, ground, numerics),
        ("PDOS_CALCULATE_WEIGHTS", "TRUE"),
    ]
    return _ground_files(layout, ground, lines)


def state_texts(
    comment: str, structure: Structure, ground: State, numerics: Mapping[str, Any]
) -> dict[str, str]:
    """Return the input files of a ground state of which the energy alone is asked for, by name."""
    layout = lay_out(structure, ground, None)
    lines = [*_param(comment, ground, layout.cell, numerics), ("TASK", "SINGLEPOINT")]
    return _ground_files(layout, ground, lines)


def _ground_files(layout: Layout, ground: State, lines: list[tuple[str, str]]) -> dict[str, str]:
    meshes = _mesh_lines("KPOINTS", ground.divisions(layout.cell), shifted=_is_shifted(ground))
    return {f"{GROUND}.cell": _cell(layout, ground, {}, meshes), f"{GROUND}.param": _lines(lines)}


def site_texts(
    comment: str,
    structure: Structure,
    atom: int,
    parameters: CastepParameters,
    numerics: Mapping[str, Any],
) -> dict[str, str]:
    """Return the input files of a core-hole calculation by name, the user's OptaDOS's among them.

    Raises
    ------
    ValueError
        The parameters' absorber is not this one with a hole.
    """
    ground, hole = parameters.ground, parameters.hole
    element = structure.symbols[atom]
    if hole_string(ground.string(element) or "") != parameters.absorber:
        raise ValueError(f"{parameters.absorber} is not the pseudopotential of {element} with a hole")
    layout = lay_out(structure, ground, atom)
    meshes = _mesh_lines("KPOINTS", ground.divisions(layout.cell), shifted=_is_shifted(ground))
    if (mesh := hole.hole_kpoints) is not None:
        meshes += _mesh_lines("SPECTRAL_KPOINTS", mesh.build(layout.cell.cell_A), shifted=mesh.shifted)
    bands = hole.extra_bands or extra_bands(layout.cell, hole.window_eV)
    lines = [
        *_param(comment, ground, layout.cell, numerics),
        *_spectral("coreloss", bands, ground, numerics),
        ("CHARGE", "0"),
    ]
    return {
        f"{SITE}.cell": _cell(layout, ground, {site_label(element): parameters.absorber}, meshes),
        f"{SITE}.param": _lines(lines),
        f"{SITE}.odi": _ODI,
    }


_ODI = """\
# For OptaDOS, which htxas does not need: optados site. The half-filled level of a molecule lies at the Fermi level, and
# OptaDOS may take it for a filled one.
TASK : core
CORE_TYPE : absorption
CORE_GEOM : polycrystalline
BROADENING : fixed
FIXED_SMEARING : 0.5
DOS_SPACING : 0.1
EFERMI : file
CORE_LAI_BROADENING : false
"""


def _is_shifted(ground: State) -> bool:
    return ground.kpoints is not None and ground.kpoints.shifted


def _param(comment: str, ground: State, cell: Cell, numerics: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = {**DEFAULTS, **numerics}
    return [
        ("COMMENT", comment),
        ("XC_FUNCTIONAL", ground.functional),
        ("CUT_OFF_ENERGY", f"{ground.cutoff_eV:.10g} eV"),
        ("SPIN_POLARIZED", "FALSE"),
        ("FIX_OCCUPANCY", "FALSE"),
        ("SMEARING_SCHEME", "Gaussian"),
        ("SMEARING_WIDTH", f"{ground.smearing_eV:.10g} eV"),
        ("NEXTRA_BANDS", str(max(_SCF_EXTRA_BANDS, len(cell) // 2))),
        ("ELEC_ENERGY_TOL", f"{ground.energy_tolerance_eV:.6E} eV"),
        ("ELEC_EIGENVALUE_TOL", f"{ground.eigenvalue_tolerance_eV:.6E} eV"),
        ("METALS_METHOD", settings["method"]),
        ("MIXING_SCHEME", settings["mixing"]),
        ("MIX_CHARGE_AMP", f"{settings['mix']:.10g}"),
        ("MAX_SCF_CYCLES", str(settings["cycles"])),
        ("FINITE_BASIS_CORR", "0"),
        ("IPRINT", "1"),
        ("WRITE_CELL_STRUCTURE", "TRUE"),
        ("WRITE_CHECKPOINT", "NONE"),  # large, and nothing reads them
    ]


def _spectral(task: str, bands: int, ground: State, numerics: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = {**DEFAULTS, **numerics}
    return [
        ("TASK", "SPECTRAL"),
        ("SPECTRAL_TASK", task),
        ("SPECTRAL_NEXTRA_BANDS", str(bands)),
        ("SPECTRAL_EIGENVALUE_TOL", f"{ground.eigenvalue_tolerance_eV:.6E} eV"),
        ("SPECTRAL_MAX_ITER", str(settings["spectral_iterations"])),
        ("SPECTRAL_MAX_STEPS_PER_ITER", str(settings["spectral_steps"])),
    ]


def _lines(pairs: list[tuple[str, str]]) -> str:
    return "".join(f"{name} : {value}\n" for name, value in pairs)


def _mesh_lines(name: str, divisions: tuple[int, int, int], *, shifted: bool) -> list[str]:
    """Return a Monkhorst-Pack mesh with the zone's centre in it, or half a step off it.

    CASTEP's has the points (2r - n - 1) / 2n, r = 1..n: those of an even n lie half a step off the centre.
    """
    offset = [0.0 if (n % 2 == 0) == shifted else 0.5 / n for n in divisions]
    lines = [f"{name}_MP_GRID : {' '.join(map(str, divisions))}"]
    if any(offset):
        lines.append(f"{name}_MP_OFFSET : {' '.join(f'{x:.10f}' for x in offset)}")
    return lines


def _cell(layout: Layout, ground: State, absorber: Mapping[str, str], meshes: list[str]) -> str:
    """Return a ``.cell``; ``absorber`` is its label and pseudopotential, or empty.

    Without symmetry: OptaDOS and the readers need all k points, and the hole breaks it. The absorber comes last, where
    OptaDOS puts a labelled species whatever its place in the file.
    """
    strings = {**{s: ground.string(s) for s in layout.cell.symbols}, **absorber}
    lines = ["%BLOCK LATTICE_CART", "ANG"]
    lines += ["".join(f"{x:20.12f}" for x in row) for row in layout.cell.cell_A]
    lines += ["%ENDBLOCK LATTICE_CART", "", "%BLOCK POSITIONS_ABS", "ANG"]
    last = [layout.labels.index(label) for label in absorber]
    order = [i for i in range(len(layout.labels)) if i not in last] + last
    for label, position in ((layout.labels[i], layout.cell.positions_A[i]) for i in order):
        lines.append(f"{label:<6s}" + "".join(f"{x:18.10f}" for x in position + 0.0))
    lines += ["%ENDBLOCK POSITIONS_ABS", "", "%BLOCK SPECIES_POT"]
    lines += [f"{label} {strings[label]}" for label in dict.fromkeys(layout.labels[i] for i in order)]
    lines += ["%ENDBLOCK SPECIES_POT", "", *meshes, ""]
    return "\n".join(lines)
