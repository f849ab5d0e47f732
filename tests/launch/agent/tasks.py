"""Tasks as agents are given them."""

from __future__ import annotations

from typing import Any

from htxas.domain.calculation import Kind
from htxas.launch.work.task import Task

__all__ = ["task"]


def task(key: str, attempt: int = 1, ground: str | None = None, **more: Any) -> Task:
    """Return a ground state's task, or that of a site that needs the ground state named."""
    fields: dict[str, Any] = {
        "owner": "me",
        "batch": "b",
        "campaign": "c",
        "engine": "fake",
        "structure_key": "s",
        "parameters": {},
        "element": None,
        "edge": None,
        "atom": None,
        "structure": {},
        "estimate_s": 10.0,
        "timeout_s": 100.0,
        "gate": {},
        "sigma_eV": 0.3,
        "step_eV": 0.1,
    }
    kind = Kind.SITE if ground else Kind.GROUND
    return Task(key=key, attempt=attempt, kind=kind, ground_key=ground, **{**fields, **more})
