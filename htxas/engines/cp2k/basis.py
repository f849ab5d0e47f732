"""Basis sets of the Basis Set Exchange as CP2K reads them, and their content hashes.

htxas writes its own basis and potential files into each run directory: what CP2K's data folder holds does not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

from htxas.engines.gaussians import contractions
from htxas.errors import UserError

__all__ = ["OTHERS", "Shell", "basis_text", "content_hash", "count", "diffuse", "potential_text", "shells"]

Shell = tuple[int, tuple[tuple[float, float], ...]]
"""Angular momentum, and (exponent in a0^-2, coefficient of the normalised primitive) of one contracted function."""

OTHERS: tuple[str, ...] = (
    *("H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne"),
    *("Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar"),
)
"""Elements that may be in a molecule."""

# CP2K wants the electrons of a bare nucleus by angular momentum: those in s, the others are in p.
_IN_S = {e: min(z, 4) if z < 11 else min(z - 6, 6) for z, e in enumerate(OTHERS, 1)}
_RADIUS_A0 = {"H": 0.2}
_OTHER_RADIUS_A0 = 0.3  # of the Gaussian that stands for a nucleus on the grid: taken away again on the atom


@lru_cache(maxsize=128)
def shells(basis: str, element: str) -> tuple[Shell, ...] | None:
    """Return a basis of the Basis Set Exchange, general contractions apart; None if it lacks the element.

    Raises
    ------
    UserError
        See :func:`htxas.engines.gaussians.contractions`.
    """
    found = contractions(basis, element, engine="cp2k")
    if found is None:
        return None
    out: list[Shell] = []
    for c in found:
        for momentum, column in zip(c.momenta * (len(c.columns) // len(c.momenta)), c.columns, strict=True):
            pairs = zip(c.exponents, column, strict=True)
            out.append((momentum, tuple((x, k) for x, k in pairs if k != 0.0)))
    return tuple(out)


def diffuse(core: Sequence[Shell], *, smallest: float, ratio: float) -> tuple[Shell, ...]:
    """Return s, p and d functions that go on from the smallest exponents of ``core``, each ``ratio`` times smaller.

    Parameters
    ----------
    core
        Basis of the absorber.
    smallest
        No exponent is below it, a0^-2.
    ratio
        Of one exponent to the next.

    Raises
    ------
    UserError
        ``core`` has no s, p or d functions to go on from.
    """
    out: list[Shell] = []
    for momentum, letter in enumerate("spd"):
        exponents = [x for m, pairs in core if m == momentum for x, _ in pairs]
        if not exponents:
            raise UserError(
                f"the absorber's core_basis has no {letter} functions that diffuse ones could go on from",
                hint="use pcX-1 or another core-valence basis",
            )
        exponent = min(exponents) / ratio
        while exponent >= smallest:
            out.append((momentum, ((exponent, 1.0),)))
            exponent /= ratio
    return tuple(out)


def count(basis: Iterable[Shell]) -> int:
    """Return the number of spherical functions."""
    return sum(2 * momentum + 1 for momentum, _ in basis)


def basis_text(element: str, name: str, basis: Iterable[Shell]) -> str:
    """Return a basis in CP2K's format."""
    listed = list(basis)
    lines = [f"{element} {name}", f"  {len(listed)}"]
    for momentum, pairs in listed:
        lines.append(f"  1 {momentum} {momentum} {len(pairs)} 1")
        lines.extend(f"    {x:.10g} {c:.10g}" for x, c in pairs)
    return "\n".join(lines) + "\n"


def potential_text(elements: Iterable[str]) -> str:
    """Return the bare nuclei of elements in CP2K's format."""
    lines = []
    for e in elements:
        p = OTHERS.index(e) + 1 - _IN_S[e]
        electrons = f"{_IN_S[e]} {p}" if p else f"{_IN_S[e]}"
        lines += [f"{e} ALL", f"  {electrons}", f"  {_RADIUS_A0.get(e, _OTHER_RADIUS_A0)} 0"]
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=64)
def content_hash(basis: str, elements: tuple[str, ...]) -> str:
    """Return a hash of the functions of a basis for elements.

    Raises
    ------
    UserError
        It has none for the only element asked for; see also :func:`shells`.
    """
    content = {e: shells(basis, e) for e in elements}
    if len(elements) == 1 and content[elements[0]] is None:
        raise UserError(f"basis {basis} has no functions for {elements[0]}", hint="try pcX-1")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
