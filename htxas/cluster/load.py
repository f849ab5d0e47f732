"""Finds and reads ``htxas.yaml``: ``$HTXAS_CONFIG``, ``./htxas.yaml``, or ``htxas.yaml`` in the home of htxas."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from htxas.assets import template
from htxas.campaign.yamlfile import Lines, validate_part, validate_yaml
from htxas.cluster.profile import (
    Database,
    Dialect,
    DiskLimits,
    EngineProfile,
    Partition,
    Pilots,
    Profile,
    Scheduler,
    Scratch,
    problems,
)
from htxas.cluster.quantities import memory_MB
from htxas.cluster.schema import PLAIN_PATH, ClusterModel, ConfigModel, EngineModel, PartitionModel
from htxas.errors import CampaignFileError, NotFound
from htxas.settings import URI_FILE, home

__all__ = ["Config", "find_config", "load_config"]

Section = TypeVar("Section", bound=BaseModel)
_PASSWORD = re.compile(r"://[^/\s:@]*:(?!\$)[^/\s@]+@")  # a variable's value is not in the file
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?((?:/.*)?)")


@dataclass(frozen=True)
class Config:
    """A checked ``htxas.yaml``.

    Attributes
    ----------
    path
        The file.
    clusters
        Profiles by name.
    notify
        The section of notifications as written; see :meth:`section`.
    """

    path: Path
    clusters: Mapping[str, Profile]
    notify: Mapping[str, Any]
    _lines: Lines

    def cluster(self, name: str | None = None) -> Profile:
        """Return a profile; without a name, the only one.

        Raises
        ------
        NotFound
            With the nearest name, or if a name is needed.
        """
        known = ", ".join(self.clusters)
        if not self.clusters:
            raise NotFound("no cluster is described", where=str(self.path), hint="add one under clusters:")
        if name is None:
            if len(self.clusters) == 1:
                return next(iter(self.clusters.values()))
            raise NotFound("which cluster?", where=str(self.path), hint=f"--cluster one of: {known}")
        if name not in self.clusters:
            near = get_close_matches(name, self.clusters, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is: {known}"
            raise NotFound(f"no cluster is called {name!r}", where=str(self.path), hint=hint)
        return self.clusters[name]

    def section(self, model: type[Section], content: Mapping[str, Any], *location: str) -> Section:
        """Check a section that somebody else owns.

        Parameters
        ----------
        model
            Its model.
        content
            What was written, e.g. :attr:`notify` or a profile's ``dask``.
        location
            Its keys, e.g. ``"clusters", name, "dask"``.

        Raises
        ------
        CampaignFileError
            With file, line and key.
        """
        return validate_part(model, self._lines, dict(content), location)


def find_config() -> Path:
    """Return the path of ``htxas.yaml``.

    Raises
    ------
    NotFound
        If there is none, with the places looked at.
    """
    override = os.environ.get("HTXAS_CONFIG")
    if override:
        path = Path(override).expanduser()
        if not path.is_file():
            raise NotFound("there is no such file", where=f"HTXAS_CONFIG={override}")
        return path
    candidates = (Path("htxas.yaml"), home() / "htxas.yaml")
    for path in candidates:
        if path.is_file():
            return path
    raise NotFound(
        "no htxas.yaml describes your clusters",
        where=" or ".join(str(c) for c in candidates),
        hint=f"copy and change {template('htxas.yaml')}",
    )


def load_config(path: Path | None = None) -> Config:
    """Read and check ``htxas.yaml``.

    Parameters
    ----------
    path
        The file; None looks for it.

    Raises
    ------
    CampaignFileError
        With file, line and key of the first thing that is wrong.
    NotFound
        If there is no file.
    """
    path = path or find_config()
    model, lines = validate_yaml(ConfigModel, path)
    _refuse_passwords(path)
    clusters = {name: _profile(name, cluster, lines) for name, cluster in model.clusters.items()}
    for name, profile in clusters.items():
        for problem in problems(profile):
            raise lines.error(("clusters", name, *problem.location), problem.message, problem.hint)
    return Config(path, clusters, model.notify, lines)


def _refuse_passwords(path: Path) -> None:
    # Anywhere, comments included: parts of this file end up in job scripts, which others can read.
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if _PASSWORD.search(line):
            raise CampaignFileError(
                "an address with a password stands in the file",
                where=f"{path}:{number}",
                hint="put it into a file of mode 0600 and name that: database: {uri_file: ...}",
            )


def _profile(name: str, m: ClusterModel, lines: Lines) -> Profile:
    at = ("clusters", name)
    scheduler = Scheduler(m.scheduler)
    if m.dialect is not None and scheduler is not Scheduler.PBS:
        raise lines.error((*at, "dialect"), f"belongs to scheduler: pbs, not {scheduler}")
    if m.host is not None:
        if m.host.startswith("-") or " " in m.host:
            raise lines.error((*at, "host"), f"{m.host!r} is not a host")
        for key, value in (("home", m.home), ("python", m.python)):
            if value is None:
                raise lines.error((*at, key), f"is missing: htxas cannot guess it for {m.host}")
    elif m.login_shell:
        raise lines.error((*at, "login_shell"), "is for a host: that commands go to by ssh")
    where_home = m.home or str(home())
    if scheduler is not Scheduler.LOCAL and not PLAIN_PATH.fullmatch(where_home):
        message = f"{where_home!r} cannot stand in a directive: blanks or odd characters"
        raise lines.error((*at, "home"), message, "name another folder here")
    return Profile(
        name=name,
        scheduler=scheduler,
        dialect=Dialect(m.dialect or Dialect.OPENPBS),
        host=m.host,
        login_shell=m.login_shell,
        timeout_s=m.timeout_s,
        template=_template(m, lines, at),
        account=m.account,
        home=where_home,
        python=m.python or sys.executable,
        setup=tuple(m.setup),
        scratch=_scratch(m.scratch, lines, at),
        database=_database(m, where_home),
        options=tuple(m.options),
        parallel_environment=m.parallel_environment,
        memory_resource=m.memory_resource,
        partitions={key: _partition(key, p) for key, p in m.partitions.items()},
        pilots=Pilots(
            most=m.pilots.most,
            workers=m.pilots.workers,
            cores_per_worker=m.pilots.cores_per_worker,
            memory_per_worker_MB=memory_MB(m.pilots.memory_per_worker_GB),
            margin_s=m.pilots.margin_s,
            signal_s=m.pilots.signal_s,
            idle_s=m.pilots.idle_s,
            ahead_s=m.pilots.ahead_s,
            requeue=m.pilots.requeue,
        ),
        engines={key: _engine(key, e) for key, e in m.engines.items()},
        disk=DiskLimits(
            most_bytes=None if m.disk.most_GB is None else int(m.disk.most_GB * 1e9),
            most_files=m.disk.most_files,
        ),
        dask=m.dask,
        where=lines.where(at),
    )


def _template(m: ClusterModel, lines: Lines, at: tuple[str, str]) -> Path:
    if m.template is None:
        return template(f"queue/{m.scheduler}.sh").absolute()
    path = Path(m.template).expanduser()
    path = path if path.is_absolute() else lines.path.absolute().parent / path
    if not path.is_file():
        raise lines.error((*at, "template"), f"there is no file {path}", "copy one from templates/queue")
    return path


def _scratch(written: str | None, lines: Lines, at: tuple[str, str]) -> Scratch | None:
    if written is None:
        return None
    if not written.startswith("$"):
        return Scratch(None, written)
    found = _VARIABLE.fullmatch(written)
    if found is None:
        raise lines.error((*at, "scratch"), f"a variable and a path, as $TMPDIR/htxas, not {written!r}")
    return Scratch(found.group(1), found.group(2))


def _database(m: ClusterModel, where_home: str) -> Database:
    if m.database is None:  # the private server of this home, whose file other nodes see, too
        return Database(uri_file=f"{where_home.rstrip('/')}/db/{URI_FILE}")
    return Database(uri_file=m.database.uri_file, uri_env=m.database.uri_env)


def _partition(name: str, m: PartitionModel) -> Partition:
    return Partition(
        name=name,
        queue=m.queue or name,
        walltime_s=m.walltime,
        cores=m.cores,
        memory_MB=None if m.memory_GB is None else memory_MB(m.memory_GB),
        nodes=m.nodes,
        max_jobs=m.max_jobs,
        max_array=m.max_array,
        workers=m.workers,
        options=tuple(m.options),
    )


def _engine(name: str, m: EngineModel) -> EngineProfile:
    memory = m.memory_per_worker_GB
    return EngineProfile(
        name=name,
        workers=m.workers,
        cores_per_worker=m.cores_per_worker,
        memory_per_worker_MB=None if memory is None else memory_MB(memory),
        launcher=tuple(m.launcher),
        program=tuple(m.program),
        environment=dict(m.environment),
    )
