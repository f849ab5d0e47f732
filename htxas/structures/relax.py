"""Relaxation of a molecule's geometry with any ASE calculator; GFN2-xTB through tblite is the ready one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed, CalculatorSetupError, InputError
from ase.optimize import BFGS

from htxas.errors import StructureError, UserError

__all__ = ["Relaxed", "Relaxer", "XtbRelaxer", "relax_with"]

Floats = npt.NDArray[np.float64]

_ACCURACY = (
    0.1  # ten times tblite's usual self-consistency, so that the forces near the minimum are not noise
)
_FAR_A = 0.1  # greatest step of an atom: BFGS beyond it leaves the basin of a conformer


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A relaxed geometry.

    Attributes
    ----------
    positions_A
        Shape (n, 3), atoms in the order given.
    energy_eV
        Total energy by ``method``, on that method's own scale.
    steps
        Optimiser steps taken.
    fmax_eV_per_A
        Largest remaining force on an atom.
    method, program
        What was used, and the program with its version.
    """

    positions_A: Floats
    energy_eV: float
    steps: int
    fmax_eV_per_A: float
    method: str
    program: str


class Relaxer(Protocol):
    """Anything that relaxes a neutral closed-shell molecule in vacuum.

    ``settings`` is part of the identity of what comes out: method, convergence, everything that decides the result.
    """

    @property
    def settings(self) -> dict[str, str | float]:
        """Method and convergence."""
        ...

    def relax(self, symbols: Sequence[str], positions_A: Floats, *, where: str | None = None) -> Relaxed:
        """Return the relaxed geometry, or raise StructureError."""
        ...


@dataclass(frozen=True, slots=True)
class XtbRelaxer:
    """GFN2-xTB (Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019)) through tblite, one thread.

    Attributes
    ----------
    fmax_eV_per_A
        Converged when no atom feels a larger force.
    max_steps
        Not converged by then is an error.
    """

    fmax_eV_per_A: float = 0.01
    max_steps: int = 1000

    @property
    def settings(self) -> dict[str, str | float]:
        """Method and convergence."""
        return {
            "method": "GFN2-xTB",
            "accuracy": _ACCURACY,
            "optimizer": "BFGS",
            "fmax_eV_per_A": self.fmax_eV_per_A,
        }

    def relax(self, symbols: Sequence[str], positions_A: Floats, *, where: str | None = None) -> Relaxed:
        """Relax a neutral closed-shell molecule.

        Raises
        ------
        StructureError
            The self-consistency or the optimisation does not converge, or tblite refuses the atoms.
        UserError
            tblite cannot be loaded.
        """
        try:
            import tblite.library
            from tblite.ase import TBLite
        except ImportError as error:  # its wheel expects the system's libgomp
            raise UserError(
                f"tblite cannot be loaded: {error}",
                where=where,
                hint="install the OpenMP runtime (Debian: libgomp1), or give relaxed geometries",
            ) from error
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        version = ".".join(str(v) for v in tblite.library.get_version())
        # One thread: sums in another order differ in the last digits, and a geometry's digits are its identity.
        with threadpool_limits(limits=1):
            return relax_with(
                TBLite(method="GFN2-xTB", verbosity=0, accuracy=_ACCURACY),
                symbols,
                positions_A,
                method="GFN2-xTB",
                program=f"tblite {version}",
                fmax_eV_per_A=self.fmax_eV_per_A,
                max_steps=self.max_steps,
                where=where,
            )


def relax_with(
    calculator: BaseCalculator,
    symbols: Sequence[str],
    positions_A: Floats,
    *,
    method: str,
    program: str,
    fmax_eV_per_A: float,
    max_steps: int,
    where: str | None = None,
) -> Relaxed:
    """Relax atoms with an ASE calculator and BFGS.

    Parameters
    ----------
    calculator
        Gives energy (eV) and forces (eV/A); a DFT engine with an ASE calculator fits here.
    symbols, positions_A
        Atoms; positions in Angstrom, shape (n, 3).
    method, program
        Recorded in the result.
    fmax_eV_per_A
        Converged when no atom feels a larger force.
    max_steps
        Not converged by then is an error, never a geometry.

    Raises
    ------
    StructureError
        Not converged, or the calculator failed.
    """
    atoms: Any = Atoms(symbols=list(symbols), positions=positions_A)
    atoms.calc = calculator
    optimizer: Any = BFGS(atoms, logfile=None, maxstep=_FAR_A)
    try:
        converged = bool(optimizer.run(fmax=fmax_eV_per_A, steps=max_steps))
        energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
    except (CalculationFailed, CalculatorSetupError, InputError) as error:
        raise StructureError(
            f"{method} fails on this geometry: {' '.join(str(error).split())}",
            where=where,
            hint="look at the start geometry, or give a relaxed one",
        ) from error
    force = float(np.sqrt((forces**2).sum(axis=1)).max())
    if not converged or not np.isfinite(force) or not np.isfinite(energy):
        raise StructureError(
            f"{method} relaxation not converged in {max_steps} steps: largest force {force:.3f} eV/A, "
            f"wanted {fmax_eV_per_A}",
            where=where,
            hint="give a better start geometry, or allow more steps",
        )
    return Relaxed(
        positions_A=np.array(atoms.get_positions(), dtype=np.float64),
        energy_eV=energy,
        steps=int(optimizer.get_number_of_steps()),
        fmax_eV_per_A=force,
        method=method,
        program=program,
    )
