"""The science gate: a result is served only if it passes every check here.

A check never repairs anything. It returns the named cause and the numbers that broke the limit; the result is then kept
aside as evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence
from htxas.domain.elements import edge_range_eV
from htxas.domain.result import CurveResult, GroundResult, Result, SiteResult
from htxas.domain.strength import bare_atom_strength
from htxas.errors import Cause

__all__ = ["GateLimits", "Rejection", "inspect"]


# A first state a little above the ionisation energy is a resonance; far above it is a mistake.
_IONIZATION_SLACK_EV = 3.0
# Of a normalised absorption: rounding leaves traces below zero; its level is looked at between these.
_LEAST_ABSORPTION = -0.02
_WEIGHT_ERROR = 0.02
_LEAST_PROJECTED = 0.8  # of an occupied level in plane waves: atomic functions hold nearly all of it
_LEAST_IN_SPHERES = (
    0.2  # of an occupied level in augmented plane waves; of diamond's, spheres hold 0.4 to 0.7
)
_LEVEL_FROM_EV, _LEVEL_TO_EV = 5.0, 60.0


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits of the gate; a campaign file may tighten or widen them, and they are recorded with the campaign.

    Attributes
    ----------
    min_hole_overlap
        Smallest accepted overlap of the hole with the site's core orbital.
    window_eV
        Range above the first final state (or the threshold) in which states must have been kept, eV.
    strength_ratio
        Accepted ratio of the sum of isotropic oscillator strengths inside ``window_eV`` to what the K shell of the bare
        atom absorbs there (:func:`htxas.domain.strength.bare_atom_strength`). Found in 20 eV: 1.31 to 2.45 at 1,421
        organic carbon sites (PySCF), 0.9 to 2.8 at others from boron to chlorine and germanium (PySCF, CP2K, Quantum
        ESPRESSO, Elk, CASTEP); 0.31 to 0.35 of an oxygen with a wrong pseudopotential. A window that begins
        with weak states far below the main edge (3d levels of metals) holds less.
    strength_range
        Accepted sum of those strengths itself; it takes the place of the ratio, and is needed for sticks of an absorber
        whose bare atom is not known. None: by the ratio. Campaigns of older versions have (0.05, 1.0) here.
    level_range
        Accepted ratio of a continuous absorption to the bare atom's, both averaged from 5 to 60 eV above the threshold.
    edge_range_eV
        Accepted excitation energy, eV; None: within 8 % of the tabulated edge of the absorber (or 15 eV, if that is
        more), where there is one.
    min_gap_eV
        Smallest accepted HOMO-LUMO gap of a ground state, eV.
    """

    min_hole_overlap: float = 0.8
    window_eV: float = 20.0
    strength_ratio: tuple[float, float] = (0.4, 5.0)
    strength_range: tuple[float, float] | None = None
    level_range: tuple[float, float] = (0.5, 2.0)
    edge_range_eV: tuple[float, float] | None = None
    min_gap_eV: float = 0.1


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the gate refused: a named cause, one line, and the numbers."""

    cause: Cause
    message: str
    evidence: dict[str, Any]


def inspect(
    result: Result, limits: GateLimits, *, element: str | None = None, edge: str | None = None
) -> Rejection | None:
    """Return None for a sound result, else the first :class:`Rejection`.

    Convergence is asked first: numbers of an unconverged run mean nothing.

    Parameters
    ----------
    result, limits
        What is judged, and by which limits.
    element, edge
        Absorber of a site, for the range its energy must lie in and the strength of its bare atom.
    """
    if result.convergence is not Convergence.CONVERGED:
        return Rejection(
            Cause.SCF_UNCONVERGED,
            f"convergence is {result.convergence.value}",
            {"convergence": result.convergence.value},
        )
    if isinstance(result, GroundResult):
        return _inspect_ground(result, limits)
    energies = limits.edge_range_eV or edge_range_eV(element, edge)
    if isinstance(result, CurveResult):
        return _inspect_curve(result, limits, energies)
    return _inspect_site(result, limits, energies) or _inspect_strength(result, limits, element, edge)


def _reject(message: str, **evidence: Any) -> Rejection:
    return Rejection(Cause.GATE_REJECTED, message, evidence)


def _inspect_ground(result: GroundResult, limits: GateLimits) -> Rejection | None:
    dipole = () if result.dipole_D is None else result.dipole_D
    scalars = [result.total_energy_eV, result.homo_eV, result.lumo_eV, *dipole]
    levels, occupations, weights = result.pdos.energies_eV, result.pdos.occupations, result.pdos.weights
    shares = np.ones(len(levels)) if result.pdos.shares is None else result.pdos.shares
    arrays = (levels, occupations, weights, shares)
    if not (np.isfinite(scalars).all() and all(np.isfinite(a).all() for a in arrays)):
        return _reject("a number of the ground state is not finite")
    if result.total_energy_eV >= 0:
        return _reject("the total energy is not negative", total_energy_eV=result.total_energy_eV)
    if result.gap_eV < limits.min_gap_eV:
        return _reject(
            f"HOMO-LUMO gap {result.gap_eV:.3f} eV is below {limits.min_gap_eV} eV", gap_eV=result.gap_eV
        )
    filled = occupations > 1e-6
    if not filled.any() or filled.all() or occupations.min() < 0 or occupations.max() > 2 + 1e-6:
        return _reject("the occupations of the PDOS are not between 0 and 2, some filled and some empty")
    if (np.diff(levels) < 0).any():
        return _reject("the levels of the PDOS are not in order")
    frontier = (float(levels[filled].max()), float(levels[~filled].min()))
    if max(abs(frontier[0] - result.homo_eV), abs(frontier[1] - result.lumo_eV)) > 1e-3:
        return _reject(
            "HOMO and LUMO are not the frontier levels of the PDOS",
            homo_lumo_eV=[result.homo_eV, result.lumo_eV],
            frontier_eV=list(frontier),
        )
    complete_to = result.pdos.complete_to_eV
    if complete_to is not None and not complete_to >= result.lumo_eV - 1e-3:
        return _reject(
            f"the levels are complete to {complete_to:.3f} eV, which is below the LUMO",
            complete_to_eV=complete_to,
            lumo_eV=result.lumo_eV,
        )
    if weights.min() < -1e-6:
        return _reject("a PDOS weight is negative", smallest=float(weights.min()))
    if (shares <= 0).any():
        return _reject("a level of the PDOS belongs to nobody", smallest_share=float(shares.min()))
    held = weights.sum(axis=(1, 2))
    error = float(np.abs(held - 1.0).max() if result.pdos.complete else (held - 1.0).max())
    if error > _WEIGHT_ERROR:
        return _reject(f"PDOS weights of a level miss 1 by {error:.3f}", weight_error=error)
    least = float(held[filled].min())
    if least < (_LEAST_IN_SPHERES if result.pdos.spheres else _LEAST_PROJECTED):
        return _reject(f"only {least:.2f} of an occupied level is on atoms", projected=least)
    return None


def _inspect_site(
    result: SiteResult, limits: GateLimits, edge_eV: tuple[float, float] | None
) -> Rejection | None:
    e, f = result.sticks.energies_eV, result.sticks.strengths
    if len(e) == 0:
        return _reject("the spectrum has no transitions")
    scalars = [
        result.excitation_energy_eV,
        result.hole_overlap,
        result.window_eV,
        *([] if result.ionization_eV is None else [result.ionization_eV]),
        *result.energies_eV.values(),
    ]
    if not (all(map(math.isfinite, scalars)) and np.isfinite(e).all() and np.isfinite(f).all()):
        return _reject("a number of the spectrum is not finite")
    if "ground" not in result.energies_eV:
        return _reject("the total energy of the ground state is missing", energies=sorted(result.energies_eV))
    if result.hole_overlap > 1 + 1e-6:
        return _reject(
            f"a hole overlap of {result.hole_overlap:.3f} is no overlap", hole_overlap=result.hole_overlap
        )
    if result.hole_overlap < limits.min_hole_overlap:
        return Rejection(
            Cause.HOLE_LEFT_SITE,
            f"the hole overlaps its core orbital by {result.hole_overlap:.3f}, less than {limits.min_hole_overlap}",
            {"hole_overlap": result.hole_overlap},
        )
    if (e[1:] < e[:-1]).any() or abs(e[0] - result.excitation_energy_eV) > 1e-3:
        return _reject(
            "the first stick is not at the excitation energy",
            first_stick_eV=float(e[0]),
            excitation_energy_eV=result.excitation_energy_eV,
        )
    if edge_eV is not None and not edge_eV[0] <= e[0] <= edge_eV[1]:
        return _reject(
            f"excitation energy {e[0]:.2f} eV is outside {edge_eV[0]:.1f}..{edge_eV[1]:.1f} eV",
            first_stick_eV=float(e[0]),
        )
    if result.ionization_eV is not None and result.ionization_eV < e[0] - _IONIZATION_SLACK_EV:
        return _reject(
            f"the ionisation energy {result.ionization_eV:.2f} eV lies far below the first state {e[0]:.2f} eV",
            ionization_eV=result.ionization_eV,
            first_stick_eV=float(e[0]),
        )
    if result.window_eV < limits.window_eV:
        return _reject(
            f"states are kept for {result.window_eV:.1f} eV above the edge, less than {limits.window_eV} eV",
            window_eV=result.window_eV,
        )
    if (f < -1e-9).any():
        return _reject("an oscillator strength is negative", smallest=float(f.min()))
    return None


def _inspect_strength(
    result: SiteResult, limits: GateLimits, element: str | None, edge: str | None
) -> Rejection | None:
    """Ask whether all transitions of the window together absorb as much as such an atom can."""
    e = result.sticks.energies_eV
    total = float(result.sticks.isotropic[e <= e[0] + limits.window_eV].sum())
    if limits.strength_range is not None:
        low, high = limits.strength_range
        if not low <= total <= high:
            return _reject(
                f"oscillator strengths add up to {total:.4g}, outside the strength_range {low}..{high}",
                strength_in_window=total,
            )
        return None
    atoms = bare_atom_strength(element, edge, limits.window_eV)
    if atoms is None:
        return _reject(
            f"what a bare atom absorbs at the edge {element} {edge} is not known: the gate needs a strength_range",
            strength_in_window=total,
        )
    low, high = limits.strength_ratio
    if not low <= total / atoms <= high:
        return _reject(
            f"oscillator strengths add up to {total:.4g}, {total / atoms:.2g} of the bare atom's {atoms:.3g}, "
            f"not {low}..{high}",
            strength_in_window=total,
            strength_ratio=total / atoms,
        )
    return None


def _inspect_curve(
    result: CurveResult, limits: GateLimits, edge_eV: tuple[float, float] | None
) -> Rejection | None:
    e, mu = result.curve.energies_eV, result.curve.intensity
    if len(e) < 2:
        return _reject(f"the spectrum has {len(e)} points")
    scalars = (result.edge_eV, result.fermi_eV, result.lifetime_eV)
    arrays = (e, mu, result.background, *([] if result.dos is None else [result.dos.density]))
    if not (all(map(math.isfinite, scalars)) and all(np.isfinite(a).all() for a in arrays)):
        return _reject("a number of the spectrum is not finite")
    if result.doubts:
        return _reject(result.doubts[0], doubts=list(result.doubts))
    if (np.diff(e) <= 0).any():
        return _reject("the energies of the spectrum are not in order")
    if not e[0] < result.edge_eV < e[-1]:
        return _reject(
            "the threshold lies outside the spectrum",
            edge_eV=result.edge_eV,
            range_eV=[float(e[0]), float(e[-1])],
        )
    if edge_eV is not None and not edge_eV[0] <= result.edge_eV <= edge_eV[1]:
        return _reject(
            f"the threshold {result.edge_eV:.2f} eV is outside {edge_eV[0]:.1f}..{edge_eV[1]:.1f} eV",
            edge_eV=result.edge_eV,
        )
    if result.window_eV < limits.window_eV:
        return _reject(
            f"the spectrum reaches {result.window_eV:.1f} eV above the threshold, less than {limits.window_eV} eV",
            window_eV=result.window_eV,
        )
    if mu.min() < _LEAST_ABSORPTION:
        return _reject(f"the absorption is negative: {mu.min():.3f}", smallest=float(mu.min()))
    above = (e >= result.edge_eV + _LEVEL_FROM_EV) & (e <= result.edge_eV + _LEVEL_TO_EV)
    if above.sum() < 2:
        return _reject(f"the spectrum has {above.sum()} points from 5 to 60 eV above the threshold")
    atoms = float(np.trapezoid(result.background[above], e[above]))
    if atoms <= 0:
        return _reject("the bare atom absorbs nothing above the threshold", background=atoms)
    level = float(np.trapezoid(result.curve.isotropic[above], e[above])) / atoms
    low, high = limits.level_range
    if not low <= level <= high:
        return _reject(
            f"the absorption above the edge is {level:.2f} of the atom's, not {low}..{high}", level=level
        )
    return None
