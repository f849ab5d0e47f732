"""What is changed in the inputs that ``init_lapw`` has made: text in, text out.

Layouts are those of the WIEN2k user's guide and of genuine files; whatever looks otherwise is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "InputError",
    "electrons",
    "hole_occupation",
    "kgen_answers",
    "mesh_of",
    "with_bands_to",
    "with_electrons",
    "with_hole",
    "with_mixing",
    "xspec_input",
]

_ORBITALS = re.compile(r"^\s*(\d+)\s+[-\d.]+\s+\d+")
_SHELL = re.compile(r"^(\s*)(\d+)(\s*,\s*)(-?\d+)(\s*,\s*)(\d+(?:\.\d*)?)(.*)$")
_SECOND_NUMBER = re.compile(r"^(\s*[-+\d.]+\s+)(\d+(?:\.\d*)?)(\s)")
_UNIT = "K-VECTORS FROM UNIT:"
_BROADENING_EV = 0.5  # of case.xspec, which is not read: the unbroadened spectrum lies beside it
_PREEDGE_EV = 2.0


class InputError(ValueError):
    """An input of WIEN2k's is not as the user's guide describes it."""


def _shell_1s(text: str) -> tuple[list[str], int]:
    """Return the lines of ``case.inc`` and which of them is the 1s of the first atom."""
    lines = text.splitlines()
    count = _ORBITALS.match(lines[0]) if lines else None
    if count is None:
        raise InputError("case.inc does not begin with a number of orbitals")
    for index in range(1, int(count[1]) + 1):
        shell = _SHELL.match(lines[index]) if index < len(lines) else None
        if shell is None:
            raise InputError("case.inc: the first atom has fewer shells than it says")
        if (shell[2], shell[4]) == ("1", "-1"):
            return lines, index
    raise InputError("case.inc: 1s of the first atom is no core state")


def with_hole(inc: str) -> str:
    """Return ``case.inc`` with one electron instead of two in the 1s of the first atom."""
    lines, index = _shell_1s(inc)
    shell = _SHELL.match(lines[index])
    assert shell is not None
    if float(shell[6]) != 2:
        raise InputError(f"case.inc: 1s of the first atom holds {shell[6]} electrons, not 2")
    lines[index] = f"{shell[1]}1{shell[3]}-1{shell[5]}1{shell[7]}"
    return "\n".join(lines) + "\n"


def hole_occupation(inc: str) -> float:
    """Return how many electrons the 1s of the first atom holds."""
    lines, index = _shell_1s(inc)
    shell = _SHELL.match(lines[index])
    assert shell is not None
    return float(shell[6])


def _line_of_electrons(in2: str) -> tuple[list[str], re.Match[str]]:
    lines = in2.splitlines()
    found = _SECOND_NUMBER.match(lines[1]) if len(lines) > 1 else None
    if found is None:
        raise InputError("case.in2 has no number of electrons in its second line")
    return lines, found


def electrons(in2: str) -> float:
    """Return the valence electrons in a cell by ``case.in2``."""
    return float(_line_of_electrons(in2)[1][2])


def with_electrons(in2: str, number: float) -> str:
    """Return ``case.in2`` with another number of valence electrons."""
    lines, found = _line_of_electrons(in2)
    lines[1] = f"{found[1]}{number:.2f}{lines[1][found.end(2) :]}"
    return "\n".join(lines) + "\n"


def with_mixing(inm: str, *, background: float, numerics: Mapping[str, Any]) -> str:
    """Return ``case.inm`` with a uniform charge and another way of mixing.

    Parameters
    ----------
    inm
        As ``lstart`` wrote it: ``MSR1   0.0   YES  (...)`` in fixed columns (a5, f8.2), then the mixing factor.
    background
        -1 for a cell that a core electron has left, as the user's guide says.
    numerics
        Of :mod:`htxas.engines.wien2k.corrections`.
    """
    lines = inm.splitlines()
    rest = lines[0][13:] if lines else ""
    if len(lines) < 2 or not re.match(r"[A-Z0-9]{4,5}\s*-?[\d.]+(?:d0)?\s", lines[0]) or not rest.strip():
        raise InputError("case.inm does not begin with a way of mixing and a charge")
    scheme = str(numerics.get("mixing", lines[0][:5].strip()))
    lines[0] = f"{scheme:<5}{background:5.1f}   {rest}"
    if "mixing_factor" in numerics:
        first = re.match(r"\s*[\d.]+", lines[1])
        if first is None:
            raise InputError("case.inm has no mixing factor in its second line")
        lines[1] = f"{numerics['mixing_factor']:.3f}{lines[1][first.end() :]}"
    return "\n".join(lines) + "\n"


def with_bands_to(in1: str, above_Ry: float, bands: int) -> str:
    """Return ``case.in1`` for levels up to ``above_Ry`` above the Fermi level, ``bands`` at most.

    Its last line, from column 22: emin and the window above the Fermi level (older versions: the energy itself) as two
    numbers of ten columns, then the most bands.
    """
    lines = in1.splitlines()
    last = lines[-1] if lines else ""
    if not last.startswith(_UNIT) or not re.fullmatch(r"\s*-?[\d.]+\s*", last[31:41]):
        raise InputError("case.in1 does not end with the energies of the bands")
    count = re.match(r"\s*(\d+)", last[41:])
    rest = "" if count is None else last[41 + count.end() :]
    most = max(bands, 0 if count is None else int(count[1]))
    lines[-1] = f"{last[:31]}{above_Ry:7.1f}   {most:<6d}{rest.lstrip() if rest.strip() else ''}".rstrip()
    return "\n".join(lines) + "\n"


def kgen_answers(divisions: tuple[int, int, int]) -> str:
    """Return what ``x kgen`` asks for: 0 (divisions are said), the divisions, 0 (not shifted)."""
    return "0\n{} {} {}\n0\n".format(*divisions)


def mesh_of(klist: str) -> tuple[int, int, int] | None:
    """Return the divisions that ``case.klist`` says it has, in three columns each."""
    found = re.search(r"div: \((...)(...)(...)\)", klist)
    try:
        return None if found is None else (int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


def xspec_input(title: str, window_eV: float, step_eV: float) -> str:
    """Return ``case.inxs``: absorption of the first atom's 1s, up to ``window_eV`` above the Fermi level."""
    rows = (
        (title, ""),
        ("1", "(atom)"),
        ("1", "(n core)"),
        ("0", "(l core)"),
        ("0,0.5,0.5", "(split, int1, int2)"),
        (f"{-_PREEDGE_EV:g},{step_eV:g},{window_eV:.2f}", "(EMIN,DE,EMAX in eV)"),
        ("ABS", "(type of spectrum)"),
        (f"{_BROADENING_EV:.2f}", "(S)"),
        (f"{_BROADENING_EV:.2f}", "(gamma0)"),
        (f"{_BROADENING_EV:.2f}", "(W, only for EMIS)"),
        ("AUTO", "(AUTO or MANually select Energy ranges for broadening)"),
    )
    return "".join(f"{value:<16}{comment}".rstrip() + "\n" for value, comment in rows)
