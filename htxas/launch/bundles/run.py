"""Bundles computed: an agent on the tasks of a folder, without a database. May be killed and started again."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from htxas.errors import UserError
from htxas.launch.agent.agent import Agent, AgentConfig, AgentReport, AgentSummary
from htxas.launch.agent.liveness import hold_alive, worker_folder
from htxas.launch.bundles.folder import Run, alone, is_closed, progress, read_bundle, read_tasks, write_run
from htxas.launch.work.evidence import FULL
from htxas.launch.work.stop import Stop
from htxas.launch.work.task import Task

__all__ = ["open_tasks", "run_bundle"]

_SEEN_EVERY_S = 10.0
_log = logging.getLogger(__name__)


def open_tasks(folder: Path) -> list[Task]:
    """Return the tasks of a bundle that have no outcome and can get one; those begun before and interrupted, too.

    A site knows where its ground state is by now. Left out are sites whose ground state ended without a result, or
    waits for a correction: they are given back when the bundle is collected.
    """
    tasks = list(read_tasks(folder))
    found = progress(folder, tasks)
    left = []
    for task in tasks:
        if not found.open(task):
            continue
        if task.ground_key in found.grounds:
            task = replace(task, ground_directory=found.grounds[task.ground_key])
        left.append(task)
    again = found.in_hand & {t.key for t in left}
    if again:
        _log.info("%d calculations were interrupted before and are computed again", len(again))
    return left


def run_bundle(
    folder: Path, config: AgentConfig, stop: Stop, on_report: Callable[[AgentReport], None] | None = None
) -> AgentSummary:
    """Compute what is left of a bundle.

    Parameters
    ----------
    folder
        The bundle.
    config
        As for any agent; its folder is chosen here, inside the bundle.
    stop
        How it is asked to stop.
    on_report
        Called about once a second.

    Raises
    ------
    NotFound
        If there is no bundle.
    UserError
        If it is damaged, or collected to its end.
    Busy
        If another process of this machine computes it.
    """
    folder = folder.absolute()
    bundle = read_bundle(folder)
    if is_closed(folder):
        raise UserError(
            "the bundle is collected to its end", where=str(folder), hint="htxas bundle make makes another"
        )
    with alone(folder), _home_in(folder), hold_alive(config.owner):
        own = worker_folder(config.owner)
        now = time.time()
        run = Run(
            config.owner, platform.node(), str(folder), now, now, job_id=config.job_id, pilot=config.pilot
        )
        write_run(own, run)
        tasks = open_tasks(folder)
        _log.info("bundle %s: %d of %d tasks left", bundle.id, len(tasks), bundle.tasks)
        last = [now]

        def report(told: AgentReport) -> None:
            if time.time() - last[0] >= _SEEN_EVERY_S:
                last[0] = time.time()
                _tell(own, run, seen=last[0])
            if on_report is not None:
                on_report(told)

        settled = replace(
            config,
            folder=own,
            bundle=folder,
            engines=bundle.engines(),
            linger_s=0.0,
            quota=config.quota or bundle.settings.quota(),
        )
        summary = Agent(settled, None, tasks).run(stop, report)
        _tell(
            own,
            run,
            seen=time.time(),
            ended=time.time(),
            allocated_s=summary.allocated_s,
            engine_s=summary.engine_s,
            why=_why(settled, stop),
        )
    return summary


def _tell(folder: Path, run: Run, **changes: Any) -> None:
    """Write a run's file; a full disk stops only what needs more room than that."""
    try:
        write_run(folder, run, **changes)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _log.warning("no room for the run's file: %s", error.strerror)


def _why(config: AgentConfig, stop: Stop) -> str:
    if stop.now:
        return "terminated"
    late = config.end is not None and time.time() >= config.end - config.margin_s - 1.0
    return "deadline" if late or stop.after_this else "finished"


@contextmanager
def _home_in(folder: Path) -> Iterator[None]:
    """Let the bundle be the home of htxas: everything that is written lies in it, and can be carried away with it."""
    before = os.environ.get("HTXAS_HOME")
    os.environ["HTXAS_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HTXAS_HOME"]
        else:
            os.environ["HTXAS_HOME"] = before
