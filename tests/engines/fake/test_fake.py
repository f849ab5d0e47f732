from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, Job
from htxas.engines.fake.engine import ENGINE
from htxas.engines.fake.parameters import failure_mode
from htxas.engines.fake.run import main
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError

CO, _ = Structure.from_atoms(["C", "O"], [[0, 0, 0], [0, 0, 1.13]])


def job(kind: Kind, **parameters: Any) -> Job:
    p = ENGINE.resolve("instant", parameters, element="C", edge="K")
    if kind is Kind.GROUND:
        return Job(Calculation(kind, CO.key, "fake", p.ground), CO)
    return Job(Calculation(kind, CO.key, "fake", p.site, "C", "K", 0), CO)


def run(work: Job, directory: Path) -> int:
    directory.mkdir()
    ENGINE.write(work, directory)
    return main([str(directory)])


def test_it_is_an_engine_and_says_that_it_is_fake() -> None:
    assert isinstance(ENGINE, Engine)
    assert ENGINE.name == "fake"
    assert all("not physics" in line for line in ENGINE.presets.values())


@pytest.mark.parametrize(("kind", "result_type"), [(Kind.GROUND, GroundResult), (Kind.SITE, SiteResult)])
def test_results_pass_the_gate_and_repeat(kind: Kind, result_type: type, tmp_path: Path) -> None:
    work = job(kind)
    assert [run(work, tmp_path / n) for n in "ab"] == [0, 0]
    first, second = (ENGINE.read(work, tmp_path / n) for n in "ab")
    assert isinstance(first, result_type)
    assert inspect(first, GateLimits()) is None
    assert first.provenance.engine_version == "fake-1"
    if isinstance(first, SiteResult) and isinstance(second, SiteResult):
        assert (first.sticks.energies_eV == second.sticks.energies_eV).all()
        assert first.scale.startswith("fake")


@pytest.mark.parametrize("mode", ["disk_full", "oom", "bad_output", "truncated"])
def test_failures_are_read_as_their_cause(mode: str, tmp_path: Path) -> None:
    work = job(Kind.SITE, fail={"CO:0": mode})
    run(work, tmp_path / "1")
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(work, tmp_path / "1")
    wanted = {"disk_full": Cause.DISK_FULL, "oom": Cause.OUT_OF_MEMORY}
    assert caught.value.cause is wanted.get(mode, Cause.BAD_OUTPUT)


def test_wrong_results_reach_the_gate(tmp_path: Path) -> None:
    for mode in ("unconverged", "hole_left", "nan"):
        work = job(Kind.SITE, fail={"CO:0": mode})
        run(work, tmp_path / mode)
        result = ENGINE.read(work, tmp_path / mode)
        assert isinstance(result, SiteResult)
        assert (result.convergence is Convergence.UNCONVERGED) == (mode == "unconverged")
        assert (result.hole_overlap < 0.8) == (mode == "hole_left")
        assert math.isnan(result.sticks.energies_eV[-1]) == (mode == "nan")


def test_a_result_of_another_calculation_is_bad_output(tmp_path: Path) -> None:
    run(job(Kind.SITE), tmp_path / "1")
    with pytest.raises(EngineFailure, match="is of calculation"):
        ENGINE.read(job(Kind.SITE, seconds=0.001), tmp_path / "1")


def test_a_fraction_fails_and_later_attempts_do_not() -> None:
    calculations = [
        Calculation(
            Kind.SITE,
            f"{i:032x}",
            "fake",
            job(Kind.SITE, fail_fraction=0.25).calculation.parameters,
            "C",
            "K",
            0,
        )
        for i in range(400)
    ]
    failing = sum(failure_mode(c, "CO", 1) is not None for c in calculations)
    assert 70 < failing < 130
    once = job(Kind.SITE, fail_fraction=1.0, fail_attempts=2).calculation
    assert [failure_mode(once, "CO", n) is not None for n in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("preset", "parameters", "said"),
    [
        ("fast", {}, "no preset"),
        ("instant", {"second": 1}, "did you mean 'seconds'"),
        ("instant", {"fail_mode": "explode"}, "cannot fail as"),
        ("instant", {"fail_fraction": 2.0}, "within 0..1"),
    ],
)
def test_wrong_parameters(preset: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ENGINE.resolve(preset, parameters, element="C", edge="K")


def test_crystals_are_refused() -> None:
    crystal, _ = Structure.from_atoms(["C"], [[0, 0, 0]], [[3, 0, 0], [0, 3, 0], [0, 0, 3]])
    with pytest.raises(UnsupportedInput):
        ENGINE.check(crystal, ENGINE.resolve("instant", {}, element="C", edge="K"))
