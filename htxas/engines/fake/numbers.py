"""Deterministic numbers that have the shape of a result and no physics in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from htxas.domain.calculation import Calculation
from htxas.domain.structure import Structure

__all__ = ["EDGE_EV", "WINDOW_EV", "curve_numbers", "ground_numbers", "site_numbers"]

EDGE_EV = 285.0
WINDOW_EV = 22.0
_STICKS = 24
_LEVELS = 4  # of each kind at most: files of a hundred thousand calculations should be small


def _random(calculation: Calculation) -> np.random.Generator:
    return np.random.default_rng(int(calculation.key, 16))


def site_numbers(calculation: Calculation) -> dict[str, Any]:
    """Return sticks over ``WINDOW_EV`` above a made-up edge, strengths adding up to about 0.1."""
    random = _random(calculation)
    edge = EDGE_EV + 4.0 * random.random()
    energies = edge + np.sort(np.concatenate([[0.0], WINDOW_EV * random.random(_STICKS - 1)]))
    strengths = 0.1 / _STICKS * (0.5 + random.random((_STICKS, 3)))
    return {
        "energies_eV": np.round(energies, 6).tolist(),
        "strengths": np.round(strengths, 8).tolist(),
        "ionization_eV": edge + 5.0,
        "hole_overlap": 0.99,
        "total_energies_eV": {"ground": -1000.0, "excited": -1000.0 + edge},
    }


def curve_numbers(calculation: Calculation) -> dict[str, Any]:
    """Return an edge with a white line and a ripple, the bare step, and a local DOS of two kinds of atoms."""
    random = _random(calculation)
    edge = EDGE_EV + 4.0 * float(random.random())
    above = np.concatenate([np.arange(-10.0, 10.0, 0.25), np.arange(10.0, 45.1, 0.5)])
    step = 0.5 + np.arctan(above / 0.8) / np.pi
    peak = (0.5 + random.random()) * np.exp(-0.5 * ((above - 3.0) / 1.5) ** 2)
    ripple = 0.1 * np.sin(above / 4.0 + 6.0 * random.random()) * np.exp(-np.abs(above) / 20.0)
    dos = np.arange(-12.0, 12.1, 1.0)
    return {
        "energies_eV": np.round(edge + above, 6).tolist(),
        "absorption": np.round(step * (1.0 + ripple) + peak, 8).tolist(),
        "background": np.round(step, 8).tolist(),
        "edge_eV": edge,
        "fermi_eV": -6.0,
        "lifetime_eV": 0.1,
        "dos": {
            "energies_eV": dos.tolist(),
            "density": np.round(random.random((2, len(dos), 4)), 5).tolist(),
            "charges": [0.1, -0.1],
        },
    }


def ground_numbers(calculation: Calculation, structure: Structure) -> dict[str, Any]:
    """Return levels, half of them occupied, with weights that add up to 1."""
    random = _random(calculation)
    n = min(_LEVELS, len(structure))
    levels = np.sort(np.concatenate([-20.0 + 14.0 * random.random(n), 1.0 + 10.0 * random.random(n)]))
    weights = random.random((2 * n, len(structure), 3))
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    return {
        "energies_eV": np.round(levels, 6).tolist(),
        "occupations": [2.0] * n + [0.0] * n,
        "weights": np.round(weights, 5).tolist(),
        "total_energy_eV": -1000.0 - 100.0 * float(random.random()),
        "dipole_D": random.normal(size=3).tolist(),
    }
