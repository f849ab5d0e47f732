"""What every engine that runs a code of the user's owes: the same cases, by the runs committed in its folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult, GroundResult, Result, SiteResult
from htxas.engines.base import Job, read_job
from htxas.engines.registry import get_engine
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
