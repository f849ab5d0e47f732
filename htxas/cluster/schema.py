"""``htxas.yaml`` as pydantic models: the strict edge. Inside, it is :class:`htxas.cluster.profile.Profile`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from htxas.cluster.quantities import parse_walltime_s

__all__ = [
    "PLAIN_PATH",
    "ClusterModel",
    "ConfigModel",
    "DatabaseModel",
    "EngineModel",
    "PartitionModel",
    "PilotsModel",
]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_WORD = r"^[A-Za-z0-9_@+%][A-Za-z0-9._@+:%/=-]*$"
PLAIN_PATH = re.compile(r"/[A-Za-z0-9._+@=,:/-]*")
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("one line of printable characters is needed")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("an absolute path on the cluster is needed")
    return text


def _plain_path(text: str) -> str:
    # Part of directive lines, which schedulers split at blanks and expand in their own ways.
    if not PLAIN_PATH.fullmatch(text):
        raise ValueError("an absolute path of letters, digits and . _ + @ = , : / - is needed")
    return text


def _scratch(text: str) -> str:
    if not text.startswith(("/", "$")):
        raise ValueError("an absolute path, or one that begins with a variable such as $TMPDIR, is needed")
    return text


def _one_way(value: Any) -> Any:
    if value == "none":
        return DatabaseModel()
    if isinstance(value, dict) and set(value) <= set(DatabaseModel.model_fields) and len(value) != 1:
        raise ValueError("either uri_file or uri_env is needed, or `database: none`")
    return value


def _seconds(value: Any) -> Any:
    return parse_walltime_s(value) if isinstance(value, str | int) else value


Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=1)]
Seconds = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[bool, Strict()]
Line = Annotated[str, Strict(), Field(min_length=1), AfterValidator(_one_line)]
Word = Annotated[str, Strict(), Field(pattern=_WORD)]
Name = Annotated[str, Strict(), Field(pattern=_NAME)]
Variable = Annotated[str, Strict(), Field(pattern=_VARIABLE)]
AbsolutePath = Annotated[Line, AfterValidator(_absolute)]
PlainPath = Annotated[Line, AfterValidator(_plain_path)]
ScratchPath = Annotated[Line, AfterValidator(_scratch)]
Walltime = Annotated[int, BeforeValidator(_seconds)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseModel(_Section):
    """Where compute nodes find the database's address; never the address itself. Neither: ``database: none``."""

    uri_file: AbsolutePath | None = None
    uri_env: Variable | None = None


class PartitionModel(_Section):
    """A partition or queue, and what one job in it may take."""

    walltime: Walltime
    cores: Count
    memory_GB: Positive | None = None
    nodes: Count = 1
    max_jobs: Count | None = None
    max_array: Count = 1000
    queue: Word | None = None
    workers: Count | None = None
    options: list[Line] = []


class PilotsModel(_Section):
    """Pilots: how many, and how a node is cut into workers."""

    most: Count = 10
    workers: Count
    cores_per_worker: Count = 1
    memory_per_worker_GB: Positive = 4.0
    margin_s: Seconds = 120
    signal_s: Seconds = 120
    idle_s: Seconds = 300
    ahead_s: Seconds = 3600
    requeue: Flag = True


class EngineModel(_Section):
    """How one engine is started on this cluster."""

    workers: Count | None = None
    cores_per_worker: Count | None = None
    memory_per_worker_GB: Positive | None = None
    launcher: list[Line] = []
    program: list[Line] = []
    environment: dict[Variable, Line] = {}


class DiskModel(_Section):
    """What the run folders may take."""

    most_GB: Positive | None = None
    most_files: Count | None = None


class ClusterModel(_Section):
    """One cluster."""

    scheduler: Literal["slurm", "pbs", "sge", "lsf", "local"]
    dialect: Literal["openpbs", "torque"] | None = None
    host: Line | None = None
    login_shell: Flag = False
    timeout_s: Positive = 60.0
    template: Line | None = None
    account: Word | None = None
    home: PlainPath | None = None
    python: AbsolutePath | None = None
    setup: list[Annotated[str, Strict()]] = []
    scratch: ScratchPath | None = None
    database: Annotated[DatabaseModel | None, BeforeValidator(_one_way)] = None
    options: list[Line] = []
    parallel_environment: Word | None = None
    memory_resource: Word | None = None
    partitions: dict[Name, PartitionModel] = Field(min_length=1)
    pilots: PilotsModel
    engines: dict[Name, EngineModel] = {}
    disk: DiskModel = DiskModel()
    dask: dict[str, Any] = {}


class ConfigModel(_Section):
    """The whole file. ``notify`` and a cluster's ``dask`` are checked by those who use them."""

    clusters: dict[Name, ClusterModel] = {}
    notify: dict[str, Any] = {}
