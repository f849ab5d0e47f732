"""The science gate: a result is served only if it passes every check here.

A check never repairs anything. It returns the named cause and the numbers that broke the limit; the result is then kept
aside as evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence
from htxas.domain.result import GroundResult, Result, SiteResult
from htxas.errors import Cause

__all__ = ["GateLimits", "Rejection", "inspect"]


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits of the gate; a campaign file may tighten or widen them, and they are recorded with the campaign.

    Attributes
    ----------
    min_hole_overlap
        Smallest accepted overlap of the hole with the site's core orbital.
    window_eV
        Range above the first final state that must be complete, eV.
    strength_range
        Accepted sum of isotropic oscillator strengths inside ``window_eV``. Below the 1s edge continuum
        a K edge gathers a few hundredths (Thomas-Reiche-Kuhn allows 2 in all).
    edge_range_eV
        Accepted excitation energy, eV.
    min_gap_eV
        Smallest accepted HOMO-LUMO gap of a ground state, eV.
    """

    min_hole_overlap: float = 0.8
    window_eV: float = 20.0
    strength_range: tuple[float, float] = (0.01, 2.0)
    edge_range_eV: tuple[float, float] = (10.0, 120_000.0)
    min_gap_eV: float = 0.1


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the gate refused: a named cause, one line, and the numbers."""

    cause: Cause
    message: str
    evidence: dict[str, Any]


def inspect(result: Result, limits: GateLimits) -> Rejection | None:
    """Return None for a sound result, else the first :class:`Rejection`.

    Convergence is asked first: numbers of an unconverged run mean nothing.
    """
    if result.convergence is not Convergence.CONVERGED:
        return Rejection(
            Cause.SCF_UNCONVERGED,
            f"convergence is {result.convergence.value}",
            {"convergence": result.convergence.value},
        )
    if isinstance(result, GroundResult):
        return _inspect_ground(result, limits)
    return _inspect_site(result, limits)


def _reject(message: str, **evidence: Any) -> Rejection:
    return Rejection(Cause.GATE_REJECTED, message, evidence)


def _inspect_ground(result: GroundResult, limits: GateLimits) -> Rejection | None:
    scalars = [result.total_energy_eV, result.homo_eV, result.lumo_eV, *result.dipole_D]
    arrays = (result.pdos.energies_eV, result.pdos.occupations, result.pdos.weights)
    if not (np.isfinite(scalars).all() and all(np.isfinite(a).all() for a in arrays)):
        return _reject("a number of the ground state is not finite")
    if result.gap_eV < limits.min_gap_eV:
        return _reject(
            f"HOMO-LUMO gap {result.gap_eV:.3f} eV is below {limits.min_gap_eV} eV", gap_eV=result.gap_eV
        )
    error = float(np.abs(result.pdos.weights.sum(axis=(1, 2)) - 1.0).max())
    if error > 0.02:
        return _reject(f"PDOS weights of a level miss 1 by {error:.3f}", weight_error=error)
    return None


def _inspect_site(result: SiteResult, limits: GateLimits) -> Rejection | None:
    e, f = result.sticks.energies_eV, result.sticks.strengths
    if len(e) == 0:
        return _reject("the spectrum has no transitions")
    scalars = [result.excitation_energy_eV, result.hole_overlap, *result.energies_eV.values()]
    if not (np.isfinite(scalars).all() and np.isfinite(e).all() and np.isfinite(f).all()):
        return _reject("a number of the spectrum is not finite")
    if result.hole_overlap < limits.min_hole_overlap:
        return Rejection(
            Cause.HOLE_LEFT_SITE,
            f"the hole overlaps its core orbital by {result.hole_overlap:.3f}, less than {limits.min_hole_overlap}",
            {"hole_overlap": result.hole_overlap},
        )
    if (np.diff(e) < 0).any() or abs(e[0] - result.excitation_energy_eV) > 1e-3:
        return _reject(
            "the first stick is not at the excitation energy",
            first_stick_eV=float(e[0]),
            excitation_energy_eV=result.excitation_energy_eV,
        )
    low, high = limits.edge_range_eV
    if not low <= e[0] <= high:
        return _reject(
            f"excitation energy {e[0]:.2f} eV is outside {low}..{high} eV", first_stick_eV=float(e[0])
        )
    if result.window_eV < limits.window_eV:
        return _reject(
            f"states are complete for {result.window_eV:.1f} eV above the edge, less than {limits.window_eV} eV",
            window_eV=result.window_eV,
        )
    if (f < -1e-9).any():
        return _reject("an oscillator strength is negative", smallest=float(f.min()))
    total = float(result.sticks.isotropic[e <= e[0] + limits.window_eV].sum())
    low, high = limits.strength_range
    if not low <= total <= high:
        return _reject(
            f"oscillator strengths add up to {total:.4g}, outside {low}..{high}", strength_sum=total
        )
    return None
