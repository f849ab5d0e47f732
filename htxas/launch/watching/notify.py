"""Telling the user: a command of theirs is run when something happened that they want to know.

In ``htxas.yaml``::

    notify:
      command: [/home/me/bin/tell-me]     # argument list, no shell
      on: [failure_jump, campaign_end, no_progress, disk_nearly_full]
      failure_rate: 0.2                   # share of one cause among what ended within window_min
      window_min: 30
      least: 20                           # fewer endings than this say nothing
      timeout_s: 30

The event is a JSON object on the command's standard input (``event``, ``campaign``, ``message`` and its numbers); its
name is in ``$HTXAS_EVENT``. The command sees no secrets: variables ``HTXAS_DB_*`` are removed.

What was told is recorded in the database, so of several processes that watch only one tells, and once: again only after
it was over in between. A command that fails is tried three times. If the process is killed between the command and the
record, the user hears of it twice: better than not at all.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict

from htxas.cluster.load import Config
from htxas.domain.calculation import State
from htxas.errors import HtxasError
from htxas.launch.disk.usage import DiskQuota
from htxas.launch.recovery.judge import FRESH_S
from htxas.settings import runs_folder
from htxas.store.records import Control, ControlState
from htxas.store.store import Store
from htxas.store.watching import Ending

__all__ = [
    "Condition",
    "EventKind",
    "Notifier",
    "NotifyModel",
    "campaign_conditions",
    "disk_condition",
    "send",
]

_LOOK_EVERY_S = 15.0
_NEARLY_FULL, _ROOM_AGAIN = 0.9, 0.85
_QUIET = 0.5
_SLOW = 4.0
_CLAIM_S = 60.0
_COST_FACTOR = 10.0
_log = logging.getLogger(__name__)


class EventKind(StrEnum):
    """What users can be told."""

    FAILURE_JUMP = (
        "failure_jump"  # a cause is a large share of what ended lately; over below half of that share
    )
    CAMPAIGN_END = "campaign_end"  # nothing is ready or running any more
    NO_PROGRESS = "no_progress"  # nothing ended for window_min, or four times the mean time of a calculation
    DISK_NEARLY_FULL = "disk_nearly_full"  # 90 % of a limit, or little left on the file system


class NotifyModel(BaseModel):
    """The section ``notify`` of ``htxas.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Annotated[list[Annotated[str, Strict(), Field(min_length=1)]], Field(min_length=1)]
    on: list[EventKind] = list(EventKind)
    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    window_min: Annotated[float, Field(gt=0, le=1440)] = 30.0
    least: Annotated[int, Field(ge=1)] = 20
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that holds or does not.

    Attributes
    ----------
    name
        Unique: kind, campaign, cause.
    kind
        Which event it makes.
    holds
        None is neither: what was told stays told, nothing is told anew.
    message
        One line for the user.
    facts
        For the event's JSON.
    fresh
        Whether to tell even if nobody saw it not holding before.
    """

    name: str
    kind: EventKind
    holds: bool | None
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = True


def campaign_conditions(
    model: NotifyModel,
    progress: Mapping[str, Any],
    endings: Sequence[Ending],
    control: Control,
    *,
    submitted: bool,
    unchanged_s: float,
    agents: int,
) -> Iterator[Condition]:
    """Yield the conditions of one campaign.

    Parameters
    ----------
    model
        What the user wants to know.
    progress
        Of :meth:`Store.progress`.
    endings
        Its endings within the window.
    control
        Paused and cancelled campaigns make no progress by wish.
    submitted
        Whether its submission has come to its end.
    unchanged_s
        For how long nothing ended.
    agents
        How many are alive, for the message.
    """
    name, counts = progress["campaign"], progress["counts"]
    active = counts["ready"] + counts["running"]
    ended = {s.value: counts[s.value] for s in (State.DONE, State.FAILED, State.QUARANTINED)}
    over = submitted and progress["total"] > 0 and active == 0
    bad = ended["failed"] + ended["quarantined"]
    failures = f", {bad:,} failed: htxas failures {name}" if bad else ""
    yield Condition(
        f"campaign_end:{name}",
        EventKind.CAMPAIGN_END,
        over,
        f"campaign {name} has ended: {ended['done']:,} done{failures}",
        {"campaign": name, "counts": dict(counts), "causes": dict(progress["causes"])},
        fresh=bool(endings),
    )
    mean_s = progress["done_wall_s"] / max(1, counts["done"])
    patience_s = max(60 * model.window_min, _SLOW * mean_s)
    working = active > 0 and submitted and control.state is ControlState.ACTIVE
    yield Condition(
        f"no_progress:{name}",
        EventKind.NO_PROGRESS,
        working and unchanged_s >= patience_s,
        f"campaign {name}: nothing has ended for {unchanged_s / 60:.0f} minutes, {active:,} are left, "
        f"{agents} agents are alive: htxas status {name}",
        {"campaign": name, "unchanged_s": unchanged_s, "left": active, "agents": agents},
    )
    yield from _jumps(model, name, endings)


def _jumps(model: NotifyModel, name: str, endings: Sequence[Ending]) -> Iterator[Condition]:
    total = sum(e.count for e in endings)
    causes: dict[str, int] = {}
    for e in endings:
        if e.cause is not None and e.state is not State.DONE:
            causes[str(e.cause)] = causes.get(str(e.cause), 0) + e.count
    for cause, count in sorted(causes.items()):
        share = count / total
        holds = None if share >= _QUIET * model.failure_rate else False
        if share >= model.failure_rate and total >= model.least:
            holds = True
        yield Condition(
            f"failure_jump:{name}:{cause}",
            EventKind.FAILURE_JUMP,
            holds,
            f"campaign {name}: {count:,} of the last {total:,} ended with {cause} ({100 * share:.0f} %): "
            f"htxas failures {name}",
            {"campaign": name, "cause": cause, "count": count, "endings": total, "share": share},
        )


def disk_condition(quota: DiskQuota) -> Condition:
    """Return whether the run folders of this host are nearly full."""
    room = quota.room()
    return Condition(
        f"disk_nearly_full:{platform.node()}:{runs_folder()}",
        EventKind.DISK_NEARLY_FULL,
        True if room.share >= _NEARLY_FULL else False if room.share < _ROOM_AGAIN else None,
        f"{platform.node()}: {room.what}: htxas disk",
        {"share": room.share, "folder": str(runs_folder())},
    )


class Notifier:
    """Looks for events and tells the user.

    Parameters
    ----------
    store
        The store.
    config
        ``htxas.yaml``, or the checked section; without a section :meth:`tick` does nothing.
    quota
        Limits of the disk of this host; without any, only its file system is watched.

    Raises
    ------
    CampaignFileError
        If the section is wrong, with file, line and key.
    """

    def __init__(
        self, store: Store, config: Config | NotifyModel | None, quota: DiskQuota | None = None
    ) -> None:
        if isinstance(config, Config):
            model = config.section(NotifyModel, config.notify, "notify") if config.notify else None
        else:
            model = config
        self._model = model
        self._store = store
        self._quota = quota or DiskQuota()
        self._looked = float("-inf")
        self._cost_s = 0.0

    def tick(self, *, every_s: float = _LOOK_EVERY_S) -> list[str]:
        """Look, unless that was done less than ``every_s`` ago (longer if it is slow), and tell.

        Returns the names of what was told. Never raises because a command or the disk fails; a database that is away
        is met by the caller's next call.
        """
        start = time.monotonic()
        pause = max(every_s, _COST_FACTOR * self._cost_s) if every_s else 0.0
        if self._model is None or start - self._looked < pause:
            return []
        try:
            return self._tell(self._model)
        except (HtxasError, OSError) as error:
            _log.warning("nobody was notified: %s", error)
            return []
        finally:
            self._looked = time.monotonic()
            self._cost_s = self._looked - start

    def _tell(self, model: NotifyModel) -> list[str]:
        known = self._store.notices()
        told = []
        for condition in self._conditions(model):
            if condition.kind not in model.on:
                continue
            tries = known.get(condition.name)
            if condition.holds is False:
                if tries or (tries is None and condition.kind is EventKind.CAMPAIGN_END):
                    self._store.arm_notice(condition.name)
            elif condition.holds and (condition.fresh or tries is not None):
                token = self._store.claim_notice(condition.name, ttl_s=model.timeout_s + _CLAIM_S)
                if token is not None and send(model, condition):
                    self._store.notice_told(condition.name, token)
                    told.append(condition.name)
        return told

    def _conditions(self, model: NotifyModel) -> Iterator[Condition]:
        store = self._store
        agents = sum(w["age_s"] <= FRESH_S for w in store.workers())
        controls, spent = store.controls(), store.spent()
        unfinished = set(store.unfinished_submissions())
        endings: dict[str, list[Ending]] = {}
        for ending in store.endings(60 * model.window_min):
            endings.setdefault(ending.campaign, []).append(ending)
        seen: set[str] = set()
        for name, control in controls.items():
            progress = store.progress(name)
            counts = progress["counts"]
            budget = control.budget_node_h
            waits = control.state is not ControlState.ACTIVE or (
                budget is not None and spent.get(name, 0.0) >= budget
            )
            value = json.dumps([counts["done"], counts["failed"], counts["quarantined"], waits])
            for condition in campaign_conditions(
                model,
                progress,
                endings.get(name, []),
                Control(ControlState.PAUSED) if waits else control,
                submitted=name not in unfinished,
                unchanged_s=store.watch_value(f"progress:{name}", value),
                agents=agents,
            ):
                seen.add(condition.name)
                yield condition
        for name in store.notices():  # a cause that no longer ends anything is over
            if name.startswith(EventKind.FAILURE_JUMP.value) and name not in seen:
                yield Condition(name, EventKind.FAILURE_JUMP, False, "")
        yield disk_condition(self._quota)


def send(model: NotifyModel, condition: Condition) -> bool:
    """Run the user's command for an event; return whether it succeeded."""
    event = {
        "event": condition.kind.value,
        "message": condition.message,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        **condition.facts,
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_DB_")}
    environment["HTXAS_EVENT"] = condition.kind.value
    with (
        tempfile.TemporaryFile() as said
    ):  # not a pipe: what the command leaves behind must not keep us waiting
        try:
            process = subprocess.Popen(
                model.command,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            _log.warning("notify: %s cannot be run: %s", model.command[0], error.strerror)
            return False
        try:
            process.communicate(json.dumps(event).encode() + b"\n", timeout=model.timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            _log.warning("notify: %s took longer than %g s", model.command[0], model.timeout_s)
            return False
        if process.returncode == 0:
            return True
        said.seek(0)
        lines = said.read(4096).decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "nothing"
        _log.warning("notify: %s ended with %d, saying: %s", model.command[0], process.returncode, last)
        return False
