"""Packing run folders: what is kept, what is never touched, and that a kill at any moment loses nothing."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from htxas.cli.disk import disk as command
from htxas.domain.calculation import Kind, State
from htxas.domain.gate import Rejection
from htxas.domain.result import SiteResult
from htxas.engines.base import Engine, Job, read_job
from htxas.engines.fake.run import run_directory
from htxas.engines.registry import get_engine
from htxas.errors import Cause, DatabaseUnavailable, NotFound, StoreError, UserError
from htxas.launch.disk import archive
from htxas.launch.disk import keeper as disk
from htxas.launch.disk.archive import archive_path, archives_of, pack, read_archived, unpack
from htxas.launch.disk.keeper import Keeper, pack_finished, pack_owners
from htxas.launch.disk.usage import DiskQuota, Room, folder_usage
from htxas.launch.watching.survey import survey
from htxas.launch.work.compute import attempt_directory
from htxas.launch.work.journal import JournalWriter
from htxas.store.outcomes import Outcome, done, failed, quarantined
from htxas.store.records import Leased
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

GRID = {"sigma_eV": 0.5, "step_eV": 0.1}
FAKE = get_engine("fake")


class World:
    """A campaign of fake calculations that is computed here, one attempt at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def every(self, kind: Kind | None = None) -> list[str]:
        return sorted(r.key for r in self.store.find(kind=kind))

    def lease(self, key: str) -> Leased:
        (leased,) = self.store.lease_many([key], "tester")
        return leased

    def run(self, key: str) -> tuple[Leased, Path]:
        leased = self.lease(key)
        directory = attempt_directory(key, leased.lease.attempt)
        directory.mkdir(parents=True)
        calculation = self.store.identity(key)
        structure = self.store.structure(calculation.structure_key).structure
        FAKE.write(Job(calculation, structure), directory)
        assert run_directory(directory) == 0
        (directory / "big.chk").write_bytes(bytes(100_000))
        return leased, directory

    def outcome(self, leased: Leased, directory: Path, state: State = State.DONE) -> Outcome:
        job = read_job(directory)
        result = FAKE.read(job, directory)
        if state is State.FAILED:
            return failed(leased.lease, Cause.WALLTIME, "too slow", {}, {"directory": str(directory)})
        if state is State.QUARANTINED:
            no = Rejection(Cause.GATE_REJECTED, "no", {})
            return quarantined(leased.lease, job.calculation, job.structure, result, no, **GRID)
        return done(leased.lease, job.calculation, job.structure, result, **GRID)

    def finish(self, key: str, state: State = State.DONE) -> Path:
        leased, directory = self.run(key)
        assert self.store.deliver([self.outcome(leased, directory, state)]) == ["stored"]
        return directory


@pytest.fixture
def world(store: Store, submitted: Callable[..., Any]) -> World:
    submitted(sizes=(1, 2, 3))
    return World(store)


@pytest.fixture
def site(world: World) -> str:
    return world.every(Kind.SITE)[0]


def members(key: str, attempt: int) -> set[str]:
    with tarfile.open(archive_path(key, attempt)) as tar:
        return set(tar.getnames())


def equal(a: SiteResult, b: SiteResult) -> bool:
    return (
        np.array_equal(a.sticks.energies_eV, b.sticks.energies_eV)
        and np.array_equal(a.sticks.strengths, b.sticks.strengths)
        and replace(a, sticks=None) is not None
        and a.provenance == b.provenance
        and a.hole_overlap == b.hole_overlap
    )


def test_a_finished_site_becomes_one_file_that_reads_the_same(world: World, site: str) -> None:
    directory = world.finish(site)
    before = FAKE.read(read_job(directory), directory)
    n_files = len(list(directory.iterdir()))
    packed = pack_finished(world.store)
    assert (packed.calculations, packed.attempts, packed.problems) == (1, 1, [])
    assert not directory.parent.exists()
    assert members(site, 1) >= {"calculation.json", "outcome.json", "packed.json"}
    assert "big.chk" not in members(site, 1)
    after = read_archived(FAKE, site, 1)
    assert isinstance(before, SiteResult)
    assert isinstance(after, SiteResult)
    assert equal(before, after)
    assert packed.freed_files == n_files  # and a folder became the archive
    assert packed.freed_bytes >= 100_000
    assert pack_finished(world.store).attempts == 0


@pytest.mark.parametrize("state", [State.FAILED, State.QUARANTINED])
def test_what_failed_keeps_its_evidence(
    world: World, site: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = world.finish(site, state)
    (directory / "sub").mkdir()
    (directory / "sub" / "core.log").write_text("last words")
    (directory / "link").symlink_to("/etc/passwd")
    (directory / "huge.chk").write_bytes(bytes(300_000))
    monkeypatch.setattr(archive, "_EVIDENCE_BYTES", 200_000)
    pack_finished(world.store)
    assert {"big.chk", "sub/core.log", "outcome.json"} <= members(site, 1)
    assert not {"huge.chk", "link"} & members(site, 1)
    manifest = unpack(archive_path(site, 1), directory.parent / "again")
    assert (manifest["state"], manifest["attempt"]) == (state.value, 1)
    assert manifest["left_out"] == [{"name": "huge.chk", "bytes": 300_000}]


def test_nothing_is_touched_before_its_result_is_in_the_database(world: World, site: str) -> None:
    leased, directory = world.run(site)
    outcome = world.outcome(leased, directory)
    keeper = Keeper(world.store, settle_s=-60.0, evidence_s=-60.0)
    keeper.note([site])
    assert keeper.tick().attempts == 0
    assert pack_finished(world.store).unfinished == 1
    assert FAKE.read(read_job(directory), directory)
    assert world.store.deliver([outcome]) == ["stored"]
    keeper.note([site])
    assert keeper.tick().attempts == 1


def test_a_retried_calculation_keeps_its_new_attempt(world: World, site: str) -> None:
    old = world.finish(site, State.FAILED)
    world.store.retry(None)
    leased, new = world.run(site)
    assert pack_finished(world.store).unfinished == 1
    assert old.exists()
    world.store.deliver([world.outcome(leased, new)])
    assert pack_finished(world.store).attempts == 2
    assert archives_of(site) == [1, 2]
    assert "big.chk" in members(site, 1)  # superseded: evidence of why
    assert "big.chk" not in members(site, 2)


def test_the_ground_state_waits_for_the_last_of_its_sites(world: World) -> None:
    molecule = max(world.store.molecules(), key=lambda m: len(m.sites))
    ground, sites = molecule.ground_key, [s.key for s in molecule.sites]
    assert len(sites) == 3
    directory = world.finish(ground)
    keeper = Keeper(world.store, settle_s=-60.0, evidence_s=-60.0)
    keeper.note([ground])
    assert (keeper.tick().waiting, directory.exists()) == (1, True)
    for key in sites[:2]:
        world.finish(key)
        keeper.note([key])
    assert keeper.tick().attempts == 2
    assert pack_finished(world.store).waiting == 1
    assert directory.exists()
    world.finish(sites[2], State.FAILED)
    keeper.note(sites[2:])
    assert keeper.tick().attempts == 2  # and the ground state, whose key nobody noted again
    assert not directory.exists()
    assert archives_of(ground) == [1]


def test_directories_the_database_does_not_speak_of_stay(world: World, site: str, tmp_path: Path) -> None:
    stranger = attempt_directory("ab" * 16, 1)
    stranger.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    leased, directory = world.run(site)
    outcome = failed(leased.lease, Cause.WALLTIME, "", {}, {"directory": str(elsewhere)})
    world.store.deliver([outcome])
    found = pack_finished(world.store)
    assert (found.attempts, found.strange) == (0, 2)
    assert stranger.exists()
    assert directory.exists()
    elsewhere.rmdir()  # as if that path were another node's: quiet for an hour, it is taken for ours
    assert pack_finished(world.store).attempts == 0
    long_ago = time.time() - 4000
    for path in (*directory.iterdir(), directory):
        os.utime(path, (long_ago, long_ago))
    assert pack_finished(world.store).attempts == 1


def test_a_dry_run_changes_nothing(world: World, site: str) -> None:
    directory = world.finish(site)
    found = pack_finished(world.store, dry_run=True)
    assert (found.attempts, found.freed_files) == (1, len(list(directory.iterdir())))
    assert directory.exists()
    assert archives_of(site) == []


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def _dying(function: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    def die(*args: Any, **kwargs: Any) -> Any:
        if not before:
            function(*args, **kwargs)
        raise Killed

    return die


_POINTS = [
    (owner, name, before)
    for owner, name in [
        (archive, "_write"),
        (archive, "_read_back"),
        (archive, "_sync_folder"),
        (archive, "_remove"),
        (archive, "finish_removal"),
        (Path, "replace"),
        (Path, "rename"),
        (os, "fsync"),
    ]
    for before in (True, False)
]


@pytest.mark.parametrize(("owner", "name", "before"), _POINTS, ids=lambda v: str(getattr(v, "__name__", v)))
def test_killed_at_any_point_the_result_can_be_read_and_the_next_run_completes(
    world: World, site: str, owner: Any, name: str, before: bool
) -> None:
    directory = world.finish(site)
    expected = FAKE.read(read_job(directory), directory)
    assert isinstance(expected, SiteResult)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, _dying(getattr(owner, name), before=before))
        with pytest.raises(Killed):
            pack_finished(world.store)
    if directory.exists():
        now = FAKE.read(read_job(directory), directory)
        assert (directory / "big.chk").exists()
    else:
        now = read_archived(FAKE, site, 1)
    assert isinstance(now, SiteResult)
    assert equal(expected, now)
    pack_finished(world.store)
    assert not directory.parent.exists()
    again = read_archived(FAKE, site, 1)
    assert isinstance(again, SiteResult)
    assert equal(expected, again)


def test_a_removal_killed_half_way_is_completed(
    world: World, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = world.finish(site)

    def die(path: Path, **_: Any) -> None:
        (path / "calculation.json").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", die)
        with pytest.raises(Killed):
            pack_finished(world.store)
    assert [p.name for p in directory.parent.iterdir()] == ["1.packed"]
    pack_finished(world.store)
    assert not directory.parent.exists()
    assert read_archived(FAKE, site, 1)


def test_half_written_archives_go_after_an_hour(world: World, site: str) -> None:
    world.finish(site)
    folder = attempt_directory(site, 1).parent.parent
    old, young = folder / ".x.tar.gz.host-1-a.part", folder / ".x.tar.gz.host-2-b.part"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    pack_finished(world.store)
    assert (old.exists(), young.exists()) == (False, True)


def test_who_is_slower_than_another_packer_leaves_its_archive_alone(world: World, site: str) -> None:
    """The other one packs and removes the directory while we hold an open listing of it."""
    directory = world.finish(site)
    target, original = archive_path(site, 1), archive._listing

    def slow(where: Path) -> Any:
        _, entries, used = original(where)
        patch.undo()
        assert pack(where, target, keep=FAKE.keep, evidence=False, facts={}) is not None
        return {}, entries, used  # what a listing that was open meanwhile may end with

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "_listing", slow)
        assert pack(directory, target, keep=FAKE.keep, evidence=False, facts={}) is None
    assert "outcome.json" in members(site, 1)
    assert [p.name for p in target.parent.iterdir() if site in p.name] == [target.name]


def test_a_full_disk_leaves_everything_as_it_was(
    world: World, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = world.finish(site)

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    found = pack_finished(world.store)
    assert (found.attempts, len(found.problems)) == (0, 1)
    assert "No space left" in found.problems[0]
    assert (directory / "outcome.json").exists()
    assert [p.name for p in directory.parent.parent.iterdir()] == [site]


def test_the_keeper_outlasts_database_and_disk(
    world: World, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.finish(site)
    keeper = Keeper(world.store, settle_s=-60.0, evidence_s=-60.0)
    keeper.note([site])

    def away(*_: Any) -> None:
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "calculations", away)
        assert keeper.tick().attempts == 0
    assert keeper.tick().attempts == 1


def test_what_ended_just_now_is_left_to_look_at_unless_the_disk_is_crowded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = world.every(Kind.SITE)[:2]
    world.finish(good)
    world.finish(bad, State.FAILED)
    patient = Keeper(world.store)
    patient.note([good, bad])
    assert patient.tick().attempts == 0
    settled = Keeper(world.store, settle_s=-60.0)
    settled.note([good, bad])
    done = settled.tick()
    assert (done.attempts, done.young) == (1, 1)
    quota = DiskQuota()
    crowded = Keeper(world.store, quota)
    crowded.note([bad])
    assert crowded.tick().attempts == 0
    monkeypatch.setattr(DiskQuota, "room", lambda _: Room(True, "", 0.85))
    assert crowded.tick().attempts == 1


def test_the_keeper_finds_what_others_left(world: World, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world.finish(site)
    monkeypatch.setattr(disk, "_SWEEP_EVERY_S", -1.0)
    keeper = Keeper(world.store, settle_s=-60.0, evidence_s=-60.0)
    assert sum(keeper.tick().attempts for _ in range(256)) == 1


def _tar(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return path


def _entry(name: str, **fields: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        _entry("../outside", size=3),
        _entry("/tmp/htxas-outside", size=3),
        _entry("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        _entry("device", type=tarfile.CHRTYPE),
    ],
    ids=lambda e: e.name,
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    path = _tar(tmp_path / "bad.tar.gz", entry)
    with pytest.raises(StoreError):
        unpack(path, tmp_path / "into" / "it")
    assert not (tmp_path / "into" / "outside").exists()
    assert not Path("/tmp/htxas-outside").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", *(f"flip {i}" for i in range(8))])
def test_a_damaged_archive_is_refused(world: World, site: str, damage: str) -> None:
    world.finish(site)
    pack_finished(world.store)
    path = archive_path(site, 1)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage.startswith("flip"):
        content[len(content) * (1 + int(damage[-1])) // 9] ^= 1 << int(damage[-1])
    else:
        content = bytearray()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be unpacked"):
        read_archived(FAKE, site, 1)


def test_reading_what_is_not_packed(world: World, site: str) -> None:
    with pytest.raises(NotFound):
        read_archived(FAKE, site, 1)


@pytest.mark.pyscf
@pytest.mark.slow
def test_a_real_result_reads_the_same_from_its_archive(home: Path, tmp_path: Path) -> None:
    from htxas.domain.calculation import Calculation
    from htxas.domain.structure import Structure
    from htxas.engines.pyscf.process import Shared
    from htxas.engines.pyscf.process import run_directory as run_pyscf

    engine: Engine = get_engine("pyscf")
    structure, _ = Structure.from_atoms("C H H H H".split(), [[0, 0, 0], *_tetrahedron(1.09)])
    parameters = engine.resolve("published", {"grid_level": 0}, element="C", edge="K")
    ground = Calculation(Kind.GROUND, structure.key, "pyscf", parameters.ground)
    site = Calculation(
        Kind.SITE, structure.key, "pyscf", parameters.site, "C", "K", structure.indices_of("C")[0]
    )
    shared = Shared()
    for calculation in (ground, site):
        directory = attempt_directory(calculation.key, 1)
        directory.mkdir(parents=True)
        engine.write(Job(calculation, structure, attempt_directory(ground.key, 1)), directory)
        assert run_pyscf(directory, shared) == 0
        before = engine.read(read_job(directory), directory)
        target = archive_path(calculation.key, 1)
        saved = pack(directory, target, keep=engine.keep, evidence=False, facts={})
        assert saved is not None
        assert saved.bytes_after < saved.bytes_before
        after = read_archived(engine, calculation.key, 1)
        assert before.provenance == after.provenance
        if isinstance(before, SiteResult):
            assert isinstance(after, SiteResult)
            assert equal(before, after)
        else:
            assert not isinstance(after, SiteResult)
            assert before.total_energy_eV == after.total_energy_eV
            assert np.array_equal(before.pdos.weights, after.pdos.weights)
            assert "ground.npz" not in members(ground.key, 1)


def _tetrahedron(d: float) -> list[list[float]]:
    a = d / 3**0.5
    return [[a, a, a], [a, -a, -a], [-a, a, -a], [-a, -a, a]]


@pytest.fixture
def past_owner(world: World, site: str) -> tuple[Path, Outcome]:
    folder = archive.runs_folder() / "workers" / "node1-1-abc"
    folder.mkdir(parents=True)
    (folder / "agent.log").write_text("said something\n" * 100)
    (folder / "alive.lock").touch()
    leased, directory = world.run(site)
    outcome = world.outcome(leased, directory)
    with JournalWriter(folder / "journal-0.bin") as journal:
        journal.started(site, 1)
        journal.outcome(outcome)
    return folder, outcome


def test_logs_of_past_agents_are_packed_when_their_journals_are_delivered(
    world: World, past_owner: tuple[Path, Outcome]
) -> None:
    folder, outcome = past_owner
    size = (folder / "journal-0.bin").stat().st_size
    assert pack_owners(world.store, quiet_s=-1.0).owners == 0  # nothing was delivered
    (folder / "delivered.json").write_text(json.dumps({"journal-0.bin": size // 2}))
    assert pack_owners(world.store, quiet_s=-1.0).owners == 0
    world.store.deliver([outcome])
    (folder / "delivered.json").write_text(json.dumps({"journal-0.bin": size}))
    assert pack_owners(world.store).owners == 0  # somebody wrote a moment ago
    world.store.heartbeat(folder.name, {"host": "node1"})
    assert pack_owners(world.store, quiet_s=-1.0).owners == 0  # not yet recovered
    world.store.forget_worker(folder.name)
    assert pack_owners(world.store, quiet_s=-1.0, dry_run=True).owners == 1
    assert folder.exists()
    assert pack_owners(world.store, quiet_s=-1.0).owners == 1
    assert not folder.exists()
    with tarfile.open(folder.with_name(folder.name + ".tar.gz")) as tar:
        assert set(tar.getnames()) == {"agent.log", "delivered.json", "packed.json"}
    assert pack_owners(world.store, quiet_s=-1.0).owners == 0


def test_a_locked_owner_stays(world: World, past_owner: tuple[Path, Outcome]) -> None:
    import fcntl

    folder, outcome = past_owner
    size = (folder / "journal-0.bin").stat().st_size
    (folder / "delivered.json").write_text(json.dumps({"journal-0.bin": size}))
    world.store.deliver([outcome])
    with (folder / "alive.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert pack_owners(world.store, quiet_s=-1.0).owners == 0
    assert pack_owners(world.store, quiet_s=-1.0).owners == 1


def test_the_survey_tells_campaigns_states_and_what_can_be_freed(world: World, site: str) -> None:
    for key in world.every():
        world.finish(key)
    pack_finished(world.store)
    other = world.every(Kind.SITE)[1]
    archive_path(other, 1).unlink()
    stranger = attempt_directory("cd" * 16, 1)
    stranger.mkdir(parents=True)
    found = survey(world.store, budget_s=None)
    assert found.seen == found.present
    rows = {(r.campaign, r.state): r for r in found.rows}
    assert rows["chains", "done"].archives == len(world.every()) - 1
    assert rows["not in this database", ""].folders == 1
    world.store.retry(None)
    assert {(r.campaign, r.state) for r in survey(None).rows} == {("(no database to ask)", "")}


def test_a_quota_counts_what_du_counts_and_says_why_there_is_no_room(world: World) -> None:
    assert DiskQuota().room()
    for key in world.every():
        world.finish(key)
    runs = archive.runs_folder()
    exact = folder_usage(runs)
    quota = DiskQuota(most_bytes=10**12, most_files=10**6)
    used = quota.used(budget_s=10.0)
    assert used.exact
    # `runs` itself and usage.json are not counted
    assert exact.files - 3 <= used.files <= exact.files
    assert 0.9 * exact.bytes <= used.bytes <= exact.bytes
    assert quota.room().ok
    full = DiskQuota(most_files=used.files).room()
    assert not full
    assert "files" in full.why
    assert "htxas disk" in full.why
    assert "GB" in DiskQuota(most_bytes=used.bytes).room().why


def test_a_quota_estimates_from_a_part_and_remembers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    for _ in range(3000):
        key = rng.bytes(16).hex()
        path = archive_path(key, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    exact = sum(folder_usage(p).files for p in archive.runs_folder().iterdir())
    quota = DiskQuota(most_files=10**6)
    monkeypatch.setattr("htxas.launch.disk.usage.folder_usage", _slowly(folder_usage))
    first = quota.used(budget_s=0.04)
    assert not first.exact
    assert first.files == pytest.approx(exact, rel=0.25)
    again = DiskQuota(most_files=10**6)
    for _ in range(3):
        later = again.used(budget_s=0.1, fresh_s=-1.0)
    assert later.files == pytest.approx(exact, rel=0.1)
    assert len(again._parts) > len(quota._parts)


def _slowly(measure: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def slow(folder: Path) -> Any:
        time.sleep(0.002)
        return measure(folder)

    return slow


def test_a_small_file_system_is_full_when_little_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(free_MB: float, size_MB: float, files: int = 0, free_files: int = 0) -> Any:
        return os.statvfs_result(
            (4096, 4096, int(size_MB * 256), 0, int(free_MB * 256), files, 0, free_files, 0, 255)
        )

    for status, ok in (
        (of(1, 64), False),  # a tmpfs of 64 MB: 2 % must be free
        (of(20, 64), True),
        (of(150, 10**6), False),
        (of(50_000, 10**6), True),  # 95 % full with others' data
        (of(50_000, 10**6, 10**6, 1000), False),
    ):
        monkeypatch.setattr(os, "statvfs", lambda _, status=status: status)
        assert DiskQuota().room().ok is ok


@pytest.fixture
def cli(world: World, mongod_uri: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    opened = Store.open

    def run(*words: str) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "open", lambda **_: opened(mongod_uri, name=world.store.name))
            return CliRunner().invoke(command, words, catch_exceptions=False).output

    return run


def test_the_command_shows_packs_and_unpacks(
    world: World, site: str, cli: Callable[..., str], tmp_path: Path
) -> None:
    world.finish(site)
    shown = cli()
    assert "chains" in shown
    assert "htxas disk pack" in shown
    document = json.loads(cli("--scan", "--json"))
    assert document["exact"]
    (row,) = [r for r in document["runs"] if r["state"] == "done"]
    assert (row["campaign"], row["folders"], row["archives"]) == ("chains", 1, 0)
    assert row["free_files"] > 0
    assert "would pack 1 folder of 1 calculation" in cli("pack", "--dry-run")
    assert "packed 1 folder of 1 calculation" in cli("pack")
    assert json.loads(cli("pack", "--json"))["attempts"] == 0
    target = tmp_path / "again"
    assert str(target) in cli("unpack", site[:10], "--to", str(target))
    assert FAKE.read(read_job(target), target)
    for words, message in (
        (["unpack", "ffffffffff"], "no packed calculation"),
        (["unpack", site, "--attempt", "2"], "attempt 2 is not packed"),
        (["unpack", site, "--to", str(target)], "such a folder already"),
    ):
        with pytest.raises(UserError, match=message):
            cli(*words)


def test_the_command_looks_at_the_disk_without_a_database(
    world: World, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.finish(site)

    def away(**_: Any) -> None:
        raise DatabaseUnavailable("not running")

    monkeypatch.setattr(Store, "open", away)
    output = CliRunner().invoke(command, [], catch_exceptions=False).output
    assert "not running; campaigns and states are not known" in output
    assert "(no database to ask)" in output
