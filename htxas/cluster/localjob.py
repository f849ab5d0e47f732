"""Jobs without a scheduler, run on the host that does the work: ``python -m htxas.cluster.localjob``.

::

    <home>/queue/<id>/
      job.json      name, script, limits, host, submission time; written first
      pids.json     process ids with their start times, and the kernel's boot id
      cancel        there once somebody asked for the end
      exit.json     how it ended; written last

Each job has a keeper process: it starts the script in a session of its own, warns it with SIGUSR1, ends it at its
walltime with SIGTERM, then SIGKILL, and writes ``exit.json``. Process ids alone are not proof of life, as the kernel
uses them again; with the start time they are. Standard library only: it must start fast, and anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

_KILL_AFTER_S = 10.0
_POLL_S = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and print one JSON object; return the exit status."""
    parser = argparse.ArgumentParser(prog="htxas.cluster.localjob")
    parser.add_argument("--folder", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit")
    submit.add_argument("--name", required=True)
    submit.add_argument("--array", type=int, default=1)
    submit.add_argument("--walltime-s", type=float, required=True)
    submit.add_argument("--signal-s", type=float, default=0.0)
    submit.add_argument("script", type=Path)
    commands.add_parser("list")
    cancel = commands.add_parser("cancel")
    cancel.add_argument("ids", nargs="*")
    keep = commands.add_parser("keep")
    keep.add_argument("id")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.absolute()
    match options.command:
        case "submit":
            if not options.script.is_file():
                sys.stderr.write(f"there is no script {options.script}\n")
                return 1
            answer: dict[str, Any] = {"submitted": _submit(folder, options)}
        case "list":
            answer = {"jobs": [_describe(job) for job in _jobs(folder)]}
        case "cancel":
            answer = {"cancelled": {job: _cancel(folder / job) for job in options.ids}}
        case _:
            return _keep(folder / options.id)
    json.dump(answer, sys.stdout)
    sys.stdout.write("\n")
    return 0


def _submit(folder: Path, options: argparse.Namespace) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    number = _next_number(folder)
    ids = []
    for task in range(1, options.array + 1):
        job = folder / (f"{number}_{task}" if options.array > 1 else str(number))
        job.mkdir(exist_ok=True)
        document = {
            "name": options.name,
            "script": str(options.script.absolute()),
            "task": task if options.array > 1 else None,
            "walltime_s": options.walltime_s,
            "signal_s": options.signal_s,
            "host": os.uname().nodename,
            "submitted": time.time(),
        }
        _write(job / "job.json", document)
        keeper = [sys.executable, "-m", "htxas.cluster.localjob", "--folder", str(folder), "keep", job.name]
        with (job / "keeper.log").open("ab") as log:
            subprocess.Popen(
                keeper, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        ids.append(job.name)
    return ids


def _next_number(folder: Path) -> int:
    """Take the next free number: making its folder is the lock."""
    number = max((int(p.name.split("_")[0]) for p in folder.iterdir() if p.name[:1].isdigit()), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            (folder / f"{number}").mkdir()
            return number


def _jobs(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.glob("*/job.json"))


def _keep(job: Path) -> int:
    """Run the job and wait for its end."""
    document = json.loads((job / "job.json").read_text())
    _, script = document["name"], Path(document["script"])
    environment = dict(os.environ)
    if document["task"] is not None:
        environment["HTXAS_ARRAY_TASK"] = str(document["task"])
    environment["HTXAS_LOCAL_JOB"] = job.name
    suffix = f"-{document['task']}" if document["task"] is not None else ""
    with (script.parent / f"local{suffix}.out").open("ab") as output:
        process = subprocess.Popen(
            ["/bin/bash", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=script.parent,
            env=environment,
            start_new_session=True,
        )
    start = time.time()
    pids = [(os.getpid(), _start_time(os.getpid())), (process.pid, _start_time(process.pid))]
    end = start + document["walltime_s"]
    _write(job / "pids.json", {"pids": pids, "boot": _boot_id(), "start": start, "end": end})
    why = _wait(job, process, end, document["signal_s"])
    code = process.returncode
    _write(
        job / "exit.json",
        {
            "state": why or ("done" if code == 0 else "failed"),
            "exit_code": code if code >= 0 else None,
            "exit_signal": -code if code < 0 else None,
            "ended": time.time(),
        },
    )
    return 0


def _wait(job: Path, process: subprocess.Popen[bytes], end: float, signal_s: float) -> str | None:
    """Wait, warn, end; return the state if it was us who ended it."""
    why = None
    warned = signal_s <= 0
    killed_at = float("inf")
    while process.poll() is None:
        now = time.time()
        if not warned and now >= end - signal_s:
            warned = True
            _send(process, signal.SIGUSR1, group=False)
        if why is None and ((job / "cancel").exists() or now >= end):
            why = "timeout" if now >= end else "cancelled"
            killed_at = now + _KILL_AFTER_S
            _send(process, signal.SIGTERM, group=True)
        if now >= killed_at:
            _send(process, signal.SIGKILL, group=True)
            killed_at = now + _KILL_AFTER_S
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
    _send(process, signal.SIGKILL, group=True)  # what the script left behind in its process group
    return why


def _send(process: subprocess.Popen[bytes], number: signal.Signals, *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _cancel(job: Path) -> str:
    if not (job / "job.json").exists() or (job / "exit.json").exists():
        return "ended_before"
    (job / "cancel").touch()
    if _describe(job)["state"] != "running":
        return "asked"  # not started yet: its keeper will see the file
    alive = _alive(_read(job / "pids.json"))
    if alive and alive[0] != _read(job / "pids.json")["pids"][0][0]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(alive[0], signal.SIGTERM)  # its keeper is dead
    return "asked"


def _describe(job: Path) -> dict[str, Any]:
    document = _read(job / "job.json")
    told: dict[str, Any] = {
        "id": job.name,
        "name": document.get("name", ""),
        "node": document.get("host", ""),
        "submitted": document.get("submitted"),
    }
    pids = _read(job / "pids.json")
    alive = _alive(pids)  # before exit.json, which is written last
    finished = _read(job / "exit.json")
    if finished:
        told |= {"start": pids.get("start"), "end": finished["ended"]} | {
            key: finished[key] for key in ("state", "exit_code", "exit_signal")
        }
    elif not pids:
        late = time.time() - float(document.get("submitted", 0)) > 60
        told |= {
            "state": "failed" if late else "pending",
            "reason": "its keeper did not start" if late else "",
        }
    elif alive:
        told |= {"state": "running", "start": pids["start"], "end": pids["end"]}
    elif pids["boot"] != _boot_id():
        told |= {"state": "node_fail", "start": pids["start"], "reason": "the host was started again"}
    else:
        told |= {"state": "failed", "start": pids["start"], "reason": "its processes vanished"}
    return told


def _alive(pids: dict[str, Any]) -> list[int]:
    """Return which of the job's processes still are the same ones."""
    if not pids or pids["boot"] != _boot_id():
        return []
    return [pid for pid, started in pids["pids"] if started is not None and _start_time(pid) == started]


def _start_time(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None if it is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _write(path: Path, document: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document))
    part.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return document if isinstance(document, dict) else {}


if __name__ == "__main__":
    sys.exit(main())
