from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.errors import Cause, StoreError
from htxas.launch.agent.delivery import AT_ONCE, Courier, deliver_journals
from htxas.launch.work import journal as journal_module
from htxas.launch.work.journal import JournalWriter, Returned, Started, read_journal
from htxas.store.outcomes import Outcome, failed
from htxas.store.records import Lease


def outcome(n: int, message: str = "no") -> Outcome:
    return failed(Lease(f"{n:032x}", 1, "owner"), Cause.BAD_INPUT, message, {"n": n})


class Recipient:
    """Takes each outcome once, and fails when told to."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.broken = False

    def deliver(self, outcomes: Any) -> list[str]:
        if self.broken:
            raise ConnectionError
        answers = []
        for one in outcomes:
            answers.append("again" if one.lease.key in self.seen else "stored")
            self.seen.append(one.lease.key)
        return answers


def write(path: Path, *numbers: int) -> None:
    with JournalWriter(path) as journal:
        for n in numbers:
            journal.started(f"{n:032x}", 1)
            journal.outcome(outcome(n))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "journal-1.bin"
    write(path, 1, 2)
    records = [record for record, _ in read_journal(path)]
    assert records[0] == Started(f"{1:032x}", 1)
    assert isinstance(records[3], Outcome)
    assert records[3].lease.key == f"{2:032x}"
    assert path.stat().st_mode & 0o777 == 0o600
    (_, middle), *_ = list(read_journal(path))[1:]
    assert len(list(read_journal(path, middle))) == 2
    assert list(read_journal(tmp_path / "absent.bin")) == []


def test_an_attempt_handed_back_is_not_in_hand(tmp_path: Path) -> None:
    path = tmp_path / "journal-1.bin"
    with JournalWriter(path) as journal:
        journal.started("a", 1)
        journal.returned(Returned("a", 1))
    assert deliver_journals(Recipient(), tmp_path).in_hand == set()
    with JournalWriter(tmp_path / "journal-2.bin") as journal:
        journal.started("a", 2)
        journal.returned(Returned("a", 1))  # of another attempt
        journal.returned(Returned("b", 1, Cause.LOST, "gone", {"returncode": -9}))
    assert deliver_journals(Recipient(), tmp_path).in_hand == {Started("a", 2)}
    *_, (last, _) = read_journal(tmp_path / "journal-2.bin")
    assert last == Returned("b", 1, Cause.LOST, "gone", {"returncode": -9})


def test_a_whole_record_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal-1.bin"
    content = b'{"key": "a"}'
    path.write_bytes(struct.pack("<4sII", b"HJ1R", len(content), zlib.crc32(content)) + content)
    with pytest.raises(StoreError, match="cannot be read"):
        list(read_journal(path))


@given(st.integers(0, 10_000), st.binary(max_size=30))
def test_reading_stops_at_the_first_torn_record(cut: int, garbage: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal-1.bin"
        write(path, 1, 2, 3)
        whole = path.read_bytes()
        ends = [end for _, end in read_journal(path)]
        size = min(cut, len(whole))
        path.write_bytes(whole[:size] + garbage)
        found = [end for _, end in read_journal(path)]
        assert found[: len([e for e in ends if e <= size])] == [e for e in ends if e <= size]


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal-1.bin"
    write(path, 1, 2)
    data = bytearray(path.read_bytes())
    (_, first), (_, second), *_ = read_journal(path)
    data[first + struct.calcsize("<4sII") + 3] ^= 1
    path.write_bytes(bytes(data))
    assert [end for _, end in read_journal(path)] == [first]
    assert second > first


def test_a_full_disk_leaves_no_torn_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal-1.bin"
    journal = JournalWriter(path)
    journal.outcome(outcome(1))
    real, room = os.write, [40]

    def write_some(descriptor: int, data: Any) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "full")
        written = real(descriptor, bytes(data)[: room[0]])
        room[0] = 0
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_some)
        with pytest.raises(OSError, match="full"):
            journal.outcome(outcome(2))
    journal.outcome(outcome(3))
    journal.close()
    keys = [r.lease.key for r, _ in read_journal(path) if isinstance(r, Outcome)]
    assert keys == [f"{1:032x}", f"{3:032x}"]


def test_a_failed_sync_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal-1.bin"
    journal = JournalWriter(path)
    journal.outcome(outcome(1))
    real, fails, second = os.fsync, [2], outcome(2)  # the same one: each has a time of its own

    def sync(descriptor: int) -> None:
        if fails[0]:
            fails[0] -= 1
            size = path.stat().st_size
            path.write_bytes(bytes(size))  # a file system that finds no room drops the pages
            raise OSError(errno.EDQUOT, "over quota")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(journal_module, "_SYNC_EVERY_S", 0.0)
    with pytest.raises(OSError, match="quota"):
        journal.outcome(second)
    with pytest.raises(OSError, match="quota"):
        journal.outcome(second)
    journal.outcome(second)
    journal.outcome(outcome(3))
    journal.close()
    keys = [r.lease.key for r, _ in read_journal(path) if isinstance(r, Outcome)]
    assert keys == [f"{n:032x}" for n in (1, 2, 3)]


def test_who_has_read_a_record_before_its_sync_failed_reads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal-1.bin"
    journal, real = JournalWriter(path), os.fsync
    courier, seen = Courier(tmp_path, Recipient()), []

    def sync(_descriptor: int) -> None:
        seen.extend(o.lease.key for o, _ in courier.carry())
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(journal_module, "_SYNC_EVERY_S", 0.0)
    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="full"):
        journal.outcome(outcome(1))
    monkeypatch.setattr(os, "fsync", real)
    journal.started("b", 1)  # the attempt was given up meanwhile: another one begins
    journal.outcome(outcome(2, "longer than the first"))
    journal.close()
    seen.extend(o.lease.key for o, _ in courier.carry())
    assert seen == [f"{n:032x}" for n in (1, 2)]


def test_a_courier_carries_each_outcome_once_and_notes_how_far(tmp_path: Path) -> None:
    to = Recipient()
    write(tmp_path / "journal-1.bin", *range(AT_ONCE + 5))
    write(tmp_path / "journal-2.bin", 1000)
    courier = Courier(tmp_path, to)
    assert len(courier.carry()) == AT_ONCE
    assert len(courier.carry()) == 6
    assert courier.carry() == []
    assert len(set(to.seen)) == len(to.seen) == AT_ONCE + 6
    assert Courier(tmp_path, to).carry() == []  # another process reads the note
    (tmp_path / "delivered.json").write_text("half")
    told = deliver_journals(to, tmp_path)
    assert (told.stored, told.again) == (0, AT_ONCE + 6)


def test_nothing_is_lost_while_nobody_takes_it(tmp_path: Path) -> None:
    to = Recipient()
    write(tmp_path / "journal-1.bin", 1, 2)
    courier = Courier(tmp_path, to)
    to.broken = True
    with pytest.raises(ConnectionError):
        courier.carry()
    to.broken = False
    assert [answer for _, answer in courier.carry()] == ["stored", "stored"]


def test_what_was_in_hand_is_told(tmp_path: Path) -> None:
    with JournalWriter(tmp_path / "journal-1.bin") as journal:
        journal.started("a" * 32, 2)
        journal.outcome(outcome(1))
        journal.started("b" * 32, 1)
    write(tmp_path / "journal-2.bin", 7)
    courier = Courier(tmp_path, Recipient())
    courier.carry()
    assert courier.in_hand("journal-1.bin") == Started("b" * 32, 1)
    assert courier.in_hand("journal-2.bin") is None
    told = deliver_journals(Recipient(), tmp_path)  # although all of it is noted as delivered
    assert told.in_hand == {Started("b" * 32, 1)}
