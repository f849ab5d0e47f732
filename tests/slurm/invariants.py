"""What must hold after the chaos, each claim checked from two sides that know nothing of each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from htxas.engines.fake.numbers import ground_numbers, site_numbers
from tests.slurm.chaos_report import Struck
from tests.slurm.ledger import Run, read_ledger
from tests.slurm.world import World

__all__ = ["Findings", "inspect"]

_MOST_SHOWN = 12
_INTERRUPTIONS = ("lost", "node_failure", "disk_full", "walltime")
_INTERRUPTED = 130  # exit status after Ctrl-C
_AFTER_SPOILT = "again_after_bad_output"
_GHOST_S = 90.0  # a heartbeat is 10 s; the longest outage of the database in a test is 60 s
_CLOCK_S = 0.5  # the server's clock is this machine's; its milliseconds are not


@dataclass(slots=True)
class Findings:
    """What was found.

    Attributes
    ----------
    problems
        Claims that do not hold, in words; empty is a pass.
    ends
        When each calculation ended, unix seconds, ascending.
    figures
        Numbers for the table.
    """

    problems: list[str] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def claim(self, holds: bool, otherwise: str) -> None:
        """Note a problem unless the claim holds."""
        if not holds:
            self.problems.append(otherwise)

    def none(self, what: str, found: Sequence[str]) -> None:
        """Note a problem if anything was found."""
        if found:
            more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
            self.problems.append(f"{what} ({len(found)}): {'; '.join(found[:_MOST_SHOWN])}{more}")


def inspect(
    world: World, troubles: Sequence[str], statuses: Mapping[str, int], struck: Sequence[Struck]
) -> Findings:
    """Check every claim; the services have ended."""
    findings = Findings(problems=list(troubles))
    badly = [f"{k}: {v}" for k, v in statuses.items() if v not in (0, _INTERRUPTED)]
    findings.none("services that did not end well", badly)
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in read_ledger(world.ledger):
        runs[run.key].append(run)
    with world.database() as db:
        documents = list(db["calculations"].find({"campaigns": world.workload.name}))
        formulas = {s["_id"]: s for s in db["structures"].find({}, {"formula": 1})}
        _endings(findings, world, documents, formulas, runs)
        _exactly_once(findings, documents, runs)
        _arrays(findings, db, documents)
        _numbers(findings, world, db, documents)
        _nothing_left(findings, world, db)
    _recomputed(findings, documents, runs, struck)
    findings.figures["phantoms"] = len(world.phantoms)
    findings.ends = sorted(d["finished"].timestamp() for d in documents if d.get("finished"))
    return findings


def _name(document: Mapping[str, Any], formulas: Mapping[str, Any]) -> tuple[str, str]:
    place = "ground" if document["kind"] == "ground" else str(document["atom"])
    return formulas[document["structure_key"]]["formula"], place


def _endings(
    findings: Findings,
    world: World,
    documents: Sequence[Mapping[str, Any]],
    formulas: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]],
) -> None:
    """Every calculation is there, and ended as it had to."""
    w = world.workload
    findings.claim(
        len(documents) == w.sites + w.grounds,
        f"{len(documents)} calculations instead of {w.sites + w.grounds}",
    )
    wrong, states, causes = [], Counter[str](), Counter[str]()
    for d in documents:
        formula, place = _name(d, formulas)
        ending = w.ending(formula, place)
        states[d["state"]] += 1
        if d["cause"]:
            causes[d["cause"]] += 1
        found = (d["state"], d["cause"])
        if found != (ending.state, ending.cause):
            wrong.append(
                f"{formula}:{place} is {found[0]} {found[1] or ''} after {d['attempts']} attempts, not {ending.state} "
                f"{ending.cause or ''} [{d['_id'][:10]}: {d['message']}]"
            )
        elif ending.corrections:
            made = tuple((d.get("ladder") or {}).get("corrections", ()))
            if any(
                run.spoilt for run in runs.get(d["_id"], ())
            ):  # by a fault: an attempt beside those it needs
                made = tuple(name for name in made if name != _AFTER_SPOILT)
            if made != ending.corrections:
                wrong.append(f"{formula}:{place} was corrected by {made}, not {ending.corrections}")
    findings.none("calculations that did not end as they must", wrong)
    findings.figures |= {"states": dict(states), "causes": dict(causes)}


def _exactly_once(
    findings: Findings, documents: Sequence[Mapping[str, Any]], runs: Mapping[str, Sequence[Run]]
) -> None:
    """The stored attempt ran once, whole, before it was stored; nothing began after that; no attempt ran twice.

    But for the ghosts: whoever was declared dead and lives does not know before its next heartbeat, and may begin what
    another has done meanwhile. What comes of it is refused.
    """
    twice, late, missing = [], [], []
    for d in documents:
        of_key = runs.get(d["_id"], ())
        attempts = Counter(run.attempt for run in of_key)
        twice += [f"{d['_id'][:10]} attempt {a}: {n} times" for a, n in attempts.items() if n > 1]
        if d["state"] != "done":
            continue
        finished = d["finished"].timestamp()
        late += [f"{d['_id'][:10]} attempt {r.attempt} began {r.started - finished:.1f} s after it was done"
                 for r in of_key
                 if r.started > finished + (_CLOCK_S if r.attempt >= d["attempts"] else _GHOST_S)]  # fmt: skip
        whole = [
            r for r in of_key if r.attempt == d["attempts"] and r.ended is not None and r.returncode == 0
        ]
        if len(whole) != 1 or whole[0].spoilt or whole[0].ended > finished + _CLOCK_S:  # type: ignore[operator]
            missing.append(f"{d['_id'][:10]} attempt {d['attempts']}: {whole}")
    findings.none("attempts that ran more than once", twice)
    findings.none("calculations begun after they were done", late)
    findings.none("done without one whole execution of that attempt", missing)
    known = {d["_id"] for d in documents}
    findings.none("executions of unknown calculations", sorted(k[:10] for k in runs if k not in known))


def _arrays(findings: Findings, db: Any, documents: Sequence[Mapping[str, Any]]) -> None:
    """Arrays are there exactly where a result is, of the attempt that is said to have made them."""
    stored = {c: {a["_id"]: a["attempt"] for a in db[c].find({}, {"attempt": 1})} for c in ("spectra", "dos")}
    wrong = []
    for d in documents:
        attempt = stored["dos" if d["kind"] == "ground" else "spectra"].get(d["_id"])
        if d["state"] == "done" and attempt != d["attempts"]:
            wrong.append(f"{d['_id'][:10]}: arrays of attempt {attempt}, done in {d['attempts']}")
        if d["state"] == "done" and not str(d["directory"]).rstrip("/").endswith(
            f"{d['_id']}/{d['attempts']}"
        ):
            wrong.append(f"{d['_id'][:10]}: attempt {d['attempts']} in {d['directory']}")
    findings.none("arrays or folders of another attempt", wrong)


def _numbers(findings: Findings, world: World, db: Any, documents: Sequence[Mapping[str, Any]]) -> None:
    """What is stored is what the fake engine gives for this very calculation, computed here once more."""
    if world.workload.engine != "fake":
        return
    from htxas.store.store import Store

    wrong = []
    with Store.open(world.uri) as store:
        for d in documents:
            if d["state"] != "done":
                continue
            calculation = store.identity(d["_id"])
            if d["kind"] == "site":
                expected = site_numbers(calculation)["energies_eV"]
                found = store.site_result(d["_id"]).sticks.energies_eV
            else:
                structure = store.structure(d["structure_key"]).structure
                expected = ground_numbers(calculation, structure)["energies_eV"]
                found = store.ground_result(d["_id"]).pdos.energies_eV
            if not np.allclose(found, expected):
                wrong.append(d["_id"][:10])
    findings.none("stored numbers that are not this calculation's", wrong)


def _nothing_left(findings: Findings, world: World, db: Any) -> None:
    """No lease, no Firework on its way, no pilot, no job, no process."""
    leased = db["calculations"].find({"$or": [{"state": "running"}, {"lease_token": {"$ne": None}}]})
    findings.none("leases left", [f"{d['_id'][:10]} of {d['worker']}" for d in leased])
    fireworks = db.client[f"{db.name}_fireworks"]
    states = Counter(f["state"] for f in fireworks["fireworks"].find({}, {"state": 1}))
    findings.claim(set(states) <= {"COMPLETED"}, f"Fireworks are not all completed: {dict(states)}")
    of_fireworks = [i for f in fireworks["fireworks"].find({}, {"launches": 1}) for i in f["launches"]]
    open_ = {"launch_id": {"$in": of_fireworks}, "state": {"$in": ["RUNNING", "RESERVED"]}}
    running = fireworks["launches"].count_documents(open_)  # archived ones keep the state they had
    findings.claim(running == 0, f"{running} launches are still running")
    left = fireworks["workflows"].count_documents({"locked": True})
    findings.claim(left == 0, f"{left} workflows are locked")
    pilots = list(db["pilots"].find({}))
    findings.none(
        "pilots on record as active",
        [f"{p['_id']} {p['state']} job {p['job_id']}" for p in pilots if p["state"] != "ended"],
    )
    findings.none("workers on record", [w["_id"] for w in db["workers"].find({})])
    jobs = world.our_jobs()
    findings.none("jobs left in the queue", [f"{j['id']} {j['state']}" for j in jobs])
    findings.none("processes left", world.strays())
    findings.figures["pilots"] = len(pilots)
    findings.figures["fireworks"] = dict(states)


def _recomputed(
    findings: Findings,
    documents: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Sequence[Run]],
    struck: Sequence[Struck],
) -> None:
    """Count work done in vain: whole executions nobody took, and executions a fault cut short."""
    in_vain, cut, per_fault = [], 0, Counter[int]()
    corrected = ghosts = 0
    for d in documents:
        entries = {e["attempt"]: e for e in d.get("history", ())}
        for run in runs.get(d["_id"], ()):
            if run.attempt == d["attempts"]:
                continue
            entry = entries.get(run.attempt, {})
            cause, settled = entry.get("cause"), entry.get("ended")
            if cause is not None and (cause not in _INTERRUPTIONS or cause == d["cause"]):
                corrected += 1  # it had an outcome of its own, and the ladder asked for another attempt
            elif run.ended is not None and settled is not None and run.ended > settled.timestamp():
                ghosts += 1  # it was taken for dead while it computed, and refused when it came back
                _blame(run, struck, per_fault)
            elif run.ended is not None and run.returncode == 0 and not run.spoilt:
                in_vain.append(f"{d['_id'][:10]} attempt {run.attempt} on {run.host}")
                _blame(run, struck, per_fault)
            else:
                cut += 1
                _blame(run, struck, per_fault)
    findings.figures |= {
        "executions": sum(map(len, runs.values())),
        "corrected_attempts": corrected,
        "recomputed_whole": len(in_vain),
        "recomputed_in_hand": cut,
        "ghosts_refused": ghosts,
        "in_vain": in_vain[:_MOST_SHOWN],
    }
    for i, count in per_fault.items():
        struck[i].lost = count


def _blame(run: Run, struck: Sequence[Struck], per_fault: Counter[int]) -> None:
    """Give a lost execution to the last fault that began before it ended, if any began while it ran or just before."""
    before = [i for i, s in enumerate(struck) if s.began <= (run.ended or run.started + 5)]
    if before:
        per_fault[max(before, key=lambda i: struck[i].began)] += 1
