"""Whatever a scheduler answers, a running job is never concluded to be gone from garbage."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htxas.cluster.adapter import Adapter
from htxas.cluster.host import Completed
from htxas.cluster.jobs import Cancelled, Snapshot, Submitted, Unknown
from htxas.cluster.local import Local
from htxas.cluster.lsf import Lsf
from htxas.cluster.pbs import OpenPbs, Torque
from htxas.cluster.sge import GridEngine
from htxas.cluster.slurm import Slurm
from tests.cluster.recordings import recorded

local = Local("/venv/bin/python", "/home/ann/htxas", walltime_s=60, signal_s=0)
ADAPTERS: dict[str, Adapter] = {
    "slurm": Slurm(),
    "openpbs": OpenPbs(),
    "torque": Torque(),
    "sge": GridEngine(),
    "lsf": Lsf(),
    "local": local,
}
# A running job in a recorded answer.
RUNNING = {
    "slurm": ("slurm/running", "5_1"),
    "openpbs": ("openpbs/mixed", "17[2].pbs1"),
    "torque": ("torque/array", "179[2].torque1"),
    "sge": ("sge/running", "2.1"),
    "lsf": ("lsf/mixed", "806290[1]"),
}
adapters = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())
text = st.text(st.characters(codec="utf-8"), max_size=300)
answers = st.builds(
    Completed,
    argv=st.just(("squeue",)),
    returncode=st.sampled_from([0, 0, 1, 2, 127, 153, 255, -9, None]),
    stdout=text,
    stderr=text,
    problem=st.sampled_from([None, None, "no answer within 60 s"]),
)


@adapters
@given(answer=answers)
def test_garbage_tells_nothing(adapter: Adapter, answer: Completed) -> None:
    assert isinstance(adapter.parse_query(answer, ["7"], user="ann"), Unknown)
    assert isinstance(adapter.parse_accounting(answer, ["7"]), Unknown)
    assert isinstance(adapter.parse_nodes(answer), Unknown)


@adapters
@given(answer=answers)
def test_garbage_submits_and_cancels_nothing(adapter: Adapter, answer: Completed) -> None:
    if isinstance(adapter.parse_submit(answer, array=3), Submitted):
        assert answer.ok
        assert any(c.isdigit() for c in answer.stdout)
    if not answer.ok:
        assert Cancelled.ASKED not in adapter.parse_cancel(answer, ["7"]).values()


@pytest.mark.parametrize("name", RUNNING)
@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_answer_never_ends_a_running_job(name: str, data: st.DataObject) -> None:
    """One stretch of a good answer is lost or replaced: the job may be unknown or absent, but it has not ended."""
    recording, job = RUNNING[name]
    whole = recorded(recording)
    start = data.draw(st.integers(0, len(whole.stdout)))
    length = data.draw(st.integers(1, 2000))
    inserted = data.draw(st.text(st.characters(codec="ascii"), max_size=20))
    damaged = whole.stdout[:start] + inserted + whole.stdout[start + length :]
    found = ADAPTERS[name].parse_query(replace(whole, stdout=damaged), [job], user="root")
    if isinstance(found, Snapshot) and job in found.jobs:
        state = found.jobs[job].state
        assert state.on_nodes or not state.ended or _another_row(recording, damaged, job)


def _another_row(recording: str, damaged: str, job: str) -> bool:
    """Tell whether the damage glued the job's id to the rest of another job's record."""
    return damaged.count("\n") < recorded(recording).stdout.count("\n") and job.split("[")[0] in damaged


@pytest.mark.parametrize("name", RUNNING)
def test_the_running_job_is_running(name: str) -> None:
    recording, job = RUNNING[name]
    found = ADAPTERS[name].parse_query(recorded(recording), [job], user="root")
    assert isinstance(found, Snapshot)
    assert found.jobs[job].state.on_nodes


@adapters
@pytest.mark.parametrize("status", [0, 1])
def test_nothing_at_all_is_no_answer(adapter: Adapter, status: int) -> None:
    assert isinstance(adapter.parse_query(Completed(("squeue",), status), ["7"], user="ann"), Unknown)
