from __future__ import annotations

from pathlib import Path

import pytest

from htxas.errors import Cause
from htxas.launch.work import evidence
from htxas.launch.work.evidence import died, log_tail


@pytest.mark.parametrize(
    ("last_line", "cause"),
    [
        ("OSError: [Errno 28] No space left on device", Cause.DISK_FULL),
        ("MemoryError", Cause.OUT_OF_MEMORY),
        ("terminate called after throwing an instance of 'std::bad_alloc'", Cause.OUT_OF_MEMORY),
        ("Segmentation fault", Cause.ENGINE_CRASH),
    ],
)
def test_the_last_lines_tell(last_line: str, cause: Cause, tmp_path: Path) -> None:
    failure = died(1, tmp_path, ["starting", last_line], None)
    assert failure.cause is cause
    assert failure.evidence["log"][-1] == last_line


def test_sigkill_alone_is_no_proof_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "memory_kills", lambda: 4)
    assert died(-9, tmp_path, [], 4).cause is Cause.ENGINE_CRASH
    assert died(137, tmp_path, [], 3).cause is Cause.OUT_OF_MEMORY
    assert died(-11, tmp_path, [], 3).cause is Cause.ENGINE_CRASH


def test_the_tail_is_short_and_of_this_run_only(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n" * 3 + "new\n" * 50)
    assert log_tail(log, start=12) == ["new"] * 20
    assert log_tail(log, start=12 + 4 * 48) == ["new"] * 2
    assert log_tail(tmp_path / "none") == []
