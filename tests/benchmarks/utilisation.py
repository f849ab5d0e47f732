"""How much of its allocations a campaign uses: a simulation with the project's own planner, policy and estimator.

``python tests/benchmarks/utilisation.py ck_molecules.csv`` reads one line per molecule with ``smiles`` and
``castep_time_s``, the real seconds of a published C K-edge campaign, and lets molecules drawn from them run in pilots
and, for comparison, in a queue job per molecule and per site.

Real: the time of each molecule. Assumed: its unique carbons are those of the molecular graph; ground state and sites
take equal shares of the time, scattered by 15 % (log-normal); the engine's prior is ``1600 s (valence electrons /
44)^1.5``, which is too much and of the wrong power. Estimates start from that prior and are learned, as in production,
from the 400 calculations finished last; their errors are the real ones (molecules of one size differ by a factor of
two). Waiting in the queue is not counted, and starting a job only if ``--start-s`` says so. What the clock kills loses
its time and runs again; an allocation is charged until its last calculation ends. ``used`` is the time of finished
calculations over the time charged, ``of reserved`` over the time asked for.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import math
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from htxas.campaign.batches import Task, Work, pack
from htxas.campaign.comparison import FITS
from htxas.campaign.cost import Fit, Timing, fit
from htxas.launch.agent.policy import SAFETY, Item, Pool
from htxas.store.records import Batch

LEARNED_FROM = 400
REFIT_S = 3600.0  # of simulated time; agents look every five minutes
AHEAD_S = 10.0  # as agents do: ask for more when there is less than this for each worker
SCATTER = 0.15
WALLTIME_STEP = 3.0  # what a job that was killed asks for the next time, times the last


@dataclass(slots=True)
class Calc:
    """A calculation: true and expected seconds."""

    key: str
    group: str
    needs: str | None
    true_s: float
    prior_s: float
    atoms: int
    shown_s: float = 0.0  # what an attempt cut short has shown


@dataclass(frozen=True, slots=True)
class Molecule:
    """A ground state and its sites."""

    ground: Calc
    sites: tuple[Calc, ...]

    @property
    def calcs(self) -> tuple[Calc, ...]:
        """All, in the order they run."""
        return (self.ground, *self.sites)


@dataclass(slots=True)
class Figures:
    """Place-seconds."""

    name: str
    jobs: int = 0
    allocated_s: float = 0.0
    reserved_s: float = 0.0
    useful_s: float = 0.0
    killed: int = 0
    killed_s: float = 0.0

    def to_dict(self) -> dict[str, float | str]:
        """Return the figures as printed."""
        return {
            "scheme": self.name,
            "jobs": self.jobs,
            "engine_h": self.useful_s / 3600,
            "allocated_h": self.allocated_s / 3600,
            "killed": self.killed,
            "killed_h": self.killed_s / 3600,
            "utilisation": self.useful_s / self.allocated_s,
            "of_reserved": self.useful_s / self.reserved_s,
        }


def read(path: Path, number: int, seed: int) -> list[Molecule]:
    """Draw molecules and split their times."""
    from rdkit import Chem

    with path.open() as file:
        rows = list(csv.DictReader(file))
    draw = random.Random(seed)
    noise = np.random.default_rng(seed)
    found = []
    for i, row in enumerate(draw.sample(rows, min(number, len(rows)))):
        graph = Chem.AddHs(Chem.MolFromSmiles(row["smiles"]))
        ranks = Chem.CanonicalRankAtoms(graph, breakTies=False)
        unique = len({r for r, a in zip(ranks, graph.GetAtoms(), strict=True) if a.GetSymbol() == "C"})
        electrons = sum({6: 4, 7: 5, 8: 6, 9: 7, 1: 1}[a.GetAtomicNum()] for a in graph.GetAtoms())
        shares = np.exp(noise.normal(0, SCATTER, unique + 1))
        seconds = float(row["castep_time_s"]) * shares / shares.sum()
        prior = 1600.0 * (electrons / 44) ** 1.5
        size = graph.GetNumAtoms()
        ground = Calc(f"g{i}", f"m{i}", None, float(seconds[0]), prior, size)
        sites = (
            Calc(f"s{i}.{n}", f"m{i}", f"g{i}", float(s), prior, size) for n, s in enumerate(seconds[1:])
        )
        found.append(Molecule(ground, tuple(sites)))
    return found


@dataclass(slots=True)
class Learner:
    """The estimator: a prior, corrected by what finished last."""

    learns: bool
    timings: deque[Timing] = field(default_factory=lambda: deque(maxlen=LEARNED_FROM))
    found: Fit = field(default_factory=Fit)
    made: float = -math.inf

    def look(self, now: float) -> None:
        """Fit anew if the fit is old."""
        if self.learns and now - self.made >= REFIT_S:
            self.made, self.found = now, fit(self.timings)

    def seconds(self, calc: Calc) -> float:
        """Return what is expected of a calculation."""
        return max(self.found.seconds(calc.prior_s, calc.atoms), calc.shown_s)

    @property
    def safety(self) -> float:
        """The factor kept in reserve."""
        return max(1.0, self.found.safety(FITS)) if self.learns else SAFETY


class Queue:
    """Batches in the order they were made; those after a ground state come once it is done."""

    def __init__(self, molecules: Sequence[Molecule], *, target_s: float, split_above_s: float) -> None:
        self.calcs = {c.key: c for m in molecules for c in m.calcs}
        works = (
            Work(Task(m.ground.key, m.ground.prior_s), tuple(Task(s.key, s.prior_s) for s in m.sites))
            for m in molecules
        )
        self._ready: list[tuple[int, tuple[str, ...]]] = []
        self._after: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        self._batch_of: dict[str, str] = {}
        self._count = 0
        for batch in pack(works, campaign="c", target_s=target_s, split_above_s=split_above_s):
            self._put(batch)
        self.done: set[str] = set()

    def _put(self, batch: Batch) -> None:
        entry = (self._count, batch.keys)
        self._count += 1
        if batch.after is None:
            self._ready.append(entry)
            self._batch_of |= dict.fromkeys(batch.keys, batch.id)
        else:
            self._after.setdefault(batch.after, []).append(entry)

    def finish(self, key: str) -> None:
        """Note a result."""
        self.done.add(key)
        for entry in self._after.pop(self._batch_of.get(key, ""), []):
            heapq.heappush(self._ready, entry)

    def take(self, room_s: float) -> tuple[str, ...] | None:
        """Return the keys of the first batch with something that fits."""
        if self._ready and self._fits(self._ready[0][1], room_s):
            return heapq.heappop(self._ready)[1]
        for entry in sorted(self._ready):
            if self._fits(entry[1], room_s):
                self._ready.remove(entry)
                heapq.heapify(self._ready)
                return entry[1]
        return None

    def _fits(self, keys: tuple[str, ...], room_s: float) -> bool:
        return min(self.calcs[k].prior_s for k in keys) * SAFETY <= room_s

    def give_back(self, keys: Sequence[str]) -> None:
        """Put what was not computed back, at the end."""
        for key in keys:
            heapq.heappush(self._ready, (self._count, (key,)))
            self._count += 1

    @property
    def empty(self) -> bool:
        """Whether nothing can be had now."""
        return not self._ready


@dataclass(slots=True)
class Pilot:
    """An allocation under way."""

    start: float
    end: float
    pool: Pool
    running: dict[str, tuple[int, float]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    over: bool = False


class Pilots:
    """Pilots one after the other, some at once, until nothing is left."""

    def __init__(self, name: str, queue: Queue, learner: Learner, options: argparse.Namespace) -> None:
        self.figures = Figures(name)
        self._queue = queue
        self._learner = learner
        self._o = options
        self._events: list[tuple[float, int, Pilot, str | None]] = []
        self._order = 0
        self._pilots: list[Pilot] = []

    def run(self) -> Figures:
        """Run all."""
        for _ in range(self._o.pilots):
            self._begin(0.0)
        while self._events:
            now, _, pilot, key = heapq.heappop(self._events)
            if pilot.over:
                continue
            if key is None:
                self._stop(pilot, now)
            elif key in pilot.running:
                self._finished(pilot, key, now)
            for other in self._pilots:
                self._dispatch(other, now)
            self._pilots = [p for p in self._pilots if not p.over]
        assert len(self._queue.done) == len(self._queue.calcs)
        return self.figures

    def _at(self, when: float, pilot: Pilot, key: str | None) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, pilot, key))

    def _begin(self, now: float) -> None:
        pilot = Pilot(now, now + self._o.walltime_h * 3600, Pool(self._o.workers))
        self._pilots.append(pilot)
        self.figures.jobs += 1
        self.figures.reserved_s += self._o.workers * self._o.walltime_h * 3600
        self._at(pilot.end - self._o.margin_s / 2, pilot, None)
        self._dispatch(pilot, now)

    def _dispatch(self, pilot: Pilot, now: float) -> None:
        if pilot.over:
            return
        self._learner.look(now)
        room_s = pilot.end - self._o.margin_s - now
        pool = pilot.pool
        back = [i.key for i in pool.too_long(room_s) if pool.remove(i.key)]
        self._return(pilot, back)
        while room_s > 0 and (pool.idle or pool.waiting_s < AHEAD_S * self._o.workers):
            self._start(pilot, now, room_s)
            if not pool.idle and pool.waiting_s >= AHEAD_S * self._o.workers:
                break
            keys = self._queue.take(room_s)
            if keys is None:
                break
            fitting = [k for k in keys if self._item(k).room_s <= room_s]
            for key in fitting:
                pilot.held.add(key)
                pool.add(self._item(key))
            self._return(pilot, [k for k in keys if k not in fitting])
            if not fitting:
                break
        self._start(pilot, now, room_s)
        if not pilot.running and (room_s <= 0 or self._nothing_fits(room_s)):
            self._stop(pilot, now)

    def _nothing_fits(self, room_s: float) -> bool:
        if self._queue.empty:
            return not any(p.running for p in self._pilots)  # what others compute may open new batches
        keys = self._queue.take(room_s)
        if keys is None:
            return True
        self._queue.give_back(keys)
        return all(self._item(k).room_s > room_s for k in keys)

    def _item(self, key: str) -> Item:
        calc = self._queue.calcs[key]
        needs = None if calc.needs is None or calc.needs in self._queue.done else calc.needs
        return Item(key, calc.group, self._learner.seconds(calc), needs, 1, self._learner.safety)

    def _start(self, pilot: Pilot, now: float, room_s: float) -> None:
        for place in range(self._o.workers):
            for item in pilot.pool.take(place, now, room_s=room_s):
                pilot.running[item.key] = (place, now)
                self._at(now + self._queue.calcs[item.key].true_s, pilot, item.key)

    def _finished(self, pilot: Pilot, key: str, now: float) -> None:
        place, began = pilot.running.pop(key)
        pilot.pool.ended(place, key)
        pilot.held.discard(key)
        calc = self._queue.calcs[key]
        self._queue.finish(key)
        pilot.pool.met(key)
        self.figures.useful_s += now - began
        self._learner.timings.append(Timing(calc.prior_s, calc.atoms, calc.true_s))

    def _return(self, pilot: Pilot, keys: Sequence[str]) -> None:
        pilot.held.difference_update(keys)
        self._queue.give_back(keys)

    def _stop(self, pilot: Pilot, now: float) -> None:
        pilot.over = True
        for key, (_, began) in pilot.running.items():
            calc = self._queue.calcs[key]
            calc.shown_s = max(calc.shown_s, 2 * (now - began))
            self.figures.killed += 1
            self.figures.killed_s += now - began
        self._return(pilot, sorted(pilot.held))
        self.figures.allocated_s += self._o.workers * (now - pilot.start)
        if not self._queue.empty:
            self._begin(now)


@dataclass(slots=True)
class Job:
    """What one queue job is to do, on how many places, with what is known of it before."""

    calcs: tuple[Calc, ...]
    prior_s: float
    atoms: int


def one_job_each(name: str, jobs: Sequence[Job], places: int, start_s: float) -> Figures:
    """Run queue jobs one after the other: what they ask for is learned from those before.

    A job asks for its expected time and the same share in reserve as pilots keep. Results are kept as they come: a
    job that is killed loses what it had in hand, and the rest is another job. The places are charged until it ends.
    """
    out = Figures(name)
    timings: deque[Timing] = deque(maxlen=LEARNED_FROM)
    found = Fit()
    for i, job in enumerate(jobs):
        if i % 50 == 0:
            found = fit(timings)
        asked_s = start_s + found.seconds(job.prior_s, job.atoms) * max(1.0, found.safety(FITS))
        left = list(job.calcs)
        while left:
            out.jobs += 1
            done, elapsed_s, lost_s, lost = run_job(left, places, asked_s - start_s)
            out.useful_s += sum(c.true_s for c in done)
            out.killed += lost
            out.killed_s += lost_s
            out.allocated_s += places * (start_s + elapsed_s)
            out.reserved_s += places * asked_s
            left = [c for c in left if c not in done]
            asked_s *= WALLTIME_STEP
        timings.append(Timing(job.prior_s, job.atoms, elapsed(job.calcs, places)))
    return out


def run_job(calcs: Sequence[Calc], places: int, limit_s: float) -> tuple[list[Calc], float, float, int]:
    """Return what is done within a limit, when it ended, and the time and number of what was in hand."""
    done, ends, lost_s, lost = [], [], 0.0, 0
    for calc, began in schedule(calcs, places):
        if began + calc.true_s <= limit_s:
            done.append(calc)
            ends.append(began + calc.true_s)
        elif began < limit_s:
            lost_s += limit_s - began
            lost += 1
    return done, (limit_s if len(done) < len(calcs) else max(ends)), lost_s, lost


def schedule(calcs: Sequence[Calc], places: int) -> Iterator[tuple[Calc, float]]:
    """Yield calculations and when they start: a ground state first, then its sites, longest first."""
    first = [c for c in calcs if c.needs is None]
    yield from ((c, 0.0) for c in first)
    free = [max((c.true_s for c in first), default=0.0)] * places
    for calc in sorted((c for c in calcs if c.needs is not None), key=lambda c: -c.true_s):
        began = heapq.heappop(free)
        yield calc, began
        heapq.heappush(free, began + calc.true_s)


def elapsed(calcs: Sequence[Calc], places: int) -> float:
    """Return how long a job takes."""
    return max(began + c.true_s for c, began in schedule(calcs, places))


def simulate(options: argparse.Namespace) -> list[Figures]:
    """Run every scheme on the same molecules."""

    def molecules() -> list[Molecule]:
        return read(options.csv, options.molecules, options.seed)

    def pilots(name: str, *, learns: bool) -> Figures:
        queue = Queue(molecules(), target_s=options.target_s, split_above_s=6 * options.target_s)
        return Pilots(name, queue, Learner(learns), options).run()

    def per_molecule(places: int) -> list[Job]:
        return [Job(m.calcs, sum(c.prior_s for c in m.calcs) / places, m.ground.atoms) for m in molecules()]

    sites = [Job((c,), c.prior_s, c.atoms) for m in molecules() for c in m.calcs]
    shape = f"{options.walltime_h:g} h x {options.workers} places"
    return [
        pilots(f"pilots of {shape}, learned estimates", learns=True),
        pilots(f"pilots of {shape}, the prior alone", learns=False),
        one_job_each("a job per molecule, on a place", per_molecule(1), 1, options.start_s),
        one_job_each(
            f"a job per molecule, on {options.workers} places",
            per_molecule(options.workers),
            options.workers,
            options.start_s,
        ),
        one_job_each("a job per calculation, on a place", sites, 1, options.start_s),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--molecules", type=int, default=3000)
    parser.add_argument("--pilots", type=int, default=4, help="at once")
    parser.add_argument("--workers", type=int, default=16, help="places of a pilot")
    parser.add_argument("--walltime-h", type=float, default=24.0)
    parser.add_argument("--margin-s", type=float, default=120.0)
    parser.add_argument("--target-s", type=float, default=600.0, help="length of a batch")
    parser.add_argument("--start-s", type=float, default=0.0, help="seconds a job of its own takes to start")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = simulate(options)
    if options.json:
        json.dump([f.to_dict() for f in found], sys.stdout, indent=1)
        return 0
    print(
        f"{options.molecules} molecules drawn from {options.csv.name}; what is assumed: first lines of this file"
    )
    head = ("jobs", "engine h", "charged h", "killed h", "used", "of reserved")
    print(f"{'':44} {head[0]:>6} {head[1]:>9} {head[2]:>10} {head[3]:>12} {head[4]:>7} {head[5]:>12}")
    for f in found:
        d = f.to_dict()
        print(
            f"{f.name:44} {f.jobs:6} {f.useful_s / 3600:9.0f} {f.allocated_s / 3600:10.0f} "
            f"{f.killed_s / 3600:6.1f} ({f.killed:3}) {d['utilisation']:7.1%} {d['of_reserved']:12.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
