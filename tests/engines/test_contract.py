"""What every engine that runs a code of the user's owes: the same cases, by the runs committed in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult, GroundResult, Result, SiteResult
from htxas.engines.base import Engine, Job, read_job
from htxas.engines.numerics import check_numerics
from htxas.engines.registry import engine_names, get_engine
from htxas.errors import Cause, EngineFailure

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cases:
    """Names of an engine's runs by how they ended."""

    good: tuple[str, ...]
    unconverged: tuple[str, ...]
    killed: tuple[str, ...]
    refused: tuple[str, ...]


CASES = {
    "feff": Cases(
        ("methane", "carbon-dioxide", "ethylene-xyz", "elnes", "mgo", "overlapped"),
        ("unconverged",),
        ("killed-in-pot", "killed-in-fms"),
        ("refused", "bad-word"),
    ),
    "cp2k": Cases(
        ("methane-ground", "methane", "carbon-monoxide", "acetylene-neutral"),
        ("unconverged", "hole-unconverged"),
        ("killed",),
        ("refused",),
    ),
    "elk": Cases(
        ("ground", "site", "plain"), ("unconverged",), ("killed-in-scf", "killed-in-spectrum"), ("refused",)
    ),
    "gpaw": Cases(
        ("ground", "site"), ("unconverged",), ("killed-in-transition", "killed-in-ion"), ("refused",)
    ),
    "qe": Cases(
        ("ground", "site", "half", "crystal-ground", "crystal"),
        ("unconverged",),
        ("killed-in-pw", "killed-in-xspectra"),
        ("refused",),
    ),
    "vasp": Cases(("ground", "site"), ("unconverged",), ("killed",), ("refused",)),
    "olcao": Cases(
        ("mgo", "two-sites"),
        ("unconverged",),
        ("killed-in-main",),
        ("refused",),
    ),
    "wien2k": Cases(
        ("mgo", "background", "layers"),
        ("unconverged",),
        ("killed-in-lapw1",),
        ("refused",),
    ),
}


CODES = [name for name in engine_names() if get_engine(name).starts_code]


def runs(kind: str) -> list[tuple[str, Path]]:
    return [
        pytest.param(engine, HERE / engine / "runs" / name, id=f"{engine}-{name}")
        for engine, cases in CASES.items()
        for name in getattr(cases, kind)
    ]


def read(engine: str, folder: Path, job: Job | None = None) -> Result:
    return get_engine(engine).read(job or read_job(folder), folder)


def numbers(result: Result) -> list[np.ndarray]:
    """Return everything of a result that users are served."""
    if isinstance(result, SiteResult):
        return [result.sticks.energies_eV, result.sticks.strengths]
    if isinstance(result, CurveResult):
        dos = [] if result.dos is None else [result.dos.density]
        return [result.curve.energies_eV, result.curve.intensity, result.background, *dos]
    assert isinstance(result, GroundResult)
    scalars = np.array([result.total_energy_eV, result.homo_eV, result.lumo_eV])
    return [scalars, result.pdos.energies_eV, result.pdos.weights]


def passes(result: Result, job: Job) -> bool:
    c = job.calculation
    return inspect(result, GateLimits(), element=c.element, edge=c.edge) is None


@pytest.mark.parametrize("name", CODES)
def test_it_is_an_engine_whose_ladder_is_its_own(name: str) -> None:
    engine = get_engine(name)
    assert isinstance(engine, Engine)
    assert engine.name == name
    for rungs in engine.ladder.values():
        for correction in rungs:
            check_numerics(name, engine.numerics, correction.numerics)


def without_code(name: str) -> str:
    """Return the environment's variable that would name the code."""
    if name == "gpaw" and find_spec("gpaw") is not None:
        pytest.skip("this Python has GPAW, so there is one to be found")
    return f"HTXAS_{name.upper()}"


@pytest.mark.parametrize("name", CODES)
def test_a_code_that_is_not_there_is_missing(name: str, tmp_path: Path) -> None:
    variable = without_code(name)
    assert variable in str(get_engine(name).missing({"PATH": str(tmp_path)}))
    assert get_engine(name).server_command() is None


@pytest.mark.parametrize("name", CASES)
def test_without_its_code_a_calculation_is_bad_input(name: str, tmp_path: Path) -> None:
    variable, engine = without_code(name), get_engine(name)
    job = read_job(HERE / name / "runs" / CASES[name].good[0])
    engine.write(job, tmp_path)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_")}
    environment = {**kept, "PATH": str(tmp_path)}
    assert subprocess.run(engine.command(tmp_path), env=environment, check=False).returncode == 0
    with pytest.raises(EngineFailure, match="there is no") as caught:
        engine.read(job, tmp_path)
    assert caught.value.cause is Cause.BAD_INPUT
    assert variable in str(caught.value.hint)


def leaves(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a calculation's identity, those of its parts too, by their last names."""
    found: dict[str, Any] = {}
    for key, value in parameters.items():
        found |= leaves(value) if isinstance(value, Mapping) else {key: value}
    return found


@pytest.mark.parametrize(("name", "folder"), runs("good"))
def test_nothing_of_the_identity_is_a_correction(name: str, folder: Path, tmp_path: Path) -> None:
    job = read_job(folder)
    for key, value in leaves(job.calculation.parameters).items():
        with pytest.raises(EngineFailure, match="never changes the physics") as caught:
            get_engine(name).write(replace(job, numerics={key: value}), tmp_path)
        assert caught.value.cause is Cause.BAD_INPUT


@pytest.mark.parametrize("name", [name for name in CASES if name != "feff"])  # FEFF's identity has no recipe
def test_another_recipe_is_refused(name: str, tmp_path: Path) -> None:
    job = read_job(HERE / name / "runs" / CASES[name].good[-1])
    parameters = dict(job.calculation.parameters)
    of_ground = (
        {"ground": {**parameters["ground"], "recipe": 99}} if "ground" in parameters else {"recipe": 99}
    )
    other = replace(job, calculation=replace(job.calculation, parameters={**parameters, **of_ground}))
    with pytest.raises(EngineFailure, match="recipe 99") as caught:
        get_engine(name).write(other, tmp_path)
    assert caught.value.cause is Cause.BAD_INPUT
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("engine", "folder"), runs("good"))
def test_good_runs_pass_the_gate(engine: str, folder: Path) -> None:
    job = read_job(folder)
    result = read(engine, folder)
    assert passes(result, job)
    assert isinstance(result, GroundResult) == (job.calculation.kind is Kind.GROUND)
    assert result.provenance.engine_version
    assert result.provenance.inputs_sha256
    assert result.provenance.wall_s is not None


@pytest.mark.parametrize(("engine", "folder"), runs("unconverged"))
def test_unconverged_runs_are_called_so(engine: str, folder: Path) -> None:
    with pytest.raises(EngineFailure) as caught:
        read(engine, folder)
    assert caught.value.cause is Cause.SCF_UNCONVERGED
    assert get_engine(engine).ladder[Cause.SCF_UNCONVERGED]


@pytest.mark.parametrize(("engine", "folder"), runs("killed"))
def test_killed_runs_are_crashes_with_their_last_lines(engine: str, folder: Path) -> None:
    with pytest.raises(EngineFailure) as caught:
        read(engine, folder)
    assert caught.value.cause is Cause.ENGINE_CRASH
    assert caught.value.evidence["log_tail"]


@pytest.mark.parametrize(("engine", "folder"), runs("refused"))
def test_what_the_code_refused_is_bad_input(engine: str, folder: Path) -> None:
    with pytest.raises(EngineFailure) as caught:
        read(engine, folder)
    assert caught.value.cause is Cause.BAD_INPUT


@pytest.mark.parametrize(("engine", "folder"), runs("good"))
def test_a_file_cut_short_never_gives_other_numbers(engine: str, folder: Path, tmp_path: Path) -> None:
    """Whatever file it is, and wherever it ends: a failure, a rejection, or what the whole file gives."""
    whole, job = numbers(read(engine, folder)), read_job(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "calculation.json"):
        copy = Path(shutil.copytree(folder, tmp_path / "copy")) / path.relative_to(folder)
        content = path.read_bytes()
        for share in (0.0, 0.35, 0.8, 0.99):
            copy.write_bytes(content[: int(share * len(content))])
            try:
                result = read(engine, tmp_path / "copy")
            except EngineFailure:
                continue
            if passes(result, job):
                for a, b in zip(numbers(result), whole, strict=True):
                    assert np.array_equal(a, b), f"{path.name} cut at {share:.0%}"
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize(("engine", "folder"), runs("good"))
def test_a_missing_file_never_gives_other_numbers(engine: str, folder: Path, tmp_path: Path) -> None:
    whole, job = numbers(read(engine, folder)), read_job(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "calculation.json"):
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        (copy / path.relative_to(folder)).unlink()
        try:
            result = read(engine, copy)
        except EngineFailure:
            pass
        else:
            if passes(result, job):
                for a, b in zip(numbers(result), whole, strict=True):
                    assert np.array_equal(a, b), path.name
        shutil.rmtree(copy)


def another(job: Job) -> Job:
    """Return the same with another absorber or, of a ground state, other parameters."""
    c = job.calculation
    if c.kind is Kind.GROUND:
        changed = Calculation(
            c.kind, c.structure_key, c.engine, {**c.parameters, "energy_tolerance_Ry": 2e-8}
        )
    else:
        assert c.atom is not None
        atom = next((i for i in job.structure.indices_of(c.element or "") if i != c.atom), c.atom)
        changed = replace(c, atom=atom) if atom != c.atom else replace(c, structure_key="0" * 32)
    return replace(job, calculation=changed)


@pytest.mark.parametrize(("engine", "folder"), runs("good"))
def test_the_run_of_another_absorber_is_refused(engine: str, folder: Path) -> None:
    with pytest.raises(EngineFailure) as caught:
        read(engine, folder, another(read_job(folder)))
    assert caught.value.cause is Cause.BAD_OUTPUT
    assert "belongs to calculation" in str(caught.value)
