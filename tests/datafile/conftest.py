"""A dataset entry made of plain numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from htxas.datafile import DatasetMeta, GroundEntry, MoleculeEntry, SiteEntry
from htxas.domain.dos import Pdos
from htxas.domain.spectrum import Sticks, broaden, combine
from htxas.domain.structure import Structure


def make_site(file_atom: int, multiplicity: int, seed: int, *, excited: bool = False) -> SiteEntry:
    rng = np.random.default_rng(seed)
    energies = 285.0 + seed * 0.3 + np.r_[0.0, np.sort(rng.uniform(0.5, 25.0, 40))]
    sticks = Sticks(energies, rng.gamma(0.5, 0.01, (41, 3)).astype(np.float32).astype(np.float64))
    totals = {"ground": -1000.0, "ion": -710.0}
    if excited:
        totals["excited"] = -1000.0 + energies[0]
    return SiteEntry(
        key=f"{seed:032x}",
        file_atom=file_atom,
        element="C",
        edge="K",
        multiplicity=multiplicity,
        equivalent_file_atoms=tuple(range(file_atom, file_atom + multiplicity)),
        excitation_energy_eV=float(energies[0]),
        ionization_eV=None if seed % 2 else 290.5,
        scale="ion + transition potential",
        energies_eV=totals,
        hole_overlap=0.998,
        window_eV=25.0,
        sticks=sticks,
    )


def make_entry(name: str = "gdb_3", *, complete: bool = True, seed: int = 1) -> MoleculeEntry:
    """Return a made-up molecule of three carbons (two of them alike) and an oxygen, shuffled in its file."""
    rng = np.random.default_rng(seed)
    symbols = ["C", "O", "C", "C", "H"]
    positions = [[1.5, 0, 0], [0, 2.5, 0], [3.0, 0.4, 0], [4.5, 0, seed * 0.01], [0, -1, 0]]
    structure, order = Structure.from_atoms(symbols, positions)
    weights = rng.gamma(0.5, 1.0, (30, 5, 3))
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    occupations = np.where(np.arange(30) < 14, 2.0, 0.0)
    pdos = Pdos(np.sort(rng.uniform(-20, 15, 30)), occupations, weights)
    sites = (make_site(0, 1, seed), make_site(2, 2, seed + 1, excited=True))
    if not complete:
        sites = sites[:1]
    spectrum = combine([broaden(s.sticks) for s in sites], [float(s.multiplicity) for s in sites])
    return MoleculeEntry(
        name=name,
        structure=structure,
        file_order=order,
        ground_key="a" * 32,
        smiles="CCCO",
        molecular_weight_u=53.04,
        complete=complete,
        missing=() if complete else ("b" * 32,),
        spectrum=spectrum,
        ground=GroundEntry(-1000.0, -7.5, 0.5, np.array([0.0, 3.0, 4.0]), pdos) if complete else None,
        sites=sites,
        provenance={"method": "GFN2-xTB", "energy_eV": -12.5},
    )


@pytest.fixture
def entry() -> Callable[..., MoleculeEntry]:
    return make_entry


@pytest.fixture
def meta() -> DatasetMeta:
    return DatasetMeta("quickstart", "pyscf", {"preset": "published", "grid": 3}, "htxas 0.1.0")
