"""Every error htxas raises on purpose.

::

    HtxasError                      anything below; carries ``where`` and ``hint``
    ├── UserError                   exit status 1: the user can mend it
    │   ├── CampaignFileError       a YAML file: file, line, key
    │   ├── StructureError          a structure file or a molecule in it
    │   ├── UnsupportedInput        valid, but not for this engine (a crystal for a molecular code)
    │   ├── NotFound                no such campaign, site, molecule, model
    │   ├── Busy                    another process is doing it, and only one may
    │   ├── DatabaseUnavailable     no server, wrong password, folder in use
    │   ├── StoreError              schema too new, document refused by a validator
    │   ├── ClusterError            a scheduler or its host refuses, or cannot be reached
    │   └── DatasetError            a training file or dataset that cannot be used
    ├── EngineFailure               a calculation ended without a result; carries a ``Cause``
    └── InternalError               exit status 2: our bug
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

__all__ = [
    "Busy",
    "CampaignFileError",
    "Cause",
    "ClusterError",
    "DatabaseUnavailable",
    "DatasetError",
    "EngineFailure",
    "HtxasError",
    "InternalError",
    "NotFound",
    "StoreError",
    "StructureError",
    "UnsupportedInput",
    "UserError",
]


class Cause(StrEnum):
    """Why a calculation ended without an accepted result. One cause per ending."""

    SCF_UNCONVERGED = "scf_unconverged"  # the engine stopped with the density still moving
    HOLE_LEFT_SITE = "hole_left_site"  # converged, but the core hole is on another atom
    WALLTIME = "walltime"  # stopped by the clock, ours or the scheduler's
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAILURE = "node_failure"
    DISK_FULL = "disk_full"
    ENGINE_CRASH = "engine_crash"  # the engine process died; its last lines are the evidence
    BAD_INPUT = "bad_input"  # the engine refused the input; a retry cannot help
    BAD_OUTPUT = "bad_output"  # ended well, but its files are missing, stale or unreadable
    GATE_REJECTED = "gate_rejected"  # readable, but the science gate said no
    GROUND_FAILED = "ground_failed"  # never started: the ground state it needs has no result; retry that one
    LOST = "lost"  # the worker vanished and left nothing behind


class HtxasError(Exception):
    """Base of all expected errors.

    Parameters
    ----------
    message
        What was wrong, in one line.
    where
        File, line, key, site or database the message is about.
    hint
        What to do next, ideally a command.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a document: ``type``, ``message``, ``where``, ``hint``."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }


class UserError(HtxasError):
    """Something the user can mend; the command line exits with 1 and prints one line."""


class CampaignFileError(UserError):
    """A YAML file of the user's is wrong; ``where`` is ``file:line: key``."""


class StructureError(UserError):
    """A structure cannot be read, or is not physical (two atoms in one place)."""


class UnsupportedInput(UserError):
    """The input is valid, but this engine cannot treat it."""


class NotFound(UserError):
    """No campaign, molecule, site, dataset or model goes by that name."""


class Busy(UserError):
    """Another process is doing what only one may do at a time."""


class DatabaseUnavailable(UserError):
    """The database cannot be reached, or its folder is in use by another server."""


class StoreError(UserError):
    """The database holds something this version of htxas must not touch."""


class ClusterError(UserError):
    """A scheduler, or the host it is asked on, refuses or cannot be reached."""


class DatasetError(UserError):
    """A training file or a dataset cannot be used as asked."""


class EngineFailure(HtxasError):
    """A calculation ended without a result.

    Parameters
    ----------
    cause
        The one named cause.
    message
        What happened, in one line.
    evidence
        Small facts for the database: last log lines, numbers that broke a limit.
    """

    def __init__(
        self,
        cause: Cause,
        message: str,
        *,
        evidence: dict[str, Any] | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.cause = cause
        self.evidence = evidence or {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_failure, (self.cause, self.message, self.evidence, self.where, self.hint))

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a document, with ``cause`` and ``evidence``."""
        return {**super().to_dict(), "cause": self.cause.value, "evidence": self.evidence}


def _rebuild_failure(
    cause: Cause, message: str, evidence: dict[str, Any], where: str | None, hint: str | None
) -> EngineFailure:
    return EngineFailure(cause, message, evidence=evidence, where=where, hint=hint)


class InternalError(HtxasError):
    """A state htxas believes impossible: report it."""
