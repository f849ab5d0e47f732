"""The fake engine's process: ``python -m htxas.engines.fake.run DIRECTORY`` or ``--serve``."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.engines.base import Job, read_job
from htxas.engines.fake.numbers import curve_numbers, ground_numbers, site_numbers
from htxas.engines.fake.parameters import FailureMode, failure_mode, gives_curve, seconds
from htxas.errors import HtxasError

__all__ = ["LOG_FILE", "OUTCOME_FILE", "main", "run_directory"]

OUTCOME_FILE = "outcome.json"
LOG_FILE = "fake.log"
BALLAST_FILE = "ballast.bin"


def run_directory(directory: Path) -> int:
    """Run one directory and return 0, or 1 if there is no outcome; the log says why."""
    try:
        _run(directory)
    except (OSError, MemoryError, ValueError, LookupError, TypeError, HtxasError):
        trace = traceback.format_exc()
        try:
            with (directory / LOG_FILE).open("a") as log:
                log.write(trace)
        except OSError:  # the folder has gone or the disk is full: the next directory may still be well
            sys.stderr.write(trace)
        return 1
    return 0


def _run(directory: Path) -> None:
    started, clock = datetime.now(UTC), time.perf_counter()
    job = read_job(directory)
    c = job.calculation
    mode = failure_mode(job, _attempt(directory))
    work_s = seconds(c)
    if work_s or mode is not None:  # the no-op of benchmarks writes no log
        with (directory / LOG_FILE).open("a") as log:
            log.write(
                f"fake engine, {c.kind.value} of {job.structure.formula}: these numbers are not physics\n"
            )
    if work_s:
        time.sleep(work_s)
    if mode is not None:
        _fail_at_once(mode)
    if c.parameters["ballast_bytes"]:
        (directory / BALLAST_FILE).write_bytes(bytes(c.parameters["ballast_bytes"]))
    outcome = _outcome(job, mode)
    outcome["host"] = platform.node()
    outcome["started"] = started.isoformat()
    outcome["ended"] = datetime.now(UTC).isoformat()
    outcome["wall_s"] = time.perf_counter() - clock
    text = json.dumps(outcome)
    if mode is FailureMode.TRUNCATED:
        text = text[: len(text) // 2]
    temporary = directory / (OUTCOME_FILE + ".part")
    temporary.write_bytes(text.encode())
    temporary.rename(directory / OUTCOME_FILE)


def _attempt(directory: Path) -> int:
    return int(directory.name) if directory.name.isdecimal() else 1


def _fail_at_once(mode: FailureMode) -> None:
    match mode:
        case FailureMode.CRASH:
            os.kill(os.getpid(), signal.SIGKILL)
        case FailureMode.KILL_WORKER:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # this process ends with its worker
        case FailureMode.HANG:
            while True:
                time.sleep(3600)
        case FailureMode.DISK_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), OUTCOME_FILE)
        case FailureMode.OOM:
            raise MemoryError("the fake engine pretends to have run out of memory")


def _outcome(job: Job, mode: FailureMode | None) -> dict[str, Any]:
    c = job.calculation
    if c.kind is Kind.GROUND:
        numbers = ground_numbers(c, job.structure)
    else:
        numbers = curve_numbers(c) if gives_curve(c) else site_numbers(c)
    converged = mode is not FailureMode.UNCONVERGED
    match mode:
        case FailureMode.HOLE_LEFT:
            numbers["hole_overlap"] = 0.31
            numbers["doubts"] = ["the hole is on another atom"]
        case FailureMode.NAN:
            numbers["energies_eV"][-1] = float("nan")
        case FailureMode.BAD_OUTPUT:
            del numbers["energies_eV"]
    extra: dict[str, Any] = {}
    if job.numerics:
        extra["numerics"] = dict(job.numerics)
    if job.previous_directory is not None:
        extra["previous_directory"] = str(job.previous_directory)
    return {"key": c.key, "kind": c.kind.value, "converged": converged, "numbers": numbers, "extra": extra}


def _serve() -> int:
    for line in sys.stdin:
        directory = line.rstrip("\n")
        returncode = run_directory(Path(directory))
        sys.stdout.write(json.dumps({"directory": directory, "returncode": returncode}) + "\n")
        sys.stdout.flush()
    return 0


def main(arguments: list[str]) -> int:
    """Serve standard input, or run the one directory named."""
    return _serve() if arguments == ["--serve"] else run_directory(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
