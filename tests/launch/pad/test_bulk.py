"""Many Fireworks at once, compared with what FireWorks itself would have made of them."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from fireworks import Firework, FWAction, FWorker, LaunchPad, Workflow

from htxas.launch.pad.bulk import defuse, make_ready, prioritise, reignite, settle, workflow_state
from htxas.launch.pad.launchpad import campaign_query
from htxas.launch.tasks import RunBatchTask

pytestmark = pytest.mark.mongo

Tally = Callable[[], dict[str, int]]
ALL: dict[str, Any] = {}


def add(launchpad: LaunchPad, shapes: list[int]) -> None:
    """Add one workflow per number: a first Firework and so many after it."""
    made = []
    for children in shapes:
        fws = [Firework(RunBatchTask(), fw_id=-i - 1) for i in range(children + 1)]
        made.append(Workflow(fws, {fws[0]: fws[1:]} if children else None))
    launchpad.bulk_add_wfs(made)


def take(launchpad: LaunchPad, owner: str = "w", fw_id: int | None = None) -> tuple[int, int]:
    firework, launch = launchpad.checkout_fw(FWorker(name=owner), "/nowhere", fw_id=fw_id)
    return firework.fw_id, launch


def states(launchpad: LaunchPad) -> dict[int, str]:
    return {f["fw_id"]: f["state"] for f in launchpad.fireworks.find({}, {"fw_id": 1, "state": 1})}


def agrees(launchpad: LaunchPad) -> bool:
    """Whether FireWorks' own view of each workflow is what its document says."""
    now = states(launchpad)
    for document in launchpad.workflows.find():
        if "locked" in document or document["fw_states"] != {str(n): now[n] for n in document["nodes"]}:
            return False
        if launchpad.get_wf_by_fw_id(document["nodes"][0]).state != document["state"]:
            return False
    return True


def test_a_workflows_state_is_the_one_fireworks_derives() -> None:
    names = (
        "READY",
        "WAITING",
        "RESERVED",
        "RUNNING",
        "COMPLETED",
        "FIZZLED",
        "DEFUSED",
        "PAUSED",
        "ARCHIVED",
    )
    for combination in itertools.product(names, repeat=3):
        fws = [Firework(RunBatchTask(), fw_id=i + 1, state=s) for i, s in enumerate(combination)]
        workflow = Workflow(fws, {fws[0]: fws[1:]})
        document = workflow.to_db_dict()
        assert workflow_state(document["fw_states"], document["links"]) == workflow.state, combination


def test_defused_and_reignited(launchpad: LaunchPad, tally: Tally) -> None:
    add(launchpad, [0, 0, 2])
    _, launch = take(launchpad, fw_id=1)
    launchpad.complete_launch(launch, FWAction())
    assert defuse(launchpad, ALL) == 4
    assert tally() == {"COMPLETED": 1, "DEFUSED": 4}
    assert agrees(launchpad)
    assert defuse(launchpad, ALL) == 0
    assert launchpad.checkout_fw(FWorker(), "/nowhere") == (None, None)
    assert reignite(launchpad, ALL) == 4
    assert tally() == {"COMPLETED": 1, "READY": 2, "WAITING": 2}
    assert agrees(launchpad)


def test_completed_ones_run_again_and_their_children_wait(launchpad: LaunchPad, tally: Tally) -> None:
    add(launchpad, [2])
    _, launch = take(launchpad)
    launchpad.complete_launch(launch, FWAction())
    child, _ = take(launchpad)
    assert tally() == {"COMPLETED": 1, "RUNNING": 1, "READY": 1}
    assert make_ready(launchpad, [1]) == 1
    assert states(launchpad)[1] == "READY"
    assert tally() == {"READY": 1, "RUNNING": 1, "WAITING": 1}
    assert agrees(launchpad)
    parent, launch = take(launchpad)
    assert parent == 1
    launchpad.complete_launch(launch, FWAction())
    assert tally() == {"COMPLETED": 1, "RUNNING": 1, "READY": 1}
    assert agrees(launchpad)
    assert make_ready(launchpad, [child]) == 1
    assert states(launchpad)[child] == "READY"


def test_a_ghost_cannot_complete_what_was_made_ready(launchpad: LaunchPad, tally: Tally) -> None:
    add(launchpad, [0])
    fw_id, ghost = take(launchpad, "ghost")
    assert make_ready(launchpad, [fw_id]) == 1
    launchpad.complete_launch(ghost, FWAction())
    assert tally() == {"READY": 1}
    again, launch = take(launchpad, "other")
    launchpad.complete_launch(ghost, FWAction())
    assert tally() == {"RUNNING": 1}
    launchpad.complete_launch(launch, FWAction())
    assert (again, tally()) == (fw_id, {"COMPLETED": 1})
    assert agrees(launchpad)


def test_an_interrupted_refresh_is_mended(launchpad: LaunchPad, tally: Tally) -> None:
    add(launchpad, [3, 0])
    fw_id, launch = take(launchpad, fw_id=1)
    launchpad.launches.update_one({"launch_id": launch}, {"$set": {"state": "COMPLETED"}})
    launchpad.fireworks.update_one({"fw_id": fw_id}, {"$set": {"state": "COMPLETED"}})
    assert not agrees(launchpad)
    assert settle(launchpad, [fw_id]) >= 1
    assert tally() == {"COMPLETED": 1, "READY": 4}
    assert agrees(launchpad)
    assert settle(launchpad, states(launchpad)) == 0


def test_a_lock_of_fireworks_is_respected(launchpad: LaunchPad) -> None:
    add(launchpad, [0])
    launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert defuse(launchpad, ALL) == 1
    document = launchpad.workflows.find_one()
    assert (document["state"], document["locked"]) == ("READY", True)
    launchpad.workflows.update_one({}, {"$unset": {"locked": True}})
    assert settle(launchpad, [1]) == 1
    assert agrees(launchpad)


def test_a_half_submitted_workflow_is_left_alone(launchpad: LaunchPad) -> None:
    add(launchpad, [1])
    launchpad.fireworks.delete_one({"fw_id": 2})
    before = launchpad.workflows.find_one()
    assert defuse(launchpad, ALL) == 1
    assert launchpad.workflows.find_one() == before


def test_priorities(launchpad: LaunchPad) -> None:
    add(launchpad, [0, 0, 0])
    assert prioritise(launchpad, {"fw_id": 3}, 5) == 1
    assert prioritise(launchpad, {"fw_id": 3}, 5) == 0
    assert take(launchpad)[0] == 3


def test_any_order_of_events_ends_in_agreement(launchpad: LaunchPad) -> None:
    chance = random.Random(7)
    add(launchpad, [0, 1, 2, 3])
    open_launches: list[int] = []
    for _ in range(150):
        ids = chance.sample(list(states(launchpad)), 3)
        event = chance.randrange(6)
        if event == 0:
            defuse(launchpad, {"fw_id": {"$in": ids}})
        elif event == 1:
            reignite(launchpad, {"fw_id": {"$in": ids}})
        elif event == 2:
            make_ready(launchpad, ids)
        elif event == 3 and open_launches:
            launchpad.complete_launch(open_launches.pop(chance.randrange(len(open_launches))), FWAction())
        else:
            firework, launch = launchpad.checkout_fw(FWorker(), "/nowhere")
            if firework is not None:
                open_launches.append(launch)
        settle(launchpad, states(launchpad))
        assert agrees(launchpad)


def test_a_thousand_in_a_second(launchpad: LaunchPad, tally: Tally) -> None:
    add(launchpad, [0] * 900 + [9] * 10)
    start = time.perf_counter()
    defuse(launchpad, ALL)
    reignite(launchpad, ALL)
    ended = time.perf_counter() - start
    assert tally() == {"READY": 910, "WAITING": 90}
    assert ended < 10.0  # 0.5 s alone; the machines of tests are shared
    assert launchpad.workflows.count_documents({"locked": {"$exists": True}}) == 0


def test_a_checkout_reads_no_more_than_it_looks_at(launchpad: LaunchPad) -> None:
    spec = {"htxas": {"campaign": "chains", "batch": "b"}, "_priority": 1}
    launchpad.fireworks.insert_many(
        {"fw_id": n, "state": "READY", "spec": {**spec, "htxas": {**spec["htxas"], "batch": f"b{n}"}}}
        for n in range(1000)
    )
    cursor = launchpad.fireworks.find(
        {"$and": [campaign_query("chains"), {"state": "READY"}]},
        sort=[("spec._priority", -1), ("fw_id", 1)],
        limit=8,
    )
    assert cursor.explain()["executionStats"]["totalDocsExamined"] <= 8
