"""Exchange-correlation on a grid whose orbital values are computed once and kept.

PySCF evaluates the basis functions on the grid in every SCF cycle. The sites of a molecule run some forty cycles on the
same grid, so htxas evaluates them once, in single precision, block by block with only the functions that reach
a block. Densities and matrices are products of those blocks; the functional itself (libxc through PySCF) and
all sums over the grid are in double precision. Energies that leave the engine come from :meth:`XCGrid.energy`,
which evaluates everything in double precision.

What is far below the rounding of single precision is set to zero before it is multiplied. Products of such values
are subnormal numbers, which processors multiply a hundred times slower: one value in a hundred made a matrix take four
times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyscf import dft, gto

__all__ = ["XCGrid"]

FloatArray = npt.NDArray[np.float64]
_BLOCK_POINTS = 1600
_NEGLIGIBLE = 1e-6  # a function below this everywhere in a block (or its gradient) is left out of that block
_ZERO_VALUE, _ZERO_DERIVATIVE = (
    1e-12,
    1e-13,
)  # two values and a derivative: 1e-37, just above subnormal numbers


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    stop: int
    functions: npt.NDArray[np.intp]
    values: npt.NDArray[np.float32]  # (4, points, functions): value, d/dx, d/dy, d/dz


class XCGrid:
    """Integration grid of a molecule with cached basis-function values.

    Parameters
    ----------
    mol
        PySCF molecule.
    xc
        Functional name (libxc through PySCF): a GGA or meta-GGA without exact exchange.
    level
        PySCF grid level.
    max_cache_bytes
        Above this the blocks are evaluated anew in every cycle.

    Raises
    ------
    ValueError
        For a hybrid or an LDA functional: the engine has no exact exchange.
    """

    def __init__(self, mol: gto.Mole, xc: str, level: int, max_cache_bytes: float = 1.5e9) -> None:
        self.mol = mol
        self.xc = xc
        self._numint = dft.numint.NumInt()
        self.kind = self._numint._xc_type(xc)
        if self.kind not in ("GGA", "MGGA") or self._numint.libxc.is_hybrid_xc(xc):
            raise ValueError(f"{xc} is not a pure GGA or meta-GGA functional")
        grids = dft.gen_grid.Grids(mol)
        grids.level = level
        grids.build()
        self.coords: FloatArray = grids.coords
        self.weights: FloatArray = grids.weights
        self._max_cache_bytes = max_cache_bytes
        self._cached: list[_Block] | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def _evaluate(self) -> Iterator[_Block]:
        for start in range(0, len(self), _BLOCK_POINTS):
            stop = min(start + _BLOCK_POINTS, len(self))
            values = self.mol.eval_gto("GTOval_sph_deriv1", self.coords[start:stop])
            reach = np.abs(values).max(axis=(0, 1))
            functions = np.flatnonzero(reach > _NEGLIGIBLE)
            yield _Block(start, stop, functions, _single(values[:, :, functions], _ZERO_VALUE))

    def _blocks(self) -> Iterator[_Block]:
        if self._cached is not None:
            yield from self._cached
            return
        kept: list[_Block] | None = []
        size = 0
        for block in self._evaluate():
            if kept is not None:
                size += block.values.nbytes
                if size > self._max_cache_bytes:
                    kept = None
                else:
                    kept.append(block)
            yield block
        self._cached = kept

    def density(self, orbitals: Sequence[FloatArray]) -> FloatArray:
        """Return densities of scaled orbitals (coefficient times square root of occupation).

        Parameters
        ----------
        orbitals
            One array (nao, n) per spin channel.

        Returns
        -------
        Shape (channels, 4 or 5, points): density, its gradient and, for a meta-GGA, the kinetic-energy density.
        """
        rows = 5 if self.kind == "MGGA" else 4
        rho = np.empty((len(orbitals), rows, len(self)))
        single = [np.asarray(c, dtype=np.float32) for c in orbitals]
        for block in self._blocks():
            for s, c in enumerate(single):
                psi = block.values @ c[block.functions]
                part = rho[s, :, block.start : block.stop]
                part[0] = np.einsum("pi,pi->p", psi[0], psi[0])
                for a in (1, 2, 3):
                    part[a] = 2 * np.einsum("pi,pi->p", psi[0], psi[a])
                if rows == 5:
                    part[4] = 0.5 * np.einsum("api,api->p", psi[1:], psi[1:])
        return rho

    def potential(self, rho: FloatArray) -> tuple[float, FloatArray]:
        """Return the energy (Hartree) and the weighted functional derivatives for ``rho`` of :meth:`density`.

        One channel is taken as the total density of a closed shell. Derivatives have the shape of ``rho``.
        """
        polarised = len(rho) == 2
        values = self._numint.eval_xc_eff(self.xc, rho if polarised else rho[0], deriv=1, xctype=self.kind)
        exc, vxc = values[:2]
        total = rho[:, 0].sum(axis=0)
        energy = float(np.dot(self.weights * total, exc))
        derivative = vxc if polarised else vxc[None]
        return energy, np.asarray(derivative * self.weights)

    def matrix(self, derivative: FloatArray) -> list[FloatArray]:
        """Return one symmetric (nao, nao) matrix per channel of weighted derivatives."""
        n = self.mol.nao
        out = [np.zeros((n, n)) for _ in derivative]
        single = _single(derivative, _ZERO_DERIVATIVE)
        single[:, 0] *= 0.5  # each matrix is a half and its transpose
        for block in self._blocks():
            where = np.ix_(block.functions, block.functions)
            for s in range(len(derivative)):
                part = single[s, :, block.start : block.stop]
                m = block.values[0].T @ np.einsum("api,ap->pi", block.values, part[:4])
                if self.kind == "MGGA":
                    scaled = (0.25 * part[4])[:, None]
                    for a in (1, 2, 3):
                        m += block.values[a].T @ (block.values[a] * scaled)
                out[s][where] += m + m.T
        return out

    def energy(self, orbitals: Sequence[FloatArray]) -> float:
        """Return the exchange-correlation energy in Hartree, wholly in double precision."""
        rows = 5 if self.kind == "MGGA" else 4
        rho = np.empty((len(orbitals), rows, len(self)))
        for start in range(0, len(self), _BLOCK_POINTS):
            stop = min(start + _BLOCK_POINTS, len(self))
            values = self.mol.eval_gto("GTOval_sph_deriv1", self.coords[start:stop])
            reach = np.flatnonzero(np.abs(values).max(axis=(0, 1)) > _NEGLIGIBLE)
            values = values[:, :, reach]
            for s, c in enumerate(orbitals):
                psi = values @ c[reach]
                rho[s, 0, start:stop] = np.einsum("pi,pi->p", psi[0], psi[0])
                rho[s, 1:4, start:stop] = 2 * np.einsum("pi,api->ap", psi[0], psi[1:])
                if rows == 5:
                    rho[s, 4, start:stop] = 0.5 * np.einsum("api,api->p", psi[1:], psi[1:])
        return self.potential(rho)[0]

    def extension(self, derivative: FloatArray, extra: gto.Mole) -> FloatArray:
        """Return the closed-shell potential between extra functions and all functions, double precision.

        Parameters
        ----------
        derivative
            Weighted derivatives of one channel, shape (1, 4 or 5, points).
        extra
            Molecule that carries only the extra functions.

        Returns
        -------
        Shape (n_extra, nao + n_extra).
        """
        n_extra = extra.nao
        out = np.zeros((n_extra, self.mol.nao + n_extra))
        for start in range(0, len(self), _BLOCK_POINTS):
            stop = min(start + _BLOCK_POINTS, len(self))
            part = derivative[0, :, start:stop]
            if np.abs(part).max() < 1e-14:
                continue
            points = self.coords[start:stop]
            b = extra.eval_gto("GTOval_sph_deriv1", points)
            a = np.concatenate([self.mol.eval_gto("GTOval_sph_deriv1", points), b], axis=2)
            left = b[0] * part[0][:, None] + np.einsum("xpi,xp->pi", b[1:], part[1:4])
            right = np.einsum("xpi,xp->pi", a[1:], part[1:4])
            out += left.T @ a[0] + b[0].T @ right
            if self.kind == "MGGA":
                for x in (1, 2, 3):
                    out += (b[x] * (0.5 * part[4])[:, None]).T @ a[x]
        return out


def _single(values: FloatArray, zero: float) -> npt.NDArray[np.float32]:
    """Return ``values`` in single precision, those smaller than ``zero`` as zeros."""
    out = values.astype(np.float32)
    out[np.abs(out) < zero] = 0.0
    return out
