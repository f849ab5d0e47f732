from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from pymongo.collection import Collection

from htxas.domain.calculation import Kind, State
from htxas.errors import Cause, NotFound, StoreError, UserError

pytestmark = pytest.mark.mongo


@pytest.fixture
def filled(store, world):
    """Molecule 0 done, a site of molecule 1 failed."""
    world.submit(store)
    world.finish(store, world.ground_key)
    for energy, site in zip((285.0, 287.5), world.molecules[0].sites, strict=True):
        world.finish(store, site.key, energy_eV=energy)
    failed = world.molecules[1].sites[0].key
    log = {"log": ["cycle 99", "cycle 100"]}
    world.fail(store, failed, Cause.SCF_UNCONVERGED, "100 cycles", log, directory="/r", host="node1")
    return store


def test_counts(filled):
    expected = {"ready": 2, "running": 0, "done": 3, "failed": 1, "quarantined": 0}
    assert filled.counts("demo") == expected
    assert filled.counts() == expected
    assert set(filled.counts("demo")) == set(State)
    assert not any(filled.counts("other").values())


def test_progress(filled):
    p = filled.progress("demo")
    assert (p["total"], p["counts"]["done"], p["kinds"]["site"]["done"]) == (6, 3, 2)
    assert p["causes"] == {"scf_unconverged": 1}
    assert p["done_wall_s"] == pytest.approx(7.5)
    assert p["left_estimate_s"] == pytest.approx(20.0)
    assert p["recent_done"] == 3
    assert p["rate_per_s"] == pytest.approx(3 / p["recent_s"])
    assert filled.progress()["total"] == 6
    empty = filled.progress("other")
    assert (empty["total"], empty["rate_per_s"]) == (0, 0.0)


def test_progress_counts_what_was_interrupted(filled, world):
    key = world.molecules[1].ground_key
    for _ in range(2):
        lease = world.lease(filled, key)
        filled.release([lease], cause=Cause.NODE_FAILURE, message="x", in_hand=[key])
    assert filled.progress("demo")["interrupted"] == {"node_failure": 2}
    assert filled.progress()["interrupted"] == {"node_failure": 2}
    assert filled.progress("other")["interrupted"] == {}


def test_cause_counts_name_an_example(filled, world):
    (row,) = filled.cause_counts("demo")
    (attempt,) = row.pop("history")
    assert (attempt["cause"], attempt["message"]) == ("scf_unconverged", "100 cycles")
    assert row == {
        "state": "failed",
        "cause": "scf_unconverged",
        "count": 1,
        "key": world.molecules[1].sites[0].key,
        "kind": "site",
        "message": "100 cycles",
        "directory": "/r",
        "host": "node1",
        "attempts": 1,
        "evidence": {"log": ["cycle 99", "cycle 100"]},
        "log": ["cycle 99", "cycle 100"],
    }
    assert filled.cause_counts()[0]["count"] == 1
    assert filled.cause_counts("other") == []


def test_cause_counts_begin_with_the_most_frequent(filled, world):
    for key in (world.molecules[1].ground_key, world.molecules[1].sites[1].key):
        world.fail(filled, key, Cause.ENGINE_CRASH)
    rows = [(r["cause"], r["count"]) for r in filled.cause_counts("demo")]
    assert rows == [("engine_crash", 2), ("scf_unconverged", 1)]


@pytest.mark.parametrize("campaign", ["demo", None])
def test_status_is_answered_by_indexes_alone(filled, world, campaign, monkeypatch):
    lease = world.lease(filled, world.molecules[1].ground_key, "a")
    filled.release([lease], cause=Cause.LOST, message="x", in_hand=[lease.key])
    world.lease(filled, lease.key, "a")
    asked = []
    real = Collection.aggregate

    def explained(self, stages, **options):
        command = {"aggregate": self.name, "pipeline": stages, "cursor": {}, **options}
        plan = filled._db.command("explain", command, verbosity="executionStats")
        asked.append((options["hint"], list(_examined(plan))))
        return real(self, stages, **options)

    monkeypatch.setattr(Collection, "aggregate", explained)
    assert filled.progress(campaign)["interrupted"] == {"lost": 1}
    assert [hint for hint, _ in asked] == ["status", "ended", "interrupted"]
    assert all(documents == [0] for _, documents in asked)


def test_what_an_owner_holds_is_answered_by_the_index_alone(filled, world):
    world.lease(filled, world.molecules[1].ground_key, "a")
    query = {"worker": "a", "state": "running"}
    plan = filled._db["calculations"].find(query, {"attempts": 1}, hint="leases").explain()
    assert plan["executionStats"]["totalDocsExamined"] == 0
    assert plan["executionStats"]["nReturned"] == 1


def _examined(plan):
    """Yield how many documents a plan read, wherever this server's version says it."""
    if isinstance(plan, dict):
        if "totalDocsExamined" in plan:
            yield plan["totalDocsExamined"]
        else:
            for part in plan.values():
                yield from _examined(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from _examined(part)


def test_a_key_by_its_first_digits(filled, world):
    key = world.site_key
    assert filled.calculation(key).key == key
    assert filled.calculation(key[:12].upper()).key == key
    assert filled.identity(key) == world.calculations[key]
    with pytest.raises(NotFound, match="not a calculation key"):
        filled.calculation("xyz")
    with pytest.raises(NotFound, match="not a calculation key"):
        filled.calculation("")
    with pytest.raises(NotFound, match="no calculation starts with"):
        filled.calculation("0" * 32)


def test_an_ambiguous_prefix_is_refused(store, world):
    world.make(20).submit(store)
    first = sorted(d["_id"] for d in store._db["calculations"].find({}, {"_id": 1}))
    twice = next(a[0] for a, b in pairwise(first) if a[0] == b[0])
    with pytest.raises(UserError, match="give more digits"):
        store.calculation(twice)


_QUERIES = [
    ({}, 6),
    ({"campaign": "demo"}, 6),
    ({"campaign": "other"}, 0),
    ({"state": State.DONE}, 3),
    ({"state": State.DONE, "kind": Kind.SITE}, 2),
    ({"kind": Kind.GROUND}, 2),
    ({"element": "C"}, 4),
    ({"edge": "L3"}, 0),
    ({"engine": "fake"}, 6),
    ({"formula": "C3H"}, 6),
    ({"smiles": "C1"}, 3),
    ({"contains": {"C": 3, "H": 1}}, 6),
    ({"contains": {"C": 4}}, 0),
    ({"contains": {"N": 1}}, 0),
    ({"min_energy_eV": 286.0}, 1),
    ({"max_energy_eV": 286.0}, 1),
    ({"min_energy_eV": 285.0, "max_energy_eV": 287.5}, 2),
    ({"limit": 4}, 4),
    ({"limit": 0}, 0),
]


def test_find(filled):
    found = [len(list(filled.find(**query))) for query, _ in _QUERIES]
    assert found == [count for _, count in _QUERIES]


def test_find_sorts(filled):
    found = [
        r.scalars["excitation_energy_eV"]
        for r in filled.find(kind=Kind.SITE, state=State.DONE, sort="-energy")
    ]
    assert found == [287.5, 285.0]
    keys = [r.key for r in filled.find(sort="key")]
    assert keys == sorted(keys)


def test_results_come_back(filled, world):
    site = filled.site_result(world.site_key)
    assert site.energies_eV["ground"] == -2084.123456789012
    assert site.provenance.inputs_sha256 == {"calculation.json": "00"}
    spectrum = filled.spectrum(world.site_key)
    assert spectrum.intensity.shape[1] == 3
    assert (spectrum.sigma_eV, spectrum.step_eV) == (0.5, 0.1)
    assert filled.ground_result(world.ground_key).gap_eV == 8.0


def test_results_that_are_not_there(filled, world):
    with pytest.raises(NotFound, match="ready"):
        filled.ground_result(world.molecules[1].ground_key)
    with pytest.raises(UserError, match="is a ground, not a site"):
        filled.site_result(world.ground_key)
    filled._db["spectra"].delete_one({"_id": world.site_key})
    with pytest.raises(StoreError, match="arrays of a finished calculation"):
        filled.site_result(world.site_key)


def test_structures_and_molecules(filled, world):
    molecule = world.molecules[0]
    assert filled.structure(molecule.structure_key).smiles == "C0"
    assert filled.molecule("demo", "mol_0") == molecule
    assert filled.molecule(None, "mol_0") == molecule
    assert [m.name for m in filled.molecules("demo")] == ["mol_0", "mol_1"]
    assert list(filled.molecules(structure_key=molecule.structure_key)) == [molecule]
    with pytest.raises(NotFound, match="no such structure"):
        filled.structure("0" * 32)
    with pytest.raises(NotFound, match=r"in campaign 'demo' \(did you mean"):
        filled.molecule("demo", "mol_9")


def test_a_name_in_two_campaigns(filled, world):
    same = replace(world.molecules[0], campaign="other")
    filled.put_molecules([same])
    assert filled.molecule(None, "mol_0").campaign == "demo"
    filled.put_molecules([replace(world.molecules[0], campaign="third", name="mol_1")])
    with pytest.raises(UserError, match="demo, third have different molecules"):
        filled.molecule(None, "mol_1")


@pytest.mark.parametrize(
    "told",
    [
        {"ladder": {"corrections": ["level_shift"], "numerics": {"level_shift_Ha": 0.3}}},
        {"provenance.extra.numerics": {"start": "huckel"}},
        {"provenance.extra.started_from": {"directory": "/r", "states": ["ion"]}},
        {"provenance.extra.ground_state": "computed again"},
    ],
)
def test_times_of_other_work_say_nothing_about_the_next(filled, world, told):
    one, other = (site.key for site in world.molecules[0].sites)
    site = filled.identity(one)
    about = {"engine": site.engine, "kind": Kind.SITE, "parameters_key": site.parameters_key, "limit": 9}
    assert len(filled.timings(**about)) == 2
    run = {"provenance.extra.run": {"cluster": "mine", "threads": 4}}
    filled._db["calculations"].update_one({"_id": one}, {"$set": told})
    filled._db["calculations"].update_one({"_id": other}, {"$set": run})
    (left,) = filled.timings(**about)
    assert (left.cluster, left.threads) == ("mine", 4)
    assert left.structure_key == site.structure_key


def test_times_are_found_without_reading_all_that_is_done(filled, world, monkeypatch):
    calculations = filled._db["calculations"]
    site = filled.identity(world.site_key)
    one = calculations.find_one({"_id": world.site_key})
    calculations.insert_many(
        {**one, "_id": f"{n:032d}", "parameters_key": "other" if n % 2 else site.parameters_key}
        for n in range(100)
    )
    asked, real = [], Collection.find

    def find(self, *args, **kwargs):
        asked.append(real(self, *args, **kwargs))
        return asked[-1]

    monkeypatch.setattr(Collection, "find", find)
    about = {"engine": site.engine, "kind": Kind.SITE, "parameters_key": site.parameters_key}
    assert len(filled.timings(**about, limit=7)) == 7
    assert asked[-1].clone().explain()["executionStats"]["totalDocsExamined"] == 7  # nor sorted
