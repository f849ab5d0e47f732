"""Gaussian basis sets of the Basis Set Exchange, for engines that compute all electrons and project on s, p and d."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from htxas.errors import UserError

__all__ = ["Contraction", "contractions"]


@dataclass(frozen=True, slots=True)
class Contraction:
    """Contracted functions that share their exponents.

    Attributes
    ----------
    momenta
        Angular momentum of each column of coefficients; one for all of them if there is but one.
    exponents
        a0^-2.
    columns
        Coefficients of the normalised primitives, one row per function.
    """

    momenta: tuple[int, ...]
    exponents: tuple[float, ...]
    columns: tuple[tuple[float, ...], ...]


def contractions(basis: str, element: str, *, engine: str) -> tuple[Contraction, ...] | None:
    """Return the functions of an element as they are published; None if the basis lacks it.

    Parameters
    ----------
    basis
        Name in the Basis Set Exchange.
    element
        Symbol.
    engine
        Who asks, for the message.

    Raises
    ------
    UserError
        Unknown basis, one with an effective core potential, or one with f functions (the PDOS knows s, p and d).
    """
    import basis_set_exchange as bse

    try:
        data = bse.get_basis(basis, header=False)
    except KeyError:
        near = get_close_matches(basis, bse.get_all_basis_names(), n=3, cutoff=0.4)
        raise UserError(
            f"no basis set is called {basis!r}", hint="close: " + ", ".join(near) if near else None
        ) from None
    entry = data["elements"].get(str(bse.lut.element_Z_from_sym(element)))
    if entry is None:
        return None
    if "ecp_potentials" in entry:
        raise UserError(
            f"basis {basis} replaces the core of {element} by a potential; the {engine} engine is all-electron",
            hint="use pcX-1 / pcseg-1 or another all-electron basis",
        )
    if max(m for shell in entry["electron_shells"] for m in shell["angular_momentum"]) > 2:
        raise UserError(
            f"basis {basis} has f functions on {element}; the projected DOS knows s, p and d",
            hint="use pcX-1 / pcseg-1 or another basis without f functions",
        )
    return tuple(
        Contraction(
            tuple(shell["angular_momentum"]),
            tuple(float(x) for x in shell["exponents"]),
            tuple(tuple(float(x) for x in column) for column in shell["coefficients"]),
        )
        for shell in entry["electron_shells"]
    )
