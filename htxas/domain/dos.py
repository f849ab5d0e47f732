"""Projected densities of states: as eigenvalues and weights, or as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import REACH
from htxas.errors import DatasetError

__all__ = ["ANGULAR", "LocalDos", "Pdos"]

FloatArray = npt.NDArray[np.float64]

ANGULAR: tuple[str, ...] = ("s", "p", "d")
"""Order of the last axis of :attr:`Pdos.weights`."""

_EMPTY = 1e-6  # electrons
_ROUNDING_EV = 1e-6


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
    complete_to_eV
        Up to where every level is there, eV, of the same zero: a code that computes some empty bands knows none above
        them; of several k points, it is the lowest of their highest bands. None: to the end of a basis of functions of
        atoms. Projections that do not tell (results of older versions): see :attr:`known_to_eV`.
    spheres
        Whether the weights are the charge inside the atoms' spheres (augmented plane waves): what lies between the
        spheres, a third to a half of an occupied level, is on no atom either.
    """

    energies_eV: FloatArray
    occupations: FloatArray
    weights: FloatArray
    shares: FloatArray | None = None
    complete: bool = True
    complete_to_eV: float | None = None
    spheres: bool = False

    def __post_init__(self) -> None:
        m = len(self.energies_eV)
        if self.occupations.shape != (m,) or self.weights.ndim != 3 or self.weights.shape[::2] != (m, 3):
            raise ValueError(
                f"PDOS of shapes {self.energies_eV.shape}, {self.occupations.shape}, {self.weights.shape}"
            )
        if self.shares is not None and self.shares.shape != (m,):
            raise ValueError(f"PDOS of {m} levels and shares of shape {self.shares.shape}")

    @property
    def known_to_eV(self) -> float:
        """Up to where the levels are there, eV: :attr:`complete_to_eV`, or no bound in a basis of functions of atoms.

        Projections that do not tell end at their highest level if they are of one k point; of several, at the lowest
        empty one: which of them is the last of its point is not kept.
        """
        if self.complete_to_eV is not None:
            return self.complete_to_eV
        if self.complete or not len(self.energies_eV):
            return math.inf
        if self.shares is None:
            return float(self.energies_eV.max())
        return float(self.energies_eV[self.occupations < _EMPTY].min(initial=self.energies_eV.max()))

    def curve_to_eV(self, *, sigma_eV: float = 0.5, zero_eV: float = 0.0) -> float:
        """Return where :meth:`curve` ends, eV from ``zero_eV``: no level that is not known reaches below it."""
        return self.known_to_eV - zero_eV - REACH * sigma_eV

    def curve(
        self,
        grid_eV: npt.ArrayLike,
        *,
        atoms: Sequence[int],
        angular: Sequence[str] = ("s", "p"),
        sigma_eV: float = 0.5,
        zero_eV: float = 0.0,
        where: str | None = None,
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
        where
            Whose it is, for the error: ``molecule ethanol``.

        Raises
        ------
        DatasetError
            If the grid goes on where levels are missing: there the curve would be too low, or zero.
        """
        columns = [ANGULAR.index(a) for a in angular]
        weight = 2.0 * self.weights[:, list(atoms)][:, :, columns].sum(axis=(1, 2))
        if self.shares is not None:
            weight = weight * self.shares
        grid = np.asarray(grid_eV, dtype=np.float64)
        end = self.curve_to_eV(sigma_eV=sigma_eV, zero_eV=zero_eV)
        if grid.size and grid.max() > end + _ROUNDING_EV:
            known = self.known_to_eV - zero_eV
            raise DatasetError(
                f"the grid of the PDOS goes to {grid.max():.2f} eV, its levels are known to {known:.2f} eV; "
                f"broadened by {sigma_eV} eV they tell of no more than {end:.2f} eV",
                where=where,
                hint="end the grid there, or compute the ground state with more empty levels",
            )
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
