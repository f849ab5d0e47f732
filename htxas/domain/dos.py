"""Projected densities of states: as eigenvalues and weights, or as curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ANGULAR", "LocalDos", "Pdos"]

FloatArray = npt.NDArray[np.float64]

ANGULAR: tuple[str, ...] = ("s", "p", "d")
"""Order of the last axis of :attr:`Pdos.weights`."""


@dataclass(frozen=True, slots=True, eq=False)
class Pdos:
    """Eigenvalues and their weights on every atom, by angular momentum.

    Attributes
    ----------
    energies_eV
        Eigenvalues in eV, shape (m,), ascending; of all k points together. Their zero is the ground state's.
    occupations
        Electrons in each level, shape (m,): 2 or 0 for a closed shell.
    weights
        Share of each level on every atom, shape (m, n_atoms, 3) for s, p, d; canonical atom order. Non-negative.
    shares
        How much of a level belongs to the structure, shape (m,): the weight of its k point, over the number of cells in
        a supercell. None: 1 each (molecules).
    complete
        Whether the weights of each level add up to 1 (populations in a basis of functions of atoms). Otherwise they are
        projections of something larger (plane waves): the rest of a level, most of a high one, is on no atom.
    spheres
        Whether the weights are the charge inside the atoms' spheres (augmented plane waves): what lies between the
        spheres, a third to a half of an occupied level, is on no atom either.
    """

    energies_eV: FloatArray
    occupations: FloatArray
    weights: FloatArray
    shares: FloatArray | None = None
    complete: bool = True
    spheres: bool = False

    def __post_init__(self) -> None:
        m = len(self.energies_eV)
        if self.occupations.shape != (m,) or self.weights.ndim != 3 or self.weights.shape[::2] != (m, 3):
            raise ValueError(
                f"PDOS of shapes {self.energies_eV.shape}, {self.occupations.shape}, {self.weights.shape}"
            )
        if self.shares is not None and self.shares.shape != (m,):
            raise ValueError(f"PDOS of {m} levels and shares of shape {self.shares.shape}")

    def curve(
        self,
        grid_eV: npt.ArrayLike,
        *,
        atoms: Sequence[int],
        angular: Sequence[str] = ("s", "p"),
        sigma_eV: float = 0.5,
        zero_eV: float = 0.0,
    ) -> FloatArray:
        """Return the Gaussian-broadened DOS of the structure on ``grid_eV``, in states per eV (both spins), shape (g,).

        Parameters
        ----------
        grid_eV
            Energies relative to ``zero_eV``.
        atoms
            Canonical indices to sum over.
        angular
            Any of ``s``, ``p``, ``d``.
        sigma_eV
            Gaussian sigma.
        zero_eV
            Energy that becomes 0, e.g. the HOMO.
        """
        columns = [ANGULAR.index(a) for a in angular]
        weight = 2.0 * self.weights[:, list(atoms)][:, :, columns].sum(axis=(1, 2))
        if self.shares is not None:
            weight = weight * self.shares
        grid = np.asarray(grid_eV, dtype=np.float64)
        x = (grid[:, None] - (self.energies_eV - zero_eV)[None]) / sigma_eV
        return np.asarray(np.exp(-0.5 * x**2) @ weight / (sigma_eV * np.sqrt(2 * np.pi)))


@dataclass(frozen=True, slots=True, eq=False)
class LocalDos:
    """Local densities of states of the kinds of atoms around a site, as a multiple-scattering code gives them.

    Attributes
    ----------
    energies_eV
        Shape (m,), ascending, relative to the Fermi level.
    density
        States per eV and atom, both spins, shape (kinds, m, 4) for s, p, d, f.
    kinds
        One label per kind of atom, the absorber first: ``C*``, ``C``, ``H``.
    charges
        Electrons that an atom of each kind has given away, shape (kinds,).
    broadening_eV
        Half width of the Lorentzian in it, eV.
    """

    energies_eV: FloatArray
    density: FloatArray
    kinds: tuple[str, ...]
    charges: FloatArray
    broadening_eV: float

    def __post_init__(self) -> None:
        kinds, m = len(self.kinds), len(self.energies_eV)
        if self.density.shape != (kinds, m, 4) or self.charges.shape != (kinds,):
            raise ValueError(
                f"a DOS of shapes {self.density.shape} and {self.charges.shape} for {kinds} kinds"
            )
