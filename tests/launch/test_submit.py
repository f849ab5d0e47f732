from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.campaign.cost import Calibration
from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.errors import Busy, UnsupportedInput, UserError
from htxas.launch.pad.launchpad import database_errors
from htxas.launch.pad.workflows import workflows_of
from htxas.launch.preview import preview
from htxas.launch.submit import submit
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


class _KilledError(Exception):
    pass


def check_whole(store: Store, launchpad: LaunchPad, campaign: str, calculations: int) -> None:
    """Every calculation is in one batch, every batch in one Firework, every Firework in one workflow."""
    records = list(store.find(campaign=campaign))
    assert len(records) == calculations
    batches = {r.batch for r in records}
    assert None not in batches
    carried = [f["spec"]["htxas"]["batch"] for f in launchpad.fireworks.find({})]
    assert sorted(carried) == sorted(b for b in batches if b is not None)
    nodes = [n for w in launchpad.workflows.find({}) for n in w["nodes"]]
    assert sorted(nodes) == sorted(f["fw_id"] for f in launchpad.fireworks.find({}))
    assert not list(store.unsubmitted_batches(campaign))
    for batch_id in carried:
        assert store.batch(batch_id).fw_id in nodes


def test_twice_adds_nothing(store: Store, launchpad: LaunchPad, submitted: Callable[..., Any]) -> None:
    first = submitted()
    assert (first.molecules, first.calculations, first.known) == (3, 9, 0)
    again = submitted()
    assert (again.molecules, again.calculations, again.batches, again.known) == (0, 0, 0, 9)
    check_whole(store, launchpad, "chains", 9)


def test_one_magnetic_molecule_and_nothing_is_submitted(
    store: Store, launchpad: LaunchPad, write: Callable[..., Any]
) -> None:
    path = write()
    whole = path.with_suffix(".xyz")
    atoms = Path(whole).read_text().split("\n", 2)[2].splitlines()[: int(whole.read_text().split()[0])]
    rows = "".join(f"{line} 0\n" for line in atoms)
    magnetic = 'Properties=species:S:1:pos:R:3:initial_magmoms:R:1 pbc="F F F" name='
    head = f"{len(atoms)}\n{magnetic}"
    whole.write_text(f"{head}plain\n{rows}{head}up\n{rows[:-2]}1\n")
    with (
        Plan(load_campaign(path)) as plan,
        pytest.raises(UnsupportedInput, match="nothing was submitted: up: magnetic moments"),
    ):
        submit(store, launchpad, plan)
    assert not store.campaigns()
    assert not list(store.find())
    assert launchpad.workflows.count_documents({}) == 0


STEPS = [
    ("store", "put_campaign"),
    ("store", "put_structures"),
    ("store", "put_calculations"),
    ("store", "put_molecules"),
    ("store", "put_batches"),
    ("store", "mark_submitted"),
    ("launchpad.workflows", "insert_many"),
    ("launchpad.fireworks", "insert_many"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("what", "step"), STEPS)
def test_a_submission_killed_at_any_step_is_completed_by_the_next(
    what: str,
    step: str,
    after: bool,
    store: Store,
    launchpad: LaunchPad,
    write: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Plan(load_campaign(write(batch={"target_s": 0.02, "split_above_s": 0.03}))) as plan:
        with monkeypatch.context() as patch:
            target: Any = store if what == "store" else getattr(launchpad, what.split(".")[1])
            real = getattr(type(target), step)

            def kill(*args: Any, **kwargs: Any) -> None:
                if after:
                    real(target, *args, **kwargs)
                raise _KilledError

            patch.setattr(target, step, kill)
            with pytest.raises(_KilledError):
                submit(store, launchpad, plan)
            begun = after or step != "put_campaign"
            assert store.unfinished_submissions() == (["chains"] if begun else [])
        submit(store, launchpad, plan)
    assert store.unfinished_submissions() == []
    check_whole(store, launchpad, "chains", 9)


def test_dear_molecules_become_parent_and_children(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any]
) -> None:
    submitted(sizes=(3,), seconds=100.0, batch={"target_s": 100.0, "split_above_s": 150.0, "at_least": 1})
    workflow = launchpad.workflows.find_one({})
    parents = {int(k): v for k, v in workflow["links"].items() if v}
    assert [len(v) for v in parents.values()] == [3]
    states = {f["fw_id"]: f["state"] for f in launchpad.fireworks.find({})}
    assert sorted(states.values()) == ["READY", "WAITING", "WAITING", "WAITING"]
    assert states[next(iter(parents))] == "READY"


def test_a_changed_campaign_needs_another_name(submitted: Callable[..., Any]) -> None:
    submitted()
    with pytest.raises(UserError, match="other content"):
        submitted(seconds=1.0)


def test_two_campaigns_share_what_they_have_in_common(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any]
) -> None:
    submitted("one", sizes=(1, 2))
    second = submitted("two", sizes=(2, 3))
    assert (second.calculations, second.known) == (4, 3)
    shared = list(launchpad.fireworks.find({"spec.htxas.shared_with": "two"}))
    assert [f["spec"]["htxas"]["campaign"] for f in shared] == ["one"]
    assert sum(store.counts("two").values()) == 7


def test_what_another_gate_has_judged_is_not_served(
    store: Store, launchpad: LaunchPad, write: Callable[..., Path]
) -> None:
    def plan(name: str, sizes: tuple[int, ...], gate: str = "") -> Plan:
        path = write(name, sizes=sizes)
        path.write_text(json.dumps({**json.loads(path.read_text()), **json.loads(gate or "{}")}))
        return Plan(load_campaign(path))

    wide = '{"gate": {"strength_range": [0.0001, 99.0]}}'
    with plan("wide", (1, 2), wide) as first:
        submit(store, launchpad, first)
    limits = (
        r"campaign wide has some.*\(strength_ratio, strength_range\).*"
        r"write gate: \{strength_range: \[0.0001, 99.0\]\} and leave out strength_ratio"
    )
    refused = pytest.raises(UserError, match=limits)
    with plan("strict", (2, 3)) as second, refused:
        submit(store, launchpad, second)
    assert [c["name"] for c in store.campaigns()] == ["wide"]  # nothing of it was submitted
    with plan("strict", (3, 4)) as second:  # has nothing in common with it
        submit(store, launchpad, second)
    with plan("wide_too", (2, 5), wide) as third:
        assert submit(store, launchpad, third).known == 3


def test_a_campaign_of_an_older_version_goes_on_with_its_own_limits(
    store: Store, launchpad: LaunchPad, write: Callable[..., Path]
) -> None:
    path = write("old", sizes=(1, 2))
    now = path.read_text()
    older = json.dumps({**json.loads(now), "gate": {"strength_range": [0.05, 1.0]}})
    path.write_text(older)
    with Plan(load_campaign(path)) as plan:
        assert submit(store, launchpad, plan).calculations == 5
    path.write_text(now)
    hint = r"submitted with other limits.*to go on with it, write gate: \{strength_range: \[0.05, 1.0\]\}"
    with Plan(load_campaign(path)) as plan, pytest.raises(UserError, match=hint):
        submit(store, launchpad, plan)
    path.write_text(older)
    with Plan(load_campaign(path)) as plan:
        assert (submit(store, launchpad, plan).calculations, sum(store.counts("old").values())) == (0, 5)


def test_preview_counts_without_writing(
    store: Store, launchpad: LaunchPad, write: Callable[..., Any]
) -> None:
    with Plan(load_campaign(write())) as plan:
        alone, before = preview(plan, None), preview(plan, store)
        assert (alone.new, alone.checked, before.new, before.checked) == (9, False, 9, True)
        assert sum(store.counts().values()) == 0
        done = submit(store, launchpad, plan)
        assert done.batches == before.batches == alone.batches
        after = preview(plan, store)
    assert (after.new, after.known, after.batches) == (0, 9, 0)


def test_one_submission_at_a_time(store: Store, submitted: Callable[..., Any]) -> None:
    with (
        store.lock("submission of chains", "somebody else", ttl_s=1.0),
        pytest.raises(Busy, match="another submission of chains is under way, by somebody else"),
    ):
        submitted()
    assert submitted().calculations == 9


def test_a_submission_that_lost_its_lock_queues_nothing(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.put_batches

    def sleep_too_long(batches: Any) -> int:
        change = {"$set": {"token": 99}}  # as if another one had taken over
        store._db["locks"].update_one({"_id": "submission of chains"}, change)
        return real(batches)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_batches", sleep_too_long)
        with pytest.raises(Busy, match="took over"):
            submitted()
    assert launchpad.fireworks.count_documents({}) == 0
    store._db["locks"].delete_one({"_id": "submission of chains"})
    submitted()
    check_whole(store, launchpad, "chains", 9)


def test_the_server_refuses_a_second_firework_for_a_batch(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    all_batches: Callable[[], list[str]],
) -> None:
    submitted()
    batch = store.batch(all_batches()[0])
    with pytest.raises(Busy, match="another process queued"), database_errors():
        launchpad.bulk_add_wfs(list(workflows_of([batch])))


def test_what_was_skipped_is_kept_with_the_campaign(
    store: Store, launchpad: LaunchPad, submitted: Callable[..., Any], write: Callable[..., Any]
) -> None:
    broken = "2\nclose\nC 0 0 0\nC 0 0 0.1\n"
    assert submitted(sizes=(1,), extra=broken).molecules == 1
    kept = store.campaign("chains")
    assert kept["submitted"] is not None
    assert [(s["name"], s["why"]) for s in kept["skipped"]] == [("close", "structure")]
    with Plan(load_campaign(write(sizes=(1,), extra=broken))) as plan:
        told = preview(plan, store).to_dict(plan)["skipped"]
    assert (told["count"], told["why"], told["molecules"]) == (1, {"structure": 1}, kept["skipped"])


def test_measured_times_size_the_batches(
    store: Store,
    launchpad: LaunchPad,
    submitted: Callable[..., Any],
    write: Callable[..., Any],
    compute_all: Callable[[], Any],
    all_batches: Callable[[], list[str]],
) -> None:
    sizing = {"target_s": 60.0, "at_least": 1}
    submitted(sizes=(13,), batch=sizing)
    with Plan(load_campaign(write("next", sizes=(5, 6), batch=sizing))) as plan:
        before = preview(plan, store)
        assert (before.calibration, before.batches) == (Calibration(), 1)
        compute_all()
        store._db["calculations"].update_many({"kind": "site"}, {"$set": {"wall_s": 10.0}})
        after = preview(plan, store)
        assert (after.calibration.ground.samples, after.calibration.site.samples) == (0, 13)
        assert after.new_estimate_s == pytest.approx(110.0, rel=0.01)
        assert after.batches == 2
        assert submit(store, launchpad, plan).batches == 2
    other = store.batch(all_batches()[-1])
    assert other.estimate_s == pytest.approx(10.0 * (len(other.keys) - 1), rel=0.01)
