"""What an engine hands back: plain numbers with units, nothing of its own making."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence
from htxas.domain.dos import LocalDos, Pdos
from htxas.domain.spectrum import Curve, Spectrum, Sticks, broaden, smear

__all__ = ["CurveResult", "GroundResult", "Provenance", "Result", "SiteResult", "Spectral"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a result came from.

    Attributes
    ----------
    engine_version
        Version string of the code.
    libraries
        Package name -> version of everything that could change a digit.
    host
        Host name.
    started, ended
        UTC, ISO 8601.
    wall_s, cpu_s
        Seconds spent by the engine on this calculation; None if nobody knows (runs that htxas did not start).
    inputs_sha256
        Input file name -> SHA-256.
    directory
        Run directory, as seen from ``host``.
    extra
        Anything else worth keeping (SCF cycles, thread count).
    """

    engine_version: str
    libraries: dict[str, str]
    host: str
    started: str
    ended: str
    wall_s: float | None
    cpu_s: float | None
    inputs_sha256: dict[str, str]
    directory: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class GroundResult:
    """Ground state of a structure.

    Attributes
    ----------
    convergence
        As the engine states it.
    total_energy_eV
        Total energy in eV.
    homo_eV, lumo_eV
        Frontier eigenvalues in eV.
    dipole_D
        Dipole moment in Debye, shape (3,); None of a crystal, or if the code does not tell.
    pdos
        Projected DOS, canonical atom order.
    provenance
        See :class:`Provenance`.
    reference
        What the eigenvalues, the PDOS's too, are counted from: ``vacuum``, or words for the code's own zero.
    """

    convergence: Convergence
    total_energy_eV: float
    homo_eV: float
    lumo_eV: float
    dipole_D: npt.NDArray[np.float64] | None
    pdos: Pdos
    provenance: Provenance
    reference: str = "vacuum"

    @property
    def dipole_norm_D(self) -> float | None:
        """Dipole moment in Debye."""
        return None if self.dipole_D is None else float(np.linalg.norm(self.dipole_D))

    @property
    def gap_eV(self) -> float:
        """LUMO minus HOMO eigenvalue in eV."""
        return self.lumo_eV - self.homo_eV


@dataclass(frozen=True, slots=True, eq=False)
class SiteResult:
    """Core-hole result of one site from a code that gives its final states one by one.

    Attributes
    ----------
    convergence
        CONVERGED only if every self-consistent step that enters the spectrum and its energy scale converged.
    sticks
        Transitions on absolute energies; the first stick is the first final state.
    excitation_energy_eV
        Energy of the first final state (E_TE), eV; equals ``sticks.energies_eV[0]``.
    ionization_eV
        Core ionisation energy, eV, or None where the engine has none.
    scale
        How the absolute energies were fixed, in words (``ion + transition potential``).
    energies_eV
        Total energies by name: at least ``ground`` and the states the scale rests on; eV.
    hole_overlap
        Smallest overlap, over all self-consistent states, of the hole orbital with the core orbital of the site: 1 is
        perfect.
    window_eV
        How far above the first final state the sticks are kept, eV. Kept is not converged: see the engine.
    provenance
        See :class:`Provenance`.
    """

    convergence: Convergence
    sticks: Sticks
    excitation_energy_eV: float
    ionization_eV: float | None
    scale: str
    energies_eV: dict[str, float]
    hole_overlap: float
    window_eV: float
    provenance: Provenance

    @property
    def onset_eV(self) -> float:
        """Where the spectrum begins, eV: its first final state."""
        return self.excitation_energy_eV

    def spectrum(self, *, sigma_eV: float = 0.5, step_eV: float = 0.1) -> Spectrum:
        """Return the sticks, broadened; see :func:`htxas.domain.spectrum.broaden`."""
        return broaden(self.sticks, sigma_eV=sigma_eV, step_eV=step_eV)


@dataclass(frozen=True, slots=True, eq=False)
class CurveResult:
    """Core-hole result of one site from a code that gives a continuous spectrum (multiple scattering).

    Attributes
    ----------
    convergence
        Of the potentials; worst of all states if there are several.
    curve
        Normalised absorption over absolute energies, with the core hole's lifetime and the losses in it.
    background
        That of the embedded atom without its neighbours, on the same energies, shape (n,).
    edge_eV
        Photon energy of the threshold: the final state is the Fermi level; eV.
    fermi_eV
        Fermi level on the code's own scale, eV.
    lifetime_eV
        Full width of the Lorentzian of the core hole that the curve has already, eV.
    normalisation
        What 1 stands for, in words with the number.
    scale
        How the absolute energies were fixed, in words. Nothing was shifted.
    doubts
        What makes the numbers doubtful by the code's own words; any is a rejection.
    dos
        Local density of states, or None.
    provenance
        See :class:`Provenance`.
    """

    convergence: Convergence
    curve: Curve
    background: npt.NDArray[np.float64]
    edge_eV: float
    fermi_eV: float
    lifetime_eV: float
    normalisation: str
    scale: str
    doubts: tuple[str, ...]
    dos: LocalDos | None
    provenance: Provenance

    @property
    def onset_eV(self) -> float:
        """Where the spectrum begins, eV: its threshold."""
        return self.edge_eV

    @property
    def window_eV(self) -> float:
        """How far above the threshold the spectrum reaches, eV."""
        return float(self.curve.energies_eV[-1]) - self.edge_eV

    def spectrum(self, *, sigma_eV: float = 0.5, step_eV: float = 0.1) -> Spectrum:
        """Return the curve, broadened further; see :func:`htxas.domain.spectrum.smear`."""
        return smear(self.curve, sigma_eV=sigma_eV, step_eV=step_eV)


Spectral = SiteResult | CurveResult
"""What a site gives."""

Result = GroundResult | SiteResult | CurveResult
