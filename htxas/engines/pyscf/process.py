"""The engine process: one directory per job, or a server that shares work between the sites of a molecule.

Run as ``python -m htxas.engines.pyscf DIR`` or, with ``--serve``, one directory per line on standard input.
It never sees a database. ``outcome.json`` is written last, whole or not at all; an unexpected exception ends the
process with its traceback, which is what "engine crash" means.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.structure import Structure
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import JOB_FILE, Job, read_job
from htxas.engines.pyscf import corehole, final_states, ground
from htxas.engines.pyscf.absolute import absolute_scale
from htxas.engines.pyscf.checkpoint import Checkpoint
from htxas.engines.pyscf.parameters import other_content
from htxas.engines.pyscf.scf import PLAIN, Aids
from htxas.engines.pyscf.surroundings import refuse_configuration, surroundings
from htxas.engines.pyscf.versions import libraries
from htxas.errors import Cause, EngineFailure

__all__ = ["ARRAYS", "ORBITALS", "OUTCOME", "main", "run_directory"]

OUTCOME = "outcome.json"
ARRAYS = "result.npz"
ORBITALS = "ground.npz"
_USUAL_MB = 6000.0  # of one worker, where nobody has said
_SAME_GROUND_EV = 1e-3  # the same state on another machine differs by its thresholds, 0.1 meV


@dataclass(slots=True)
class Shared:
    """The last ground state, kept for the next sites of the same molecule."""

    key: str | None = None
    state: ground.GroundState | None = None
    origin: str = ""


def run_directory(directory: Path, shared: Shared) -> int:
    """Run the job in ``directory``; return 0 if a result was written, 1 for a named failure."""
    started, wall, cpu = datetime.now(UTC), time.perf_counter(), time.process_time()
    outcome: dict[str, Any] = {"started": started.isoformat(), "host": platform.node()}
    job: Job | None = None
    try:
        job = read_job(directory)
        outcome["key"] = job.calculation.key
        _refuse_other_physics(job)
        arrays, facts = (
            _ground(job, directory, shared)
            if job.calculation.kind is Kind.GROUND
            else _site(job, shared, directory)
        )
        facts["extra"] |= surroundings()
        _write_atomically(directory / ARRAYS, lambda path: np.savez(path, **arrays))
        outcome |= {"status": "ok", "arrays_sha256": _sha256(directory / ARRAYS), **facts}
    except EngineFailure as failure:
        outcome |= {"status": "failed", "failure": failure.to_dict()}
    except ValueError as error:
        if job is not None:
            raise
        outcome |= {"status": "failed", "failure": EngineFailure(Cause.BAD_INPUT, str(error)).to_dict()}
    except MemoryError:
        shared.key = shared.state = None
        message = "the engine process ran out of memory"
        outcome |= {"status": "failed", "failure": EngineFailure(Cause.OUT_OF_MEMORY, message).to_dict()}
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"no space left while writing {error.filename or directory}"
        outcome |= {"status": "failed", "failure": EngineFailure(Cause.DISK_FULL, message).to_dict()}
    outcome |= {
        "ended": datetime.now(UTC).isoformat(),
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "libraries": libraries(),
    }
    if (directory / JOB_FILE).exists():
        outcome["inputs_sha256"] = {JOB_FILE: _sha256(directory / JOB_FILE)}
    text = json.dumps(outcome, indent=1, allow_nan=True) + "\n"
    _write_atomically(directory / OUTCOME, lambda path: path.write_text(text))
    return 0 if outcome["status"] == "ok" else 1


def _write_atomically(path: Path, write: Any) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    write(draft)
    with draft.open("rb") as file:  # a name must not outlive its content when the node goes down
        os.fsync(file.fileno())
    draft.replace(path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _convergence(*converged: bool) -> str:
    return (Convergence.CONVERGED if all(converged) else Convergence.UNCONVERGED).value


def _refuse_other_physics(job: Job) -> None:
    """Refuse to compute what would be stored under an identity that is not its own."""
    refuse_configuration()
    parameters = job.calculation.parameters
    other = other_content(parameters if job.calculation.kind is Kind.GROUND else parameters["ground"])
    if other is not None:
        raise EngineFailure(
            Cause.BAD_INPUT,
            f"the calculation was made with {other}; compute it where the versions are the same",
        )


def _aids(numerics: Mapping[str, Any]) -> Aids:
    """Return the aids of an attempt; :mod:`htxas.engines.pyscf.corrections` says what they are."""
    return Aids(
        level_shift_Ha=float(numerics.get("level_shift_Ha", PLAIN.level_shift_Ha)),
        damping=float(numerics.get("damping", PLAIN.damping)),
        diis_space=int(numerics.get("diis_space", PLAIN.diis_space)),
        cycles_factor=float(numerics.get("cycles_factor", PLAIN.cycles_factor)),
        follow=numerics.get("hole", "lowest") == "follow",
    )


def _start(numerics: Mapping[str, Any]) -> str:
    return str(numerics.get("start", "minao"))


def _checkpoint(job: Job, directory: Path) -> Checkpoint:
    return Checkpoint(directory, job.calculation.key, job.numerics, job.previous_directory)


def _told(job: Job, checkpoint: Checkpoint, aided: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what provenance tells of corrections and of where the run started.

    ``numerics`` are what the attempt might have changed, ``aided`` the states that needed it, with the end of their
    plain iteration; ``another_state`` those that may not be the states it was on its way to.
    """
    told: dict[str, Any] = {}
    if job.numerics:
        told["numerics"] = dict(job.numerics)
    if aided:
        told["aided"] = {name: dict(facts) for name, facts in aided.items()}
    if others := sorted(name for name, facts in aided.items() if facts["another_state"]):
        told["another_state"] = others
    if checkpoint.found:
        told["started_from"] = {"directory": str(job.previous_directory), "states": list(checkpoint.found)}
    return told


def _aided_ground(state: ground.GroundState) -> dict[str, Mapping[str, Any]]:
    return {} if state.aided is None else {"ground": state.aided}


def _with_numerics(state: ground.GroundState, numerics: Mapping[str, Any]) -> ground.GroundState:
    """Return a ground state whose aids, if it needed any, are named wherever it is used."""
    return state if state.aided is None else replace(state, aided={**state.aided, "numerics": dict(numerics)})


def _memory_MB(job: Job) -> float | None:
    if job.memory_MB is not None:
        return job.memory_MB
    return None if job.memory_factor == 1.0 else _USUAL_MB * job.memory_factor


def _ground(job: Job, directory: Path, shared: Shared) -> tuple[dict[str, Any], dict[str, Any]]:
    parameters = job.calculation.parameters
    checkpoint = _checkpoint(job, directory)
    state = ground.run(
        job.structure,
        parameters,
        aids=_aids(job.numerics),
        start_from=_start(job.numerics),
        at=checkpoint.of("ground"),
        memory_MB=_memory_MB(job),
    )
    state = _with_numerics(state, job.numerics)
    checkpoint.remove()
    if state.state.converged:
        shared.key, shared.state, shared.origin = job.calculation.key, state, "same process"
        _write_atomically(directory / ORBITALS, lambda path: ground.save(state, path, job.calculation.key))
    energies, occupations, weights = ground.pdos_arrays(state)
    levels = state.state.levels[0]
    arrays = {
        "pdos_energies_eV": energies,
        "pdos_occupations": occupations,
        "pdos_weights": weights,
        "dipole_D": ground.dipole_D(state),
        "frontier_Ha": levels[state.n_occupied - 1 : state.n_occupied + 1],
        "energy_Ha": np.array(state.state.energy),
    }
    facts = {
        "convergence": _convergence(state.state.converged),
        "extra": {
            "cycles": state.state.cycles,
            "gradient_Ha": state.state.gradient,
            "basis_functions": int(state.hamiltonian.mol.nao),
            "grid_points": len(state.hamiltonian.grid),
            **_told(job, checkpoint, _aided_ground(state)),
        },
    }
    return arrays, facts


def _shared_ground(job: Job, parameters: Mapping[str, Any], shared: Shared) -> ground.GroundState:
    """Return the molecule's ground state: from this process, else from its folder, else computed again.

    Computed again it is what it was: plainly first, and only if that fails with the numerics its own attempt had. The
    site's own corrections are the site's; they help only where nothing is known of the stored ground state.
    """
    key = ground_key(job.structure, parameters)
    folder = job.ground_directory
    if shared.key != key or shared.state is None:
        shared.key = shared.state = None
        guess = None if folder is None else ground.load(folder / ORBITALS, key)
        stored = job.numerics if job.ground_energy_eV is None else job.ground_numerics
        numerics = _numerics_of(folder, key) or stored
        state = ground.run(
            job.structure,
            parameters,
            guess=guess,
            aids=_aids(numerics),
            start_from=_start(numerics),
            memory_MB=_memory_MB(job),
        )
        if not state.state.converged:
            raise EngineFailure(
                Cause.SCF_UNCONVERGED,
                f"the ground state did not converge in {state.state.cycles} cycles",
                evidence={
                    "cycles": state.state.cycles,
                    "gradient_Ha": state.state.gradient,
                    "energy_eV": state.state.energy * HARTREE_EV,
                },
            )
        shared.key = key
        shared.state = state if guess is not None else _with_numerics(state, numerics)
        shared.origin = "computed again" if guess is None else "read from its folder"
    _refuse_other_ground(shared.state, job, key)
    return shared.state


def _numerics_of(folder: Path | None, key: str) -> Mapping[str, Any]:
    """Return the numerics of the attempt that computed a ground state; none if its folder does not tell."""
    if folder is None:
        return {}
    try:
        job = read_job(folder)
    except (OSError, ValueError, KeyError):
        return {}
    return job.numerics if job.calculation.key == key else {}


def _refuse_other_ground(state: ground.GroundState, job: Job, key: str) -> None:
    """Refuse a ground state that is not the stored one: site and ground state would not be of one calculation.

    Raises
    ------
    EngineFailure
        GATE_REJECTED with both energies.
    """
    folder = job.ground_directory
    found = None if folder is None else _stored_energy(folder, key)
    stored_eV = job.ground_energy_eV if found is None else found * HARTREE_EV
    if stored_eV is None:
        return
    difference = state.state.energy * HARTREE_EV - stored_eV
    if abs(difference) > _SAME_GROUND_EV:
        raise EngineFailure(
            Cause.GATE_REJECTED,
            f"the ground state here is {difference * 1000:+.1f} meV from the stored one: they are not the same state",
            evidence={
                "ground_eV": state.state.energy * HARTREE_EV,
                "stored_eV": stored_eV,
                "ground_directory": str(folder),
            },
        )


def _stored_energy(folder: Path, key: str) -> float | None:
    """Return the energy in Hartree of a finished ground state; None if its folder does not tell (any more)."""
    try:
        outcome = json.loads((folder / OUTCOME).read_text())
        if outcome.get("key") != key or outcome.get("convergence") != Convergence.CONVERGED.value:
            return None
        with (folder / ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as data:
            return float(data["energy_Ha"])
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
        return None


def ground_key(structure: Structure, parameters: Mapping[str, Any]) -> str:
    """Return the identity of the ground state that a site with these parameters rests on."""
    return Calculation(Kind.GROUND, structure.key, "pyscf", parameters).key


def _site(job: Job, shared: Shared, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    parameters = job.calculation.parameters
    limits = parameters["ground"]
    base = _shared_ground(job, limits, shared)
    assert job.calculation.atom is not None
    site = base.core_atoms.index(job.calculation.atom)
    checkpoint = _checkpoint(job, directory)
    aids = _aids(job.numerics)
    at = checkpoint.of
    half = corehole.transition_potential(base, site, limits, aids=aids, at=at("transition_potential"))
    cation = corehole.ion(base, half, site, limits, aids=aids, at=at("ion"))
    states = {"transition_potential": half, "ion": cation}
    if parameters["hole"]["scale"] == "neutral":
        for name in ("triplet", "mixed"):
            states[name] = corehole.excited_neutral(
                base, cation, site, limits, triplet=name == "triplet", aids=aids, at=at(name)
            )
    checkpoint.remove()
    _refuse_shake_up(states)
    final = final_states.compute(base, half, job.calculation.atom, parameters["hole"])
    sticks = absolute_scale(base, states, final, parameters["hole"])
    arrays = {
        "energies_eV": sticks.energies_eV,
        "strengths": sticks.strengths,
        "ionization_eV": np.array(sticks.ionization_eV),
        "window_eV": np.array(sticks.window_eV),
        "hole_overlap": np.array(min(s.overlap for s in states.values())),
    }
    aided = _aided_ground(base)
    aided |= {n: s.helped.told(s.state.energy) for n, s in states.items() if s.helped is not None}
    facts = {
        "convergence": _convergence(*(s.state.converged for s in states.values())),
        "scale": sticks.scale,
        "total_energies_eV": sticks.total_energies_eV,
        "extra": {
            "cycles": {name: s.state.cycles for name, s in states.items()},
            "gradient_Ha": {name: s.state.gradient for name, s in states.items()},
            "hole_overlap": {name: s.overlap for name, s in states.items()},
            "electrons_lost": {name: s.electrons_lost for name, s in states.items()},
            "followed": sorted(name for name, s in states.items() if s.followed),
            "ground_state": shared.origin,
            **_told(job, checkpoint, aided),
            **sticks.extra,
        },
    }
    shared.origin = "same process"
    return arrays, facts


def _refuse_shake_up(states: Mapping[str, corehole.HoleState]) -> None:
    """Refuse a converged state that is not the one it was started as; an unconverged one is told by the gate."""
    for name, state in states.items():
        if state.state.converged and not state.is_kept:
            raise EngineFailure(
                Cause.GATE_REJECTED,
                f"the {name} is a shake-up state: {state.electrons_lost:.2f} electrons left their orbitals",
                evidence={"electrons_lost": {n: s.electrons_lost for n, s in states.items()}},
            )


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    from pyscf import lib

    lib.num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    shared = Shared()
    if arguments != ["--serve"]:
        return max([run_directory(Path(a), shared) for a in arguments], default=0)
    for line in sys.stdin:
        directory = line.rstrip("\n")
        code = run_directory(Path(directory), shared)
        sys.stdout.write(json.dumps({"directory": directory, "returncode": code}) + "\n")
        sys.stdout.flush()
    return 0
