"""Engines as separate processes: a persistent server per worker where the engine has one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from htxas.engines.base import Engine
from htxas.errors import Cause, EngineFailure
from htxas.launch.work.engine_run import EngineRun, engine_environment
from htxas.launch.work.evidence import died, directory_tail, log_tail, memory_kills
from htxas.launch.work.stop import Returned, Stop

__all__ = ["EngineProcess"]

_POLL_S = 0.2
_GOODBYE_S = 3.0
_TERMINATED_S = 2.0
_LAUNCHER_S = 10.0
_FROZEN_S = 10.0


class EngineProcess:
    """Runs directories through an engine, one after the other.

    Starts the process when first needed and again after it died. Engines live in a process group of their own, die
    with this process, and never see the database.

    Parameters
    ----------
    engine
        The engine.
    log
        The process's own log, in an existing folder.
    stop
        Asked several times a second.
    run
        How it is started here.
    """

    def __init__(self, engine: Engine, log: Path, stop: Stop, run: EngineRun | None = None) -> None:
        self._engine = engine
        self._log = log
        self._stop = stop
        self._how = run or EngineRun()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = select.poll()
        self._buffer = b""
        self._kills: int | None = None

    def run(self, directory: Path, timeout_s: float) -> None:
        """Run one directory; return when the engine says it is finished, well or not.

        Raises
        ------
        EngineFailure
            WALLTIME, or the named cause of the process's death.
        Returned
            If the worker was asked to stop at once; the process is gone then.
        """
        try:
            start = self._log.stat().st_size
        except FileNotFoundError:
            start = 0
        serving = self._engine.server_command() is not None
        if not serving or self._process is None or self._process.poll() is not None:
            self._start(directory)
        assert self._process is not None
        answered = False
        try:
            self._wait(self._process, directory, timeout_s, serving)
            answered = True
        except _Died as error:
            if error.terminated and self._is_stopped_soon():
                raise Returned("its job is being ended") from None
            raise died(error.returncode, directory, log_tail(self._log, start), self._kills) from None
        finally:
            if not answered:  # whatever it is doing now, nobody waits for it any more
                self.kill()

    def _is_stopped_soon(self) -> bool:
        """Whether we are told to stop, too: a scheduler that ends a job sends SIGTERM to all, engines perhaps first."""
        deadline = time.monotonic() + _TERMINATED_S
        while not self._stop.now and time.monotonic() < deadline:
            time.sleep(_POLL_S / 4)
        return self._stop.now

    def _start(self, directory: Path) -> None:
        self.kill()
        command = self._engine.server_command() or self._engine.command(directory)
        if not self._engine.starts_code:
            command = self._how.command(command)
        # A launcher that is killed leaves its processes, on other nodes perhaps, at work: it is to end them itself.
        number = signal.SIGTERM if self._how.launcher else signal.SIGKILL
        guarded = [
            sys.executable,
            "-m",
            "htxas.launch.work.guard",
            str(os.getpid()),
            str(int(number)),
            *command,
        ]
        self._buffer = b""
        self._kills = memory_kills()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                guarded,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._log.parent,
                env=engine_environment(self._how, starts_code=self._engine.starts_code),
                start_new_session=True,  # Ctrl-C in the terminal is the worker's to handle
            )
        self._answers = select.poll()
        assert self._process.stdout is not None
        self._answers.register(self._process.stdout, select.POLLIN)

    def _wait(
        self, process: subprocess.Popen[bytes], directory: Path, timeout_s: float, serving: bool
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        if serving:
            with contextlib.suppress(BrokenPipeError):  # its end is seen below
                process.stdin.write(f"{directory}\n".encode())
                process.stdin.flush()
        looked = time.monotonic()
        deadline = looked + timeout_s
        while True:
            if not process.stdout.closed:
                # First: whoever was frozen, with the whole job perhaps, may find the answer there.
                if self._answers.poll(1000 * _POLL_S):
                    if self._finished(process.stdout, directory):
                        return
                elif process.poll():  # dead; what it had started may hold the pipe open
                    process.stdout.close()
            elif self._ended(process, serving):
                return
            now = time.monotonic()
            if now - looked > _FROZEN_S:  # that long nobody computed
                deadline += now - looked
            looked = now
            if self._stop.now:
                raise Returned("stopped at once")
            if now > deadline:
                raise EngineFailure(
                    Cause.WALLTIME,
                    f"stopped after {timeout_s:.0f} s",
                    evidence={"walltime_s": timeout_s, "log": directory_tail(directory)},
                    hint="raise batch: walltime_s in a new campaign, or look at the log",
                )

    @staticmethod
    def _ended(process: subprocess.Popen[bytes], serving: bool) -> bool:
        """Whether a process that says nothing more has ended by itself: its files tell how."""
        try:
            returncode = process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            return False
        if serving or returncode < 0 or returncode > 128:
            raise _Died(returncode)
        return True

    def _finished(self, stdout: IO[bytes], directory: Path) -> bool:
        data = os.read(stdout.fileno(), 65536)
        if not data:
            stdout.close()
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if isinstance(answer, dict) and answer.get("directory") == str(directory):
                    return True
            self._note(line)
        return False

    def _note(self, line: bytes) -> None:
        """Keep what a library printed where the answers go."""
        with self._log.open("ab") as log:
            log.write(line + b"\n")

    def kill(self) -> None:
        """End the process and everything it started, at once; a launcher gets a moment to end what it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._how.launcher:
                os.killpg(process.pid, signal.SIGTERM)
                deadline = time.monotonic() + _LAUNCHER_S
                while time.monotonic() < deadline:
                    process.poll()
                    os.killpg(
                        process.pid, 0
                    )  # until nobody is left: the first may be a script around the launcher
                    time.sleep(_POLL_S / 4)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def close(self) -> None:
        """Let the process end by itself, for a moment; then kill it."""
        process = self._process
        if process is not None and process.poll() is None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
                process.stdin.close()
                process.wait(_GOODBYE_S)
        self.kill()


class _Died(Exception):
    def __init__(self, returncode: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode

    @property
    def terminated(self) -> bool:
        """Whether somebody sent SIGTERM: ours do only when they wait no longer, or are dead."""
        return self.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
