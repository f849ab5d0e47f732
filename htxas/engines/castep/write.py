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

from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.castep.corrections import DEFAULTS
from htxas.engines.castep.parameters import CastepParameters, Ground
from htxas.engines.castep.pseudopotentials import hole_string, site_label
from htxas.engines.cells import Cell

__all__ = ["GROUND", "SITE", "Layout", "extra_bands", "ground_texts", "lay_out", "site_texts", "title"]

GROUND, SITE = "ground", "site"
"""Seeds: the first part of all file names of a run."""

_SCF_EXTRA_BANDS = 10  # at least: room for smeared occupations
_MORE_THAN_FREE = 1.25  # empty bands in a cell with atoms, over those of free electrons
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


def lay_out(structure: Structure, ground: Ground, atom: int | None) -> Layout:
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


def title(key: str) -> str:
    """Return the comment that tells whose files a run's are."""
    return f"htxas {key}"


def extra_bands(cell: Cell, window_eV: float) -> int:
    """Return how many empty bands there shall be in a cell.

    Free electrons have ``V k^3 / 6 pi^2`` states below ``k^2 / 2`` (atomic units); a quarter more are taken.
    """
    volume = abs(float(np.linalg.det(cell.cell_A))) / BOHR_A**3
    k = math.sqrt(2 * window_eV / HARTREE_EV)
    return math.ceil(_MORE_THAN_FREE * volume * k**3 / (6 * math.pi**2)) + _SPARE_BANDS


def ground_texts(
    key: str, structure: Structure, ground: Ground, numerics: Mapping[str, Any], *, with_pdos: bool
) -> dict[str, str]:
    """Return the input files of a ground state by name; ``with_pdos`` False if only its energy is asked for."""
    layout = lay_out(structure, ground, None)
    grid = ground.divisions(layout.cell)
    cell = _cell(layout, ground, None, _mesh_lines("KPOINTS", grid, shifted=_is_shifted(ground)))
    lines = _param(key, ground, layout.cell, numerics)
    if with_pdos:
        bands = extra_bands(layout.cell, ground.pdos_window_eV)
        lines += [
            *_spectral("dos", bands, ground),
            ("PDOS_CALCULATE_WEIGHTS", "TRUE"),
        ]
    else:
        lines.insert(1, ("TASK", "SINGLEPOINT"))
    return {f"{GROUND}.cell": cell, f"{GROUND}.param": _lines(lines)}


def site_texts(
    key: str,
    structure: Structure,
    atom: int,
    parameters: CastepParameters,
    numerics: Mapping[str, Any],
) -> dict[str, str]:
    """Return the input files of a core-hole calculation by name, the user's OptaDOS's among them."""
    ground, hole = parameters.ground, parameters.hole
    layout = lay_out(structure, ground, atom)
    meshes = _mesh_lines("KPOINTS", ground.divisions(layout.cell), shifted=_is_shifted(ground))
    if hole.mesh is not None:
        meshes += _mesh_lines(
            "SPECTRAL_KPOINTS", hole.mesh.build(layout.cell.cell_A), shifted=hole.mesh.shifted
        )
    bands = hole.extra_bands or extra_bands(layout.cell, hole.window_eV)
    lines = [
        *_param(key, ground, layout.cell, numerics),
        *_spectral("coreloss", bands, ground),
        ("CHARGE", "0" if hole.electron == "kept" else "1"),
    ]
    return {
        f"{SITE}.cell": _cell(layout, ground, structure.symbols[atom], meshes),
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


def _is_shifted(ground: Ground) -> bool:
    return ground.mesh is not None and ground.mesh.shifted


def _param(key: str, ground: Ground, cell: Cell, numerics: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = {**DEFAULTS, **numerics}
    return [
        ("COMMENT", title(key)),
        ("XC_FUNCTIONAL", ground.functional),
        ("CUT_OFF_ENERGY", f"{ground.cutoff_eV:g} eV"),
        ("SPIN_POLARIZED", "FALSE"),
        ("FIX_OCCUPANCY", "FALSE"),
        ("SMEARING_SCHEME", "Gaussian"),
        ("SMEARING_WIDTH", f"{ground.smearing_eV:g} eV"),
        ("NEXTRA_BANDS", str(max(_SCF_EXTRA_BANDS, len(cell) // 2))),
        ("ELEC_ENERGY_TOL", f"{ground.energy_tolerance_eV:.1E} eV"),
        ("ELEC_EIGENVALUE_TOL", f"{ground.eigenvalue_tolerance_eV:.1E} eV"),
        ("METALS_METHOD", settings["method"]),
        ("MIXING_SCHEME", settings["mixing"]),
        ("MIX_CHARGE_AMP", f"{settings['mix']:g}"),
        ("MAX_SCF_CYCLES", str(settings["cycles"])),
        ("FINITE_BASIS_CORR", "0"),
        ("IPRINT", "1"),
        ("WRITE_CELL_STRUCTURE", "TRUE"),
    ]


def _spectral(task: str, bands: int, ground: Ground) -> list[tuple[str, str]]:
    return [
        ("TASK", "SPECTRAL"),
        ("SPECTRAL_TASK", task),
        ("SPECTRAL_NEXTRA_BANDS", str(bands)),
        ("SPECTRAL_EIGENVALUE_TOL", f"{ground.eigenvalue_tolerance_eV:.1E} eV"),
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


def _cell(layout: Layout, ground: Ground, absorber: str | None, meshes: list[str]) -> str:
    """Return a ``.cell``.

    Without symmetry: OptaDOS and the readers need all k points, and the hole breaks it. The absorber comes last, where
    OptaDOS puts a labelled species whatever its place in the file.
    """
    strings = {s: ground.pseudopotentials[s] for s in layout.cell.symbols}
    if absorber is not None:
        strings[site_label(absorber)] = hole_string(strings[absorber])
    lines = ["%BLOCK LATTICE_CART", "ANG"]
    lines += ["".join(f"{x:20.12f}" for x in row) for row in layout.cell.cell_A]
    lines += ["%ENDBLOCK LATTICE_CART", "", "%BLOCK POSITIONS_ABS", "ANG"]
    last = [] if absorber is None else [layout.labels.index(site_label(absorber))]
    order = [i for i in range(len(layout.labels)) if i not in last] + last
    for label, position in ((layout.labels[i], layout.cell.positions_A[i]) for i in order):
        lines.append(f"{label:<6s}" + "".join(f"{x:18.10f}" for x in position + 0.0))
    lines += ["%ENDBLOCK POSITIONS_ABS", "", "%BLOCK SPECIES_POT"]
    lines += [f"{label} {strings[label]}" for label in dict.fromkeys(layout.labels[i] for i in order)]
    lines += ["%ENDBLOCK SPECIES_POT", "", *meshes, ""]
    return "\n".join(lines)
