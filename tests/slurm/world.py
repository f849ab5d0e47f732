"""The stage of the chaos test: a Slurm, a database, a campaign, and htxas's own commands as a user gives them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.slurm.fixtures import MiniSlurm
from tests.slurm.workload import Workload

__all__ = ["BLOCKER", "CLUSTERS", "Process", "Service", "World", "terminal"]

CLUSTERS = {"steady": ("--pilots", "2"), "quick": ("--adapt",), "spare": ("--adapt", "--pilots", "2")}
BLOCKER = "somebody-else"
"""Name of the job that preempts pilots."""

_LEDGER = Path(__file__).with_name("ledger.py")
_SCRATCH_MB = 192
_LOOK_AFTER_S = 5.0
_PHANTOM_S = 30.0  # longer than a pilot takes to start or to end
_DATABASE = "htxas"
_LIAR = """\
#!/bin/sh
# Stands before the real {name} on PATH and lies as long as it is told to.
case "$(cat '{lie}' 2>/dev/null)" in
    empty) exit 0 ;;
    garbage) printf 'Segmentation fault\\n<html><body>502 Bad Gateway</body></html>\\n|||\\n'; exit 0 ;;
    truncated) '{real}' "$@" | head -c 23; exit 0 ;;
    error) echo '{name}: error: slurm_persist_conn_open: Unable to contact slurm controller' >&2; exit 1 ;;
    slow) sleep 5 ;;
esac
exec '{real}' "$@"
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of htxas on a node."""

    pid: int
    node: str
    command: str
    job: str


@dataclass(slots=True)
class Service:
    """A command that runs beside everything, started again if it ends before it is told to."""

    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]
    statuses: list[int] = field(default_factory=list)


def _python_path() -> list[str]:
    """Jobs inherit nothing; a checkout on PYTHONPATH must be told to them."""
    path = os.environ.get("PYTHONPATH")
    return [f"export PYTHONPATH={shlex.quote(path)}"] if path else []


def terminal(counts: dict[str, int]) -> int:
    """How many calculations have ended."""
    return sum(counts.get(state, 0) for state in ("done", "failed", "quarantined"))


class World:
    """Everything the chaos acts on.

    Parameters
    ----------
    folder
        Empty; short, as sockets live below it.
    workload
        What is to be computed.
    nodes, cpus
        Of the Slurm.
    """

    def __init__(self, folder: Path, workload: Workload, *, nodes: int = 3, cpus: int = 4) -> None:
        self.folder = folder
        self.workload = workload
        self.home = folder / "home"
        self.runs = self.home / "runs"
        self.ledger = folder / "ledger"
        self.logs = folder / "logs"
        self.lie = folder / "lie"
        self.slurm = MiniSlurm(folder / "slurm")
        self.nodes, self.cpus = nodes, cpus
        self.damaged: set[str] = set()
        self.services: dict[str, Service] = {}
        self.samples: list[tuple[float, dict[str, int]]] = []
        self.has_scratch = False
        self._quiet = threading.Event()
        self._ending = False
        self.lock = threading.Lock()
        self.phantoms: list[str] = []
        self._silent_since: dict[str, float] = {}
        self._looked_after = 0.0
        self._wrappers = folder / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """Of every command: as in a shell of the user's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HTXAS_", "SLURM_"))}
        path = f"{self._wrappers}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        home = {"HTXAS_HOME": str(self.home), "SLURM_CONF": str(self.slurm.conf)}
        return {**kept, **home, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    # --- the user's commands

    def htxas(self, *arguments: str, check: bool = True, timeout_s: float = 120) -> str:
        """Run one htxas command and return what it said."""
        done = subprocess.run(
            ["htxas", *arguments], executable=str(Path(sys.executable).with_name("htxas")), cwd=self.folder,
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=timeout_s,
        )  # fmt: skip
        with (self.logs / "commands.log").open("a") as log:
            log.write(f"{time.time():.1f} htxas {' '.join(arguments)} -> {done.returncode}\n{done.stdout}\n")
        if check and done.returncode != 0:
            raise RuntimeError(f"htxas {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}")
        return done.stdout

    def patiently(self, *arguments: str, seconds: float = 180) -> str:
        """Run one htxas command, again and again while it fails, as somebody would who sees a database restart."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.htxas(*arguments)
            except (RuntimeError, subprocess.TimeoutExpired):
                if time.monotonic() > end:
                    raise
            time.sleep(2)

    def serve(self, name: str, *arguments: str) -> None:
        """Start a command that stays."""
        self.services[name] = Service(name, arguments, self._start(name, arguments))

    def _start(self, name: str, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with (self.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(Path(sys.executable).with_name("htxas")), *arguments], cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def attend(self) -> None:
        """Start services again that ended, as systemd does; look after Slurm, as an operator does."""
        for service in self.services.values():
            status = service.process.poll()
            if status is not None and not self._ending:
                service.statuses.append(status)
                service.process = self._start(service.name, service.arguments)
        if time.monotonic() - self._looked_after >= _LOOK_AFTER_S:
            self._looked_after = time.monotonic()
            self._cancel_phantoms()
            self._resume_nodes()

    def _resume_nodes(self) -> None:
        """Take drained nodes back into service, and cancel jobs that Slurm holds.

        A controller that comes back with an older state starts jobs a second time where they still run, drains the node
        for it ("Duplicate jobid"), and holds the jobs.
        """
        for node in self.healthy():
            if "drain" in self.slurm_command("sinfo", "-h", "-n", node, "-o", "%T").lower():
                self.slurm_command("scontrol", "update", f"NodeName={node}", "State=RESUME")
        rows = self.slurm_command(shutil.which("squeue") or "squeue", "-h", "-r", "-t", "PD", "-o", "%i|%r")
        for row in rows.splitlines():
            job, _, why = row.partition("|")
            if "held" in why.lower():
                self.slurm_command("scancel", job)

    def _cancel_phantoms(self) -> None:
        """Cancel jobs that Slurm calls running although their node has long had no process of them.

        A controller that is killed while a node is down may forget the nodes of a job it starts again: the node aborts
        it ("on wrong node"), and the controller calls it running until its time is over. That is Slurm's own fault; for
        htxas the job runs, and it waits.
        """
        alive = {p.job for p in self.processes()}
        healthy = set(self.healthy())
        running = [j for j in self.our_jobs() if j["state"] == "RUNNING" and j["node"] in healthy]
        silent = {j["id"] for j in running if j["number"] not in alive}
        now = time.monotonic()
        self._silent_since = {i: self._silent_since.get(i, now) for i in silent}
        for job, since in self._silent_since.items():
            if now - since > _PHANTOM_S and job not in self.phantoms:
                self.phantoms.append(job)
                self.slurm_command("scancel", job)

    def end_services(self) -> dict[str, int]:
        """Ask each to end, as Ctrl-C does; return their exit statuses."""
        self._ending = True
        statuses = {}
        for service in self.services.values():
            service.process.send_signal(signal.SIGINT)
        for service in self.services.values():
            try:
                statuses[service.name] = service.process.wait(30)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
                statuses[service.name] = -9
        return statuses

    # --- Slurm, looked at without htxas

    def slurm_command(self, *command: str) -> str:
        """Run one of Slurm's own commands, never a lying one; empty if the controller does not answer."""
        try:
            return subprocess.run(
                command, env=self.slurm.environment, capture_output=True, text=True, check=False, timeout=30
            ).stdout
        except subprocess.TimeoutExpired:
            return ""

    def jobs(self) -> list[dict[str, str]]:
        """Return id, partition, node, cpus, state, name and number (an array's tasks have one each) of all jobs."""
        names = ("id", "partition", "node", "cpus", "state", "name", "number")
        rows = self.slurm_command(
            shutil.which("squeue") or "squeue", "-h", "-r", "-o", "%i|%P|%N|%C|%T|%j|%A"
        ).splitlines()
        return [dict(zip(names, row.split("|"), strict=True)) for row in rows]

    def our_jobs(self) -> list[dict[str, str]]:
        """Return htxas's jobs; told by name, as a controller that crashed gives ids a second time."""
        return [j for j in self.jobs() if j["name"] != BLOCKER]

    def processes(self) -> list[Process]:
        """Return all processes of htxas inside jobs, engines included."""
        mark = f"HTXAS_HOME={self.home}".encode()
        found = []
        for node, pids in self.slurm.job_processes().items():
            for pid in pids:
                try:
                    words = (
                        Path(f"/proc/{pid}/cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace")
                    )
                    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if mark in environ:
                    job = next((e[13:].decode() for e in environ if e.startswith(b"SLURM_JOB_ID=")), "")
                    found.append(Process(pid, node, words, job))
        return found

    def strays(self) -> list[str]:
        """Return every process that belongs to this home, the database server's left out."""
        mark = f"HTXAS_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mark in environ and words and "mongod" not in words.split()[0]:
                found.append(f"{entry.name}: {words[:160]}")
        return found

    def healthy(self) -> list[str]:
        """Return the nodes no fault has its hands on."""
        return [f"n{i}" for i in range(1, self.nodes + 1) if f"n{i}" not in self.damaged]

    # --- the database, looked at without htxas

    @property
    def uri(self) -> str:
        """Connection string of the private server."""
        return (self.home / "db/uri").read_text().strip()

    def mongod_pid(self) -> int:
        """Process id of the private server."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if words[0].endswith(b"mongod") and str(self.home / "db").encode() in b"\0".join(words):
                    return int(entry.name)
        raise ProcessLookupError("no mongod")

    @contextmanager
    def database(self) -> Iterator[Any]:
        """Open htxas's database."""
        with MongoClient(self.uri, serverSelectionTimeoutMS=5000, tz_aware=True) as client:
            yield client[_DATABASE]

    def _watch(self) -> None:
        group = [
            {"$match": {"campaigns": self.workload.name}},
            {"$group": {"_id": "$state", "n": {"$sum": 1}}},
        ]
        with MongoClient(self.uri, serverSelectionTimeoutMS=1000, socketTimeoutMS=2000) as client:
            while not self._quiet.wait(0.5):
                try:
                    rows = list(client[_DATABASE]["calculations"].aggregate(group))
                except PyMongoError:
                    continue
                with self.lock:
                    self.samples.append((time.time(), {row["_id"]: row["n"] for row in rows}))

    def counts(self) -> dict[str, int]:
        """Return the latest sample: state -> number of calculations."""
        with self.lock:
            return dict(self.samples[-1][1]) if self.samples else {}

    # --- beginning and end

    def open(self) -> None:
        """Start Slurm and database, submit the campaign, start the services."""
        self.folder.chmod(0o755)  # munge: its socket must be in reach of all
        for folder in (self.home, self.runs, self.ledger, self.logs, self._wrappers):
            folder.mkdir(parents=True)
        self._mount_scratch()
        for name in ("squeue", "sacct"):
            script = self._wrappers / name
            script.write_text(_LIAR.format(name=name, lie=self.lie, real=shutil.which(name)))
            script.chmod(0o755)
        (self.home / "htxas.yaml").write_text(json.dumps(self._profiles(), indent=1))  # JSON is YAML
        self.slurm.folder.mkdir()
        self.slurm.start(nodes=self.nodes, cpus=self.cpus, memory_MB=16_000)
        self.htxas("db", "up")
        self.workload.write(self.folder)
        self.htxas("campaign", "submit", str(self.workload.file(self.folder)))
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self.serve("reconcile", "reconcile", "--watch", "--every", "5")
        for cluster, how_many in CLUSTERS.items():
            self.serve(
                f"submit-{cluster}",
                "queue",
                "submit",
                "--cluster",
                cluster,
                *how_many,
                "--watch",
                "--every",
                "5",
            )

    def _mount_scratch(self) -> None:
        """Run folders on a small disk of their own, before Slurm's nodes copy the table of mounts."""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_SCRATCH_MB}M,mode=755", "htxas-chaos", str(self.runs)],
            capture_output=True, check=False,
        )  # fmt: skip
        self.has_scratch = done.returncode == 0

    def _profiles(self) -> dict[str, Any]:
        common = {
            "scheduler": "slurm",
            "home": str(self.home),
            "python": sys.executable,
            "database": {"uri_file": str(self.home / "db/uri")},
            "engines": {
                self.workload.engine: {
                    "program": [sys.executable, str(_LEDGER), str(self.ledger), sys.executable]
                }
            },
            "setup": ["export OMP_NUM_THREADS=1", *_python_path()],
        }
        pilots = {
            "workers": 2,
            "cores_per_worker": 1,
            "memory_per_worker_GB": 0.8,
            "margin_s": 5,
            "signal_s": 10,
        }
        kinds = {
            "steady": ("main", "00:30:00", 3, 10),
            "quick": ("short", "00:01:00", 1, 10),
            "spare": ("spot", "00:30:00", 2, 10),
        }
        return {
            "clusters": {
                name: {
                    **common,
                    "partitions": {
                        partition: {
                            "walltime": walltime,
                            "cores": self.cpus,
                            "memory_GB": 4,
                            "max_jobs": most,
                        }
                    },
                    "pilots": {**pilots, "most": most, "idle_s": idle},
                }
                for name, (partition, walltime, most, idle) in kinds.items()
            }
        }

    def close(self) -> None:
        """Stop everything, whatever state it is in."""
        self._ending = True
        self._quiet.set()
        for service in self.services.values():
            if service.process.poll() is None:
                service.process.kill()
            service.process.wait()
        if self.slurm.conf.exists():
            self.slurm.stop()
        try:
            pid = self.mongod_pid()
        except ProcessLookupError:
            pass
        else:
            os.kill(pid, signal.SIGCONT)
            self.htxas("db", "down", check=False)
        if self.has_scratch:
            with contextlib.suppress(shutil.Error, FileNotFoundError):  # what is still being deleted
                shutil.copytree(self.runs / "workers", self.logs / "workers", dirs_exist_ok=True)
                shutil.copytree(self.home / "pilots", self.logs / "pilots", dirs_exist_ok=True)
            subprocess.run(["umount", "-l", str(self.runs)], check=False)
