"""``OUTCAR``: the course of a run, its total energy, and the spectrum.

Traps in it:

- After the limit of iterations VASP goes on, writes a spectrum and ends well.
- The energies of a spectrum are counted from the core level and have six decimals; in ``vasprun.xml`` they are counted
  from the highest full band and have four (VASP wiki, "Supercell core-hole calculations"): it is read here.
- VASP 6.1 divides the spectrum by the energy instead of its square (VASP forum, topic 17859, where VASP's makers say
  so): spectra of versions before 6.2 are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import Convergence

__all__ = ["Log", "OutputError", "complaint", "read_log", "read_table"]

FloatArray = npt.NDArray[np.float64]
_VERSION = re.compile(r"^\s*vasp\.(\S+)", re.MULTILINE)
_SYSTEM = re.compile(r"^\s*SYSTEM\s*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_STEP = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
_LIMIT = re.compile(r"^\s*NELM\s*=\s*(\d+)", re.MULTILINE)
_ENERGY = re.compile(r"energy\(sigma->0\)\s*=\s*(-?[\d.]+)")
_TABLE = re.compile(r"frequency dependent\s+IMAGINARY DIELECTRIC FUNCTION(?!.*current-current).*\n")
_HEADING = re.compile(r"^.*EEEEEEE\s+RRRRRR", re.MULTILINE)  # of a box that ends a run; others advise
_BOX = re.compile(r"^\s*\|(.*)\|\s*$", re.MULTILINE)
_WORDS = re.compile(
    r"VERY BAD NEWS|I REFUSE TO CONTINUE|internal error|Error reading item|^\s*ERROR\b|\bERROR:|forrtl: severe|"
    r"Error (?:EDDDAV|EDDRMM|code)|LAPACK: Routine|TOO FEW BANDS|Fatal error",
    re.MULTILINE,
)
_FRAME = re.compile(r"[-=*#EROWANING !]*")  # of boxes: rules, and their headings in large letters
_SAID_BYTES = 300


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
    heading = _HEADING.search(text)
    if heading is not None:
        boxed = [m.strip() for m in _BOX.findall(text[heading.start() :])]
        return " ".join(line for line in boxed if line and not _FRAME.fullmatch(line))[:_SAID_BYTES]
    at = _WORDS.search(text)
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
        if not any(c.isdigit() for c in line):  # as VASP's own script finds the end
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
