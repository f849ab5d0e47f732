"""``case.txspec``: the unbroadened absorption that XSPEC makes of partial densities of states and matrix elements.

Layout, by genuine files: four columns, the energy above the Fermi level (eV), the absorption, and its parts by final
states of l + 1 and l - 1; no header; zero below the Fermi level and in a gap. XSPEC's units are arbitrary (A. Neckel,
K. Schwarz, R. Eibler, P. Rastl and P. Weinberger, Mikrochim. Acta Suppl. 6, 257 (1975)), and it knows no bare atom.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Curve
from htxas.domain.units import HARTREE_EV
from htxas.engines.curves import by_own_level
from htxas.engines.wien2k.scf import Bands, OutputError

__all__ = ["absolute", "read_txspec"]

FloatArray = npt.NDArray[np.float64]
_RYDBERG_EV = HARTREE_EV / 2
_COLUMNS = 4
_STEP_WITHIN = 0.02  # of a step: energies have five decimals
_SUM_WITHIN = 2e-3  # of the highest: intensities have five digits
_BELOW = 1e-3  # of the highest, that the Fermi level's tetrahedra may leave below it
_END_EV = 0.5  # the grid's last step, and the levels of another Fermi energy
_EDGE_EV = 0.3  # an onset so far before the lowest empty level is none of this state's


def read_txspec(text: str) -> tuple[FloatArray, FloatArray]:
    """Return energies above the Fermi level (eV) and the absorption in XSPEC's units, shapes (n,).

    Raises
    ------
    OutputError
        It is no such table, or cut short.
    """
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not text.endswith("\n") or len(rows) < 3 or any(len(r) != _COLUMNS for r in rows):
        raise OutputError("case.txspec is cut short, or no table of four columns")
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise OutputError(f"case.txspec: {error}") from None
    energies, total = table[:, 0], table[:, 1]
    steps = np.diff(energies)
    if not np.isfinite(table).all() or steps.min() <= 0 or np.ptp(steps) > _STEP_WITHIN * steps.mean() + 2e-5:
        raise OutputError("the energies of case.txspec are no even grid")
    highest = float(total.max())
    if total.min() < 0 or highest <= 0:
        raise OutputError("case.txspec: nothing is absorbed, or less than nothing")
    if np.abs(table[:, 2] - total).max() > _SUM_WITHIN * highest or table[:, 3].any():
        raise OutputError("case.txspec: not all of it goes to p states: it is not of an s shell")
    if total[energies < -2 * steps.mean()].max(initial=0.0) > _BELOW * highest:
        raise OutputError("case.txspec absorbs below the Fermi level: it is no absorption spectrum")
    return energies, total


def absolute(
    energies_eV: FloatArray, absorption: FloatArray, bands: Bands, transition_eV: float, window_eV: float
) -> tuple[Curve, FloatArray, str]:
    """Return the spectrum with its first final state at the transition energy, its background and what 1 stands for.

    Parameters
    ----------
    energies_eV, absorption
        Of :func:`read_txspec`.
    bands
        Of the state the spectrum was made of: its first empty level is the first final state.
    transition_eV
        Energy of that state above the ground state.
    window_eV
        How far above it the spectrum was to reach.

    Raises
    ------
    OutputError
        The spectrum begins before the lowest empty level, or ends before the window.
    """
    first_eV = (bands.first_empty_Ry - bands.fermi_Ry) * _RYDBERG_EV
    onset_eV = float(energies_eV[absorption > _BELOW * absorption.max()][0])
    if onset_eV < first_eV - _EDGE_EV:
        raise OutputError(
            f"case.txspec begins {onset_eV:.2f} eV above the Fermi level, the lowest empty level is {first_eV:.2f} eV "
            "above it: they are of different states"
        )
    reach_eV = float(energies_eV[-1]) - first_eV
    if reach_eV < window_eV - _END_EV:
        raise OutputError(
            f"case.txspec ends {reach_eV:.1f} eV above the lowest empty level, {window_eV:g} eV were asked for"
        )
    columns = np.repeat(absorption[:, None], 3, axis=1)
    shifted = energies_eV - first_eV + transition_eV
    try:
        return by_own_level(shifted, columns, transition_eV, units="in XSPEC's units")
    except ValueError as error:
        raise OutputError(f"case.txspec: {error}") from None
