"""How engines are started on a machine: nothing that could alter a result, all of it told in provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from htxas.engines.base import Engine

__all__ = ["EngineRun", "Engines", "absent", "engine_environment"]

_COMMAND = "HTXAS_ENGINE_COMMAND"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class EngineRun:
    """How an engine is started on this machine.

    Attributes
    ----------
    launcher
        Words before the engine's own, ``("srun", "-n", "16")``.
    program
        Words instead of the engine's first one, ``("/opt/castep.mpi",)``.
    threads
        Threads of the libraries underneath.
    environment
        Added to the environment.
    slots
        Workers' places that one calculation takes.
    memory_MB
        Memory that one calculation may use; None if nobody has said.
    """

    launcher: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    memory_MB: float | None = None

    def command(self, words: list[str]) -> list[str]:
        """Return the engine's command as it is to be run here."""
        return [*self.launcher, *(self.program or words[:1]), *words[1:]]

    def told(self) -> dict[str, Any]:
        """Return what provenance tells: of the environment the names only, for a value may be private."""
        facts = {
            "launcher": list(self.launcher),
            "program": list(self.program),
            "environment": sorted(self.environment),
            "memory_MB": self.memory_MB,
        }
        return {"threads": self.threads, **{name: fact for name, fact in facts.items() if fact}}

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {
            "launcher": list(self.launcher),
            "program": list(self.program),
            "threads": self.threads,
            "environment": dict(self.environment),
            "slots": self.slots,
            "memory_MB": self.memory_MB,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> EngineRun:
        """Rebuild it."""
        return cls(
            tuple(document["launcher"]),
            tuple(document["program"]),
            int(document["threads"]),
            dict(document["environment"]),
            int(document.get("slots", 1)),  # this and the next: not in a bundle of an older htxas
            document.get("memory_MB"),
        )


@dataclass(frozen=True, slots=True)
class Engines:
    """How all engines are started on a machine.

    Attributes
    ----------
    named
        Those that need something of their own.
    otherwise
        How any other is started.
    cluster
        Name of the cluster, or None.
    """

    named: Mapping[str, EngineRun] = field(default_factory=dict)
    otherwise: EngineRun = field(default_factory=EngineRun)
    cluster: str | None = None

    def of(self, engine: str) -> EngineRun:
        """Return how an engine is started."""
        return self.named.get(engine, self.otherwise)

    @property
    def wide(self) -> bool:
        """Whether any takes more than one place: its cores are then those of whoever stands aside."""
        return any(run.slots > 1 for run in self.named.values())

    def told(self, engine: str) -> dict[str, Any]:
        """Return what provenance tells of an engine."""
        return {**self.of(engine).told(), **({"cluster": self.cluster} if self.cluster else {})}

    def to_dict(self) -> dict[str, Any]:
        """Return them as a JSON document."""
        return {
            "named": {name: run.to_dict() for name, run in self.named.items()},
            "otherwise": self.otherwise.to_dict(),
            "cluster": self.cluster,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Engines:
        """Rebuild them."""
        named = {name: EngineRun.from_dict(run) for name, run in document["named"].items()}
        return cls(named, EngineRun.from_dict(document["otherwise"]), document["cluster"])


def absent(engine: Engine, run: EngineRun) -> str | None:
    """Return why an engine cannot be started here, or None."""
    return engine.missing(engine_environment(run, starts_code=engine.starts_code))


def engine_environment(run: EngineRun, *, starts_code: bool = False) -> dict[str, str]:
    """Return the environment of an engine: its threads, no way to the database, and how it is to start its code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HTXAS_DB_", _COMMAND))}
    wanted = {**dict.fromkeys(_THREADS, str(run.threads)), **run.environment}
    if starts_code:
        wanted[_COMMAND] = json.dumps({"launcher": list(run.launcher), "program": list(run.program)})
    return kept | {k: v for k, v in wanted.items() if not k.startswith("HTXAS_DB_")}
