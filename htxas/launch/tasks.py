"""The one Firetask. FireWorks stores the path of this class in every Firework: its name must not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fireworks import FiretaskBase, FWAction, explicit_serialize

__all__ = ["RunBatchTask"]


@explicit_serialize
class RunBatchTask(FiretaskBase):  # type: ignore[misc]  # FireWorks ships no types
    """Compute the batch named in the spec: ``{"htxas": {"campaign": NAME, "batch": ID}}``.

    Agents check Fireworks out themselves and never run this; it is what FireWorks' own ``rlaunch`` runs.
    """

    def run_task(self, fw_spec: Mapping[str, Any]) -> FWAction:
        """Run the batch; the calculations' own outcomes are in the store, only their numbers go to FireWorks."""
        from htxas.launch.run import run_batch

        return FWAction(stored_data={"htxas": run_batch(fw_spec["htxas"]["batch"])})
