"""What goes wrong, one generator each: it does harm, yields what it did, and is resumed to undo it."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from tests.slurm.ledger import SPOIL
from tests.slurm.world import BLOCKER, Process, World

__all__ = ["FAULTS", "Fault", "NotNow"]

Fault = Callable[[World, random.Random], Generator[str, None, None]]

_AGENT = re.compile(r"-m htxas\.launch\.(\w+\.)*pilot\b")
_WORKER = re.compile(r"-m htxas\.launch\.(\w+\.)*worker\b")
_LIES = ("empty", "garbage", "truncated", "error", "slow")


class NotNow(Exception):
    """There is nothing to harm at the moment; ask again in a second."""


def _pick(world: World, rng: random.Random, pattern: re.Pattern[str]) -> Process:
    """Choose a process on a node that nothing else has its hands on."""
    healthy = set(world.healthy())
    found = [p for p in world.processes() if p.node in healthy and pattern.search(p.command)]
    if not found:
        raise NotNow
    return rng.choice(sorted(found, key=lambda p: p.pid))


def _node(world: World, rng: random.Random) -> str:
    """Choose a node on which htxas works; the last healthy one is spared."""
    with world.lock:
        healthy = world.healthy()
        busy = sorted({p.node for p in world.processes()} & set(healthy))
        if not busy or len(healthy) < 2:
            raise NotNow
        node = rng.choice(busy)
        world.damaged.add(node)
    return node


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_worker(world: World, rng: random.Random) -> Iterator[str]:
    """``kill -9`` of one worker process."""
    victim = _pick(world, rng, _WORKER)
    _kill(victim.pid)
    yield f"job {victim.job} on {victim.node}"


def kill_agent(world: World, rng: random.Random) -> Iterator[str]:
    """``kill -9`` of a pilot's agent; its workers must die with it."""
    victim = _pick(world, rng, _AGENT)
    _kill(victim.pid)
    yield f"job {victim.job} on {victim.node}"


def kill_pilot(world: World, rng: random.Random) -> Iterator[str]:
    """``kill -9`` of everything of one job at once."""
    job = _pick(world, rng, _AGENT).job
    for process in world.processes():
        if process.job == job:
            _kill(process.pid)
    yield f"job {job}"


def cancel_pilot(world: World, rng: random.Random) -> Iterator[str]:
    """``scancel`` behind htxas's back."""
    job = _pick(world, rng, _AGENT).job
    world.slurm_command("scancel", job)
    yield f"job {job}"


def shorten_walltime(world: World, rng: random.Random) -> Iterator[str]:
    """An operator lowers a running job's time limit: TIMEOUT long before the end it knows."""
    job = _pick(world, rng, _AGENT).job
    world.slurm_command("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    yield f"job {job}"


def kill_node(world: World, rng: random.Random) -> Iterator[str]:
    """Cut a node's power until Slurm has noticed: NODE_FAIL and requeue; then repair it."""
    node = _node(world, rng)
    world.slurm.kill_node(node)
    yield node
    world.slurm.start_node(node)
    world.damaged.discard(node)


def cut_network(world: World, rng: random.Random) -> Iterator[str]:
    """Stop a node's daemon: its jobs go on and are started again elsewhere. Split brain."""
    node = _node(world, rng)
    world.slurm.freeze_node(node)
    yield node
    world.slurm.thaw_node(node)
    world.damaged.discard(node)


def freeze_node(world: World, rng: random.Random) -> Iterator[str]:
    """Freeze a node and its jobs, and thaw them when their work has long been given to others: ghosts."""
    node = _node(world, rng)
    world.slurm.freeze_node(node, jobs=True)
    yield node
    world.slurm.thaw_node(node)
    world.damaged.discard(node)


def preempt(world: World, rng: random.Random) -> Iterator[str]:
    """Let a job of higher priority take the place of a pilot in ``spot``."""
    rows = [j for j in world.jobs() if j["state"] == "RUNNING" and j["node"] in world.healthy()]
    spots = [j for j in rows if j["partition"] == "spot"]
    if not spots:
        raise NotNow
    victim = rng.choice(sorted(spots, key=lambda j: j["id"]))
    keep = sum(int(j["cpus"]) for j in rows if j["node"] == victim["node"] and j["partition"] != "spot")
    wanted = max(1, world.cpus - keep)
    job = world.slurm_command(
        "sbatch", "--parsable", "--partition=main", f"--nodelist={victim['node']}", "--nodes=1", f"--ntasks={wanted}",
        "--mem=100", "--time=2", f"--job-name={BLOCKER}", "--output=/dev/null", "--wrap=sleep 100",
    ).strip()  # fmt: skip
    yield f"job {victim['id']} on {victim['node']}"
    world.slurm_command("scancel", job)


def kill_controller(world: World, rng: random.Random) -> Iterator[str]:
    """``kill -9`` of slurmctld, and start it again."""
    world.slurm.kill_controller()
    yield "slurmctld"
    world.slurm.start_controller()


def lie(world: World, rng: random.Random) -> Iterator[str]:
    """Have squeue and sacct lie, one lie after the other."""
    yield from _lie(world, rng.choice(_LIES))


def lie_empty(world: World, rng: random.Random) -> Iterator[str]:
    """Have squeue and sacct say nothing, with exit status 0."""
    yield from _lie(world, "empty")


def lie_garbage(world: World, rng: random.Random) -> Iterator[str]:
    """Have squeue and sacct talk nonsense, with exit status 0."""
    yield from _lie(world, "garbage")


def _lie(world: World, what: str) -> Iterator[str]:
    if world.lie.exists():
        raise NotNow
    world.lie.write_text(what + "\n")
    yield what
    world.lie.unlink()


def kill_mongod(world: World, rng: random.Random) -> Iterator[str]:
    """``kill -9`` of mongod while results stream in, and start it again."""
    pid = _mongod(world)
    _kill(pid)
    yield f"process {pid}"
    world.patiently("db", "up")


def stop_mongod(world: World, rng: random.Random) -> Iterator[str]:
    """Stop mongod from answering without closing a connection."""
    pid = _mongod(world)
    os.kill(pid, signal.SIGSTOP)
    yield f"process {pid}"
    os.kill(pid, signal.SIGCONT)


def _mongod(world: World) -> int:
    try:
        pid = world.mongod_pid()
    except ProcessLookupError:
        raise NotNow from None
    if ") T " in Path(f"/proc/{pid}/stat").read_text():  # stopped by another fault
        raise NotNow
    return pid


def fill_disk(world: World, rng: random.Random) -> Iterator[str]:
    """Fill the disk of the run folders to the last byte, then free it."""
    if not world.has_scratch:
        yield "left out: mounting is forbidden here"
        return
    ballast = world.runs / "somebody-elses.data"
    written = 0
    with ballast.open("wb", buffering=0) as stream:
        with contextlib.suppress(OSError):
            while True:
                written += stream.write(bytes(2**20))
        with contextlib.suppress(OSError):
            while True:
                written += stream.write(bytes(512))
    yield f"{written / 2**20:.0f} MiB"
    ballast.unlink()


def spoil_output(world: World, rng: random.Random) -> Iterator[str]:
    """Have the next output that is written be cut in half before anybody reads it."""
    before = set(world.ledger.glob("spoilt-*"))
    (world.ledger / SPOIL).touch()
    end = time.monotonic() + 20
    while not (new := set(world.ledger.glob("spoilt-*")) - before):
        if time.monotonic() > end:
            (world.ledger / SPOIL).unlink(missing_ok=True)
            raise NotNow
        time.sleep(0.05)
    _, key, attempt = next(iter(new)).name.split("-")
    yield f"{key[:10]} attempt {attempt}"


def submit_again(world: World, rng: random.Random) -> Iterator[str]:
    """Submit the same campaign again."""
    said = world.patiently("campaign", "submit", str(world.workload.file(world.folder)))
    yield said.splitlines()[-1].strip()[:60]


def pause(world: World, rng: random.Random) -> Iterator[str]:
    """Pause the campaign, then resume it."""
    world.patiently("campaign", "pause", world.workload.name)
    yield world.workload.name
    world.patiently("campaign", "resume", world.workload.name)


def kill_services(world: World, rng: random.Random) -> Iterator[str]:
    """``kill -9`` of the services on the login node; they are started again."""
    for service in world.services.values():
        service.process.kill()
    yield " ".join(world.services)


def walltime_ends(world: World, rng: random.Random) -> Iterator[str]:
    """Wait for the end of a job in the partition of one minute; no harm done, the clock does it."""
    running = [j for j in world.jobs() if j["partition"] == "short" and j["state"] == "RUNNING"]
    if not running:
        raise NotNow
    job = running[0]["id"]
    end = time.monotonic() + 100
    yield f"job {job}"
    while any(j["id"] == job for j in world.jobs()) and time.monotonic() < end:
        time.sleep(0.2)


FAULTS: dict[str, tuple[Fault, float]] = {
    "kill_worker": (kill_worker, 0),
    "kill_agent": (kill_agent, 0),
    "kill_pilot": (kill_pilot, 0),
    "cancel_pilot": (cancel_pilot, 0),
    "shorten_walltime": (shorten_walltime, 35),
    "kill_node": (kill_node, 40),
    "cut_network": (cut_network, 40),
    "freeze_node": (freeze_node, 45),
    "preempt": (preempt, 10),
    "kill_controller": (kill_controller, 8),
    "lie": (lie, 10),
    "lie_empty": (lie_empty, 10),
    "lie_garbage": (lie_garbage, 10),
    "kill_mongod": (kill_mongod, 2),
    "stop_mongod": (stop_mongod, 60),
    "fill_disk": (fill_disk, 15),
    "spoil_output": (spoil_output, 0),
    "submit_again": (submit_again, 0),
    "pause": (pause, 6),
    "kill_services": (kill_services, 0),
    "walltime_ends": (walltime_ends, 0),
}
"""Name -> what it does, and how many seconds it lasts."""
