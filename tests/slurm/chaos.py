"""The chaos test: a campaign on a real Slurm while everything that can fail does; then every claim is checked.

::

    python -m tests.slurm.chaos --form long --seed 7 --engine fake --out chaos/

All work is done by htxas's own commands, as a user gives them: ``campaign submit``, ``queue submit --watch`` for
three clusters, ``reconcile --watch``. What came of it is judged from the database, the run folders, and a ledger that
the engine processes keep themselves.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.chaos_report import Struck, report
from tests.slurm.faults import FAULTS, NotNow
from tests.slurm.invariants import Findings, inspect
from tests.slurm.workload import Workload, chains, real
from tests.slurm.world import World, terminal

__all__ = ["Planned", "Verdict", "long_plan", "main", "run", "short_plan"]

_PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault, so many seconds after the first outcome, lasting so long."""

    name: str
    at_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run."""

    findings: Findings
    struck: Sequence[Struck]
    wall_s: float
    folder: Path


_SHORT = (
    ("kill_worker", 0, 0),
    ("lie_empty", 1, 8),
    ("kill_mongod", 2, 1),
    ("cut_network", 5, 36),
    ("submit_again", 6, 0),
    ("preempt", 8, 6),
    ("kill_mongod", 12, 1),
    ("kill_agent", 15, 0),
    ("spoil_output", 16, 0),
    ("stop_mongod", 19, 12),
    ("kill_node", 24, 34),
    ("fill_disk", 42, 6),
    ("pause", 50, 3),
    ("shorten_walltime", 54, 0),
    ("kill_services", 58, 0),
    ("lie_garbage", 60, 8),
    ("kill_worker", 64, 0),
    ("kill_controller", 66, 4),  # not while a node is down, as in the long form: see World._cancel_phantoms
)


def short_plan(seed: int) -> list[Planned]:
    """Return a subset of the faults in overlapping order, shaken by the seed: a minute and a quarter."""
    rng = random.Random(seed)
    return [Planned(name, max(0.0, at + rng.uniform(-1, 1)), lasts) for name, at, lasts in _SHORT]


def long_plan(seed: int) -> list[Planned]:
    """Return every fault once in random order and the quick ones twice more, one starting every few seconds."""
    rng = random.Random(seed)
    names = [*FAULTS, *("kill_worker", "kill_agent", "kill_mongod", "spoil_output", "preempt") * 2]
    rng.shuffle(names)
    planned, at = [], 2.0
    for name in names:
        planned.append(Planned(name, at, FAULTS[name][1]))
        at += rng.uniform(3, 11)
    return planned


class _Striker(threading.Thread):
    """One fault on its way: waits for its time, strikes as soon as there is something to hit, and undoes it."""

    def __init__(self, world: World, planned: Planned, began: float, rng: random.Random) -> None:
        super().__init__(name=planned.name, daemon=True)
        self.planned = planned
        self.struck: Struck | None = None
        self.trouble: str | None = None
        self._world, self._began, self._rng = world, began, rng

    def run(self) -> None:
        name, lasts_s = self.planned.name, self.planned.lasts_s
        time.sleep(max(0.0, self._began + self.planned.at_s - time.time()))
        end = time.time() + _PATIENCE_S
        try:
            while True:
                before = self._world.counts()
                at, fault = time.time(), FAULTS[name][0](self._world, self._rng)
                try:
                    detail = next(fault)
                    break
                except NotNow:
                    if time.time() > end:
                        self.trouble = "nothing to hit"
                        return
                    time.sleep(1)
            time.sleep(lasts_s)
            next(fault, None)
            self.struck = Struck(name, detail, at, time.time(), terminal(before), sum(before.values()))
        except Exception as error:  # noqa: BLE001  of a thread: whatever it is, the verdict must show it
            self.trouble = f"{type(error).__name__}: {error}"


def run(
    folder: Path, workload: Workload, planned: Sequence[Planned], seed: int, *, limit_s: float
) -> Verdict:
    """Run a campaign through the faults and judge it.

    Parameters
    ----------
    folder
        Empty and short.
    workload, planned, seed
        What is computed, and what goes wrong when.
    limit_s
        Seconds after which a campaign that has not ended is judged as it stands.
    """
    # Services end by SIGINT. In the background of a shell it is ignored, and what is ignored is inherited.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.time()
    world = World(folder, workload)
    total = workload.sites + workload.grounds
    try:
        world.open()
        _until(lambda: terminal(world.counts()) > 0, 90, world)
        began = time.time()
        strikers = [_Striker(world, p, began, random.Random(f"{seed}-{i}")) for i, p in enumerate(planned)]
        for striker in strikers:
            striker.start()
        limit = started + limit_s
        while time.time() < limit:
            world.attend()
            busy = any(s.is_alive() for s in strikers)
            if not busy and terminal(world.counts()) == total and _settled(world):
                break
            time.sleep(0.25)
        ended = time.time()
        for striker in strikers:
            striker.join(1)
        troubles = [f"fault {s.planned.name} at {s.planned.at_s:.0f} s: {s.trouble or 'did not end'}"
                    for s in strikers if s.struck is None]  # fmt: skip
        statuses = world.end_services()
        findings = inspect(world, troubles, statuses, [s.struck for s in strikers if s.struck is not None])
        struck = sorted((s.struck for s in strikers if s.struck is not None), key=lambda s: s.began)
        report(folder / "report", world, findings, struck, seed=seed, started=started, ended=ended)
        return Verdict(findings, struck, time.time() - started, folder)
    finally:
        world.close()


def _settled(world: World) -> bool:
    """Whether nothing of ours is left in the queue."""
    return not world.our_jobs() and bool(world.slurm_command("sinfo", "-h"))


def _until(condition: object, seconds: float, world: World) -> None:
    end = time.time() + seconds
    while not condition():  # type: ignore[operator]
        world.attend()
        if time.time() > end:
            logs = "\n".join(p.read_text()[-1500:] for p in sorted(world.logs.glob("*.log")))
            raise TimeoutError(f"no first outcome after {seconds:.0f} s\n{logs}")
        time.sleep(0.2)


def main(arguments: list[str]) -> int:
    """Run the chaos test from the command line; exit status 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--form", choices=["calm", "short", "long"], default="long")
    parser.add_argument("--only", default="", help="of the plan, only these faults, with commas in between")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1, help="so many runs, with seeds SEED, SEED+1, ...")
    parser.add_argument("--engine", choices=["fake", "pyscf"], default="fake")
    parser.add_argument("--sites", type=int, help="of the fake engine; default 300 (short) or 1000 (long)")
    parser.add_argument("--out", type=Path, default=Path("chaos"))
    options = parser.parse_args(arguments)
    short = options.form != "long"
    only = set(options.only.split(",")) - {""}
    failed = 0
    for seed in range(options.seed, options.seed + options.repeat):
        workload = (
            real()
            if options.engine == "pyscf"
            else chains(options.sites or (300 if short else 1000), (0.5, 1.0, 1.5, 3.0))
        )
        planned = {"calm": lambda _: [], "short": short_plan, "long": long_plan}[options.form](seed)
        planned = [p for p in planned if not only or p.name in only]
        folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
        verdict = run(folder, workload, planned, seed, limit_s=300 if short else 1500)
        target = options.out / f"{options.form}-{options.engine}-{seed}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "report", target)
        print((target / "chaos.md").read_text())
        if verdict.findings.problems:
            failed += 1
            print(f"seed {seed}: FAILED; everything is kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if options.repeat > 1:
        print(json.dumps({"runs": options.repeat, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
