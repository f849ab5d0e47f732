from __future__ import annotations

import json
import math
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult, GroundResult, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, Job
from htxas.engines.fake.engine import ENGINE
from htxas.engines.fake.numbers import site_numbers
from htxas.engines.fake.parameters import FailureMode, failure_mode, seconds
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
    assert inspect(first, GateLimits(), element="C", edge="K") is None
    assert first.provenance.engine_version == "fake-2"
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


def many(number: int, **parameters: Any) -> list[Job]:
    p = job(Kind.SITE, **parameters).calculation.parameters
    return [Job(Calculation(Kind.SITE, f"{i:032x}", "fake", p, "C", "K", 0), CO) for i in range(number)]


def test_a_fraction_fails_and_later_attempts_do_not() -> None:
    failing = sum(failure_mode(j, 1) is not None for j in many(400, fail_fraction=0.25))
    assert 70 < failing < 130
    once = job(Kind.SITE, fail_fraction=1.0, fail_attempts=2)
    assert [failure_mode(once, n) is not None for n in (1, 2, 3)] == [True, True, False]


def test_shares_of_several_failures() -> None:
    shares = {"crash:2": 0.2, "oom:x2": 0.1}
    modes = Counter(failure_mode(j, 1) for j in many(1000, fail_shares=shares))
    assert 150 < modes[FailureMode.CRASH] < 250
    assert 60 < modes[FailureMode.OOM] < 140
    assert modes.keys() == {None, FailureMode.CRASH, FailureMode.OOM}


@pytest.mark.parametrize(
    ("failure", "cure"),
    [
        ("unconverged:damping", {"numerics": {"level_shift_Ha": 0.3, "damping": 0.5}}),
        ("hole_left:hole", {"numerics": {"hole": "follow"}}),
        ("oom:x4", {"memory_factor": 4.0}),
    ],
)
def test_a_cure_gives_the_number_of_a_healthy_run(failure: str, cure: dict[str, Any], tmp_path: Path) -> None:
    ill = job(Kind.SITE, fail={"CO:0": failure})
    assert failure_mode(ill, 1) is not None
    assert failure_mode(replace(ill, numerics={"level_shift_Ha": 0.3}, memory_factor=2.0), 7) is not None
    well = replace(ill, **cure)
    assert failure_mode(well, 1) is None
    run(well, tmp_path / "1")
    result = ENGINE.read(well, tmp_path / "1")
    assert isinstance(result, SiteResult)
    assert result.provenance.extra.get("numerics", {}) == well.numerics
    assert result.sticks.energies_eV.tolist() == site_numbers(ill.calculation)["energies_eV"]


def test_the_second_attempt_writes_a_whole_file(tmp_path: Path) -> None:
    work = job(Kind.SITE, fail={"CO:0": "truncated:2"})
    for attempt in ("1", "2"):
        run(work, tmp_path / attempt)
    with pytest.raises(EngineFailure, match="unreadable"):
        ENGINE.read(work, tmp_path / "1")
    assert inspect(ENGINE.read(work, tmp_path / "2"), GateLimits(), element="C", edge="K") is None


def test_durations_follow_their_quantiles() -> None:
    quantiles = [0.0, 1.0, 1.0, 5.0]
    drawn = sorted(seconds(j.calculation) for j in many(600, seconds_quantiles=quantiles))
    assert drawn[0] >= 0.0
    assert drawn[-1] <= 5.0
    assert drawn[300] == pytest.approx(1.0, abs=0.05)
    expected = ENGINE.estimate_s(
        CO, Kind.SITE, many(1, seconds_quantiles=quantiles)[0].calculation.parameters
    )
    assert expected == pytest.approx(4.5 / 3, abs=0.01)
    assert sum(drawn) / 600 == pytest.approx(expected, rel=0.12)


def test_numerics_that_would_be_physics_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for numerics, said in (
        ({"functional": "PBE0"}, "never changes the physics"),
        ({"damping": 2}, "within 0"),
    ):
        with pytest.raises(EngineFailure, match=said) as caught:
            ENGINE.write(replace(job(Kind.SITE), numerics=numerics), tmp_path)
        assert caught.value.cause is Cause.BAD_INPUT
    assert not list(tmp_path.iterdir())


def test_the_server_survives_what_it_is_given(tmp_path: Path) -> None:
    work = job(Kind.SITE, ballast_bytes=1000)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "calculation.json").write_text("[1]")
    (tmp_path / "1").mkdir()
    ENGINE.write(work, tmp_path / "1")
    lines = "".join(f"{tmp_path / name}\n" for name in ("gone", "damaged", "1"))
    command = ENGINE.server_command() or []
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["returncode"] for a in answers] == [1, 1, 0]
    assert (tmp_path / "1" / "ballast.bin").stat().st_size == 1000
    assert not (tmp_path / "1" / "fake.log").exists()


@pytest.mark.parametrize(
    ("preset", "parameters", "said"),
    [
        ("fast", {}, "no preset"),
        ("instant", {"second": 1}, "did you mean 'seconds'"),
        ("instant", {"fail_mode": "explode"}, "cannot fail as"),
        ("instant", {"fail_fraction": 2.0}, "within 0..1"),
        ("instant", {"fail_shares": {"crash": 0.9, "oom": 0.9}}, "add up to 1"),
        ("instant", {"fail": {"CO:0": "unconverged:prayer"}}, "knows no cure"),
        ("instant", {"seconds_quantiles": [2.0, 1.0]}, "ascending"),
    ],
)
def test_wrong_parameters(preset: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ENGINE.resolve(preset, parameters, element="C", edge="K")


def test_crystals_are_refused() -> None:
    crystal, _ = Structure.from_atoms(["C"], [[0, 0, 0]], [[3, 0, 0], [0, 3, 0], [0, 0, 3]])
    with pytest.raises(UnsupportedInput):
        ENGINE.check(crystal, ENGINE.resolve("instant", {}, element="C", edge="K"))


def test_what_came_later_changes_no_calculation_of_before() -> None:
    plain = ENGINE.resolve("instant", {}, element="C", edge="K")
    assert plain.ground == plain.site
    assert not {"spectrum", "ground"} & plain.site.keys()
    said = ENGINE.resolve("instant", {"spectrum": "sticks", "ground": True}, element="C", edge="K")
    assert said == plain
    curves = ENGINE.resolve("instant", {"spectrum": "curve"}, element="C", edge="K")
    assert (curves.site["spectrum"], curves.ground) == ("curve", plain.ground)
    alone = ENGINE.resolve("instant", {"ground": False}, element="C", edge="K")
    assert (alone.site["ground"], alone.ground) == (False, None)
    for wrong in ({"spectrum": "points"}, {"ground": "no"}):
        with pytest.raises(UserError, match="sticks or curve"):
            ENGINE.resolve("instant", wrong, element="C", edge="K")


def test_curves_pass_the_gate_and_repeat(tmp_path: Path) -> None:
    work = job(Kind.SITE, spectrum="curve")
    assert [run(work, tmp_path / n) for n in "ab"] == [0, 0]
    first, second = (ENGINE.read(work, tmp_path / n) for n in "ab")
    assert isinstance(first, CurveResult)
    assert isinstance(second, CurveResult)
    assert inspect(first, GateLimits(), element="C", edge="K") is None
    assert (first.curve.intensity == second.curve.intensity).all()
    assert first.dos is not None
    assert first.spectrum().total.max() > 1.0


@pytest.mark.parametrize(
    ("mode", "cause"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED),
        ("hole_left", Cause.GATE_REJECTED),
        ("nan", Cause.GATE_REJECTED),
    ],
)
def test_wrong_curves_reach_the_gate(mode: str, cause: Cause, tmp_path: Path) -> None:
    work = job(Kind.SITE, spectrum="curve", fail={"CO:0": mode})
    run(work, tmp_path / "1")
    rejection = inspect(ENGINE.read(work, tmp_path / "1"), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert rejection.cause is cause
