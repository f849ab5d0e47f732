"""Absolute energies of an engine's presets beside experiment. No shift is fitted anywhere."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import Result, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, Job
from htxas.errors import EngineFailure, UserError

__all__ = [
    "Comparison",
    "Experiment",
    "compare",
    "first_strong_peak_eV",
    "load_experiments",
    "mean_absolute_error",
]

_STRONG = 0.2  # a level is a peak if it carries this share of the strongest bound level
_SAME_LEVEL_EV = 0.05


@dataclass(frozen=True, slots=True)
class Experiment:
    """One molecule's measured energies.

    Attributes
    ----------
    name
        Molecule.
    structure
        Geometry.
    first_peak_eV, ionization_eV
        Experimental values in eV, None where there is none.
    peak
        Assignment of the first peak.
    """

    name: str
    structure: Structure
    first_peak_eV: float | None
    ionization_eV: float | None
    peak: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Computed energies of one molecule with one preset, eV; errors are computed minus measured."""

    molecule: str
    preset: str
    first_peak_eV: float
    ionization_eV: float | None
    first_peak_error_eV: float | None
    ionization_error_eV: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as a plain dictionary."""
        return asdict(self)


def load_experiments(path: Path) -> tuple[list[Experiment], str, str]:
    """Return the experiments of a file with their element and edge.

    Raises
    ------
    UserError
        If the file is absent or lacks a key.
    """
    try:
        document = json.loads(path.read_text())
        experiments = [
            Experiment(
                m["name"],
                Structure.from_atoms(m["symbols"], m["positions_A"], where=f"{path}: {m['name']}")[0],
                m["first_peak_eV"],
                m["ionization_eV"],
                m["peak"],
            )
            for m in document["molecules"]
        ]
        return experiments, document["element"], document["edge"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"not a file of experiments: {error}", where=str(path)) from None


def first_strong_peak_eV(result: SiteResult) -> float:
    """Return the energy of the first level that carries at least a fifth of the strongest bound level's strength.

    The first final state can be dark (methane's 3s); experiments report the first line they see.
    """
    e, f = result.sticks.energies_eV, result.sticks.isotropic
    limit = np.inf if result.ionization_eV is None else result.ionization_eV
    level = np.cumsum(np.concatenate([[0], np.diff(e) > _SAME_LEVEL_EV]))
    strengths = np.bincount(level, weights=f)
    centres = np.array([e[level == k].mean() for k in range(len(strengths))])
    bound = centres < limit
    if not bound.any():
        bound[:] = True
    threshold = _STRONG * strengths[bound].max()
    return float(centres[int(np.flatnonzero(strengths >= threshold)[0])])


def compare(
    engine: Engine,
    experiments: Sequence[Experiment],
    presets: Iterable[str],
    directory: Path,
    *,
    element: str,
    edge: str,
    workers: int = 1,
    progress: Callable[[Comparison], None] = lambda _: None,
) -> list[Comparison]:
    """Run every molecule with every preset through the engine's own processes.

    Parameters
    ----------
    engine
        The engine.
    experiments
        See :func:`load_experiments`.
    presets
        Preset names.
    directory
        Run directories go below it.
    element, edge
        Absorber; the first unique atom of that element is taken (all are equivalent in the shipped set).
    workers
        Molecules at a time, one thread each.
    progress
        Called after each molecule.

    Raises
    ------
    EngineFailure
        If a calculation fails or the gate refuses it: an accuracy table has no holes.
    UserError
        If the engine gives continuous spectra: experiments report lines.
    """

    def one(task: tuple[str, Experiment]) -> Comparison:
        preset, experiment = task
        row = _run(engine, experiment, preset, directory, element=element, edge=edge)
        progress(row)
        return row

    tasks = [(p, x) for p in presets for x in experiments]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(one, tasks))


def _run(
    engine: Engine, experiment: Experiment, preset: str, directory: Path, *, element: str, edge: str
) -> Comparison:
    structure = experiment.structure
    parameters = engine.resolve(preset, {}, element=element, edge=edge)
    engine.check(structure, parameters)
    atom = structure.indices_of(element)[0]
    site = Calculation(Kind.SITE, structure.key, engine.name, parameters.site, element, edge, atom)
    folder = directory / preset / experiment.name.replace(" ", "-")
    job, ground_s = Job(site, structure), 0.0
    if parameters.ground is not None:
        ground = Calculation(Kind.GROUND, structure.key, engine.name, parameters.ground)
        ground_s = _seconds(_finish(engine, Job(ground, structure), folder / "ground"))
        job = Job(site, structure, folder / "ground")
    result = _finish(engine, job, folder / "site")
    if not isinstance(result, SiteResult):
        raise UserError(
            f"{engine.name} gives continuous spectra, and the experiments are lines",
            where=experiment.name,
            hint="compare an engine that gives transitions",
        )
    peak = first_strong_peak_eV(result)
    return Comparison(
        molecule=experiment.name,
        preset=preset,
        first_peak_eV=peak,
        ionization_eV=result.ionization_eV,
        first_peak_error_eV=_minus(peak, experiment.first_peak_eV),
        ionization_error_eV=_minus(result.ionization_eV, experiment.ionization_eV),
        seconds=ground_s + _seconds(result),
    )


def _seconds(result: Result) -> float:
    assert result.provenance.wall_s is not None  # it was started here
    return result.provenance.wall_s


def _minus(computed: float | None, measured: float | None) -> float | None:
    return None if computed is None or measured is None else computed - measured


def _finish(engine: Engine, job: Job, directory: Path) -> Result:
    directory.mkdir(parents=True, exist_ok=True)
    engine.write(job, directory)
    with (directory / "engine.log").open("w") as log:
        subprocess.run(
            engine.command(directory),
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    result = engine.read(job, directory)
    rejection = inspect(result, GateLimits(), element=job.calculation.element, edge=job.calculation.edge)
    if rejection is not None:
        raise EngineFailure(
            rejection.cause, rejection.message, evidence=rejection.evidence, where=str(directory)
        )
    return result


def mean_absolute_error(errors: Iterable[float | None]) -> float:
    """Return the mean of the absolute values that are there, eV.

    Raises
    ------
    ValueError
        If there is none.
    """
    known = [abs(e) for e in errors if e is not None]
    if not known:
        raise ValueError("no errors to average")
    return float(np.mean(known))
