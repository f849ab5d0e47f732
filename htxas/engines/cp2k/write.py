"""The inputs of a run directory: one for each step, and the basis and potential files they share.

A ground state is one step, ``ground``: closed-shell, in the valence basis. A site is ``base``, the same molecule with
the absorber's own basis; ``ion``, 1s empty; ``half``, 1s half empty (transition potential); and, by the scale,
``neutral``, 1s empty and the electron in the lowest empty level. The last ones start from ``base``'s orbitals: their
own, CP2K's core-level module would overwrite with those of the hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.elements import atomic_number
from htxas.domain.structure import Structure
from htxas.engines.cp2k.basis import Shell, basis_text, count, potential_text, shells
from htxas.engines.cp2k.corrections import DEFAULTS
from htxas.engines.cp2k.parameters import Ground, absorber_basis, ground_of, hole_of
from htxas.errors import Cause, EngineFailure

__all__ = ["ABSORBER", "START", "Step", "core_count", "files", "project", "steps_of"]

ABSORBER = "HOLE"
"""Name of the absorber's kind."""

START = "start.wfn"
"""Orbitals of ``base`` from an earlier attempt."""

_FUNCTIONALS = {
    "PBE": ["&XC_FUNCTIONAL PBE", "&END"],
    "r2SCAN": ["&XC_FUNCTIONAL", "&MGGA_X_R2SCAN", "&END", "&MGGA_C_R2SCAN", "&END", "&END"],
}


@dataclass(frozen=True, slots=True)
class Step:
    """One run of CP2K.

    Attributes
    ----------
    name
        Of its input and output.
    method
        Of CP2K's core-level module; None without a hole.
    occupation
        Electrons in the spin orbital of the hole.
    charge
        Of the molecule with the hole, in electrons taken away.
    """

    name: str
    method: str | None = None
    occupation: float = 1.0
    charge: float = 0.0


_STEPS = {
    "ground": Step("ground"),
    "base": Step("base"),
    "ion": Step("ion", "TP_FH", 0.0, 1.0),
    "half": Step("half", "TP_HH", 0.5, 0.5),
    "neutral": Step("neutral", "DSCF", 0.0, 0.0),
}


def steps_of(calculation: Calculation) -> tuple[Step, ...]:
    """Return the runs of CP2K that a calculation takes."""
    if calculation.kind is Kind.GROUND:
        return (_STEPS["ground"],)
    names = ["base", "ion", "half"]
    if hole_of(calculation.parameters).scale == "neutral":
        names.append("neutral")
    return tuple(_STEPS[n] for n in names)


def project(step: Step, calculation: Calculation) -> str:
    """Return CP2K's project name: it is in the output and in every file name of a step."""
    return f"{step.name}-{calculation.key[:12]}"


def core_count(structure: Structure, element: str) -> int:
    """Return how many core levels there may be from the lowest up to the 1s of ``element``."""
    lowest = atomic_number(element)
    return sum(5 if z > 10 else 1 for z in structure.atomic_numbers if z >= lowest)


def files(
    calculation: Calculation, structure: Structure, numerics: Mapping[str, Any], *, start: bool = False
) -> dict[str, str]:
    """Return name -> text of all input files.

    Parameters
    ----------
    calculation, structure, numerics
        The job's.
    start
        Whether ``base`` starts from :data:`START`.

    Raises
    ------
    EngineFailure
        BAD_INPUT: an element has no basis functions.
    UnsupportedInput
        The molecule does not fit into its box.
    """
    sets = _basis(calculation, structure)
    functions = sum(
        count(sets[ABSORBER if i == calculation.atom else e]) for i, e in enumerate(structure.symbols)
    )
    empty = functions - sum(structure.atomic_numbers) // 2
    out = {
        "BASIS": "".join(
            basis_text(calculation.element or "" if kind == ABSORBER else kind, _name(kind), basis)
            for kind, basis in sets.items()
        ),
        "POTENTIAL": potential_text(structure.composition),
    }
    used = {**DEFAULTS, **numerics}
    for step in steps_of(calculation):
        lines = [
            *_section(
                "GLOBAL", [f"PROJECT {project(step, calculation)}", "RUN_TYPE ENERGY", "PRINT_LEVEL LOW"]
            ),
            *_section(
                "FORCE_EVAL",
                [
                    "METHOD QS",
                    *_section("DFT", _dft(step, calculation, structure, used, empty, start=start)),
                    *_section("SUBSYS", _subsystem(calculation, structure)),
                ],
            ),
        ]
        out[f"{step.name}.inp"] = "\n".join(lines) + "\n"
    return out


def _basis(calculation: Calculation, structure: Structure) -> dict[str, tuple[Shell, ...]]:
    """Return kind -> functions."""
    out: dict[str, tuple[Shell, ...]] = {}
    name = ground_of(calculation.parameters).valence_basis
    others = (e for i, e in enumerate(structure.symbols) if i != calculation.atom)
    for element in dict.fromkeys(others):
        out[element] = _known(name, element)
    if calculation.element is not None:
        out[ABSORBER] = absorber_basis(hole_of(calculation.parameters), calculation.element)
    return out


def _known(basis: str, element: str) -> tuple[Shell, ...]:
    found = shells(basis, element)
    if found is None:
        raise EngineFailure(Cause.BAD_INPUT, f"basis {basis} has no functions for {element}")
    return found


def _name(kind: str) -> str:
    return "CORE" if kind == ABSORBER else "VALENCE"


def _section(name: str, content: Sequence[str]) -> list[str]:
    return [f"&{name}", *(f" {line}" for line in content), f"&END {name.split()[0]}"]


def _off(name: str) -> list[str]:
    return [f"&{name} OFF", f"&END {name}"]


def _dft(
    step: Step,
    calculation: Calculation,
    structure: Structure,
    numerics: Mapping[str, Any],
    empty: int,
    *,
    start: bool,
) -> list[str]:
    p = ground_of(calculation.parameters)
    hole = step.method is not None
    orbitals = None
    if hole:
        orbitals = f"{project(_STEPS['base'], calculation)}-RESTART.wfn"
    elif start and step.name == "base":
        orbitals = START
    lines = ["BASIS_SET_FILE_NAME ./BASIS", "POTENTIAL_FILE_NAME ./POTENTIAL"]
    if orbitals is not None:
        lines.append(f"WFN_RESTART_FILE_NAME ./{orbitals}")
    if hole:
        lines.append("LSD")
    all_empty = {"ground": [f"ADDED_MOS {empty}"], "base": []}.get(step.name, [f"ADDED_MOS {empty} {empty}"])
    restart = _section("RESTART", []) if step.name == "base" else _off("RESTART")
    scf = [
        f"SCF_GUESS {'ATOMIC' if orbitals is None else 'RESTART'}",
        *_cycles(p, numerics),
        *all_empty,
        *_section("PRINT", [*restart, *_off("RESTART_HISTORY")]),
    ]
    grid = [f"CUTOFF {p.cutoff_Ry:.10g}", f"REL_CUTOFF {p.relative_cutoff_Ry:.10g}"]
    return [
        *lines,
        *_section("MGRID", grid),
        *_section("QS", ["METHOD GAPW", "EPS_DEFAULT 1.0E-10"]),
        *_section("POISSON", ["PERIODIC NONE", "POISSON_SOLVER WAVELET"]),
        *_section("SCF", scf),
        *(_section("XAS", _xas(step, calculation, structure, p, numerics)) if hole else []),
        *_section("XC", _FUNCTIONALS[p.functional]),
        *(_section("PRINT", _ground_print(structure)) if step.name == "ground" else []),
    ]


def _cycles(p: Ground, numerics: Mapping[str, Any]) -> list[str]:
    return [
        f"EPS_SCF {p.density_tolerance:.10g}",
        f"MAX_SCF {numerics['iterations']}",
        f"EPS_DIIS {numerics['eps_diis']:.10g}",
        f"MAX_DIIS {numerics['max_diis']}",
        *_section("MIXING", ["METHOD DIRECT_P_MIXING", f"ALPHA {numerics['mixing']:.10g}"]),
    ]


def _xas(
    step: Step, calculation: Calculation, structure: Structure, p: Ground, numerics: Mapping[str, Any]
) -> list[str]:
    assert calculation.atom is not None
    assert calculation.element is not None
    wanted = [line for name in ("PROGRAM_RUN_INFO", "XAS_SPECTRUM", "PDOS") for line in _section(name, [])]
    unwanted = [line for name in ("XES_SPECTRUM", "RESTART") for line in _off(name)]
    return [
        f"METHOD {step.method}",
        f"ATOMS_LIST {calculation.atom + 1}",
        "STATE_TYPE 1S",
        f"STATE_SEARCH {core_count(structure, calculation.element)}",
        "DIPOLE_FORM LENGTH",
        *_section("LOCALIZE", []),
        *_section("SCF", _cycles(p, numerics)),
        *_section("PRINT", [*wanted, *unwanted]),
    ]


def _ground_print(structure: Structure) -> list[str]:
    lists = [line for i in range(len(structure)) for line in _section("LDOS", [f"LIST {i + 1}"])]
    return [*_section("PDOS", lists), *_section("MOMENTS", ["PERIODIC F"])]


def _subsystem(calculation: Calculation, structure: Structure) -> list[str]:
    p = ground_of(calculation.parameters)
    cell = p.box.build(structure)
    side = float(cell.cell_A[0, 0])
    labels = [ABSORBER if i == calculation.atom else e for i, e in enumerate(structure.symbols)]
    atoms = [
        f"{label} " + " ".join(f"{x:.8f}" for x in position)
        for label, position in zip(labels, cell.positions_A, strict=True)
    ]
    kinds = []
    for label in dict.fromkeys(labels):
        element = calculation.element if label == ABSORBER else label
        content = [
            f"ELEMENT {element}",
            f"BASIS_SET {_name(label)}",
            "POTENTIAL ALL",
            f"LEBEDEV_GRID {p.angular_points}",
            f"RADIAL_GRID {p.radial_points}",
        ]
        kinds += _section(f"KIND {label}", content)
    return [
        *_section("CELL", ["ABC " + " ".join([f"{side:.8f}"] * 3), "PERIODIC NONE"]),
        *_section("COORD", atoms),
        *kinds,
    ]
