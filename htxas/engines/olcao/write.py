"""``olcao.skl``, and what is changed in the ``olcao.dat`` that ``makeinput`` makes of it.

Layouts are those that OLCAO's own scripts read and write. The atoms of the supercell are listed one by one: those of
one crystal site have one tag, so that they share basis functions and, outside the hole's sphere, potentials.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from htxas.domain.edges import BINDING_EV
from htxas.domain.structure import Structure
from htxas.engines.cells import Cell
from htxas.engines.olcao.corrections import ITERATIONS
from htxas.engines.olcao.parameters import FUNCTIONALS, OlcaoParameters

__all__ = [
    "SLACK_EV",
    "InputError",
    "changed_input",
    "computed_window_eV",
    "lay_out",
    "makeinput_words",
    "skeleton",
]

SLACK_EV = 5.0
"""OLCAO's spectra begin at a whole multiple of this below the first final state."""

_RELAXED_SHARE, _RELAXED_LEAST_EV = 0.12, 15.0


class InputError(ValueError):
    """An input is not as OLCAO's scripts write it."""


def lay_out(
    structure: Structure, atom: int, parameters: OlcaoParameters
) -> tuple[Cell, tuple[int, int, int]]:
    """Return the supercell, the absorber (canonical index ``atom``) first, and the divisions of its k points.

    Raises
    ------
    UnsupportedInput
        As :meth:`htxas.engines.cells.Supercell.build`.
    """
    cell = parameters.supercell.build(structure)
    order = [atom, *(i for i in range(len(cell)) if i != atom)]
    ordered = Cell(
        tuple(cell.symbols[i] for i in order),
        cell.positions_A[order],
        cell.cell_A,
        tuple(cell.origin[i] for i in order),
    )
    return ordered, parameters.kpoints.build(cell.cell_A)


def skeleton(title: str, cell: Cell) -> str:
    """Return ``olcao.skl``: lattice vectors as they are, so that x, y and z of the spectrum are the structure's."""
    ranks: dict[tuple[str, int], int] = {}
    for symbol, origin in sorted(set(zip(cell.symbols, cell.origin, strict=True)), key=lambda p: p[1]):
        ranks[symbol, origin] = 1 + sum(s == symbol for s, _ in ranks)
    lines = ["title", title, "end", "cellxyz fixed"]
    lines += ["".join(f"{x:16.8f}" for x in row) for row in cell.cell_A]
    lines.append(f"cart {len(cell)}")
    for symbol, origin, position in zip(cell.symbols, cell.origin, cell.positions_A, strict=True):
        tag = f"{symbol}{ranks[symbol, origin]}"
        lines.append(f"{tag:<8}" + "".join(f"{x:16.8f}" for x in position + 0.0))
    return "\n".join([*lines, "space 1_a", "supercell 1 1 1", "full", ""])


def makeinput_words(parameters: OlcaoParameters, divisions: tuple[int, int, int]) -> list[str]:
    """Return the options of ``makeinput``: inputs of the first atom's core hole."""
    return [
        *("-kp", *map(str, divisions)),
        *("-kpshift", *_shifts(divisions, shifted=parameters.kpoints.shifted)),
        *("-xccode", str(FUNCTIONALS[parameters.functional])),
        *("-statefactor", f"{parameters.states_per_electron:g}"),
        *("-xanes", "-sphere", f"{parameters.sphere_A:g}", "-atom", "1"),
    ]


def _shifts(divisions: tuple[int, int, int], *, shifted: bool) -> list[str]:
    """Return by how much of a step each direction's points are to be moved.

    OLCAO 2026: those of an odd number have the zone's centre among them by themselves, those of an even one do not.
    """
    return ["0.5" if (n % 2 == 0) != shifted else "0.0" for n in divisions]


def computed_window_eV(parameters: OlcaoParameters, element: str) -> float:
    """Return the window OLCAO must be told, eV.

    It drops transitions by the difference of their orbital energies, which with a hole is some percent more than the
    difference of total energies at which it puts the first: it would cut the spectrum off, without a word.
    """
    binding = BINDING_EV.get((element, "K"), 0.0)
    return parameters.window_eV + 2 * SLACK_EV + max(_RELAXED_LEAST_EV, _RELAXED_SHARE * binding)


def changed_input(dat: str, parameters: OlcaoParameters, element: str, numerics: Mapping[str, Any]) -> str:
    """Return ``olcao.dat`` with the spectrum's grid and width, the criterion and the limits of convergence.

    Raises
    ------
    InputError
        It has not the lines that are to be changed, or another functional than was asked for.
    """
    functional = FUNCTIONALS[parameters.functional]
    if not re.search(rf"^XC_CODE\n\s*{functional}\s*$", dat, re.MULTILINE):
        raise InputError(f"olcao.dat is not of functional {functional}")
    most = round(ITERATIONS * float(numerics.get("iterations_factor", 1.0)))
    dat = _after(dat, "LAST_ITERATION", 1, f"{most}")
    dat = _after(dat, "CONVERGENCE_TEST", 1, f"{parameters.convergence:.8f}")
    if "relaxation" in numerics:
        dat = _after(dat, "RELAXATION_FACTOR", 1, f"{numerics['relaxation']:g}")
    dat = _after(dat, "PACS_INPUT_DATA", 2, f"{parameters.step_eV:g} {parameters.width_eV:g}")
    window = computed_window_eV(parameters, element)
    return _after(dat, "PACS_INPUT_DATA", 3, f"{SLACK_EV:g} {window:.1f}")


def _after(dat: str, label: str, distance: int, values: str) -> str:
    """Return the text with the numbers of the line ``distance`` below a label replaced; its comment stays."""
    lines = dat.splitlines()
    places = [i for i, line in enumerate(lines) if line.strip() == label]
    if len(places) != 1 or places[0] + distance >= len(lines):
        raise InputError(f"olcao.dat has {len(places)} times {label}")
    old, mark, comment = lines[places[0] + distance].partition("!")
    if len(old.split()) != len(values.split()) or not all(
        re.fullmatch(r"[-+.\deE]+", w) for w in old.split()
    ):
        raise InputError(f"olcao.dat: below {label} there is {old.strip()!r}")
    lines[places[0] + distance] = f"{values:<24}{mark}{comment}".rstrip()
    return "\n".join(lines) + "\n"
