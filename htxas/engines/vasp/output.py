"""What VASP left: ``OUTCAR`` as far as it tells of a run's course and of the spectrum, ``vasprun.xml`` for all else.

Traps in these files:

- ``vasprun.xml`` ends with energies of which one is wrong or zero; pymatgen makes it good from the last step of
  self-consistency.
- The energies of a spectrum in ``vasprun.xml`` are counted from the highest full band and have four decimals, those in
  ``OUTCAR`` from the core level with six (VASP wiki, "Supercell core-hole calculations"): these are read.
- VASP 6.1 divides the spectrum by the energy instead of its square (VASP forum, topic 17859, where VASP's makers say
  so): spectra of versions before 6.2 are refused.
- After the limit of iterations VASP goes on, writes a spectrum and ends well.
- ``ALGO = All`` finds the occupied bands and leaves the empty ones where they are: in a genuine run they were 40 eV too
  high, out of order, and VASP called it converged. Only ``Normal`` is used, and the order is looked at.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence

__all__ = ["Log", "OutputError", "Run", "complaint", "read_log", "read_run", "read_table"]

FloatArray = npt.NDArray[np.float64]
_VERSION = re.compile(r"^\s*vasp\.(\S+)", re.MULTILINE)
_SYSTEM = re.compile(r"^\s*SYSTEM\s*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_STEP = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
_LIMIT = re.compile(r"^\s*NELM\s*=\s*(\d+)", re.MULTILINE)
_ENERGY = re.compile(r"energy\(sigma->0\)\s*=\s*(-?[\d.]+)")
_TABLE = re.compile(r"frequency dependent\s+IMAGINARY DIELECTRIC FUNCTION(?!.*current-current).*\n")
_BOX = re.compile(r"^\s*\|(.*)\|\s*$", re.MULTILINE)
_WORDS = re.compile(
    r"VERY BAD NEWS|I REFUSE TO CONTINUE|internal error|Error reading item|^\s*ERROR\b|\bERROR:|forrtl: severe|"
    r"Error (?:EDDDAV|EDDRMM|code)|LAPACK: Routine|TOO FEW BANDS|Fatal error",
    re.MULTILINE,
)
_FRAME = re.compile(r"[-=*#EROWANING !]*")  # of boxes: rules, and their headings in large letters
_SAID_BYTES = 300
_OUT_OF_ORDER_EV = 1e-3


class OutputError(ValueError):
    """A file of VASP's is not whole, or not what it should be."""


@dataclass(frozen=True, slots=True)
class Log:
    """What ``OUTCAR`` tells of the course of a run.

    Attributes
    ----------
    version
        ``6.4.2``; empty if it does not say.
    system
        The title in the input.
    finished
        Whether VASP came to its end.
    iterations
        Steps of self-consistency; 0 if none began.
    convergence
        As VASP states it.
    energy_eV
        Total energy of the last step, extrapolated to no smearing ("energy(sigma->0)"); None if there is none.
    """

    version: str
    system: str
    finished: bool
    iterations: int
    convergence: Convergence
    energy_eV: float | None

    @property
    def release(self) -> tuple[int, int]:
        """Version as numbers."""
        found = re.match(r"(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def read_log(text: str) -> Log:
    """Return what an ``OUTCAR``, whole or not, tells."""
    version, titles, limit = _VERSION.search(text), _SYSTEM.findall(text), _LIMIT.search(text)
    steps = [int(n) for n in _STEP.findall(text)]
    iterations = steps[-1] if steps else 0
    energies = _ENERGY.findall(text)
    if "aborting loop because EDIFF is reached" in text:
        convergence = Convergence.CONVERGED
    elif "EDIFF was not reached" in text or (limit is not None and iterations >= int(limit[1])):
        convergence = Convergence.UNCONVERGED
    else:
        convergence = Convergence.UNKNOWN
    end = text[-5000:]
    return Log(
        version=version[1] if version else "",
        system=titles[-1] if titles else "",
        finished="General timing and accounting" in end and "Voluntary context switches:" in end,
        iterations=iterations,
        convergence=convergence,
        energy_eV=float(energies[-1]) if energies else None,
    )


def complaint(text: str) -> str:
    """Return why VASP says that it stops, from what it printed; empty if it does not."""
    at = _WORDS.search(text)
    boxed = [m.strip() for m in _BOX.findall(text)]
    lines = [line for line in boxed if line and not _FRAME.fullmatch(line)]
    is_error = (
        re.search(r"EEEEEEE\s+RRRRRR", text) is not None
    )  # the heading of a box that ends a run; others advise
    if is_error and lines:
        return " ".join(lines)[:_SAID_BYTES]
    if at is None:
        return ""
    start = text.rfind("\n", 0, at.start()) + 1
    return " ".join(text[start : start + _SAID_BYTES].split())


def read_table(text: str) -> tuple[FloatArray, FloatArray]:
    """Return the spectrum in ``OUTCAR``: energies (eV, shape (n,)), imaginary parts (shape (n, 3): xx, yy, zz).

    Raises
    ------
    OutputError
        There is none, or several; a number is none; energies are not evenly spaced.
    """
    found = list(_TABLE.finditer(text))
    if len(found) != 1:
        raise OutputError(
            f"OUTCAR has {len(found)} tables of the dielectric function instead of that of the core level"
        )
    lines = text[found[0].end() :].split("\n")
    if "E(ev)" not in lines[0] or "---" not in lines[1]:
        raise OutputError("the table of the dielectric function has another heading")
    rows = []
    for line in lines[2:]:
        if not line.strip():
            break
        rows.append(line.split())
    else:
        raise OutputError("the table of the dielectric function is cut short")
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise OutputError(f"the table of the dielectric function cannot be read: {error}") from None
    if values.ndim != 2 or values.shape[1] != 7 or len(values) < 3 or not np.isfinite(values).all():
        raise OutputError("the table of the dielectric function does not hold seven numbers a line")
    steps = np.diff(values[:, 0])
    if steps.min() <= 0 or np.ptp(steps) > 1e-3 * steps.mean() + 4e-6:
        raise OutputError("the energies of the dielectric function are not evenly spaced")
    return values[:, 0], values[:, 1:4]


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
