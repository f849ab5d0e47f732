"""The chaos test's own account: ``chaos.json``, a table, and a figure of faults against finished work."""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.slurm.invariants import Findings
    from tests.slurm.world import World

__all__ = ["Struck", "recovery_s", "report", "table"]


@dataclass(slots=True)
class Struck:
    """A fault that happened.

    Attributes
    ----------
    name, detail
        Which, and whom it hit.
    began, ended
        Unix seconds.
    finished, total
        Calculations that had ended when it struck, of how many.
    lost
        Executions it made worthless: cut short, or whole and not taken.
    """

    name: str
    detail: str
    began: float
    ended: float
    finished: int
    total: int
    lost: int = 0


def recovery_s(fault: Struck, ends: Sequence[float]) -> float | None:
    """Return the time from the end of a fault to the next finished calculation; None if none came."""
    at = bisect.bisect_right(ends, fault.ended)
    return ends[at] - fault.ended if at < len(ends) else None


def report(
    folder: Path,
    world: World,
    findings: Findings,
    struck: Sequence[Struck],
    *,
    seed: int,
    started: float,
    ended: float,
) -> None:
    """Write all three into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "passed": not findings.problems,
        "problems": findings.problems,
        "seed": seed,
        "engine": world.workload.engine,
        "sites": world.workload.sites,
        "calculations": world.workload.sites + world.workload.grounds,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started)),
        "wall_s": round(ended - started, 1),
        "figures": findings.figures,
        "restarts": {s.name: s.statuses for s in world.services.values()},
        "faults": [
            {**asdict(s), "began": round(s.began - started, 2), "ended": round(s.ended - started, 2),
             "recovery_s": None if (r := recovery_s(s, findings.ends)) is None else round(r, 2)}
            for s in struck
        ],
        "samples": [(round(t - started, 1), counts) for t, counts in world.samples],
    }  # fmt: skip
    (folder / "chaos.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "chaos.md").write_text(table(document))
    _figure(folder / "chaos.png", document)


def table(document: dict[str, Any]) -> str:
    """Return the account as Markdown."""
    f = document["figures"]
    lines = [
        f"# Chaos, seed {document['seed']}: {'passed' if document['passed'] else 'FAILED'}",
        "",
        f"{document['sites']} sites, {document['calculations']} calculations through the {document['engine']} engine, "
        f"{len(document['faults'])} faults, {document['wall_s']:.0f} s, {f.get('pilots', 0)} pilots.",
        "",
        "| fault | whom | began, s | lasted, s | first outcome after it, s | executions lost |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for fault in document["faults"]:
        recovery = "-" if fault["recovery_s"] is None else f"{fault['recovery_s']:.1f}"
        lasted = fault["ended"] - fault["began"]
        whom = f"{fault['name']} | {fault['detail']}"
        lines.append(f"| {whom} | {fault['began']:.0f} | {lasted:.1f} | {recovery} | {fault['lost']} |")
    lines += [
        "",
        f"Ends: {_words(f.get('states', {}))}. Causes: {_words(f.get('causes', {}))}.",
        f"{f.get('executions', 0)} executions: {f.get('corrected_attempts', 0)} followed by a correction, "
        f"{f.get('recomputed_in_hand', 0)} cut short in a worker's hand, {f.get('ghosts_refused', 0)} by ghosts and "
        f"refused, {f.get('recomputed_whole', 0)} whole ones computed again.",
        "",
    ]
    if f.get("phantoms"):
        lines.append(
            f"{f['phantoms']} jobs that Slurm called running without a process were cancelled by hand.\n"
        )
    lines += [f"- {problem}" for problem in document["problems"]]
    return "\n".join(lines) + "\n"


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda x: -x[1])) or "none"


def _figure(path: Path, document: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    times = [t for t, _ in document["samples"]]
    for state, color in (("done", "C2"), ("quarantined", "C1"), ("failed", "C3"), ("running", "C0")):
        axes.plot(
            times, [counts.get(state, 0) for _, counts in document["samples"]], color=color, label=state
        )
    axes.set_ylabel("calculations")
    axes.legend(loc="upper left")
    for row, fault in enumerate(document["faults"]):
        width = max(fault["ended"] - fault["began"], 0.5)
        below.barh(row, width, left=fault["began"], color="0.4")
        below.text(fault["began"] + width + 0.5, row, fault["name"], fontsize=6, va="center")
        axes.axvline(fault["began"], color="0.85", zorder=0)
    below.set_yticks([])
    below.invert_yaxis()
    below.set_xlabel("seconds")
    figure.savefig(path, dpi=120)
