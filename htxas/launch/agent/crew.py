"""Worker processes: started, pinned, spoken to through pipes, watched, replaced. They die with this process."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htxas.launch.work.engine_run import Engines
from htxas.launch.work.evidence import log_tail, memory_kills
from htxas.launch.work.task import Task

__all__ = ["Answer", "Crew", "Gone", "worker_log"]

_GOODBYE_S = 5.0
_READ = 1 << 20


def worker_log(folder: Path, place: int) -> Path:
    """Return what the workers of a place said that is not an answer."""
    return folder / f"worker-{place}.log"


@dataclass(frozen=True, slots=True)
class Answer:
    """A line from a worker; see :mod:`htxas.launch.work.worker`."""

    place: int
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker process that ended unasked.

    Attributes
    ----------
    place, number
        Which place, and which process: its journal is ``journal-<number>.bin``.
    evidence
        ``returncode``, ``signal``, ``log``; ``memory_kills`` if the kernel killed for memory meanwhile.
    """

    place: int
    number: int
    evidence: dict[str, Any]

    @property
    def out_of_memory(self) -> bool:
        """Whether it was killed for memory, as far as the kernel's count tells."""
        return "memory_kills" in self.evidence


@dataclass(slots=True)
class _Process:
    place: int
    number: int
    popen: subprocess.Popen[bytes]
    kills: int | None
    incoming: bytes = b""
    outgoing: bytearray = field(default_factory=bytearray)
    watched: int = selectors.EVENT_READ


class Crew:
    """The worker processes of an agent.

    To be used by the thread that made it: the kernel takes the end of that thread for the end of the parent. Only
    :meth:`wake` may be called from others.

    Parameters
    ----------
    owner
        The agent's name.
    folder
        Its existing folder.
    workers
        Number of places.
    cores
        Ids of the cores to share out; empty for no pinning.
    threads
        Cores of each.
    engines
        How engines are started here.
    """

    def __init__(
        self,
        owner: str,
        folder: Path,
        workers: int,
        *,
        cores: Sequence[int] = (),
        threads: int = 1,
        engines: Engines | None = None,
    ) -> None:
        self._owner = owner
        self._folder = folder
        self._cores = [tuple(cores[i * threads : (i + 1) * threads]) for i in range(workers)]
        self._engines = (engines or Engines()).to_dict()
        self._workers = workers
        self._processes: dict[int, _Process] = {}
        self._number = 0
        self._selector = selectors.DefaultSelector()
        self._waking = threading.Lock()
        self._wake_out: int | None
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_in, selectors.EVENT_READ)

    def __len__(self) -> int:
        return len(self._processes)

    def start(self, place: int) -> int:
        """Start the worker of a place; return the number of its journal."""
        self._number += 1
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_DB_")}
        with worker_log(self._folder, place).open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "htxas.launch.work.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C in the terminal is the agent's to handle
            )
        assert popen.stdin is not None
        assert popen.stdout is not None
        os.set_blocking(popen.stdin.fileno(), False)  # a frozen worker must not freeze the agent
        process = _Process(place, self._number, popen, memory_kills())
        self._processes[place] = process
        self._selector.register(popen.stdout, selectors.EVENT_READ, process)
        setting = {
            "agent": os.getpid(),
            "owner": self._owner,
            "folder": str(self._folder),
            "place": place,
            "number": self._number,
            "places": self._workers,
            "cores": list(self._cores[place]),
            "engines": self._engines,
        }
        self._send(process, setting)
        return self._number

    def pid(self, place: int) -> int | None:
        """Return the process id of a worker."""
        process = self._processes.get(place)
        return None if process is None else process.popen.pid

    def kill(self, place: int) -> None:
        """Kill a worker; its end is heard like any other."""
        if place in self._processes:
            self._processes[place].popen.kill()

    def mans(self, place: int) -> bool:
        """Whether a place has a worker."""
        return place in self._processes

    def give(self, place: int, tasks: Iterable[Task]) -> None:
        """Hand tasks to a worker."""
        self._send(self._processes[place], {"tasks": [task.to_dict() for task in tasks]})

    def drop(self, place: int, keys: Iterable[str]) -> None:
        """Have tasks back; the engine of the one in hand is stopped. The worker answers for each."""
        self._send(self._processes[place], {"drop": list(keys)})

    def wake(self) -> None:
        """End the present or the next :meth:`wait`; from any thread."""
        with self._waking, contextlib.suppress(BlockingIOError):  # it is full of calls already
            if self._wake_out is not None:
                os.write(self._wake_out, b"!")

    def wait(self, seconds: float) -> list[Answer | Gone]:
        """Return what workers say within ``seconds``, as soon as one says anything."""
        events: list[Answer | Gone] = []
        for key, mask in self._selector.select(seconds):
            process: _Process | None = key.data
            if process is None:
                os.read(self._wake_in, 65536)
                continue
            if self._processes.get(process.place) is not process:
                continue  # buried by an event before this one
            if mask & selectors.EVENT_WRITE and process.outgoing:
                self._flush(process)
            if mask & selectors.EVENT_READ:
                events += self._receive(process)
        return events

    def _receive(self, process: _Process) -> list[Answer | Gone]:
        assert process.popen.stdout is not None
        data = os.read(process.popen.stdout.fileno(), _READ)
        *lines, process.incoming = (process.incoming + data).split(b"\n")
        answers: list[Answer | Gone] = [Answer(process.place, json.loads(line)) for line in lines]
        if not data:
            answers.append(self._bury(process))
        return answers

    def _bury(self, process: _Process) -> Gone:
        self._forget(process)
        returncode = process.popen.wait()
        kills = memory_kills()
        number = -returncode if returncode < 0 else 0
        evidence: dict[str, Any] = {
            "returncode": returncode,
            "signal": signal.Signals(number).name if number in set(signal.Signals) else None,
            "log": log_tail(worker_log(self._folder, process.place)),
        }
        if number == signal.SIGKILL and None not in (kills, process.kills) and kills != process.kills:
            evidence["memory_kills"] = kills
        return Gone(process.place, process.number, evidence)

    def _forget(self, process: _Process) -> None:
        del self._processes[process.place]
        popen = process.popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        self._selector.unregister(popen.stdout)
        if process.watched & selectors.EVENT_WRITE:
            self._selector.unregister(popen.stdin)
        popen.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            popen.stdin.close()

    def _send(self, process: _Process, document: Mapping[str, Any]) -> None:
        process.outgoing += json.dumps(document, separators=(",", ":")).encode() + b"\n"
        self._flush(process)

    def _flush(self, process: _Process) -> None:
        stdin = process.popen.stdin
        assert stdin is not None
        try:
            while process.outgoing:
                written = os.write(stdin.fileno(), process.outgoing)
                del process.outgoing[:written]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # its end is seen where its answers end
            process.outgoing.clear()
        wanted = selectors.EVENT_WRITE if process.outgoing else 0
        if wanted and not process.watched & selectors.EVENT_WRITE:
            self._selector.register(stdin, selectors.EVENT_WRITE, process)
        elif not wanted and process.watched & selectors.EVENT_WRITE:
            self._selector.unregister(stdin)
        process.watched = selectors.EVENT_READ | wanted

    def dismiss(self) -> None:
        """Let idle workers end by themselves, for a moment; then kill what is left."""
        processes = list(self._processes.values())
        for process in processes:
            self._forget(process)  # the end of its input
        deadline = time.monotonic() + _GOODBYE_S
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, deadline - time.monotonic()))
        for process in processes:
            process.popen.kill()
            process.popen.wait()

    def close(self) -> None:
        """Dismiss all and close the pipes."""
        self.dismiss()
        self._selector.close()
        with self._waking:  # a thread that is late must not write into what gets this number next
            for end in (self._wake_in, self._wake_out):
                if end is not None:
                    os.close(end)
            self._wake_out = None
