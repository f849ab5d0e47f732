"""Queue scripts: the template of the profile, rendered strictly.

Templates are the user's to copy and change. Three things keep a value from becoming a command:

* every ``{{ value }}`` is quoted for the shell, unless it comes from ``setup`` (the user's own shell) or through the
  filter ``directive``;
* ``directive`` refuses what would break out of a comment line;
* names that the template does not know, and directives after the first command (which schedulers ignore without a
  word), are errors.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from htxas.assets import share
from htxas.cluster.profile import Dialect, Partition, Profile, Scheduler, Scratch
from htxas.cluster.quantities import clock
from htxas.errors import UserError

__all__ = ["JOB_PREFIX", "Job", "is_another", "pilot_folder", "pilot_ids", "render", "submission_folder"]

JOB_PREFIX = "htxas-"
"""Queue name of a submission: this and its id. Jobs are found by it when sbatch's answer got lost."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,39}")
_DIRECTIVES = {
    Scheduler.SLURM: "#SBATCH",
    Scheduler.PBS: "#PBS",
    Scheduler.SGE: "#$",
    Scheduler.LSF: "#BSUB",
}


_TASK = {
    Scheduler.SLURM: "SLURM_ARRAY_TASK_ID",
    Scheduler.PBS: "PBS_ARRAY_INDEX",
    Scheduler.SGE: "SGE_TASK_ID",
    Scheduler.LSF: "LSB_JOBINDEX",
    Scheduler.LOCAL: "HTXAS_ARRAY_TASK",
}
_TORQUE_TASK = "PBS_ARRAYID"


class _Verbatim(str):
    """Text that goes into the script as it is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One submission: a pilot, or a job array of pilots.

    Attributes
    ----------
    profile, partition
        Where.
    submission
        Its id: letters, digits and underscores. The one pilot has the same id; in an array they have ``<id>-<task>``,
        tasks counted from 1.
    array
        How many pilots.
    campaign
        Work for this campaign only; None for all.
    bundle
        Folder on the cluster with the work, for nodes without the database.
    """

    profile: Profile
    partition: Partition
    submission: str
    array: int = 1
    campaign: str | None = None
    bundle: str | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.submission):
            raise UserError(f"{self.submission!r} cannot be part of a job name", hint="letters, digits and _")
        if not 1 <= self.array <= self.partition.max_array:
            raise UserError(
                f"an array of {self.array} pilots is not possible: max_array is {self.partition.max_array}",
                where=f"{self.profile.name}.{self.partition.name}",
            )

    @property
    def name(self) -> str:
        """Its name in the queue."""
        return JOB_PREFIX + self.submission


def pilot_ids(submission: str, array: int) -> list[str]:
    """Return the ids of the pilots of a submission, in the order of the ids that the scheduler gives."""
    return [f"{submission}-{task}" for task in range(1, array + 1)] if array > 1 else [submission]


def submission_folder(profile: Profile, submission: str) -> str:
    """Return the folder on the cluster of the script and the scheduler's own output files."""
    return f"{profile.home.rstrip('/')}/pilots/{submission}"


def pilot_folder(profile: Profile, pilot: str) -> str:
    """Return the folder on the cluster of what a pilot writes; the script makes it."""
    return f"{profile.home.rstrip('/')}/pilots/{pilot}"


def render(job: Job) -> str:
    """Return the script.

    Raises
    ------
    UserError
        If the template does not render, or holds directives that would be ignored; with file and line.
    """
    path = job.profile.template
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the template cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("the template is not a text file in UTF-8", where=str(path)) from None
    environment = ImmutableSandboxedEnvironment(
        autoescape=False,
        undefined=StrictUndefined,
        finalize=_shell,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # A copy's own folder first: what all scripts share (pilot.sh) may be copied and changed, too.
        loader=FileSystemLoader([path.parent, share("templates") / "queue"]),
    )
    environment.filters["directive"] = _directive
    environment.filters["clock"] = _clock
    try:
        text = environment.from_string(source).render(_values(job))
    except TemplateSyntaxError as error:
        raise UserError(
            f"template: {error.message}", where=f"{error.filename or path}:{error.lineno}"
        ) from None
    except UndefinedError as error:
        known = ", ".join(sorted(_values(job)))
        raise UserError(f"template: {error.message}", where=str(path), hint=f"known: {known}") from None
    except TemplateError as error:
        raise UserError(f"template: {error.message}", where=str(path)) from None
    _check(text, job)
    return text


def _shell(value: Any) -> str:
    """Quote whatever a template prints."""
    if isinstance(value, _Verbatim):
        return value
    if value is None:
        raise TemplateError("a value that is not set is printed; put it inside {% if ... %}")
    return shlex.quote(str(value))


def _directive(value: Any) -> _Verbatim:
    """Let a value into a directive line, unless it would leave it."""
    text = str(value)
    if value is None or not text or not text.isascii() or not text.isprintable():
        raise TemplateError(f"{text!r} cannot be part of a directive: one line of ASCII is needed")
    return _Verbatim(text)


def _clock(seconds: int) -> _Verbatim:
    return _Verbatim(clock(seconds))


def _scratch(scratch: Scratch) -> _Verbatim:
    if scratch.variable is None:
        return _Verbatim(shlex.quote(scratch.path))
    unset = "scratch in htxas.yaml begins with this variable, but it is not set here"  # bash names it
    rest = shlex.quote(scratch.path) if scratch.path else ""
    return _Verbatim(f'"${{{scratch.variable}:?{unset}}}"{rest}')


def _values(job: Job) -> Mapping[str, Any]:
    p, q = job.profile, job.partition
    torque = p.scheduler is Scheduler.PBS and p.dialect is Dialect.TORQUE
    for line in p.setup:
        if "\0" in line:
            raise UserError("a setup line holds a NUL character", where=p.where)
    return {
        "cluster": p.name,
        "name": job.name,
        "submission": job.submission,
        "array": job.array,
        "task_variable": _Verbatim(_TORQUE_TASK if torque else _TASK[p.scheduler]),
        "campaign": job.campaign,
        "bundle": job.bundle,
        "partition": q.queue,
        "account": p.account,
        "options": (*p.options, *q.options),
        "walltime_s": q.walltime_s,
        "nodes": q.nodes,
        "cores": p.cores(q),
        "memory_MB": p.memory_MB(q),
        "workers": p.workers(q),
        "cores_per_worker": p.pilots.cores_per_worker,
        "memory_per_worker_MB": p.pilots.memory_per_worker_MB,
        "margin_s": p.pilots.margin_s,
        "signal_s": p.pilots.signal_s,
        "idle_s": p.pilots.idle_s,
        "requeue": p.pilots.requeue,
        "dialect": p.dialect.value,
        "parallel_environment": p.parallel_environment,
        "memory_resource": p.memory_resource,
        "home": p.home,
        "folder": submission_folder(p, job.submission),
        "python": p.python,
        "setup": tuple(_Verbatim(line) for line in p.setup),
        "scratch": None if p.scratch is None else _scratch(p.scratch),
        "uri_file": p.database.uri_file,
        "uri_env": None if p.database.uri_env is None else _Verbatim(p.database.uri_env),
    }


def _check(text: str, job: Job) -> None:
    where = str(job.profile.template)
    if not text.startswith("#!"):
        raise UserError(
            "the script does not begin with #!", where=where, hint="#!/bin/bash on its first line"
        )
    mark = _DIRECTIVES.get(job.profile.scheduler)
    if mark is None:
        return
    command = None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(mark):
            if command is not None:
                raise UserError(
                    f"{job.profile.scheduler} ignores line {number} of the script, {line!r}: a command comes before it",
                    where=where,
                    hint="directives go first",
                )
        elif line.strip() and not line.startswith("#") and command is None:
            command = number


def is_another(job_name: str, pilot: str) -> bool:
    """Tell whether a job's name is that of another submission of ours than the pilot's.

    A controller that is killed before it has written down a submission forgets it, and gives its number to the next.

    >>> [is_another(name, "a1b2c3d4-2") for name in ("htxas-a1b2c3d4", "htxas-ffffffff[1]", "mine", "")]
    [False, True, False, False]
    """
    ours = JOB_PREFIX + pilot.partition("-")[0]
    name = job_name.partition("[")[0]
    return name.startswith(JOB_PREFIX) and not ours.startswith(name)  # some schedulers cut names
