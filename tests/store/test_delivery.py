from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, OperationFailure

import htxas.store.delivery
from htxas.domain.calculation import Convergence, State
from htxas.domain.gate import GateLimits, inspect
from htxas.errors import Cause, DatabaseUnavailable, NotFound
from htxas.store.outcomes import decode, encode, failed, quarantined
from htxas.store.records import MOST_INTERRUPTED, Lease

pytestmark = pytest.mark.mongo

STEP = {"corrections": ["smear"], "numerics": {"smearing_eV": 0.1}, "rungs": {"scf_unconverged": 1}}


@pytest.fixture
def key(store, world):
    world.submit(store)
    return world.site_key


def refuse(world, lease, **changes):
    result = replace(world.site_result(), **changes)
    what = world.calculations[lease.key], world.structure_of(lease.key), result
    return quarantined(lease, *what, inspect(result, GateLimits()), sigma_eV=0.5, step_eV=0.1)


def test_a_result_its_provenance_and_its_history_are_stored(store, world, key):
    lease = world.lease(store, key)
    outcome = decode(encode(world.outcome(lease)))
    assert store.deliver([outcome]) == ["stored"]
    record = store.calculation(key)
    assert (record.state, record.wall_s, record.host, record.directory) == (
        State.DONE,
        2.5,
        "node1",
        "/runs/1",
    )
    assert record.provenance["libraries"] == {"numpy": "2.0", "a.b": "1"}
    assert record.history == (outcome.entry,)
    document = store._db["calculations"].find_one({"_id": key})
    assert (document["lease_until"], document["lease_token"]) == (None, None)
    assert document["finished"] == document["updated"]
    assert store.site_result(key).excitation_energy_eV == 285.0
    assert world.finish(store, world.ground_key)
    assert store.ground_result(world.ground_key).gap_eV == 8.0


def test_a_batch_keeps_its_order_and_costs_two_operations_each(store, world, key, monkeypatch):
    monkeypatch.setattr(htxas.store.delivery, "_MOST", 4)
    before = _operations(store)
    leased = store.lease_many(world.calculations, "a")
    leasing = _operations(store) - before
    outcomes = [world.outcome(x.lease) for x in leased]
    stranger = world.outcome(Lease(leased[0].lease.key, 1, "b"))
    unknown = failed(Lease("0" * 32, 1, "a"), Cause.LOST, "x", {})
    mixed = [outcomes[0], stranger, *outcomes[1:3], unknown, outcomes[0], *outcomes[3:]]
    expected = ["stored", "refused", "stored", "stored", "refused", "again", "stored", "stored", "stored"]
    before = _operations(store)
    assert store.deliver(mixed) == expected
    assert leasing == 2
    assert _operations(store) - before == 2 * 6 + 3  # two writes each; a read for each four
    assert store.counts("demo")[State.DONE] == 6
    assert store.deliver(mixed) == [x.replace("stored", "again") for x in expected]
    assert store.deliver([]) == []


def _operations(store):
    counters = store._client.admin.command("serverStatus")["opcounters"]
    return sum(
        n for name, n in counters.items() if name != "command"
    )  # drivers ask for signs of life as they please


def test_large_outcomes_are_spread_over_transactions(store, world, key, monkeypatch):
    monkeypatch.setattr(htxas.store.delivery, "_MOST_BYTES", 3000)
    seen = []
    real = store._conclude
    monkeypatch.setattr(
        store, "_conclude", lambda chunk, session: seen.append(len(chunk)) or real(chunk, session)
    )
    leased = store.lease_many(world.calculations, "a")
    assert store.deliver([world.outcome(x.lease) for x in leased]) == ["stored"] * 6
    assert len(seen) > 2
    assert sum(seen) == 6


def test_who_lost_the_lease_is_refused(store, world, key):
    first = world.lease(store, key, "a")
    store.release_owner("a", cause=Cause.NODE_FAILURE, message="x", in_hand=[key])
    second = world.lease(store, key, "b")
    late = [
        world.outcome(first, 290.0),
        refuse(world, first, window_eV=1.0),
        failed(first, Cause.LOST, "x", {}),
    ]
    assert store.deliver(late) == ["refused"] * 3
    assert store._db["spectra"].count_documents({}) == 0
    assert store.deliver([world.outcome(second)]) == ["stored"]
    assert store.deliver(late) == ["refused"] * 3
    assert store.site_result(key).excitation_energy_eV == 285.0
    assert [e["cause"] for e in store.calculation(key).history] == ["node_failure", None]


@pytest.mark.parametrize("cause", [Cause.LOST, Cause.WALLTIME, Cause.NODE_FAILURE, Cause.DISK_FULL])
def test_a_result_that_comes_after_its_calculation_was_given_up_is_kept(store, world, key, cause):
    for n in range(MOST_INTERRUPTED[cause]):
        lease = world.lease(store, key, f"w{n}")
        store.release([lease], cause=cause, message="gone", evidence={"log": ["x"]}, in_hand=[key])
    assert store.calculation(key).state is State.FAILED
    late = world.outcome(lease)
    assert (
        store.deliver([world.outcome(Lease(key, 1, "w0")), failed(lease, cause, "x", {})]) == ["refused"] * 2
    )
    assert store.deliver([late]) == ["stored"]
    assert store.deliver([late]) == ["again"]
    record = store.calculation(key)
    assert (record.state, record.cause, record.message, record.evidence) == (State.DONE, None, None, {})
    assert [e["state"] for e in record.history[-2:]] == ["failed", "done"]
    assert store.site_result(key).excitation_energy_eV == 285.0


def test_a_result_does_not_undo_another_failure_nor_the_work_of_others(store, world, key):
    lease = world.lease(store, key)
    crashed = failed(lease, Cause.ENGINE_CRASH, "x", {})
    assert store.deliver([crashed, world.outcome(lease)]) == ["stored", "refused"]
    assert store.deliver([world.outcome(lease)]) == ["refused"]
    other = world.ground_key
    for n in range(MOST_INTERRUPTED[Cause.LOST]):
        given_up = world.lease(store, other, f"w{n}")
        store.release([given_up], cause=Cause.LOST, message="gone", in_hand=[other])
    store.retry("demo", cause=Cause.LOST)
    newer = world.lease(store, other, "b")
    store.deliver([failed(newer, Cause.LOST, "x", {})])
    assert store.deliver([world.outcome(given_up)]) == ["refused"]
    assert store.calculation(other).state is State.FAILED


def test_a_result_that_comes_before_anybody_took_over_is_kept(store, world, key):
    lease = world.lease(store, key, "a")
    store.release_owner("a", cause=Cause.NODE_FAILURE, message="x", in_hand=[key])
    assert store.deliver([failed(lease, Cause.LOST, "x", {})]) == ["refused"]  # a result, not a failure
    late = world.outcome(lease)
    assert store.deliver([late]) == ["stored"]
    assert store.deliver([late]) == ["again"]
    assert store.calculation(key).state is State.DONE
    assert store.lease_many([key], "b") == []


def test_a_stranger_with_the_right_number_is_refused(store, world, key):
    lease = world.lease(store, key, "a")
    assert store.deliver([world.outcome(replace(lease, owner="b"))]) == ["refused"]
    assert store.release([replace(lease, owner="b")]) == {key: "refused"}
    assert store.held("a") == [lease]


def test_an_owner_is_fenced_off_from_its_own_older_attempt(store, world, key):
    first = world.lease(store, key)
    store.release([first])
    second = world.lease(store, key)
    assert store.deliver([failed(first, Cause.WALLTIME, "x", {})]) == ["refused"]
    assert store.deliver([failed(second, Cause.WALLTIME, "x", {})]) == ["stored"]


def test_a_failed_attempt_is_tried_again_with_a_correction(store, world, key):
    lease = world.lease(store, key)
    evidence = {"log": ["x"]}
    outcome = failed(lease, Cause.SCF_UNCONVERGED, "100 cycles", evidence, {"wall_s": 9.0}, again=STEP)
    assert store.deliver([outcome]) == ["stored"]
    assert store.deliver([outcome]) == ["again"]
    record = store.calculation(key)
    assert (record.state, record.cause, record.ladder) == (State.READY, None, STEP)
    assert store.progress("demo")["causes"] == {}
    (leased,) = store.lease_many([key], "b")
    assert (leased.lease.attempt, leased.record.ladder) == (2, STEP)
    assert store.deliver([outcome]) == ["again"]  # a replay of the first attempt while the second runs
    assert store.deliver([world.outcome(leased.lease)]) == ["stored"]
    record = store.calculation(key)
    assert (record.ladder, [e["state"] for e in record.history]) == (STEP, ["ready", "done"])
    assert store.site_result(key).excitation_energy_eV == 285.0


def test_attempts_of_one_calculation_in_one_delivery(store, world, key):
    """What a journal holds after an outage: an attempt that was delivered, and the next one."""
    first = failed(world.lease(store, key), Cause.SCF_UNCONVERGED, "x", {}, again=STEP)
    assert store.deliver([first]) == ["stored"]
    second = world.outcome(world.lease(store, key))
    assert store.deliver([first, second, first, second]) == ["again", "stored", "again", "again"]


def test_failure_keeps_cause_and_evidence(store, world, key):
    evidence = {"last": 0.1, "log": ["a", "b"], "a.b": {"$c": 1}}
    assert world.fail(store, key, Cause.SCF_UNCONVERGED, "100 cycles", evidence, directory="/r", host="h")
    record = store.calculation(key)
    assert (record.state, record.cause, record.message) == (State.FAILED, Cause.SCF_UNCONVERGED, "100 cycles")
    assert (record.evidence, record.directory, record.host) == (evidence, "/r", "h")
    with pytest.raises(NotFound, match="failed: scf_unconverged"):
        store.site_result(key)


def test_quarantine_keeps_the_result_as_evidence_only(store, world, key):
    assert store.deliver([refuse(world, world.lease(store, key), hole_overlap=0.3)]) == ["stored"]
    record = store.calculation(key)
    assert (record.state, record.cause) == (State.QUARANTINED, Cause.HOLE_LEFT_SITE)
    assert record.evidence == {"hole_overlap": 0.3}
    with pytest.raises(NotFound, match="quarantined: hole_left_site"):
        store.site_result(key)
    assert store.site_result(key, include_quarantined=True).hole_overlap == 0.3
    assert len(store.spectrum(key, include_quarantined=True).intensity) > 0


def test_a_retried_quarantine_is_not_served_from_its_old_arrays(store, world, key):
    refused = refuse(world, world.lease(store, key), convergence=Convergence.UNCONVERGED)
    store.deliver([refused])
    store.retry("demo")
    lease = world.lease(store, key)
    with pytest.raises(NotFound, match="running"):
        store.site_result(key, include_quarantined=True)
    store.deliver([world.outcome(lease, 286.0)])
    assert store.site_result(key).excitation_energy_eV == 286.0


def test_a_result_and_its_state_are_one(store, world, key, monkeypatch):
    """A process that dies between the two writes leaves nothing of either."""
    leased = [x.lease for x in store.lease_many(world.calculations, "a")]
    outcomes = [world.outcome(lease) for lease in leased]

    class Died(BaseException):
        pass

    real = Collection.bulk_write

    def die(self, *args, **kwargs):
        if self.name == "dos":
            raise Died
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Collection, "bulk_write", die)
    with pytest.raises(Died):
        store.deliver(outcomes)
    monkeypatch.undo()
    assert store.counts("demo")[State.RUNNING] == 6
    assert store._db["spectra"].count_documents({}) == store._db["dos"].count_documents({}) == 0
    assert store.deliver(outcomes) == ["stored"] * 6


@pytest.mark.parametrize("committed", [True, False])
def test_a_lost_answer_stores_nothing_twice(store, world, key, monkeypatch, committed):
    real, lost = ClientSession.commit_transaction, []

    def answer_lost(self):
        if lost:
            return real(self)
        lost.append(1)
        if committed:
            real(self)
        else:
            self.abort_transaction()
        raise AutoReconnect("connection closed")

    monkeypatch.setattr(ClientSession, "commit_transaction", answer_lost)
    outcomes = [world.outcome(x.lease) for x in store.lease_many(world.calculations, "a")]
    assert store.deliver(outcomes) == ["again" if committed else "stored"] * 6
    assert lost
    assert all(len(r.history) == 1 for r in store.find())
    assert store._db["spectra"].count_documents({}) == 4


def test_what_the_database_refuses_fails_alone(store, world, key):
    leased = [x.lease for x in store.lease_many(world.calculations, "a")]
    outcomes = [world.outcome(lease) for lease in leased]
    large = outcomes[3]
    too_large = {**large.fields, "scalars": {"x": "y" * 17_000_000}}
    outcomes[3] = replace(large, fields=too_large)
    outcomes[5] = replace(outcomes[5], fields={**outcomes[5].fields, "scalars": "not an object"})
    assert store.deliver(outcomes) == ["stored"] * 6
    assert store.deliver(outcomes) == ["again"] * 6
    for lease, outcome in zip(leased, outcomes, strict=True):
        record = store.calculation(lease.key)
        if outcome in (outcomes[3], outcomes[5]):
            assert (record.state, record.cause) == (State.FAILED, Cause.BAD_OUTPUT)
            assert record.message.startswith("the result cannot be stored: ")
            assert record.directory == outcome.fields["directory"]
        else:
            assert record.state is State.DONE


def test_a_database_that_is_away_is_no_failure_of_the_result(store, world, key, monkeypatch):
    outcome = world.outcome(world.lease(store, key))
    store._patience_s = 0.1

    def away(self, *args, **kwargs):
        raise AutoReconnect("connection refused")

    monkeypatch.setattr(Collection, "find", away)
    with pytest.raises(DatabaseUnavailable):
        store.deliver([outcome])
    monkeypatch.undo()
    assert store.deliver([outcome]) == ["stored"]


def test_renewal_and_delivery_at_once(store, world, key):
    """Both write the same documents; neither may lose."""
    many = world.make(40)
    many.submit(store)
    leased = [x.lease for x in store.lease_many(many.calculations, "a")]
    over = threading.Event()

    def renew():
        while not over.is_set():
            store.renew("a")

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        answers = [
            a for i in range(0, 120, 20) for a in store.deliver([many.outcome(x) for x in leased[i : i + 20]])
        ]
    finally:
        over.set()
        thread.join()
    assert answers == ["stored"] * 120
    assert store.counts("demo")[State.DONE] == 120
    assert store.held("a") == []


@pytest.mark.parametrize("code", [251, 262, 43])
def test_a_server_that_cannot_answer_now_is_no_fault_of_the_result(store, world, key, monkeypatch, code):
    lease = world.lease(store, key, "a")
    outcome = world.outcome(lease)

    def overloaded(body):
        raise OperationFailure("Given transaction number does not match any in-progress transactions", code)

    monkeypatch.setattr(store, "_patience_s", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_in_transaction", overloaded)
        with pytest.raises(DatabaseUnavailable, match="not able to answer now"):
            store.deliver([outcome])
    assert store.held("a") == [lease]
    assert store.deliver([outcome]) == ["stored"]
    assert store.calculation(key).state is State.DONE
