"""From a folder WIEN2k has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence
from htxas.domain.result import CurveResult
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.external import exhausted, log_tail, provenance_of
from htxas.engines.wien2k.inputs import InputError, hole_occupation, mesh_of
from htxas.engines.wien2k.parameters import Wien2kParameters, parameters_from
from htxas.engines.wien2k.scf import (
    OutputError,
    Scf,
    ended_with_error,
    error_text,
    read_bands,
    read_scf,
    scf_state,
)
from htxas.engines.wien2k.spectrum import absolute, read_txspec
from htxas.engines.wien2k.structure import Layout, StructError, misfit, read_struct
from htxas.engines.wien2k.write import EXCITED, GROUND, HOLE, cases, layout_of, title
from htxas.errors import Cause, EngineFailure

__all__ = ["site_result", "unfinished"]

_RYDBERG_EV = HARTREE_EV / 2
_TITLE_LEAST = 18  # with the calculation's key; the rest may be cut off
_SAME_RKMAX = 0.05
_SAME_ELECTRONS = 0.01
_SAME_CHARGE = 0.3  # before normalisation some charge of core states lies outside their spheres
_SAME_SPHERE_A0 = 1e-4


def unfinished(directory: Path) -> EngineFailure:
    """Return the failure of a run whose process is gone: where WIEN2k stood."""
    at = _last_step(directory)
    where = "before it began" if at is None else f"in {at.parent.name}/{at.stem}"
    folder = directory / GROUND if at is None else at.parent
    return _bad(Cause.ENGINE_CRASH, f"WIEN2k's process ended {where}, without a word", folder)


def site_result(job: Job, directory: Path, outcome: Mapping[str, Any]) -> CurveResult:
    """Return the spectrum of a site.

    The excitation energy is the difference of total energies of all electrons, ``E_ex - E_gs`` (Mizoguchi, Tanaka, Gao
    and Pickard, J. Phys.: Condens. Matter 21, 104204 (2009)); the lowest empty level beside the hole is put there.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, BAD_INPUT (WIEN2k refused it), ENGINE_CRASH, OUT_OF_MEMORY, DISK_FULL or BAD_OUTPUT.
    """
    c = job.calculation
    assert c.atom is not None
    parameters = parameters_from(c.parameters)
    _refuse_changed(directory, outcome)
    names = cases(directory)
    for name in names:
        _refuse_broken(directory / name, outcome)
    try:
        layout = layout_of(job.structure, c.atom, parameters)
        states = {name: _state(directory / name, name, layout, parameters, outcome) for name in names}
        expected = title(c.key, job.structure.formula)
        for name, state in states.items():
            if len(state.title) < _TITLE_LEAST or not expected.startswith(state.title):
                raise OutputError(f"{name}.scf is of {state.title!r}, not of {expected!r}")
        _refuse_unlike(directory, states, layout)
        return _result(directory, outcome, states, layout, parameters)
    except (OutputError, StructError, InputError) as error:
        raise _bad(Cause.BAD_OUTPUT, str(error), directory / HOLE) from None


def _result(
    directory: Path,
    outcome: Mapping[str, Any],
    states: Mapping[str, Scf],
    layout: Layout,
    parameters: Wien2kParameters,
) -> CurveResult:
    bands = read_bands(_text(directory / HOLE / f"{HOLE}.scf2"))
    _refuse_electrons(bands.electrons, outcome["valence_electrons"][HOLE], "the spectrum was made")
    energies = {name: state.energy_Ry * _RYDBERG_EV for name, state in states.items()}
    ground_eV = energies[GROUND] * len(layout.hole) / len(layout.unit)
    transition_eV = energies[EXCITED if EXCITED in energies else HOLE] - ground_eV
    grid, absorption = read_txspec(_text(directory / HOLE / f"{HOLE}.txspec"))
    curve, background, normalisation = absolute(grid, absorption, bands, transition_eV, parameters.window_eV)
    version = states[HOLE].version
    provenance = provenance_of(
        outcome,
        directory,
        version=version,
        libraries={"wien2k": version},
        extra={
            "program": outcome["program"],
            "steps_s": outcome["steps_s"],
            "scf_iterations": {name: state.iterations for name, state in states.items()},
            "energies_eV": {**energies, "ground_in_supercell": ground_eV},
            "rkmax": {name: state.rkmax for name, state in states.items()},
            "atoms": len(layout.hole),
            "spheres_a0": _spheres(directory, HOLE),
            **({"taken_over": outcome["taken_over"]} if "taken_over" in outcome else {}),
            "gap_eV": round((bands.first_empty_Ry - bands.fermi_Ry) * _RYDBERG_EV, 4),
        },
    )
    return CurveResult(
        convergence=Convergence.CONVERGED,  # of every state: others have been refused
        curve=curve,
        background=background,
        edge_eV=transition_eV,
        fermi_eV=bands.fermi_Ry * _RYDBERG_EV,
        lifetime_eV=0.0,
        normalisation=normalisation,
        scale=_scale(parameters, version),
        doubts=_doubts(states),
        dos=None,
        provenance=provenance,
    )


def _scale(parameters: Wien2kParameters, version: str) -> str:
    told = (
        f"WIEN2k {version}: total energies of all electrons, E_ex - E_gs, excited electron kept; not aligned"
    )
    if parameters.electron == "background":
        told += "; levels above the first those beside a hole and a uniform charge"
    return told


def _doubts(states: Mapping[str, Scf]) -> tuple[str, ...]:
    doubts = [f"WIEN2k warns in {n}: {w}" for n, s in states.items() for w in s.warnings]
    told = [
        f"WIEN2k marks the total energy of {n} with {s.remark}"
        for n, s in states.items()
        if "WARN" in s.remark
    ]
    return tuple(doubts + told)


def _state(
    folder: Path, name: str, layout: Layout, parameters: Wien2kParameters, outcome: Mapping[str, Any]
) -> Scf:
    """Return a converged state that is the one that was asked for.

    Raises
    ------
    OutputError, StructError, InputError
        In what it is another.
    """
    state = read_scf(_text(folder / f"{name}.scf"))
    cell = layout.unit if name == GROUND else layout.hole
    mesh = layout.unit_mesh if name == GROUND else layout.hole_mesh
    wrong = misfit(
        read_struct(_text(folder / f"{name}.struct")), cell, split=layout.split if name == GROUND else True
    )
    if wrong is not None:
        raise StructError(f"{name}.struct: {wrong}")
    if state.atoms != len(cell):
        raise OutputError(f"{name}.scf has {state.atoms} atoms, the cell {len(cell)}")
    if mesh_of(_text(folder / f"{name}.klist")) != mesh:
        raise OutputError(f"{name}.klist is not of the mesh {mesh}")
    if abs(state.rkmax - parameters.rkmax) > _SAME_RKMAX:
        raise OutputError(
            f"the basis of {name} was cut to RKMAX {state.rkmax:g}, {parameters.rkmax:g} was asked for: WIEN2k's "
            "matrices are compiled too small"
        )
    ion = name == HOLE and parameters.electron == "background"
    more = 1 if name != GROUND and not ion else 0
    _refuse_electrons(state.electrons, outcome["valence_electrons"][name] + more, f"{name} converged")
    missing = state.nuclear - state.electronic
    if not ion and abs(missing) > _SAME_CHARGE:  # of a charged cell it is not documented what is counted
        raise OutputError(f"the cell of {name} lacks {missing:.3f} electrons: it should be neutral")
    if name != GROUND and (held := hole_occupation(_text(folder / f"{name}.inc"))) != 1:
        raise OutputError(f"1s of the absorber holds {held:g} electrons in {name}: there is no hole")
    return state


def _refuse_electrons(found: float, wanted: float, when: str) -> None:
    if abs(found - wanted) > _SAME_ELECTRONS:
        raise OutputError(f"there were {found:g} valence electrons when {when}, not {wanted:g}")


def _refuse_unlike(directory: Path, states: Mapping[str, Scf], layout: Layout) -> None:
    """Refuse energies that are not to be compared: of other spheres, versions, or core states."""
    without = _spheres(directory, GROUND)
    for name, state in states.items():
        if state.version != states[GROUND].version:
            raise OutputError(f"{name} is of WIEN2k {state.version}, ground of {states[GROUND].version}")
        for element, radius in _spheres(directory, name).items():
            if abs(radius - without.get(element, np.inf)) > _SAME_SPHERE_A0:
                raise OutputError(
                    f"the sphere of {element} is {radius:g} bohr in {name}, {without.get(element)} without the hole: "
                    "their energies cannot be compared; give the radii in spheres_a0"
                )
    told = {n: s.electrons for n, s in states.items()}
    folded = told[GROUND] * len(layout.hole) / len(layout.unit)
    for name in states.keys() - {GROUND}:
        if not -_SAME_ELECTRONS <= told[name] - folded <= 1 + _SAME_ELECTRONS:
            raise OutputError(
                f"{name} has {told[name]:g} valence electrons, as many cells without the hole {folded:g}: core and "
                "valence states are not the same ones"
            )


def _spheres(directory: Path, name: str) -> dict[str, float]:
    """Return the radius of each element's spheres.

    Raises
    ------
    StructError
        An element has several.
    """
    found: dict[str, float] = {}
    file = read_struct(_text(directory / name / f"{name}.struct"))
    for label, radius in zip(file.names, file.spheres_a0, strict=True):
        element = label[:2].strip()
        if abs(found.setdefault(element, radius) - radius) > _SAME_SPHERE_A0:
            raise StructError(f"the spheres of {element} in {name} have different radii")
    return found


def _refuse_changed(directory: Path, outcome: Mapping[str, Any]) -> None:
    """Refuse files that are not as the process left them: cut short by a copy, or of another run."""
    for name, digest in outcome["outputs_sha256"].items():
        path = directory / name
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != digest:
            raise _bad(Cause.BAD_OUTPUT, f"{name} is not as the run left it", path.parent)


def _refuse_broken(folder: Path, outcome: Mapping[str, Any]) -> None:
    """Raise the cause of a state's failure, if it failed."""
    name = folder.name
    ended_in = str(outcome.get("ended_in") or "")
    said = error_text(folder)
    printed = "\n".join(_text(p) for p in sorted(folder.glob("*.out")))
    state = scf_state(folder)
    cause = exhausted(f"{said}\n{printed}") if said or state is not Convergence.CONVERGED else None
    if cause is not None:
        raise _bad(cause, f"WIEN2k ended in {name}: {said or 'it ran out of resources'}", folder)
    if ended_in.startswith((f"{name}/init_lapw", f"{name}/kgen")):
        raise _bad(Cause.BAD_INPUT, f"WIEN2k refuses {name}: {said or 'init_lapw made no inputs'}", folder)
    if said or ended_with_error(_text(folder / f"{name}.dayfile")):
        raise _bad(Cause.ENGINE_CRASH, f"WIEN2k ended in {ended_in or name}: {said or 'stop error'}", folder)
    if state is Convergence.UNCONVERGED:
        raise _bad(Cause.SCF_UNCONVERGED, f"the density of {name} did not converge", folder)
    if state is Convergence.UNKNOWN:
        raise _bad(Cause.ENGINE_CRASH, f"run_lapw never said how {name} ended", folder)


def _last_step(directory: Path) -> Path | None:
    """Return the output of the last step that began."""
    for name in reversed(cases(directory)):
        outputs = sorted((directory / name).glob("*.out"), key=lambda p: p.stat().st_mtime_ns)
        if outputs:
            return outputs[-1]
    return None


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _bad(cause: Cause, message: str, folder: Path) -> EngineFailure:
    logs = {
        "log_tail": _text(folder / f"{folder.name}.dayfile"),
        "output_tail": "\n".join(
            _text(p) for p in sorted(folder.glob("*.out"), key=lambda p: p.stat().st_mtime_ns)
        ),
    }
    evidence = {key: tail for key, text in logs.items() if (tail := log_tail(text))}
    if "log_tail" not in evidence and "output_tail" in evidence:
        evidence["log_tail"] = evidence.pop("output_tail")
    return EngineFailure(cause, message, evidence=evidence, where=str(folder))
