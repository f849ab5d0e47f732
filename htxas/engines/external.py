"""Codes of the user's own: how one is found, started step by step in a run directory, and what is told of it.

Engines whose command is ``python -m htxas.engines.NAME DIRECTORY`` build their process of this. It finds the code in
the environment:

``HTXAS_ENGINE_COMMAND``
    ``{"launcher": [...], "program": [...]}`` of the cluster's profile.
``HTXAS_<NAME>``
    Without a program there: the code's own words, as in a shell.

Without both, the code's usual names are looked for on the path. A first word that is a folder has the code's programs
in it, and further words are options for each of them.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from htxas.domain.result import Provenance
from htxas.engines.base import Job, read_job
from htxas.errors import Cause, EngineFailure

__all__ = [
    "OUTCOME",
    "Program",
    "call",
    "exhausted",
    "find_program",
    "log_tail",
    "provenance_of",
    "read_outcome",
    "run_and_tell",
]

OUTCOME = "outcome.json"
_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 12
_LINE_BYTES = 400
_SIGNALLED = 128  # launchers and shells say so when a signal ended what they started
_MEMORY = re.compile(
    r"error (?:in )?allocating|allocat\w* (?:of \w+ )?fail|out of memory|cannot allocate memory|"
    r"insufficient (?:virtual )?memory|MemoryError",
    re.IGNORECASE,
)
_DISK = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Program:
    """A code that was found.

    Attributes
    ----------
    launcher
        Words before every command (``mpirun -np 4``).
    words
        The program and its options; with a folder, the options alone.
    folder
        Where the code's programs are, if there are several.
    """

    launcher: tuple[str, ...]
    words: tuple[str, ...]
    folder: Path | None = None

    def command(self, name: str = "", *, alone: bool = False) -> list[str]:
        """Return the words that start the program, or the one called ``name`` in its folder.

        ``alone``: without launcher and options, for what runs on one processor.
        """
        if self.folder is None:
            return [*self.launcher, *self.words]
        path = str(self.folder / name)
        return [path] if alone else [*self.launcher, path, *self.words]


def find_program(
    environment: Mapping[str, str],
    *,
    code: str,
    variable: str,
    names: Sequence[str],
    needed: Sequence[str] = (),
) -> Program:
    """Return the user's program.

    Parameters
    ----------
    environment
        Of the process that will start it.
    code
        Name for people: ``FEFF``.
    variable
        ``HTXAS_FEFF``.
    names
        Usual names, looked for on the path in this order.
    needed
        Programs a folder must have; with these a name found on the path stands for its folder.

    Raises
    ------
    EngineFailure
        BAD_INPUT: there is none, or a folder lacks programs.
    """
    told = json.loads(environment.get("HTXAS_ENGINE_COMMAND", "{}"))
    launcher = tuple(told.get("launcher", ()))
    words = tuple(told.get("program", ())) or tuple(shlex.split(environment.get(variable, "")))
    path = environment.get("PATH")
    if not words:
        found = next((f for n in names if (f := shutil.which(n, path=path)) is not None), None)
        if found is None:
            raise EngineFailure(
                Cause.BAD_INPUT,
                f"there is no {code}: it is the user's own",
                hint=f"name it in {variable}, or as program: of the engine in htxas.yaml",
            )
        words = (str(Path(found).parent) if needed else found,)
    folder = Path(words[0]).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        lacking = [n for n in needed if not os.access(folder / n, os.X_OK)]
        if lacking:
            raise EngineFailure(
                Cause.BAD_INPUT, f"the folder of {code} has no program {lacking[0]}", where=str(folder)
            )
        return Program(launcher, words[1:], folder)
    program = shutil.which(str(folder), path=path)
    if program is None:
        raise EngineFailure(Cause.BAD_INPUT, f"{code} cannot be started: no such program", where=str(folder))
    # not resolved: a Python of a virtual environment is a link, and knows by its place what it is
    return Program(launcher, (str(Path(program).absolute()), *words[1:]))


def call(command: Sequence[str], folder: Path, output: Path, *, stdin: Path | None = None) -> int:
    """Run a step, appending what it prints to ``output``; return its status, 0 or more.

    It ends when this process does, however that ends: nobody else would end it. SIGTERM is passed on, so that a
    launcher can end what it has started elsewhere. If a signal ended the step, or a launcher says that one did, this
    process ends by the same one, as a shell would: whoever waits for it looks for that. So it does if it was told to
    end itself, whatever the step made of it.

    Raises
    ------
    EngineFailure
        BAD_INPUT: it cannot be started.
    """
    libc = ctypes.CDLL(None)

    def die_with_us() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    with output.open("ab") as log, (stdin or Path(os.devnull)).open("rb") as source:
        try:
            step = subprocess.Popen(
                command, cwd=folder, stdin=source, stdout=log, stderr=log, preexec_fn=die_with_us
            )
        except OSError as error:
            raise EngineFailure(
                Cause.BAD_INPUT, f"the program cannot be started: {error.strerror}", where=command[0]
            ) from None
    told_to_end = False

    def pass_on(*_: object) -> None:
        nonlocal told_to_end
        told_to_end = True
        step.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        status = step.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    number = -status if status < 0 else status - _SIGNALLED
    if told_to_end:
        number = signal.SIGTERM
    if number in signal.valid_signals():
        _end_by(number)
    return status


def _end_by(number: int) -> None:
    with suppress(OSError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def run_and_tell(directory: Path, inputs: Iterable[Path], run: Callable[[Job], dict[str, Any]]) -> int:
    """Run one directory and leave ``outcome.json``, written last; return 0.

    Parameters
    ----------
    directory
        The run directory.
    inputs
        Files whose hashes are told.
    run
        Returns what the engine has to tell; an :class:`EngineFailure` of its is told instead.
    """
    job = read_job(directory)
    started, clock = datetime.now(UTC), time.monotonic()
    hashes = {str(p.relative_to(directory)): sha256(p.read_bytes()).hexdigest() for p in sorted(inputs)}
    outcome: dict[str, Any]
    try:
        outcome = {"status": "ran", **run(job)}
    except EngineFailure as error:
        outcome = {"status": "failed", "failure": error.to_dict()}
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome |= {
        "key": job.calculation.key,
        "host": platform.node(),
        "started": started.isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "wall_s": time.monotonic() - clock,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "inputs_sha256": hashes,
    }
    partial = directory / f".{OUTCOME}"
    partial.write_text(json.dumps(outcome))
    partial.replace(directory / OUTCOME)
    return 0


def read_outcome(job: Job, directory: Path, unfinished: Callable[[], EngineFailure]) -> dict[str, Any]:
    """Return what :func:`run_and_tell` left.

    Parameters
    ----------
    job, directory
        What ran, and where.
    unfinished
        Returns the failure of a run whose process left nothing.

    Raises
    ------
    EngineFailure
        The one that was told; ``unfinished()``; BAD_OUTPUT if the file is unreadable or another calculation's.
    """
    try:
        outcome = json.loads((directory / OUTCOME).read_text())
    except FileNotFoundError:
        raise unfinished() from None
    except ValueError as error:
        raise EngineFailure(
            Cause.BAD_OUTPUT, f"{OUTCOME} cannot be read: {error}", where=str(directory)
        ) from None
    if outcome.get("key") not in (None, job.calculation.key):
        raise EngineFailure(
            Cause.BAD_OUTPUT, f"{OUTCOME} belongs to calculation {outcome['key']}", where=str(directory)
        )
    if outcome.get("status") == "failed":
        failure = outcome["failure"]
        raise EngineFailure(
            Cause(failure["cause"]),
            failure["message"],
            evidence=failure.get("evidence") or {},
            where=failure.get("where"),
            hint=failure.get("hint"),
        )
    return dict(outcome)


def provenance_of(
    outcome: Mapping[str, Any],
    directory: Path,
    *,
    version: str,
    libraries: Mapping[str, str],
    extra: Mapping[str, Any] | None = None,
) -> Provenance:
    """Return the provenance of a run by its outcome.

    ``extra``: more to tell; if None, the program, the seconds of its steps and where the ground state is from.
    """
    if extra is None:
        extra = {k: outcome[k] for k in ("program", "steps_s", "ground") if k in outcome}
    return Provenance(
        engine_version=version,
        libraries=dict(libraries),
        host=outcome["host"],
        started=outcome["started"],
        ended=outcome["ended"],
        wall_s=float(outcome["wall_s"]),
        cpu_s=float(outcome["cpu_s"]),
        inputs_sha256=dict(outcome["inputs_sha256"]),
        directory=str(directory),
        extra=dict(extra),
    )


def exhausted(text: str) -> Cause | None:
    """Return OUT_OF_MEMORY or DISK_FULL if what a code printed says so, as Fortran, C and Python do; else None."""
    if _DISK.search(text):
        return Cause.DISK_FULL
    return Cause.OUT_OF_MEMORY if _MEMORY.search(text) else None


def log_tail(text: str) -> list[str]:
    """Return the last lines of a log, for evidence."""
    return [line[:_LINE_BYTES] for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
