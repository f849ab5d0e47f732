#!/usr/bin/env python3
"""A real Slurm of several nodes on one machine: munged, slurmctld and N slurmd on loopback.

No systemd, nothing in /etc, everything in one folder; as root or as an ordinary user. For trying a cluster profile on
a laptop and for tests that need a scheduler which really loses nodes, jobs and answers.

::

    minislurm.py start DIR [--nodes 3] [--cpus 4] [--memory 4000] [--namespaces auto|yes|no]
    eval "$(minislurm.py env DIR)"          # sinfo, sbatch, squeue now speak to it
    minislurm.py stop DIR

    minislurm.py kill-node DIR n1           # power cut: slurmd and every process of its jobs
    minislurm.py kill-slurmd DIR n1         # only its daemon; the jobs go on
    minislurm.py start-node DIR n1          # after either
    minislurm.py freeze-node DIR n1         # its daemon stops answering, its jobs go on: a cut network
    minislurm.py freeze-node DIR n1 --jobs  # and so do its jobs: a hanging machine
    minislurm.py thaw-node DIR n1
    minislurm.py stop-ctld DIR | kill-ctld DIR | start-ctld DIR

Each node lives in PID, UTS and mount namespaces of its own if the kernel allows it (``--namespaces yes`` insists):
``hostname`` is then the node's, and a killed node takes all its processes along at once. Without them every job sees
this machine's hostname. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["MiniSlurm", "MiniSlurmError", "missing_programs"]

_MUNGED, _CTLD, _SLURMD = "munged", "slurmctld", "slurmd"
_CLIENTS = ("sbatch", "squeue", "scancel", "sinfo", "scontrol")
_LONGEST_FOLDER = 75  # the sockets in it must fit into the 107 characters of AF_UNIX
_UP = frozenset({"idle", "mixed", "allocated"})

_CONF = """\
ClusterName=mini
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port_nodes}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
# short times: a lost node is noticed in seconds, not in minutes
SlurmctldTimeout=10
SlurmdTimeout={node_timeout_s}
KillWait=5
InactiveLimit=0
MinJobAge=300
TCPTimeout=2
MessageTimeout=10
UnkillableStepTimeout=20
BatchStartTimeout=20
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,bf_interval=1,batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
EnforcePartLimits=ALL
MaxJobCount=20000
MaxArraySize=10001
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
AccountingStorageType=accounting_storage/none
NodeName=n[1-{nodes}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{port_first}-{port_last}] \
CPUs={cpus} RealMemory={memory_MB} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=5 PriorityTier=10 PreemptMode=OFF State=UP
PartitionName=spot Nodes=ALL MaxTime=60 DefaultTime=5 PriorityTier=1 PreemptMode=REQUEUE GraceTime=5 State=UP
PartitionName=short Nodes=n1 MaxTime=1 DefaultTime=1 MaxNodes=1 PriorityTier=5 PreemptMode=OFF State=UP
"""


class MiniSlurmError(RuntimeError):
    """The cluster cannot be started, or a node is not in the state that was asked for."""


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def missing_programs() -> list[str]:
    """Return the Slurm and munge programs this machine lacks."""
    return [name for name in (_MUNGED, _CTLD, _SLURMD, *_CLIENTS) if _program(name) is None]


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone. Tells a reused PID apart."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_ports(nodes: int) -> int:
    """Return the first of a free range on loopback, below the ephemeral ports."""
    for _ in range(200):
        base = random.randrange(20000, 31000, 50)  # noqa: S311  no secret
        taken: list[socket.socket] = []
        try:
            for port in (base, *range(base + 11, base + 11 + nodes)):
                one = socket.socket()
                taken.append(one)
                one.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for one in taken:
                one.close()
    raise MiniSlurmError("no free range of ports on 127.0.0.1")


def _unshare() -> list[str]:
    """Return the command that gives a node its namespaces; an ordinary user needs one of users, too."""
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", "--uts", "--mount", *as_user]


def _namespaces_allowed() -> bool:
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    probe = [*_unshare(), "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "hostname n1"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


class MiniSlurm:
    """A private Slurm in a folder.

    Parameters
    ----------
    folder
        Short (at most 75 characters), not world-writable, parents included: munge insists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.conf = self.folder / "slurm.conf"
        self._processes = self.folder / "processes.json"
        self._in_namespaces = self.folder / "namespaces"
        self._children: list[subprocess.Popen[bytes]] = []  # those of this process, to be reaped

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this process with ``SLURM_CONF``: what Slurm's commands need."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    @property
    def namespaces(self) -> bool:
        """Whether each node has namespaces of its own."""
        return self._in_namespaces.exists()

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes, started or not."""
        return sorted(p.name for p in (self.folder / "spool").iterdir())

    def start(
        self,
        *,
        nodes: int = 3,
        cpus: int = 4,
        memory_MB: int = 4000,
        node_timeout_s: int = 5,
        namespaces: bool | None = None,
        extra: str = "",
    ) -> float:
        """Start everything and wait until all nodes are idle; return the seconds it took.

        Parameters
        ----------
        nodes, cpus, memory_MB
            How many nodes, and what each has to offer; may exceed what the machine has.
        node_timeout_s
            Silence after which a node is down (noticed some 20 s later).
        namespaces
            True insists, False does without, None takes them if the kernel allows.
        extra
            More lines for ``slurm.conf``.

        Raises
        ------
        MiniSlurmError
            Programs missing, folder too long or in use, namespaces forbidden, or a daemon that died.
        """
        began = time.monotonic()
        if absent := missing_programs():
            raise MiniSlurmError(
                f"not installed: {' '.join(absent)} (Debian: apt-get install slurmctld slurmd slurm-client munge)"
            )
        if len(str(self.folder)) > _LONGEST_FOLDER:
            raise MiniSlurmError(
                f"{self.folder} has more than {_LONGEST_FOLDER} characters; sockets live there"
            )
        if any(self._alive(name) for name in self._load()):
            raise MiniSlurmError(f"a cluster runs in {self.folder} already")
        if namespaces is None:
            namespaces = _namespaces_allowed()
        elif namespaces and not _namespaces_allowed():
            raise MiniSlurmError("this kernel or container forbids namespaces; start without them")
        self._write(nodes, cpus, memory_MB, node_timeout_s, namespaces, extra)
        try:
            self._start_munge()
            self.start_controller()
            for i in range(1, nodes + 1):
                self.start_node(f"n{i}")
            self.wait(lambda: len(self.up()) == nodes, 30, "idle nodes")
        except BaseException:
            self.stop()
            raise
        return time.monotonic() - began

    def _write(
        self, nodes: int, cpus: int, memory_MB: int, node_timeout_s: int, namespaces: bool, extra: str
    ) -> None:
        for name in ("munge", "state", "run", "log", *(f"spool/n{i}" for i in range(1, nodes + 1))):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        port = _free_ports(nodes)
        text = _CONF.format(
            folder=self.folder, user=pwd.getpwuid(os.geteuid()).pw_name, nodes=nodes, cpus=cpus, memory_MB=memory_MB,
            node_timeout_s=node_timeout_s, port=port, port_nodes=port + 1, port_first=port + 11,
            port_last=port + 10 + nodes,
        )  # fmt: skip
        self.conf.write_text(text + extra)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost {' '.join(self.nodes)}\n")
        self._in_namespaces.unlink(missing_ok=True)
        if namespaces:
            self._in_namespaces.touch()

    def _start_munge(self) -> None:
        place = self.folder / "munge"
        key = place / "munge.key"
        if not key.exists():
            descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, os.urandom(128))
            os.close(descriptor)
        (place / "munge.socket").unlink(missing_ok=True)
        files = {"key-file": key, "socket": place / "munge.socket"}
        files |= {f"{what}-file": place / f"munged.{what}" for what in ("pid", "log", "seed")}
        self._spawn(
            _MUNGED,
            [
                _MUNGED,
                "-F",
                "--origin=127.0.0.1",
                "--num-threads=2",
                *(f"--{k}={v}" for k, v in files.items()),
            ],
        )
        self.wait((place / "munge.socket").exists, 5, "munge")

    def stop(self) -> None:
        """End exactly what was started here: the controller first, so that it does not wait for the nodes."""
        nodes = self.nodes if self.conf.exists() else []
        self._end(_CTLD, signal.SIGTERM)
        for node in nodes:
            self._kill_everything(node)
        self._end(_MUNGED, signal.SIGTERM)
        self._save({})

    def start_controller(self) -> None:
        """Start slurmctld; it reads the state its predecessor saved."""
        command = [_CTLD, "-D", "-f", str(self.conf)]
        if self.namespaces:  # slurmctld binds to what its hostname resolves to
            command = [
                *_unshare(),
                "sh",
                "-c",
                self._set_hostname("localhost", 'exec {drop}"$@"'),
                "sh",
                *command,
            ]
        self._spawn(_CTLD, command)

    def stop_controller(self) -> None:
        """End slurmctld in good order: it saves its state."""
        self._end(_CTLD, signal.SIGTERM)

    def kill_controller(self) -> None:
        """``kill -9`` of slurmctld: what it had not saved yet is forgotten."""
        self._end(_CTLD, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Start a node, or the daemon of one that lost it.

        Raises
        ------
        MiniSlurmError
            If its slurmd runs, or does not start.
        """
        if self._slurmd(node) is not None:
            raise MiniSlurmError(f"{node} runs already")
        command = [_SLURMD, "-D", "-N", node, "-f", str(self.conf)]
        inside = self._first_process(node) if self.namespaces and self._alive(node) else None
        if inside is not None:
            users = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
            self._spawn(f"{node}.again", ["nsenter", "-t", str(inside), "-m", "-u", "-p", *users, *command])
        elif self.namespaces:
            # sh is process 1 there: it reaps orphans, and outlives slurmd as a machine does.
            loop = self._set_hostname(node, '{drop}"$@" & while :; do wait; sleep 0.5; done')
            pid = ["--pid", "--fork", "--kill-child", "--mount-proc"]
            self._spawn(node, [*_unshare(), *pid, "sh", "-c", loop, "sh", *command])
        else:
            self._spawn(node, command)
        self.wait(lambda: self._slurmd(node) is not None, 5, f"slurmd of {node}")

    def _set_hostname(self, name: str, then: str) -> str:
        hosts = shlex.quote(str(self.folder / "hosts"))
        drop = "" if os.geteuid() == 0 else "setpriv --inh-caps=-all --ambient-caps=-all "
        return f"hostname {name} && mount --bind {hosts} /etc/hosts || exit 9; " + then.format(drop=drop)

    def kill_node(self, node: str) -> None:
        """Cut its power: slurmd and every process of its jobs are gone at once."""
        self._known(node)
        self._kill_everything(node)

    def kill_slurmd(self, node: str) -> None:
        """``kill -9`` of its daemon; the jobs go on. :meth:`start_node` gives it a new one."""
        _kill(self._running(node), signal.SIGKILL)

    def freeze_node(self, node: str, *, jobs: bool = False) -> None:
        """Stop its daemon from answering, as a cut network does; with ``jobs`` they stand still, too."""
        daemon = self._running(node)
        frozen = [daemon, *(self._job_processes(node) if jobs else [])]
        for pid in frozen:
            _kill(pid, signal.SIGSTOP)

    def thaw_node(self, node: str) -> None:
        """Let everything that :meth:`freeze_node` stopped go on."""
        daemon = self._slurmd(node)
        for pid in [*self._job_processes(node), *([] if daemon is None else [daemon])]:
            _kill(pid, signal.SIGCONT)

    def restore(self, seconds: float = 60) -> None:
        """Undo every fault: thaw, start what is down, and wait until all nodes are up.

        Raises
        ------
        MiniSlurmError
            If that takes longer.
        """
        if not self._alive(_CTLD):
            self.start_controller()
        for node in self.nodes:
            self.thaw_node(node)
            if self._slurmd(node) is None:
                self.start_node(node)
        self.wait(lambda: self.up() == set(self.nodes), seconds, "nodes")

    def states(self) -> dict[str, str]:
        """Return what ``sinfo`` says of each node; empty while the controller does not answer."""
        if not self._alive(_CTLD):  # sinfo would try for ten seconds
            return {}
        done = subprocess.run(
            [_program("sinfo") or "sinfo", "-h", "-N", "-o", "%N %T"],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return dict(line.split() for line in done.stdout.splitlines())

    def up(self) -> set[str]:
        """Return the nodes that work."""
        return {node for node, state in self.states().items() if state in _UP}

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until ``condition`` holds.

        Raises
        ------
        MiniSlurmError
            After ``seconds``, or as soon as a daemon is dead; with its last words.
        """
        end = time.monotonic() + seconds
        while not condition():
            dead = [name for name in self._load() if not self._alive(name)]
            if dead or time.monotonic() > end:
                name = dead[0] if dead else _CTLD
                tail = (self.folder / "log" / f"{name}.out").read_text(errors="replace")[-800:]
                raise MiniSlurmError(f"no {what}: {'died: ' + name if dead else 'too slow'}\n{tail}")
            time.sleep(0.05)

    def job_processes(self) -> dict[str, list[int]]:
        """Return the processes of jobs on each node, by what Slurm put into their environment."""
        return {node: self._job_processes(node) for node in self.nodes}

    def _job_processes(self, node: str) -> list[int]:
        wanted = {f"SLURM_CONF={self.conf}".encode(), f"SLURMD_NODENAME={node}".encode()}
        return [pid for pid in _pids() if wanted <= set(_read(pid, "environ").split(b"\0"))]

    def _step_daemons(self, node: str) -> list[int]:
        """Return the slurmstepds of a node: they call themselves after their step, sockets in the spool name it."""
        steps = {s.name.removeprefix(f"{node}_") for s in (self.folder / "spool" / node).glob(f"{node}_*.*")}
        names = tuple(f"slurmstepd: [{step.split('.')[0]}.".encode() for step in steps)
        return [pid for pid in _pids() if names and _read(pid, "cmdline").startswith(names)]

    def _slurmd(self, node: str) -> int | None:
        """Return the PID, as seen from here, of a node's slurmd; None if it has none."""
        wanted = f"\0-N\0{node}\0-f\0{self.conf}\0".encode()
        for pid in _pids():
            words = _read(pid, "cmdline")
            program = Path(words.split(b"\0", 1)[0].decode(errors="replace")).name
            if program == _SLURMD and wanted in words and _start_time(pid) is not None:
                return pid
        return None

    def _running(self, node: str) -> int:
        self._known(node)
        pid = self._slurmd(node)
        if pid is None:
            raise MiniSlurmError(f"{node} has no slurmd")
        return pid

    def _known(self, node: str) -> None:
        if node not in self.nodes:
            raise MiniSlurmError(f"no node {node!r}; there are {' '.join(self.nodes)}")

    def _first_process(self, node: str) -> int | None:
        """Return process 1 of a node's namespace: the child of its ``unshare``."""
        parent = self._load()[node][0]
        for pid in _pids():
            fields = _read(pid, "stat").rsplit(b")", 1)[-1].split()
            if len(fields) > 1 and int(fields[1]) == parent:
                return pid
        return None

    def _kill_everything(self, node: str) -> None:
        doomed = [*self._job_processes(node), *self._step_daemons(node)]
        self._end(node, signal.SIGKILL)  # of unshare: the kernel ends all of its namespace
        self._end(f"{node}.again", signal.SIGKILL)
        if not self.namespaces:
            daemon = self._slurmd(node)
            for pid in [*([] if daemon is None else [daemon]), *doomed]:
                _kill(pid, signal.SIGKILL)
        end = time.monotonic() + 5
        while self._slurmd(node) is not None and time.monotonic() < end:
            time.sleep(0.02)

    def _spawn(self, name: str, command: list[str]) -> None:
        command = [_program(word) or word if i == 0 else word for i, word in enumerate(command)]
        if command[0].endswith("unshare"):  # the daemon's own path comes after sh's $0
            at = command.index("sh", command.index("-c") + 2) + 1
            command[at] = _program(command[at]) or command[at]
        with (self.folder / "log" / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder,
                env=self.environment, start_new_session=True,
            )  # fmt: skip
        self._children.append(process)
        self._save({**self._load(), name: (process.pid, _start_time(process.pid))})

    def _load(self) -> dict[str, tuple[int, int | None]]:
        if not self._processes.exists():
            return {}
        return {name: (pid, at) for name, (pid, at) in json.loads(self._processes.read_text()).items()}

    def _save(self, processes: dict[str, tuple[int, int | None]]) -> None:
        if self.folder.exists():
            self._processes.write_text(json.dumps(processes, indent=1) + "\n")

    def _alive(self, name: str) -> bool:
        pid, started = self._load().get(name, (0, None))
        return started is not None and _start_time(pid) == started

    def _end(self, name: str, number: int) -> None:
        """Signal one of ours and wait until it is gone; after 8 s, SIGKILL."""
        processes = self._load()
        if self._alive(name):
            pid = processes[name][0]
            _kill(pid, number)
            end = time.monotonic() + 8
            while self._alive(name):
                if time.monotonic() > end:
                    _kill(pid, signal.SIGKILL)
                time.sleep(0.02)
        if processes.pop(name, None) is not None:
            self._save(processes)
        self._children = [child for child in self._children if child.poll() is None]


_NODE_COMMANDS: dict[str, Callable[[MiniSlurm, str], None]] = {
    "kill-node": MiniSlurm.kill_node,
    "start-node": MiniSlurm.start_node,
    "kill-slurmd": MiniSlurm.kill_slurmd,
    "thaw-node": MiniSlurm.thaw_node,
}
_COMMANDS: dict[str, Callable[[MiniSlurm], None]] = {
    "stop": MiniSlurm.stop,
    "stop-ctld": MiniSlurm.stop_controller,
    "kill-ctld": MiniSlurm.kill_controller,
    "start-ctld": MiniSlurm.start_controller,
}


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real Slurm of several nodes on one machine.")
    verbs = parser.add_subparsers(dest="command", required=True)
    start = verbs.add_parser("start", help="start it and wait until all nodes are idle")
    start.add_argument("folder", type=Path, help="short, e.g. ~/minislurm")
    start.add_argument("--nodes", type=int, default=3)
    start.add_argument("--cpus", type=int, default=4, help="of each node")
    start.add_argument("--memory", type=int, default=4000, help="MB of each node")
    start.add_argument("--node-timeout", type=int, default=5, help="seconds of silence until a node is down")
    start.add_argument("--namespaces", choices=["auto", "yes", "no"], default="auto")
    for name in ("env", *_COMMANDS):
        verbs.add_parser(name).add_argument("folder", type=Path)
    for name in (*_NODE_COMMANDS, "freeze-node"):
        verb = verbs.add_parser(name)
        verb.add_argument("folder", type=Path)
        verb.add_argument("node")
        if name == "freeze-node":
            verb.add_argument("--jobs", action="store_true", help="its jobs, too")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one command; return the exit status."""
    options = _options(arguments)
    slurm = MiniSlurm(options.folder.expanduser())
    try:
        match options.command:
            case "start":
                took = slurm.start(
                    nodes=options.nodes,
                    cpus=options.cpus,
                    memory_MB=options.memory,
                    node_timeout_s=options.node_timeout,
                    namespaces={"auto": None, "yes": True, "no": False}[options.namespaces],
                )
                kind = "with" if slurm.namespaces else "without"
                print(f"{options.nodes} nodes idle after {took:.1f} s, {kind} namespaces")
            case "env":
                print(f"export SLURM_CONF={shlex.quote(str(slurm.conf))}")
            case "freeze-node":
                slurm.freeze_node(options.node, jobs=options.jobs)
            case name if name in _NODE_COMMANDS:
                _NODE_COMMANDS[name](slurm, options.node)
            case name:
                _COMMANDS[name](slurm)
    except MiniSlurmError as error:
        print(f"minislurm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
