"""The queue of one cluster: scheduler adapter and host put together. This is what the rest of htxas uses.

::

    queue = open_queue(profile)
    job = Job(profile, profile.partition(), "p7f3a", array=20)
    match queue.submit(job):
        case Submitted(ids):
            ...  # one id per pilot of pilot_ids("p7f3a", 20), in that order
        case Refused(reason):
            ...  # no job exists
        case Unclear(reason):
            ...  # look for it: queue.find_by_name("htxas-p7f3a"), and do not submit again
    match queue.snapshot(ids):
        case Unknown(reason):
            ...  # conclude nothing
        case Snapshot(jobs, absent):
            ...  # absent is not gone: ask queue.accounting(absent)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from htxas.cluster.adapter import Adapter
from htxas.cluster.host import Host, LocalHost, SshHost
from htxas.cluster.jobs import (
    Cancelled,
    JobInfo,
    NodeInfo,
    Snapshot,
    Submission,
    Unknown,
)
from htxas.cluster.profile import Dialect, Profile, Scheduler
from htxas.cluster.script import Job, pilot_folder, pilot_ids, render, submission_folder
from htxas.errors import ClusterError

__all__ = ["Job", "Queue", "open_host", "open_queue", "pilot_folder", "pilot_ids", "submission_folder"]

SCRIPT = "script.sh"
"""Name of the script in its submission folder."""


class Queue:
    """The queue of one cluster.

    Parameters
    ----------
    profile
        The cluster.
    host
        Where the scheduler's commands run.
    """

    def __init__(self, profile: Profile, host: Host) -> None:
        self.profile = profile
        self.host = host
        self._adapter = _adapter(profile)
        self._user: str | None = None

    def submit(self, job: Job) -> Submission:
        """Write the script and submit it.

        Raises
        ------
        ClusterError
            If the script cannot be written: nothing was submitted.
        UserError
            If the template does not render: nothing was submitted.
        """
        script = render(job)
        folder = submission_folder(self.profile, job.submission)
        self.host.mkdir([folder])
        path = f"{folder}/{SCRIPT}"
        self.host.put(script, path, 0o700)
        adapter = _adapter(self.profile, job)
        answer = self.host.run(
            adapter.build_submit(path, name=job.name, array=job.array),
            timeout_s=self.profile.timeout_s,
            stdin=script if adapter.script_on_stdin else None,
        )
        return adapter.parse_submit(answer, array=job.array)

    def snapshot(self, ids: Collection[str] | None = None) -> Snapshot | Unknown:
        """Return what the scheduler says about jobs now.

        Parameters
        ----------
        ids
            Asked about; None asks about all jobs of the user.
        """
        if ids is not None and not ids:
            return Snapshot()
        try:
            user = self._username()
        except ClusterError as error:
            return Unknown(str(error))
        asked: Sequence[str] | None = None if ids is None else sorted(ids)
        jobs: dict[str, JobInfo] = {}
        parts = [asked] if self._adapter.asks_all else _parts(asked, self._adapter.batch)
        for part in parts:
            found: Snapshot | Unknown = Unknown("there is nothing to ask")
            for argv in self._adapter.build_query(part, user=user):
                answer = self.host.run(argv, timeout_s=self.profile.timeout_s)
                found = self._adapter.parse_query(answer, part, user=user)
                if isinstance(found, Snapshot):
                    break
            if isinstance(found, Unknown):
                return found
            jobs |= found.jobs
        if asked is None:
            return Snapshot(jobs)
        return Snapshot({i: jobs[i] for i in asked if i in jobs}, frozenset(asked) - frozenset(jobs))

    def accounting(self, ids: Collection[str]) -> Snapshot | Unknown:
        """Return what the scheduler remembers about jobs that left the queue.

        Not every site keeps accounts; then this is Unknown, or the ids are ``absent``.
        """
        missing = set(ids)
        jobs: dict[str, JobInfo] = {}
        answered = not missing
        why = "this scheduler keeps no accounts"
        for part in _parts(sorted(missing), self._adapter.batch):
            for argv in self._adapter.build_accounting(part or ()):
                answer = self.host.run(argv, timeout_s=self.profile.timeout_s)
                found = self._adapter.parse_accounting(answer, part or ())
                if isinstance(found, Unknown):
                    why = found.reason
                    continue
                answered = True
                jobs |= {key: job for key, job in found.jobs.items() if key in missing}
                missing -= jobs.keys()
                if not missing & set(part or ()):
                    break
        return Snapshot(jobs, frozenset(missing)) if answered else Unknown(why)

    def cancel(self, ids: Iterable[str]) -> dict[str, Cancelled]:
        """Ask the scheduler to end jobs; return what became of each request."""
        done: dict[str, Cancelled] = {}
        for part in _parts(sorted(set(ids)), self._adapter.batch):
            if not part:
                continue
            answer = self.host.run(self._adapter.build_cancel(part), timeout_s=self.profile.timeout_s)
            done |= self._adapter.parse_cancel(answer, part)
        return done

    def find_by_name(self, prefix: str) -> list[JobInfo] | Unknown:
        """Return jobs of the user whose name begins with ``prefix``: after an unclear submission, and for strays."""
        everything = self.snapshot()
        if isinstance(everything, Unknown):
            return everything
        return [job for job in everything.jobs.values() if job.name.startswith(prefix)]

    def node_states(self) -> Mapping[str, NodeInfo] | Unknown:
        """Return what the scheduler thinks of its nodes."""
        argv = self._adapter.build_nodes()
        if argv is None:
            return Unknown(f"{self.profile.scheduler} does not tell about nodes")
        return self._adapter.parse_nodes(self.host.run(argv, timeout_s=self.profile.timeout_s))

    def trial(self, script: str) -> list[str] | None:
        """Return a command that lets the scheduler look at a script without submitting it; None if it has none."""
        return self._adapter.build_trial(script)

    @property
    def programs(self) -> tuple[str, ...]:
        """Commands the host must have."""
        return self._adapter.programs

    def _username(self) -> str:
        if self._user is None:
            answer = self.host.run(["id", "-un"], timeout_s=self.profile.timeout_s)
            name = answer.stdout.strip()
            if not answer.ok or not name or len(name.split()) != 1:
                raise ClusterError(f"cannot tell the user's name: {answer.complaint()}", where=self.host.name)
            self._user = name
        return self._user


def open_host(profile: Profile) -> Host:
    """Return where a cluster's commands run; connects to nothing yet."""
    if profile.host is None:
        return LocalHost(profile.timeout_s)
    return SshHost(profile.host, profile.timeout_s, login_shell=profile.login_shell)


def open_queue(profile: Profile, host: Host | None = None) -> Queue:
    """Return the queue of a cluster; connects to nothing yet.

    Parameters
    ----------
    profile
        The cluster.
    host
        Instead of the profile's, for tests.
    """
    return Queue(profile, host or open_host(profile))


def _adapter(profile: Profile, job: Job | None = None) -> Adapter:
    """Return the adapter of the profile's scheduler. Imported here: one of five is needed."""
    match profile.scheduler:
        case Scheduler.SLURM:
            from htxas.cluster.slurm import Slurm

            return Slurm()
        case Scheduler.LOCAL:
            from htxas.cluster.local import Local

            partition = job.partition if job is not None else profile.partition()
            return Local(
                profile.python,
                profile.home,
                walltime_s=partition.walltime_s,
                signal_s=profile.pilots.signal_s,
            )
        case Scheduler.PBS if profile.dialect is Dialect.TORQUE:
            from htxas.cluster.pbs import Torque

            return Torque()
        case Scheduler.PBS:
            from htxas.cluster.pbs import OpenPbs

            return OpenPbs()
        case Scheduler.SGE:
            from htxas.cluster.sge import GridEngine

            return GridEngine()
        case Scheduler.LSF:
            from htxas.cluster.lsf import Lsf

            return Lsf()


def _parts(ids: Sequence[str] | None, size: int) -> Iterator[Sequence[str] | None]:
    if ids is None:
        yield None
        return
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
