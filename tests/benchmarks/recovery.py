"""Print what a chaos run cost: recovery time after each fault, and what had to be computed again.

::

    make chaos SEED=1                                      # writes scratch/chaos/...
    python tests/benchmarks/recovery.py scratch/chaos      # one run, or a folder of runs
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def _accounts(path: Path) -> list[dict[str, Any]]:
    files = sorted(path.rglob("chaos.json")) if path.is_dir() else [path]
    if not files:
        raise SystemExit(f"{path}: no chaos.json in it; make chaos writes one")
    return [json.loads(file.read_text()) for file in files]


def _seconds(values: list[float]) -> str:
    return f"{statistics.median(values):10.1f} {max(values):10.1f}" if values else f"{'-':>10} {'-':>10}"


def main(arguments: list[str]) -> None:
    """Print the table of the runs in a folder."""
    accounts = _accounts(Path(arguments[0]) if arguments else Path("scratch/chaos"))
    recoveries: dict[str, list[float]] = defaultdict(list)
    lost: dict[str, int] = defaultdict(int)
    times: dict[str, int] = defaultdict(int)
    for account in accounts:
        for fault in account["faults"]:
            times[fault["name"]] += 1
            lost[fault["name"]] += fault["lost"]
            if fault["recovery_s"] is not None:
                recoveries[fault["name"]].append(fault["recovery_s"])
    sites = sum(a["sites"] for a in accounts)
    passed = sum(a["passed"] for a in accounts)
    print(f"{len(accounts)} runs, {passed} passed, {sites} sites, {sum(times.values())} faults\n")
    print(f"{'fault':18} {'times':>5}   first outcome after its end, s   executions lost")
    print(f"{'':18} {'':>5} {'median':>10} {'worst':>10}")
    for name in sorted(times):
        print(f"{name:18} {times[name]:5} {_seconds(recoveries[name])} {lost[name]:17}")
    figures = [a["figures"] for a in accounts]
    names = ("executions", "recomputed_in_hand", "ghosts_refused", "recomputed_whole")
    total = {k: sum(f.get(k, 0) for f in figures) for k in names}
    print(
        f"\n{total['executions']} executions for {sum(a['calculations'] for a in accounts)} calculations: "
        f"{total['recomputed_in_hand']} were in a worker's hand when it was hit, {total['ghosts_refused']} more while "
        f"it was taken for dead, {total['recomputed_whole']} had ended and were computed again all the same"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
