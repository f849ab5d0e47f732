"""What a pilot must know of its cluster's profile: ``htxas.yaml`` may be only on the machine that submitted it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htxas.cluster.profile import EngineProfile, Partition, Profile
from htxas.errors import UserError
from htxas.launch.disk.usage import DiskQuota
from htxas.launch.work.engine_run import EngineRun, Engines

__all__ = ["SETTINGS_FILE", "SiteSettings", "engines_of", "read_settings", "site_settings"]

SETTINGS_FILE = "settings.json"
"""In the folder of a submission, beside its script."""


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """How things are done on a cluster.

    Attributes
    ----------
    database
        Name of the database behind the connection string.
    engines
        How engines are started.
    most_bytes, most_files
        What the run folders may take; None is no limit.
    ahead_s
        Work for so long is kept in hand.
    """

    database: str = "htxas"
    engines: Mapping[str, EngineRun] = field(default_factory=dict)
    most_bytes: int | None = None
    most_files: int | None = None
    ahead_s: float = 0.0

    def how(self, cluster: str | None, cores_per_worker: int, memory_per_worker_MB: float) -> Engines:
        """Return how all engines are started by workers of so many cores and so much memory (0: nobody has said)."""
        otherwise = EngineRun(threads=cores_per_worker, memory_MB=memory_per_worker_MB or None)
        return Engines(self.engines, otherwise, cluster)

    def quota(self) -> DiskQuota | None:
        """Return the quota of the run folders; None without limits."""
        if self.most_bytes is None and self.most_files is None:
            return None
        return DiskQuota(self.most_bytes, self.most_files)

    def to_dict(self) -> dict[str, Any]:
        """Return them as a JSON document."""
        return {
            "database": self.database,
            "engines": {name: run.to_dict() for name, run in self.engines.items()},
            "most_bytes": self.most_bytes,
            "most_files": self.most_files,
            "ahead_s": self.ahead_s,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> SiteSettings:
        """Rebuild them."""
        engines = {name: EngineRun.from_dict(run) for name, run in document["engines"].items()}
        limits = (document["most_bytes"], document["most_files"])
        return cls(document["database"], engines, *limits, document.get("ahead_s", 0.0))  # 0.1.0 wrote none


def site_settings(profile: Profile, partition: Partition, database: str) -> SiteSettings:
    """Return the settings that pilots in a partition need to work on ``database``."""
    engines = {name: _engine(engine, profile, partition) for name, engine in profile.engines.items()}
    limits = (profile.disk.most_bytes, profile.disk.most_files)
    return SiteSettings(database, engines, *limits, profile.pilots.ahead_s)


def engines_of(profile: Profile, partition: Partition) -> Engines:
    """Return how pilots in a partition start engines."""
    p = profile.pilots
    return site_settings(profile, partition, "").how(profile.name, p.cores_per_worker, p.memory_per_worker_MB)


def _engine(engine: EngineProfile, profile: Profile, partition: Partition) -> EngineRun:
    # With a launcher the cores are for its processes; threads underneath would multiply them.
    pilots, places = profile.pilots, profile.workers(partition)
    cores = engine.cores_per_worker or pilots.cores_per_worker
    memory_MB = engine.memory_per_worker_MB or pilots.memory_per_worker_MB
    needs = max(
        cores / pilots.cores_per_worker,
        memory_MB / pilots.memory_per_worker_MB,
        places / (engine.workers or places),
    )
    return EngineRun(
        launcher=engine.launcher,
        program=engine.program,
        threads=1 if engine.launcher else cores,
        environment=engine.environment,
        slots=min(places, math.ceil(needs)),
        memory_MB=memory_MB,
    )


def read_settings(path: Path) -> SiteSettings:
    """Read the settings beside a script; none were written for a script that was submitted by hand.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    try:
        return SiteSettings.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return SiteSettings()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"the settings of the pilot cannot be read: {error}", where=str(path), hint="submit it again"
        ) from None
