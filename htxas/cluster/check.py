"""Tries everything a pilot will need on a cluster, from the place that submits it, and says what is wrong."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from htxas import __version__
from htxas.cluster.host import one_line
from htxas.cluster.jobs import Unknown
from htxas.cluster.profile import Profile, Scheduler
from htxas.cluster.queue import SCRIPT, Queue
from htxas.cluster.script import Job, render, submission_folder
from htxas.errors import ClusterError, UserError

__all__ = ["Finding", "Verdict", "check"]

_FIND = 'command -v "$1"'
_SCRATCH = 'mkdir -p "$1" && test -w "$1"'
_IMPORT = "import htxas; print(htxas.__version__)"
# Prints the hosts alone: what stands before the @ is the password.
_DATABASE = (
    "from htxas.settings import database_location as d; from htxas.store.store import Store; Store.open().close(); "
    "print(d().uri.split('://', 1)[-1].rsplit('@', 1)[-1].split('/')[0])"
)
_OF_ONE_HOST = ("127.", "localhost", "[::1]", "%2F", "%2f")


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    PROBLEM = "problem"  # pilots will not work
    NOTE = "note"  # cannot be told from here, or may be wanted so


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer.

    Attributes
    ----------
    what
        What was tried.
    verdict, detail
        What came of it.
    """

    what: str
    verdict: Verdict
    detail: str


def check(queue: Queue) -> Iterator[Finding]:
    """Yield findings, one after the other; ends early where nothing more can be tried."""
    answer = queue.host.run(["uname", "-n"])
    if not answer.ok:
        yield Finding("host", Verdict.PROBLEM, answer.complaint())
        return
    yield Finding("host", Verdict.OK, f"{queue.host.name}: {answer.stdout.strip()}")
    found = True
    for program in queue.programs:
        finding = _program(queue, program, "scheduler")
        found = found and finding.verdict is Verdict.OK
        yield finding
    yield from _scripts(queue, found)
    if found:
        yield _answers(queue)
        yield _nodes(queue)
    yield _python(queue)
    yield _database(queue)
    yield _scratch(queue)
    yield from _engines(queue)


def _program(queue: Queue, program: str, what: str) -> Finding:
    answer = queue.host.run(["sh", "-c", _FIND, "sh", program])
    if answer.ok:
        return Finding(what, Verdict.OK, answer.stdout.strip())
    if answer.problem is not None:
        return Finding(what, Verdict.PROBLEM, answer.complaint())
    p = queue.profile
    hint = "; login_shell: true may help" if p.host and not p.login_shell else ""
    return Finding(what, Verdict.PROBLEM, f"{program} is not found on {queue.host.name}{hint}")


def _answers(queue: Queue) -> Finding:
    everything = queue.snapshot()
    if isinstance(everything, Unknown):
        return Finding("queue", Verdict.PROBLEM, everything.reason)
    live = sum(not job.state.ended for job in everything.jobs.values())
    return Finding("queue", Verdict.OK, f"answers; {live} of your jobs are waiting or running")


def _nodes(queue: Queue) -> Finding:
    nodes = queue.node_states()
    if isinstance(nodes, Unknown):
        return Finding("nodes", Verdict.NOTE, nodes.reason)
    up = sum(node.up is True for node in nodes.values())
    verdict = Verdict.OK if up else Verdict.PROBLEM
    return Finding("nodes", verdict, f"{up:,} of {len(nodes):,} are up")


def _scripts(queue: Queue, found: bool) -> Iterator[Finding]:
    """Render the script of each partition, and let the scheduler look at it where it can without submitting."""
    p = queue.profile
    submission = f"check_{secrets.token_hex(2)}"
    folder = submission_folder(p, submission)
    writable = True
    try:
        queue.host.mkdir([folder])
        queue.host.put("", f"{folder}/{SCRIPT}", 0o700)
        yield Finding("home", Verdict.OK, f"{p.home} can be written")
    except ClusterError as error:
        writable = False
        yield Finding("home", Verdict.PROBLEM, str(error))
    for partition in p.partitions.values():
        what = f"partition {partition.name}"
        try:
            script = render(Job(p, partition, submission))
        except UserError as error:
            yield Finding(what, Verdict.PROBLEM, str(error))
            continue
        argv = queue.trial(f"{folder}/{SCRIPT}")
        if argv is None or not writable or not found:
            yield Finding(
                what, Verdict.NOTE, "its script renders; whether the scheduler takes it, a pilot will show"
            )
            continue
        queue.host.put(script, f"{folder}/{SCRIPT}", 0o700)
        answer = queue.host.run(argv, timeout_s=p.timeout_s)
        said = one_line(answer.stderr) or one_line(answer.stdout)
        taken = answer.ok and "no suitable queue" not in said
        detail = (
            "the scheduler would take its script" if taken else answer.complaint() if not answer.ok else said
        )
        yield Finding(what, Verdict.OK if taken else Verdict.PROBLEM, detail)
    if writable:
        queue.host.run(["rm", "-r", "--", folder])


def _python(queue: Queue) -> Finding:
    python = queue.profile.python
    answer = queue.host.run([python, "-c", _IMPORT])
    if not answer.ok:
        return Finding("python", Verdict.PROBLEM, f"{python}: {answer.complaint()}")
    version = answer.stdout.strip()
    if version != __version__:
        return Finding(
            "python",
            Verdict.PROBLEM,
            f"{python} has htxas {version}, here it is {__version__}: install the same",
        )
    return Finding("python", Verdict.OK, f"{python} has htxas {version}")


def _database(queue: Queue) -> Finding:
    p = queue.profile
    database = p.database
    if not database.reachable:
        return Finding("database", Verdict.OK, "not needed on the nodes: work travels in bundles")
    if database.uri_env is not None:
        return Finding(
            "database", Verdict.NOTE, f"its address is in {database.uri_env}, which only the job has"
        )
    environment = [
        "HTXAS_DB_URI=",
        f"HTXAS_DB_URI_FILE={database.uri_file}",
        "HTXAS_DB_PATIENCE_S=0",
        f"HTXAS_HOME={p.home}",
    ]
    answer = queue.host.run(["env", *environment, p.python, "-c", _DATABASE])
    if not answer.ok:
        lines = answer.stderr.strip().splitlines()
        # A traceback ends with the error, after the name of its class.
        said = (
            one_line(lines[-1].split(": ", 1)[-1]) if lines and answer.problem is None else answer.complaint()
        )
        return Finding("database", Verdict.PROBLEM, said)
    hosts = answer.stdout.strip()
    if p.scheduler is not Scheduler.LOCAL and hosts.startswith(_OF_ONE_HOST):
        return Finding(
            "database",
            Verdict.PROBLEM,
            f"answers, but its address {hosts} is good on one host only: nodes need a name, or `database: none`",
        )
    return Finding("database", Verdict.OK, f"{hosts} answers {queue.host.name}")


def _scratch(queue: Queue) -> Finding:
    scratch = queue.profile.scratch
    if scratch is None:
        return Finding("scratch", Verdict.NOTE, "left to the system: TMPDIR or /tmp of the node")
    if scratch.variable is not None:
        return Finding(
            "scratch", Verdict.NOTE, f"{scratch}: only the job has the variable, and stops without it"
        )
    answer = queue.host.run(["sh", "-c", _SCRATCH, "sh", scratch.path])
    if answer.ok:
        return Finding("scratch", Verdict.OK, f"{scratch} can be written on {queue.host.name}")
    return Finding(
        "scratch", Verdict.NOTE, f"{scratch} cannot be written on {queue.host.name}; on nodes it must be"
    )


def _engines(queue: Queue) -> Iterator[Finding]:
    profile: Profile = queue.profile
    for engine in profile.engines.values():
        for program in (*engine.launcher[:1], *engine.program[:1]):
            finding = _program(queue, program, f"engine {engine.name}")
            if finding.verdict is Verdict.PROBLEM and profile.setup:
                detail = f"{program} is not found on {queue.host.name}; the lines of setup may bring it"
                finding = Finding(finding.what, Verdict.NOTE, detail)
            yield finding
