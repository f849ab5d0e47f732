"""Locks that tell who is alive, where there are any."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from htxas.launch.agent.liveness import hold_alive, new_owner
from htxas.launch.recovery.judge import Life, Reason, judge
from htxas.launch.recovery.witness import Scene, evidence, lock_free


def test_a_lock_is_free_only_when_its_holder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path))
    with hold_alive(new_owner()) as facts:
        assert lock_free(facts) is False
    assert lock_free(facts) is True


@pytest.mark.parametrize("why", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(why: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(why, "no locks here")

    monkeypatch.setenv("HTXAS_HOME", str(tmp_path))
    monkeypatch.setattr(fcntl, "flock", refuse)
    owner = new_owner()
    with hold_alive(owner) as facts:
        assert facts["lock"] is None
    worker = {"owner": owner, "info": facts, "age_s": 300.0}
    scene = Scene(database_up_s=86400.0)
    assert judge(evidence(worker, scene)).life is Life.UNKNOWN  # its process, this one, is there
    worker["info"] = {**facts, "pid": 2**22 + 1}  # more than there can be
    assert judge(evidence(worker, scene)).reason is Reason.PROCESS_GONE
