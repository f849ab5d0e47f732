"""The one Firetask. FireWorks stores the path of this class in every Firework: its name must not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fireworks import FiretaskBase, FWAction, explicit_serialize

from htxas.launch.batch_runner import RUNNER

__all__ = ["RunBatchTask"]


@explicit_serialize
class RunBatchTask(FiretaskBase):  # type: ignore[misc]  # FireWorks ships no types
    """Compute the batch named in the spec: ``{"htxas": {"campaign": NAME, "batch": ID}}``."""

    def run_task(self, fw_spec: Mapping[str, Any]) -> FWAction:
        """Run the batch; the calculations' own outcomes are in the store, only their numbers go to FireWorks."""
        batch_id = fw_spec["htxas"]["batch"]
        runner = RUNNER.get()
        if runner is not None:
            return FWAction(stored_data={"htxas": runner.run(batch_id)})
        from htxas.launch.worker import standalone_runner

        with standalone_runner() as alone:  # FireWorks' own rlaunch
            return FWAction(stored_data={"htxas": alone.run(batch_id)})
