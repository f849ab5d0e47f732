"""``vasprun.xml``: atoms, levels, projections and energies of a run, by pymatgen where it is right.

Traps in it, beside those of :mod:`htxas.engines.vasp.outcar`:

- It ends with energies of which one is wrong or zero; pymatgen makes it good from the last step of self-consistency.
- ``ALGO = All`` finds the occupied bands and leaves the empty ones where they are: in a genuine run they were 40 eV too
  high, out of order, and VASP called it converged. Only ``Normal`` is used, and the order is looked at.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.engines.vasp.outcar import OutputError

__all__ = ["Run", "read_run"]

FloatArray = npt.NDArray[np.float64]
_OUT_OF_ORDER_EV = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What ``vasprun.xml`` holds.

    Attributes
    ----------
    version
        Of VASP.
    system
        The title in the input.
    symbols, fractional, volume_A3
        Atoms in the order of the POSCAR, their positions in lattice vectors (shape (n, 3)), the volume of the cell.
    titels
        Titles of the POTCARs by species.
    energy_eV
        Total energy, extrapolated to no smearing ("energy(sigma->0)").
    fermi_eV
        Fermi level.
    weights
        Of the k points, shape (k,); they add up to 1.
    levels_eV
        Shape (k, bands), ascending; counted from the cell's average potential.
    occupations
        Electrons in each, shape (k, bands): 2 if full.
    projections
        Share of each level in the sphere of each atom by s, p, d and, if there are, f: shape (k, bands, n, 3 or 4).
        None if none were asked for.
    """

    version: str
    system: str
    symbols: tuple[str, ...]
    fractional: FloatArray
    volume_A3: float
    titels: tuple[str, ...]
    energy_eV: float
    fermi_eV: float
    weights: FloatArray
    levels_eV: FloatArray
    occupations: FloatArray
    projections: FloatArray | None

    @property
    def electrons(self) -> float:
        """Valence electrons of the cell."""
        return float((self.weights[:, None] * self.occupations).sum())

    def frontier_eV(self, pairs: int) -> tuple[float, float]:
        """Return the highest of the ``pairs`` lowest levels of all k points, and the lowest of the others."""
        if not 0 < pairs < self.levels_eV.shape[1]:
            raise OutputError(f"there are {self.levels_eV.shape[1]} bands for {pairs} pairs of electrons")
        return float(self.levels_eV[:, pairs - 1].max()), float(self.levels_eV[:, pairs].min())


def read_run(path: Path, *, projected: bool) -> Run:
    """Return what a ``vasprun.xml`` holds.

    Raises
    ------
    OutputError
        It is missing, cut short, spin-polarised, or lacks something.
    """
    from pymatgen.electronic_structure.core import Spin
    from pymatgen.io.vasp.outputs import Vasprun

    if not path.is_file():
        raise OutputError(f"there is no {path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of POTCARs that pymatgen does not know, and of convergence: asked elsewhere
            v = Vasprun(path, parse_projected_eigen=projected, parse_potcar_file=False)
            energy = float(v.final_energy)
        if v.eigenvalues is None or v.efermi is None:
            raise OutputError("there are no levels")
        if set(v.eigenvalues) != {Spin.up}:
            raise OutputError("it is spin-polarised, which was not asked for")
        levels = np.asarray(v.eigenvalues[Spin.up], dtype=np.float64)
        weights = np.asarray(v.actual_kpoints_weights, dtype=np.float64)
        shares = None
        if projected:
            if not v.projected_eigenvalues:
                raise OutputError("there are no projections")
            shares = _by_angular(np.asarray(v.projected_eigenvalues[Spin.up], dtype=np.float64))
        structure = v.final_structure
        run = Run(
            version=str(v.vasp_version),
            system=str(v.parameters.get("SYSTEM", "")),
            symbols=tuple(v.atomic_symbols),
            fractional=np.asarray(structure.frac_coords, dtype=np.float64),
            volume_A3=float(structure.volume),
            titels=tuple(v.potcar_symbols),
            energy_eV=energy,
            fermi_eV=float(v.efermi),
            weights=weights / weights.sum(),
            levels_eV=levels[..., 0],
            occupations=2.0 * levels[..., 1],
            projections=shares,
        )
    except OutputError as error:
        raise OutputError(f"vasprun.xml: {error}") from None
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutputError(f"vasprun.xml cannot be read: {said}") from None
    _refuse_odd(run)
    return run


def _by_angular(shares: FloatArray) -> FloatArray:
    """Return projections by s, p, d and perhaps f, from those (LORBIT = 10) or from all their m (11)."""
    if shares.ndim != 4 or shares.shape[3] not in (3, 4, 9, 16):
        raise OutputError(f"projections of shape {shares.shape} are none by s, p and d")
    starts = [m for m in (0, 1, 4, 9) if m < shares.shape[3]]
    return shares if shares.shape[3] < 9 else np.add.reduceat(shares, starts, axis=3)


def _refuse_odd(run: Run) -> None:
    n, k = len(run.symbols), len(run.weights)
    numbers = [run.levels_eV, run.occupations, run.weights, np.array([run.energy_eV, run.fermi_eV])]
    if run.projections is not None:
        numbers.append(run.projections)
        if run.projections.shape[:3] != (*run.levels_eV.shape, n):
            raise OutputError(f"vasprun.xml has projections of shape {run.projections.shape}")
    if run.levels_eV.shape[0] != k or run.fractional.shape != (n, 3):
        raise OutputError(f"vasprun.xml has levels of {run.levels_eV.shape[0]} of {k} k points")
    if not all(np.isfinite(a).all() for a in numbers):
        raise OutputError("vasprun.xml has numbers that are none")
    if (np.diff(run.levels_eV, axis=1) < -_OUT_OF_ORDER_EV).any():
        raise OutputError("vasprun.xml has levels out of order: the empty bands were never found")
