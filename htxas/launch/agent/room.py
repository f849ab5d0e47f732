"""Whether there is room on the disk for the run directories: nothing is started without, nothing is blamed for it."""

from __future__ import annotations

import errno
import logging
import os
import time

from htxas.launch.disk.usage import DiskQuota
from htxas.launch.work.evidence import FULL
from htxas.settings import runs_folder

__all__ = ["RoomWatch"]

_LOOK_S = 2.0
_PROBE_BYTES = 1 << 20
_log = logging.getLogger(__name__)


class RoomWatch:
    """Notices that the disk is full, and that it no longer is.

    Parameters
    ----------
    quota
        What the run folders may take.
    patience_s
        How long it may be full.

    Attributes
    ----------
    why
        Why nothing is started now, or empty.
    problem
        Why to give up, or empty.
    """

    def __init__(self, quota: DiskQuota, patience_s: float) -> None:
        self.why = ""
        self.problem = ""
        self._quota = quota
        self._patience_s = patience_s
        self._since = self._looked = 0.0

    def notice(self, why: str) -> None:
        """Say that something could not be written."""
        if not self.why:
            _log.warning("nothing new is started: %s", why)
            self.why, self._since, self._looked = why, time.monotonic(), 0.0

    def full(self) -> bool:
        """Return whether nothing may be started; looks every two seconds."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return bool(self.why)
        self._looked = now
        why = self._look()
        if why:
            self.notice(why)
            self._looked = now
            if now - self._since > self._patience_s:
                self.problem = f"no room on the disk: {why}"
        elif self.why:
            _log.warning("there is room again")
            self.why = ""
        return bool(self.why)

    def _look(self) -> str:
        room = self._quota.room()
        if not room:
            return room.why
        if not self.why:
            return ""
        probe = runs_folder() / f".room-{os.getpid()}"  # a quota of the system's shows only when written to
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        except OSError as error:
            if error.errno not in FULL:
                raise
            return f"{os.strerror(error.errno or errno.ENOSPC)} in {runs_folder()}"
        finally:
            probe.unlink(missing_ok=True)
        return ""
