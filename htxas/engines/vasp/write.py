"""The inputs of VASP for one calculation, but for the POTCAR, which never leaves the user's library for long.

ASE and pymatgen both join neighbouring atoms of one element into one species, so neither writes a POSCAR whose absorber
stands apart; the few lines are written here, and tests read them with both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.cells import Cell
from htxas.engines.vasp.parameters import Ground, Hole

__all__ = [
    "AMPLIFICATION",
    "Layout",
    "bands",
    "ground_texts",
    "lay_out",
    "limit",
    "site_bands",
    "site_texts",
    "title",
]

AMPLIFICATION = 10_000.0
"""``CH_AMPLIFICATION``: OUTCAR has six decimals, and an edge of a large cell is some 1e-5 high."""

_MORE_BANDS = 8  # bound empty levels, and what free electrons get wrong
_ABOVE_EV = 3.0  # of bands above the window: the highest ones of all k points are not at one energy
_GAP_EV = 5.0  # a crystal's final states begin a gap above what free electrons would fill
_ITERATIONS = 100  # limit of a first attempt


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What is computed.

    Attributes
    ----------
    cell
        The cell.
    order
        Index in the cell of each atom of the POSCAR: the absorber first, then element by element.
    species
        Element and number of atoms of each species of the POSCAR, in its order; the absorber is one of its own.
    valence
        Electrons that the POTCARs have.
    excited
        Electrons out of the core: 1 beside a hole, if it is kept.
    """

    cell: Cell
    order: tuple[int, ...]
    species: tuple[tuple[str, int], ...]
    valence: float
    excited: int = 0

    @property
    def electrons(self) -> float:
        """Electrons in bands."""
        return self.valence + self.excited

    @property
    def pairs(self) -> int:
        """Levels that are full: those of the cell without a hole."""
        return round(self.valence) // 2

    @property
    def volume_a03(self) -> float:
        """Volume of the cell, bohr^3."""
        return abs(float(np.linalg.det(self.cell.cell_A))) / BOHR_A**3


def lay_out(
    structure: Structure, ground: Ground, absorber: int | None = None, *, electron: str = "kept"
) -> Layout:
    """Return the cell of a structure; with an absorber (canonical index; its first copy) that one has a hole.

    ``electron``: whether the excited one is ``kept`` or ``removed``.

    Raises
    ------
    UnsupportedInput
        The cell cannot be built, see :mod:`htxas.engines.cells`.
    KeyError
        An element without a POTCAR.
    """
    builder = ground.box or ground.supercell
    assert builder is not None
    cell = builder.build(structure)
    elements = list(structure.composition)
    others = [i for i in range(len(cell)) if i != absorber]
    others.sort(key=lambda i: elements.index(cell.symbols[i]))
    species = [(e, len(list(group))) for e, group in groupby(cell.symbols[i] for i in others)]
    electrons = sum(ground.potcars[s].electrons for s in cell.symbols)
    if absorber is None:
        return Layout(cell, tuple(others), tuple(species), electrons)
    first = (cell.symbols[absorber], 1)
    return Layout(cell, (absorber, *others), (first, *species), electrons, int(electron == "kept"))


def title(key: str) -> str:
    """Return what tells whose files a run's are; VASP keeps 40 characters."""
    return f"htxas {key}"


def limit(numerics: Mapping[str, Any]) -> int:
    """Return the limit of iterations."""
    return round(_ITERATIONS * float(numerics.get("iterations_factor", 1.0)))


def bands(layout: Layout, *, molecule: bool, window_eV: float) -> int:
    """Return how many bands there are to be.

    As many as free electrons have, ``V k^3 / 6 pi^2`` below ``k^2 / 2``: of a molecule up to the window above the
    vacuum, of a crystal up to the window above the energy that its valence electrons fill.
    """
    filled = 0.0 if molecule else 6 * math.pi**2 * layout.pairs / layout.volume_a03
    full_Ha = math.pow(filled, 2 / 3) / 2
    below = layout.volume_a03 * math.pow(2 * (full_Ha + window_eV / HARTREE_EV), 1.5) / (6 * math.pi**2)
    return (layout.pairs if molecule else 0) + math.ceil(below) + _MORE_BANDS


def site_bands(layout: Layout, ground: Ground, hole: Hole) -> int:
    """Return how many bands there are to be beside a hole."""
    molecule = ground.box is not None
    window_eV = hole.window_eV + _ABOVE_EV + (0.0 if molecule else _GAP_EV)
    return bands(layout, molecule=molecule, window_eV=window_eV)


def ground_texts(
    key: str, structure: Structure, ground: Ground, numerics: Mapping[str, Any], *, with_pdos: bool = True
) -> dict[str, str]:
    """Return the inputs of a ground state; without its PDOS if only its energy is asked for."""
    layout = lay_out(structure, ground)
    count = layout.pairs + max(_MORE_BANDS, layout.pairs // 8)
    if with_pdos:
        count = bands(layout, molecule=ground.box is not None, window_eV=ground.pdos_window_eV)
    lines = [*_incar(key, ground, numerics), ("NBANDS", count)]
    return _texts(key, layout, ground, [*lines, ("LORBIT", 10)] if with_pdos else lines)


def site_texts(
    key: str, structure: Structure, atom: int, ground: Ground, hole: Hole, numerics: Mapping[str, Any]
) -> dict[str, str]:
    """Return the inputs of a core-hole calculation: self-consistency and the spectrum in one run."""
    layout = lay_out(structure, ground, atom, electron=hole.electron)
    lines = [
        *_incar(key, ground, numerics),
        ("NBANDS", site_bands(layout, ground, hole)),
        ("ICORELEVEL", 2),
        ("CLNT", 1),
        ("CLN", 1),
        ("CLL", 0),
        ("CLZ", "1.0"),
        *([("NELECT", f"{layout.electrons:g}")] if hole.electron == "removed" else []),  # else VASP adds it
        ("CH_LSPEC", ".TRUE."),
        ("CH_SIGMA", f"{hole.broadening_eV:g}"),
        ("CH_NEDOS", hole.points),
        ("CH_AMPLIFICATION", f"{AMPLIFICATION:.1f}"),
    ]
    return _texts(key, layout, ground, lines)


def _incar(key: str, ground: Ground, numerics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what both states have in common.

    ``ISYM = 0``: projections and spectra at the k points that symmetry leaves are not those of all. Only k and -k are
    taken together, which are alike.
    """
    lines = [
        ("SYSTEM", title(key)),
        ("PREC", "Accurate"),
        ("ENCUT", f"{ground.cutoff_eV:g}"),
        ("GGA", "PE"),
        ("LASPH", ".TRUE."),
        ("LREAL", ".FALSE."),
        ("ISPIN", 1),
        ("ISYM", 0),
        ("ISMEAR", 0),
        ("SIGMA", f"{ground.smearing_eV:g}"),
        ("EDIFF", f"{ground.energy_tolerance_eV:.3E}"),
        ("NELM", limit(numerics)),
        ("ALGO", "Normal"),
        ("ISTART", 0),
        ("ICHARG", 2),
        ("IBRION", -1),
        ("NSW", 0),
        ("LWAVE", ".FALSE."),
        ("LCHARG", ".FALSE."),
    ]
    return lines + [
        (tag, f"{numerics[tag.lower()]:g}") for tag in ("AMIX", "BMIX") if tag.lower() in numerics
    ]


def _texts(key: str, layout: Layout, ground: Ground, lines: list[tuple[str, Any]]) -> dict[str, str]:
    return {
        "INCAR": "".join(f"{tag} = {value}\n" for tag, value in lines),
        "POSCAR": _poscar(key, layout),
        "KPOINTS": _kpoints(layout, ground),
    }


def _poscar(key: str, layout: Layout) -> str:
    rows = layout.cell.positions_A[list(layout.order)] @ np.linalg.inv(layout.cell.cell_A)
    return "\n".join(
        [
            title(key),
            "1.0",
            *(" ".join(f"{x:19.12f}" for x in row) for row in layout.cell.cell_A),
            " ".join(element for element, _ in layout.species),
            " ".join(str(count) for _, count in layout.species),
            "Direct",
            *(" ".join(f"{x:17.14f}" for x in row + 0.0) for row in rows),
            "",
        ]
    )


def _kpoints(layout: Layout, ground: Ground) -> str:
    divisions = (1, 1, 1) if ground.kpoints is None else ground.kpoints.build(layout.cell.cell_A)
    shift = 0.5 if ground.kpoints is not None and ground.kpoints.shifted else 0.0
    return f"mesh\n0\nGamma\n{' '.join(map(str, divisions))}\n{shift:g} {shift:g} {shift:g}\n"
