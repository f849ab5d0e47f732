"""What a source gives: one molecule with its spectrum, its sites and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from htxas.domain.dos import Pdos
from htxas.domain.spectrum import Curve, Quantity, Spectrum, Sticks
from htxas.domain.structure import Structure

__all__ = ["Continuum", "LeftOut", "Method", "SiteRecord", "SpectrumRecord"]


@dataclass(frozen=True, slots=True)
class Method:
    """What a spectrum is of, and how it was computed. Spectra of different methods never meet in one model.

    Attributes
    ----------
    engine
        Engine name.
    element, edge
        Absorber.
    parameters_key
        Content key of the resolved site parameters: the same in the database and in a file exported from it.
    """

    engine: str
    element: str
    edge: str
    parameters_key: str

    def __str__(self) -> str:
        return f"{self.engine} {self.element} {self.edge} (parameters {self.parameters_key[:8]})"


@dataclass(frozen=True, slots=True, eq=False)
class Continuum:
    """A continuous spectrum of a site.

    Attributes
    ----------
    curve
        As the code gives it.
    edge_eV
        Photon energy of its threshold.
    lifetime_eV
        Full width of the Lorentzian of the core hole that it has already.
    scale
        How its energies were fixed, in words.
    """

    curve: Curve
    edge_eV: float
    lifetime_eV: float
    scale: str


@dataclass(frozen=True, slots=True, eq=False)
class SiteRecord:
    """One symmetry-unique site of a molecule.

    Attributes
    ----------
    name
        Unique in its molecule: the index of the atom in the structure's file.
    key
        What identifies its content: calculation key, or a hash.
    multiplicity
        Number of atoms it stands for.
    excitation_energy_eV
        Energy of its first final state; None of a continuous spectrum.
    complete_to_eV
        Absolute energy up to which its states are complete.
    sticks, spectrum
        Its transitions, or its broadened spectrum where those are not known.
    zero_eV
        Absolute energy of what is 0 in ``sticks`` and ``spectrum``.
    quantity
        What the strengths of ``sticks`` become when they are broadened.
    atoms
        Canonical indices of the atoms it stands for; empty without a structure.
    continuum
        Its continuous spectrum; it then has neither of the two.
    """

    name: str
    key: str
    multiplicity: int
    excitation_energy_eV: float | None
    complete_to_eV: float
    sticks: Sticks | None = None
    spectrum: Spectrum | None = None
    zero_eV: float = 0.0
    quantity: Quantity = Quantity.OSCILLATOR_STRENGTH
    atoms: tuple[int, ...] = ()
    continuum: Continuum | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A molecule that a source has but cannot give: counted under its reason, not an error."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class SpectrumRecord:
    """One molecule or crystal with its complete spectrum, or its sites, and what is known of it.

    Attributes
    ----------
    name
        Name in the campaign or file; unique there.
    key
        What identifies its content: structure key, or a hash.
    smiles
        SMILES, or None.
    composition
        Atoms per element; None where the source does not tell.
    structure
        Canonical structure; None where the source has none.
    spectrum
        Molecular spectrum on absolute energies; None where the source has only sites.
    excitation_energy_eV
        Lowest excitation energy of the molecule's sites: where the spectrum starts. None of continuous spectra.
    complete_to_eV
        Absolute energy up to which every site's states are complete.
    method
        Records of one dataset share it.
    ground
        Ground state: ``gap_eV``, ``homo_eV``, ``lumo_eV``, ``dipole_D`` (norm), ``total_energy_eV``; without what
        the engine does not tell (levels that are not counted from the vacuum), empty where it has no ground state.
    sites
        Its sites; empty where the source has only molecules.
    pdos
        Projected levels of the ground state, or None.
    frontier_eV
        HOMO and LUMO on the scale of ``pdos``, or None.
    missing
        Names of sites that are not there because they are not computed; only where each is used by itself.
    """

    name: str
    key: str
    smiles: str | None
    composition: Mapping[str, int] | None
    structure: Structure | None
    spectrum: Spectrum | None
    excitation_energy_eV: float | None
    complete_to_eV: float
    method: Method
    ground: Mapping[str, float]
    sites: tuple[SiteRecord, ...] = ()
    pdos: Pdos | None = None
    frontier_eV: tuple[float, float] | None = None
    missing: tuple[str, ...] = ()

    @property
    def is_crystal(self) -> bool:
        """Whether its structure is periodic."""
        return self.structure is not None and self.structure.is_periodic
