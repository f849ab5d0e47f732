"""What is handed from the store to a worker, and from it to the engine, keeps all that the key is made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.engines.base import Job, read_job, write_job
from htxas.launch.work.task import Task


def test_moments_reach_the_engine(tmp_path: Path) -> None:
    structure, _ = Structure.from_atoms(["O", "O"], [[0, 0, 0], [0, 0, 1.2]], moments_muB=[1.0, 0.75])
    calculation = Calculation(Kind.GROUND, structure.key, "fake", {})
    task = Task(
        key=calculation.key,
        attempt=1,
        owner="me",
        batch="b",
        campaign="c",
        kind=Kind.GROUND,
        engine="fake",
        structure_key=structure.key,
        parameters={},
        element=None,
        edge=None,
        atom=None,
        structure=structure.to_dict(),
        estimate_s=1.0,
        timeout_s=10.0,
        gate={},
        sigma_eV=0.3,
        step_eV=0.1,
    )
    handed = Task.from_dict(json.loads(json.dumps(task.to_dict()))).atoms()
    assert handed == structure
    write_job(Job(calculation, handed), tmp_path)
    written = read_job(tmp_path).structure
    assert written.moments_muB is not None
    assert written.moments_muB.tolist() == [1.0, 0.75]
    text = (tmp_path / "calculation.json").read_text()
    (tmp_path / "calculation.json").write_text(text.replace("0.75", "0.5"))
    with pytest.raises(ValueError, match="does not match its own key"):
        read_job(tmp_path)
