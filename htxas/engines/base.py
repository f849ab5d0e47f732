"""The engine seam.

An engine is a set of pure steps on a directory: ``write`` inputs, run ``command`` as a separate process, ``read``
results. It knows nothing of databases, queues or other engines. A code is added by adding a folder with a module
``engine`` whose ``ENGINE`` is an :class:`Engine`, and one line in :mod:`htxas.engines.registry`. Codes of the user's
own begin with :class:`htxas.engines.external_engine.ExternalEngine`.

Files of htxas itself in a run directory
----------------------------------------
``calculation.json``
    The :class:`Job`, written by :func:`write_job`; provenance starts here.
``outcome.json``
    Written last by engine processes we own (atomically); other codes leave their own files.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.numerics import Numeric
from htxas.errors import Cause

__all__ = ["Correction", "Engine", "Job", "ResolvedParameters", "read_job", "write_job"]

JOB_FILE = "calculation.json"


@dataclass(frozen=True, slots=True)
class ResolvedParameters:
    """Parameters after presets and defaults, ready to be hashed.

    Attributes
    ----------
    site
        Everything a site's result depends on (including what its ground state depends on).
    ground
        Only what the ground state depends on: sites of a structure share it. None: this engine has no ground state, its
        sites stand alone.
    """

    site: Mapping[str, Any]
    ground: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Correction:
    """What the next attempt does differently after a failure: the way to the answer, never the answer.

    Attributes
    ----------
    name
        Short, for tables: ``level_shift``.
    why
        One line for the user: what changes and what it costs.
    numerics
        Handed to the engine as :attr:`Job.numerics`. An engine refuses whatever would alter the converged result
        (functional, basis, cutoff, thresholds made looser).
    memory_factor
        Times the memory of a worker: a task of 2.0 gets two workers' places.
    walltime_factor
        Times the clock limit.
    """

    name: str
    why: str
    numerics: Mapping[str, Any] = field(default_factory=dict)
    memory_factor: float = 1.0
    walltime_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """A calculation with all an engine needs to write it.

    Attributes
    ----------
    calculation
        What is computed.
    structure
        The structure, canonical order.
    ground_directory
        For a site: directory of the finished ground state. The engine must recompute what it needs if the
        folder has gone.
    ground_energy_eV, ground_numerics
        For a site: total energy of that ground state as it is stored, and the numerics of the attempt that found it;
        None if nothing is stored yet. What is computed again must be that state.
    numerics
        Of the corrections this attempt makes, merged; not part of the identity. Empty for a first attempt.
    previous_directory
        Directory of the last attempt, if it was cut short. It may have gone, and it may hold a checkpoint worth
        starting from: a shorter way to the same answer, never a part of it.
    memory_factor
        Times the memory of one worker that this attempt may use.
    memory_MB
        That memory, the factor included; None if nobody has said.
    """

    calculation: Calculation
    structure: Structure
    ground_directory: Path | None = None
    numerics: Mapping[str, Any] = field(default_factory=dict)
    previous_directory: Path | None = None
    memory_factor: float = 1.0
    memory_MB: float | None = None
    ground_energy_eV: float | None = None
    ground_numerics: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """What htxas asks of a code."""

    @property
    def name(self) -> str:
        """Name in campaign files and identities."""
        ...

    @property
    def presets(self) -> Mapping[str, str]:
        """Preset name -> one line for the user."""
        ...

    @property
    def ladder(self) -> Mapping[Cause, tuple[Correction, ...]]:
        """What is tried, in this order, after each cause of failure; then quarantine or failure is final."""
        ...

    @property
    def keep(self) -> tuple[str, ...]:
        """Glob patterns of the files of a finished run directory worth keeping: inputs, what ``read`` needs, logs."""
        ...

    @property
    def numerics(self) -> Mapping[str, Numeric]:
        """What :attr:`Job.numerics` may say, by name. None of it may alter a converged result."""
        ...

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """Return full parameters, with content hashes of basis sets or pseudopotentials.

        Raises
        ------
        UserError
            Unknown preset, key, unit or edge; the message names the key and offers the nearest.
        """
        ...

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse what the engine cannot treat, before anything is submitted.

        Raises
        ------
        UnsupportedInput
            With the reason and, if there is one, the engine to use instead.
        """
        ...

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return the expected seconds on one core of a laptop; the stated prior of the cost model."""
        ...

    def write(self, job: Job, directory: Path) -> None:
        """Write all input files into ``directory`` (exists, empty).

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of :attr:`numerics`.
        """
        ...

    def command(self, directory: Path) -> list[str]:
        """Return the argument list that runs ``directory`` once, as its own process."""
        ...

    @property
    def starts_code(self) -> bool:
        """Whether :meth:`command` is a process of ours that starts the code itself, several times perhaps.

        It is told how in ``HTXAS_ENGINE_COMMAND``: ``{"launcher": [...], "program": [...]}`` of the cluster's profile.
        Of other engines these words take the place of the command's first.
        """
        ...

    def missing(self, environment: Mapping[str, str]) -> str | None:
        """Return why the code cannot be started with this environment, in one line; None if it can."""
        ...

    def server_command(self) -> list[str] | None:
        """Return the argument list of a persistent process, or None.

        The process reads one directory per line on standard input, runs it, and answers one JSON line
        ``{"directory": ..., "returncode": 0|1}`` on standard output when that directory is finished. It saves
        the start-up and shares work between sites of a molecule; results are the same as with ``command``.
        """
        ...

    def read(self, job: Job, directory: Path) -> Result:
        """Read the results.

        Raises
        ------
        EngineFailure
            With one named cause and evidence (last lines of the log). Never judged by exit status alone.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Return package or code name -> version, without starting the code if that is slow."""
        ...


def write_job(job: Job, directory: Path) -> None:
    """Write ``calculation.json``: the whole job as plain JSON."""
    c = job.calculation
    document = {
        "key": c.key,
        "kind": c.kind.value,
        "engine": c.engine,
        "structure_key": c.structure_key,
        "element": c.element,
        "edge": c.edge,
        "atom": c.atom,
        "ground_directory": None if job.ground_directory is None else str(job.ground_directory),
        "numerics": dict(job.numerics),
        "previous_directory": None if job.previous_directory is None else str(job.previous_directory),
        "memory_factor": job.memory_factor,
        "memory_MB": job.memory_MB,
        "ground_energy_eV": job.ground_energy_eV,
        "ground_numerics": dict(job.ground_numerics),
    }
    # A few long lines: an indent takes the slow encoder, and there are hundred thousands of these.
    text = (
        f"{{\n {json.dumps(document)[1:-1]},\n"
        f' "parameters": {json.dumps(dict(c.parameters))},\n "structure": {_text(job.structure)}\n}}\n'
    )
    (directory / JOB_FILE).write_bytes(text.encode())


def read_job(directory: Path) -> Job:
    """Read ``calculation.json`` back.

    Raises
    ------
    ValueError
        If the stored key is not the key of the stored content: the file was changed.
    """
    document = json.loads((directory / JOB_FILE).read_bytes().decode())
    calculation = Calculation(
        kind=Kind(document["kind"]),
        structure_key=document["structure_key"],
        engine=document["engine"],
        parameters=document["parameters"],
        element=document["element"],
        edge=document["edge"],
        atom=document["atom"],
    )
    structure = _structure(document["structure"])
    if calculation.key != document["key"] or structure.key != document["structure_key"]:
        raise ValueError(f"{directory / JOB_FILE} does not match its own key")
    ground = document["ground_directory"]
    previous = document.get(
        "previous_directory"
    )  # this and the rest: absent in directories of older versions
    return Job(
        calculation,
        structure,
        None if ground is None else Path(ground),
        document.get("numerics", {}),
        None if previous is None else Path(previous),
        document.get("memory_factor", 1.0),
        document.get("memory_MB"),
        document.get("ground_energy_eV"),
        document.get("ground_numerics", {}),
    )


# Built, hashed and written out once: the sites of a molecule come one after the other.
_latest: deque[tuple[dict[str, Any], Structure]] = deque(maxlen=1)


def _structure(document: dict[str, Any]) -> Structure:
    if not _latest or _latest[0][0] != document:
        _latest.append((document, Structure.from_dict(document)))
    return _latest[0][1]


@lru_cache(maxsize=4)
def _text(structure: Structure) -> str:
    return json.dumps(structure.to_dict())
