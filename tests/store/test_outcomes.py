from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import bson
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.domain.calculation import State
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.spectrum import Sticks
from htxas.errors import Cause, InternalError, StoreError
from htxas.store.outcomes import decode, done, encode, failed, quarantined, size, unstorable
from htxas.store.records import Lease

GRID = {"sigma_eV": 0.5, "step_eV": 0.1}
STEP = {"corrections": ("smear",), "numerics": {"smearing_eV": np.float64(0.1)}, "rungs": {"walltime": 1}}


@pytest.fixture
def lease(world):
    return Lease(world.site_key, 2, "host-1-abc")


def refused(world, lease, **more):
    result = replace(world.site_result(), hole_overlap=0.3)
    what = world.calculations[lease.key], world.structure_of(lease.key), result
    return quarantined(lease, *what, inspect(result, GateLimits()), **GRID, **more)


def test_a_result_that_passed(world, lease):
    outcome = world.outcome(lease)
    assert outcome.state is State.DONE
    assert outcome.fields["scalars"] == pytest.approx(
        {"excitation_energy_eV": 285.0, "ionization_eV": 290.0, "strength_sum": 0.02, "hole_overlap": 0.99}
    )
    assert (outcome.fields["wall_s"], outcome.fields["host"], outcome.fields["directory"]) == (
        2.5,
        "node1",
        "/runs/1",
    )
    assert (outcome.fields["cause"], outcome.fields["evidence"]) == (None, {})
    assert "ladder" not in outcome.fields  # it stays as it is: what led to this result
    assert outcome.entry == {
        "attempt": 2,
        "state": "done",
        "cause": None,
        "message": None,
        "corrections": [],
        "worker": "host-1-abc",
        "host": "node1",
        "wall_s": 2.5,
        "directory": "/runs/1",
        "ended": datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC),
    }
    collection, arrays = outcome.arrays
    assert (collection, arrays["_id"], arrays["attempt"]) == ("spectra", lease.key, 2)


def test_a_ground_state(world):
    outcome = world.outcome(Lease(world.ground_key, 1, "a"))
    assert outcome.arrays[0] == "dos"
    assert outcome.fields["scalars"] == {
        "total_energy_eV": -2084.123456789012,
        "homo_eV": -7.0,
        "lumo_eV": 1.0,
        "gap_eV": 8.0,
        "dipole_D": 5.0,
    }


def test_a_refused_result_keeps_its_arrays_unless_it_is_tried_again(world, lease):
    final = refused(world, lease, corrections=("smear",))
    assert (final.state, final.fields["cause"]) == (State.QUARANTINED, "hole_left_site")
    assert final.fields["evidence"] == {"hole_overlap": 0.3}
    assert final.arrays[0] == "spectra"
    assert final.entry["corrections"] == ["smear"]
    again = refused(world, lease, again=STEP)
    assert (again.state, again.fields["state"], again.arrays) == (State.READY, "ready", None)
    assert (again.fields["cause"], again.fields["ladder"]["numerics"]) == (None, {"smearing_eV": 0.1})
    assert (again.entry["state"], again.entry["cause"]) == ("ready", "hole_left_site")
    assert "scalars" not in again.fields


@pytest.mark.parametrize(
    "sticks", [Sticks(np.zeros(0), np.zeros((0, 3))), Sticks(np.array([np.nan]), np.ones((1, 3)))]
)
def test_even_a_result_without_a_spectrum_can_be_quarantined(world, lease, sticks):
    result = replace(world.site_result(), sticks=sticks)
    what = world.calculations[lease.key], world.structure_of(lease.key), result
    outcome = quarantined(lease, *what, inspect(result, GateLimits()), **GRID)
    assert outcome.arrays[1]["grid"] is None
    assert decode(encode(outcome)).state is State.QUARANTINED


def test_a_failure(lease):
    evidence = {"last": np.float64(0.1), "log": ("a", "b")}
    outcome = failed(
        lease, Cause.SCF_UNCONVERGED, "100 cycles", evidence, {"directory": "/r", "host": "h", "wall_s": 3.0}
    )
    assert (outcome.state, outcome.fields["cause"]) == (State.FAILED, "scf_unconverged")
    assert outcome.fields["evidence"] == {"last": 0.1, "log": ["a", "b"]}
    assert (outcome.entry["directory"], outcome.entry["host"], outcome.entry["wall_s"]) == ("/r", "h", 3.0)
    unknown = failed(lease, Cause.BAD_INPUT, "x", {})
    assert unknown.fields["directory"] is None  # not that of an earlier attempt
    again = failed(lease, Cause.WALLTIME, "x", {"a": 1}, again=STEP, corrections=("before",))
    assert (again.state, again.fields["evidence"], again.entry["corrections"]) == (
        State.READY,
        {},
        ["before"],
    )


def test_every_kind_comes_back_as_it_was(world, lease):
    ground = world.outcome(Lease(world.ground_key, 1, "a"))
    crash = failed(lease, Cause.ENGINE_CRASH, "x", {"log": ["a"]})
    for outcome in (
        world.outcome(lease),
        ground,
        refused(world, lease),
        refused(world, lease, again=STEP),
        crash,
    ):
        back = decode(encode(outcome))
        assert back == outcome
        assert encode(back) == encode(outcome)
        assert size(back) == size(outcome) == (0 if outcome.arrays is None else len(outcome.arrays[1].raw))


_facts = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda k: "\0" not in k), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda k: "\0" not in k), _facts), st.text())
def test_any_evidence_comes_back(evidence, message):
    outcome = failed(Lease("k", 1, "a"), Cause.BAD_OUTPUT, message, evidence)
    assert decode(encode(outcome)) == outcome


def test_times_are_kept_to_the_millisecond(lease):
    outcome = failed(lease, Cause.LOST, "x", {}, {"ended": "2026-01-01T01:00:00.123456+01:00"})
    assert outcome.entry["ended"] == datetime(2026, 1, 1, 0, 0, 0, 123000, tzinfo=UTC)
    assert failed(lease, Cause.LOST, "x", {}).entry["ended"].microsecond % 1000 == 0
    with pytest.raises(InternalError, match="not ISO 8601: yesterday"):
        failed(lease, Cause.LOST, "x", {}, {"ended": "yesterday"})


def test_a_result_of_something_else_is_a_bug(world, lease):
    right, structure = world.calculations[lease.key], world.structure_of(lease.key)
    wrong = world.calculations[world.molecules[1].sites[0].key]
    with pytest.raises(InternalError, match="another calculation"):
        done(lease, wrong, structure, world.site_result(), **GRID)
    with pytest.raises(InternalError, match="another calculation"):
        done(lease, right, structure, world.ground_result(), **GRID)
    ground = Lease(world.ground_key, 1, "a")
    with pytest.raises(InternalError, match="PDOS of 7 atoms"):
        done(ground, world.calculations[ground.key], structure, world.ground_result(7), **GRID)


def test_what_bson_cannot_hold_is_a_bug(lease):
    with pytest.raises(InternalError, match="cannot be stored"):
        encode(failed(lease, Cause.BAD_OUTPUT, "x", {"steps": 2**70}))
    with pytest.raises(InternalError, match="object cannot be stored"):
        failed(lease, Cause.BAD_OUTPUT, "x", {"what": object()})


def test_what_is_not_an_outcome_is_refused(world, lease):
    data = encode(world.outcome(lease))
    changed = bson.decode(data)
    for bad in (
        b"",
        b"x" * 100,
        data[:-10],
        bson.encode({"format": 1}),
        bson.encode({**changed, "entry": 1}),
    ):
        with pytest.raises(StoreError, match="cannot be read"):
            decode(bad)
    with pytest.raises(StoreError, match="format 2"):
        decode(bson.encode({**changed, "format": 2}))


@pytest.mark.parametrize(
    "change",
    [
        {"collection": "workers"},
        {"arrays": {"_id": "0" * 32}},
        {"fields": {"campaigns": ["mine"]}},
        {"fields": {"state": "running"}},
        {"entry": {"more": 1}},
        {"state": "running"},
    ],
)
def test_an_outcome_can_change_nothing_but_its_own_attempt(world, lease, change):
    document = bson.decode(encode(world.outcome(lease)))
    decode(bson.encode(document))
    for name, value in change.items():
        document[name] = {**document[name], **value} if isinstance(value, dict) else value
    with pytest.raises(StoreError, match="cannot be read"):
        decode(bson.encode(document))


def test_what_the_database_refuses_becomes_a_failure_of_the_same_attempt(world, lease):
    outcome = world.outcome(lease)
    instead = unstorable(outcome, "too large")
    assert (instead.state, instead.arrays, instead.lease) == (State.FAILED, None, lease)
    assert (instead.fields["state"], instead.fields["cause"]) == ("failed", "bad_output")
    assert instead.entry == {
        **outcome.entry,
        "state": "failed",
        "cause": "bad_output",
        "message": "the result cannot be stored: too large",
    }
