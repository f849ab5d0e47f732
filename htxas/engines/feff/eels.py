"""``eels.dat``: the energy-loss spectrum of an ``ELNES`` run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from htxas.engines.feff.xmu import Xmu, XmuError, read_columns

__all__ = ["with_eels"]

_ABOVE_eV = 50.0  # where FEFF normalises its absorption
_AGREE_eV = 0.01


def with_eels(xmu: Xmu, text: str) -> tuple[Xmu, str]:
    """Return a spectrum whose columns are those of ``eels.dat``, and what 1 stands for.

    The double-differential cross-section is divided by that of the atom alone 50 eV above the edge, as FEFF does
    with absorption, or at the last energy if there is none so high.

    Parameters
    ----------
    xmu
        The absorption of the same run (``xmu10.dat``): its header, edge and energies.
    text
        Of ``eels.dat``: energy, total, atomic background (a0^2/eV), fine structure.

    Raises
    ------
    XmuError
        Damaged, or of other energies.
    """
    header = next((line for line in text.splitlines() if line.startswith("#") and " total " in line), "")
    columns = len(header.split()) - 1
    if columns < 4:
        raise XmuError("eels.dat: its header is not FEFF's")
    try:
        table = read_columns(text, columns)
    except XmuError as error:
        raise XmuError(f"eels.dat: {error}") from None
    if len(table) != len(xmu.energies_eV) or np.abs(table[:, 0] - xmu.energies_eV).max() > _AGREE_eV:
        raise XmuError("eels.dat: its energies are not those of xmu10.dat")
    total, atom = table[:, 1], table[:, 2]
    place = min(float(xmu.energies_eV[-1]), xmu.edge_eV + _ABOVE_eV)
    norm = float(np.interp(place, xmu.energies_eV, atom))
    if not norm > 0:
        raise XmuError("eels.dat: the atom scatters nothing above the edge")
    told = f"atomic energy loss {place - xmu.edge_eV:.0f} eV above the edge ({norm:.4e} a0^2/eV)"
    return replace(xmu, mu=total / norm, mu0=atom / norm, normalisation=norm), told
