"""What a dataset file holds, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.dos import Pdos
from htxas.domain.spectrum import Spectrum, Sticks
from htxas.domain.structure import Structure

__all__ = ["DatasetMeta", "GroundEntry", "MoleculeEntry", "SiteEntry"]


@dataclass(frozen=True, slots=True)
class DatasetMeta:
    """What the whole file says of itself.

    Attributes
    ----------
    campaign
        Campaign it was exported from.
    engine
        Engine name.
    parameters
        Resolved parameters of the calculations, JSON-able.
    created_by
        ``htxas <version>``.
    n_molecules, n_sites, n_incomplete
        Counts; filled by the writer.
    content_sha256
        Hash over every number and name in the file, independent of the order of the molecules; filled by the
        writer.
    """

    campaign: str
    engine: str
    parameters: Mapping[str, Any]
    created_by: str
    n_molecules: int = 0
    n_sites: int = 0
    n_incomplete: int = 0
    content_sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SiteEntry:
    """One finished site.

    Attributes
    ----------
    key
        Calculation key.
    file_atom
        Index of the absorber in the order of the structure file, from 0.
    element, edge
        Absorber and edge.
    multiplicity, equivalent_file_atoms
        Number and file indices of the atoms this one stands for.
    excitation_energy_eV, ionization_eV, scale, energies_eV, hole_overlap, window_eV, sticks
        As in :class:`htxas.domain.result.SiteResult`.
    corrections
        Names of the corrections its attempt made after failures, in order; None if the file does not tell.
    another_state
        Names of the self-consistent states behind it (``ground``, ``ion`` ...) that may not be the ones the uncorrected
        iteration was on its way to; None if the file does not tell.
    """

    key: str
    file_atom: int
    element: str
    edge: str
    multiplicity: int
    equivalent_file_atoms: tuple[int, ...]
    excitation_energy_eV: float
    ionization_eV: float | None
    scale: str
    energies_eV: Mapping[str, float]
    hole_overlap: float
    window_eV: float
    sticks: Sticks
    corrections: tuple[str, ...] | None = None
    another_state: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GroundEntry:
    """The ground state of a molecule; fields as in :class:`htxas.domain.result.GroundResult` and :class:`SiteEntry`."""

    total_energy_eV: float
    homo_eV: float
    lumo_eV: float
    dipole_D: npt.NDArray[np.float64]
    pdos: Pdos
    corrections: tuple[str, ...] | None = None

    @property
    def gap_eV(self) -> float:
        """LUMO minus HOMO eigenvalue in eV."""
        return self.lumo_eV - self.homo_eV

    @property
    def dipole_norm_D(self) -> float:
        """Dipole moment in Debye."""
        return float(np.linalg.norm(self.dipole_D))


@dataclass(frozen=True, slots=True, eq=False)
class MoleculeEntry:
    """One molecule with its sites, molecular spectrum and ground state.

    Attributes
    ----------
    name
        Unique in the file.
    structure, file_order
        Canonical structure; canonical atom i is file atom ``file_order[i]``.
    ground_key
        Calculation key of the ground state.
    smiles
        As given, or None.
    molecular_weight_u
        Molar mass in g/mol.
    complete
        Whether every unique site and the ground state are there. An incomplete spectrum is not a molecular
        spectrum.
    missing
        Calculation keys that are not done.
    spectrum
        Multiplicity-weighted mean over sites, or None without any finished site.
    ground
        Ground state, or None.
    sites
        Finished sites, by ascending file atom.
    provenance
        Where the geometry came from.
    """

    name: str
    structure: Structure
    file_order: tuple[int, ...]
    ground_key: str
    smiles: str | None
    molecular_weight_u: float
    complete: bool
    missing: tuple[str, ...]
    spectrum: Spectrum | None
    ground: GroundEntry | None
    sites: tuple[SiteEntry, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sorted(self.file_order) != list(range(len(self.structure))):
            raise ValueError(f"{self.name}: the file order is not a permutation of the atoms")
        lacks_something = bool(self.missing) or self.spectrum is None or self.ground is None or not self.sites
        if self.complete and lacks_something:
            raise ValueError(f"{self.name} is called complete, but something is missing")

    @property
    def excitation_energy_eV(self) -> float | None:
        """Lowest first final state among the finished sites in eV, or None without any."""
        return min((s.excitation_energy_eV for s in self.sites), default=None)

    @property
    def formula(self) -> str:
        """Hill formula."""
        return self.structure.formula
