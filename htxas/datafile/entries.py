"""What a dataset file holds, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.dos import Pdos
from htxas.domain.spectrum import Curve, Spectrum, Sticks
from htxas.domain.structure import Structure
from htxas.errors import DatasetError

__all__ = ["CurveEntry", "DatasetMeta", "GroundEntry", "MoleculeEntry", "SiteEntry"]


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
    """One finished site with its transitions.

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
class CurveEntry:
    """One finished site with a continuous spectrum. The HDF5 files hold transitions and take no such site.

    Attributes
    ----------
    key, file_atom, element, edge, multiplicity, equivalent_file_atoms, corrections, another_state
        As in :class:`SiteEntry`.
    edge_eV, fermi_eV, lifetime_eV, normalisation, scale, window_eV, curve, background
        As in :class:`htxas.domain.result.CurveResult`.
    """

    key: str
    file_atom: int
    element: str
    edge: str
    multiplicity: int
    equivalent_file_atoms: tuple[int, ...]
    edge_eV: float
    fermi_eV: float
    lifetime_eV: float
    normalisation: str
    scale: str
    window_eV: float
    curve: Curve
    background: npt.NDArray[np.float64]
    corrections: tuple[str, ...] | None = None
    another_state: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GroundEntry:
    """The ground state of a molecule; fields as in :class:`htxas.domain.result.GroundResult` and :class:`SiteEntry`."""

    total_energy_eV: float
    homo_eV: float
    lumo_eV: float
    dipole_D: npt.NDArray[np.float64] | None
    pdos: Pdos
    corrections: tuple[str, ...] | None = None
    reference: str = "vacuum"

    @property
    def gap_eV(self) -> float:
        """LUMO minus HOMO eigenvalue in eV."""
        return self.lumo_eV - self.homo_eV

    @property
    def dipole_norm_D(self) -> float | None:
        """Dipole moment in Debye."""
        return None if self.dipole_D is None else float(np.linalg.norm(self.dipole_D))


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
        Calculation key of the ground state, or None where the engine has none.
    smiles
        As given, or None.
    molecular_weight_u
        Molar mass in g/mol.
    complete
        Whether every unique site, and the ground state if there is one, are there. An incomplete spectrum is not a
        molecular spectrum.
    missing
        Calculation keys that are not done.
    spectrum
        Multiplicity-weighted mean over sites, or None without any finished site.
    ground
        Ground state, or None.
    sites
        Finished sites with transitions, by ascending file atom.
    curves
        Finished sites with continuous spectra instead. Files of htxas hold transitions: their writers take none.
    provenance
        Where the geometry came from.
    """

    name: str
    structure: Structure
    file_order: tuple[int, ...]
    ground_key: str | None
    smiles: str | None
    molecular_weight_u: float
    complete: bool
    missing: tuple[str, ...]
    spectrum: Spectrum | None
    ground: GroundEntry | None
    sites: tuple[SiteEntry, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[CurveEntry, ...] = ()

    def __post_init__(self) -> None:
        if sorted(self.file_order) != list(range(len(self.structure))):
            raise ValueError(f"{self.name}: the file order is not a permutation of the atoms")
        if self.sites and self.curves:
            raise ValueError(f"{self.name} has transitions and continuous spectra")
        lacks_ground = self.ground_key is not None and self.ground is None
        lacks_sites = not self.sites and not self.curves
        if self.complete and (self.missing or self.spectrum is None or lacks_ground or lacks_sites):
            raise ValueError(f"{self.name} is called complete, but something is missing")

    @property
    def excitation_energy_eV(self) -> float | None:
        """Lowest first final state among the finished sites in eV, or None without any."""
        return min((s.excitation_energy_eV for s in self.sites), default=None)

    @property
    def edge_eV(self) -> float | None:
        """Lowest threshold of the continuous spectra in eV, or None without any."""
        return min((s.edge_eV for s in self.curves), default=None)

    def refuse_curves(self) -> None:
        """Raise if a site has a continuous spectrum: for files that hold transitions.

        Raises
        ------
        DatasetError
            If so.
        """
        if self.curves:
            raise DatasetError(
                "has continuous spectra; this file holds transitions",
                where=f"molecule {self.name}",
                hint="htxas export --format parquet writes them",
            )

    @property
    def formula(self) -> str:
        """Hill formula."""
        return self.structure.formula
