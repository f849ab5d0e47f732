from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from htxas.domain.calculation import Kind, State
from htxas.engines.numerics import check_numerics
from htxas.engines.registry import engine_names, get_engine
from htxas.errors import Cause, UserError
from htxas.launch.work.ladder import SHARED, Step, next_step, rungs
from htxas.store.store import Store

FAKE = get_engine("fake")


def climb(cause: Cause, start: Step | None = None) -> list[Step]:
    steps, step = [], start or Step()
    while (following := next_step(FAKE, step, cause)) is not None:
        steps.append(step := following)
    return steps


def test_a_ladder_ends_and_remembers_what_was_tried() -> None:
    first, second = climb(Cause.SCF_UNCONVERGED)
    assert first.corrections == ("level_shift",)
    assert first.numerics == {"level_shift_Ha": 0.3}
    assert second.corrections == ("level_shift", "damping")
    assert second.numerics == {"level_shift_Ha": 0.3, "damping": 0.5}
    assert second.rungs == {"scf_unconverged": 2}


def test_factors_multiply() -> None:
    last = climb(Cause.OUT_OF_MEMORY)[-1]
    assert last.memory_factor == 4.0
    both = climb(Cause.WALLTIME, last)[-1]
    assert (both.memory_factor, both.walltime_factor) == (4.0, 3.0)
    assert both.rungs == {"out_of_memory": 2, "walltime": 1}
    assert both.timeout_s(100.0) == 300.0


@pytest.mark.parametrize(
    ("factor", "places", "slots"), [(1, 8, 1), (2, 8, 2), (1.5, 8, 2), (4, 3, 3), (4, 1, 1)]
)
def test_memory_is_taken_from_neighbours(factor: float, places: int, slots: int) -> None:
    assert Step(memory_factor=factor).slots(places) == slots


@pytest.mark.parametrize("cause", [Cause.ENGINE_CRASH, Cause.BAD_OUTPUT])
def test_a_crash_is_tried_once_more_as_it_was(cause: Cause) -> None:
    (only,) = climb(cause)
    assert replace(only, corrections=(), rungs={}) == Step()


@pytest.mark.parametrize(
    "cause", [Cause.GATE_REJECTED, Cause.BAD_INPUT, Cause.GROUND_FAILED, Cause.NODE_FAILURE, Cause.LOST]
)
@pytest.mark.parametrize("engine", engine_names())
def test_no_ladder_where_none_is_due(engine: str, cause: Cause) -> None:
    assert next_step(get_engine(engine), Step(), cause) is None


def test_a_full_disk_blames_nobody() -> None:
    step = Step(("level_shift",), {"level_shift_Ha": 0.3}, {"scf_unconverged": 1}, 2.0, 3.0)
    assert next_step(FAKE, step, Cause.DISK_FULL) == step


def test_a_step_survives_its_document() -> None:
    step = climb(Cause.OUT_OF_MEMORY, climb(Cause.SCF_UNCONVERGED)[0])[-1]
    assert Step.from_dict(json.loads(json.dumps(step.to_dict()))) == step
    assert Step.from_dict(None) == Step()
    assert Step.from_dict({"numerics": {"damping": 0.9}}) == Step(numerics={"damping": 0.9})


@pytest.mark.parametrize("name", engine_names())
def test_every_rung_is_documented_bounded_and_no_physics(name: str) -> None:
    engine = get_engine(name)
    assert engine.numerics.keys().isdisjoint(
        {"functional", "core_basis", "grid_level", "energy_tolerance_Ha", "gradient_tolerance_Ha"}
    )
    for cause in Cause:
        tried = rungs(engine, cause)
        assert len(tried) <= 4
        assert len({c.name for c in tried}) == len(tried)
        for correction in tried:
            assert correction.why
            assert correction.name.isidentifier()
            check_numerics(
                name, engine.numerics, {k: v for k, v in correction.numerics.items() if v is not None}
            )
    assert set(SHARED) == {Cause.WALLTIME, Cause.OUT_OF_MEMORY, Cause.ENGINE_CRASH, Cause.BAD_OUTPUT}


def test_a_value_of_none_takes_a_number_back() -> None:
    from htxas.engines.base import Correction

    ladder = {Cause.SCF_UNCONVERGED: (Correction("other_way", "why", {"damping": None, "hole": "follow"}),)}
    engine = SimpleNamespace(ladder=ladder)
    step = next_step(engine, Step(numerics={"damping": 0.5}), Cause.SCF_UNCONVERGED)  # type: ignore[arg-type]
    assert step is not None
    assert step.numerics == {"hole": "follow"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"functional": "PBE0"}, "never changes the physics"),
        ({"dampin": 0.3}, "did you mean 'damping'"),
        ({"damping": 7}, "within 0..0.95"),
        ({"damping": True}, "a number within"),
        ({"hole": "wherever"}, "one of lowest follow"),
    ],
)
def test_numerics_of_a_user_are_checked(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_numerics("fake", FAKE.numerics, values)


@pytest.mark.mongo
def test_a_campaign_climbs_its_ladders(
    store: Store, submitted: Callable[..., Any], compute_all: Callable[..., Any]
) -> None:
    """Through the agent: each cause is tried again as documented, then final; every attempt is on record."""
    fail = {
        "C3F:0": "unconverged:damping",
        "C3F:1": "hole_left:hole",
        "C3F:2": "truncated:2",
        "C2F:0": "oom:x4",
        "C2F:1": "unconverged",
        "CF:0": "nan",
    }
    submitted(fail=fail)
    compute_all(jobs=4)
    sites = {(r.structure_key, r.atom): r for r in store.find(campaign="chains", kind=Kind.SITE)}
    found = {
        f"{store.structure(key).structure.formula}:{atom}": (
            r.state.value,
            tuple((r.ladder or {}).get("corrections", ())),
            [h.get("cause") for h in r.history],
        )
        for (key, atom), r in sites.items()
    }
    assert found["C3F:0"] == ("done", ("level_shift", "damping"), ["scf_unconverged"] * 2 + [None])
    assert found["C3F:1"] == ("done", ("follow_hole",), ["hole_left_site", None])
    assert found["C3F:2"] == ("done", ("again_after_bad_output",), ["bad_output", None])
    assert found["C2F:0"] == ("done", ("more_memory", "still_more_memory"), ["out_of_memory"] * 2 + [None])
    assert found["C2F:1"][0] == "quarantined"
    assert found["C2F:1"][2] == ["scf_unconverged"] * 3
    assert found["CF:0"] == ("quarantined", (), ["gate_rejected"])


def test_memory_that_is_not_there_is_not_asked_for() -> None:
    first = next_step(FAKE, Step(), Cause.OUT_OF_MEMORY, places=2, slots=1)
    assert first is not None
    assert (first.corrections, first.slots(2)) == (("more_memory",), 2)
    assert next_step(FAKE, first, Cause.OUT_OF_MEMORY, places=2, slots=2) is None
    assert next_step(FAKE, first, Cause.OUT_OF_MEMORY, places=4, slots=2) is not None
    assert next_step(FAKE, first, Cause.OUT_OF_MEMORY) is not None  # it may run elsewhere
    assert next_step(FAKE, Step(), Cause.ENGINE_CRASH, places=1, slots=1) is not None
    assert Step().slots(16, 4) == 4
    assert Step(memory_factor=2.0).slots(16, 4) == 8
    assert Step(memory_factor=2.0).slots(6, 4) == 6


@pytest.mark.mongo
def test_the_same_is_not_run_again_for_want_of_memory(
    store: Store, submitted: Callable[..., Any], compute_all: Callable[..., Any]
) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "oom:x4"})
    compute_all(jobs=2)
    (failed,) = store.find(campaign="chains", state=State.FAILED)
    assert [h["cause"] for h in failed.history] == ["out_of_memory"] * 2
    assert failed.history[-1]["corrections"] == ["more_memory"]
