"""What a worker did, written before anybody is told: one append-only file per worker process.

Record: magic ``HJ1`` and a type letter (4 bytes), length and CRC-32 of the content (4 bytes each, little-endian),
content. ``S`` says that a calculation was started; ``O`` carries an encoded :class:`~htxas.store.outcomes.Outcome`;
``R`` says that an attempt is over without one.
A kill leaves at most one torn record at the end, where reading stops.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from htxas.errors import Cause, StoreError
from htxas.store.outcomes import Outcome, decode, encode

__all__ = ["JournalWriter", "Returned", "Started", "read_journal"]

_HEAD = struct.Struct("<4sII")
_STARTED, _OUTCOME, _RETURNED = b"HJ1S", b"HJ1O", b"HJ1R"
_SYNC_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Started:
    """A worker began attempt ``attempt`` of calculation ``key``."""

    key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Returned:
    """Attempt ``attempt`` of calculation ``key`` is over without an outcome.

    Attributes
    ----------
    key, attempt
        Which one.
    cause
        What happened to it; None if it was handed back in order, and nothing is to be charged.
    message, evidence
        More of that.
    """

    key: str
    attempt: int
    cause: Cause | None = None
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


class JournalWriter:
    """Appends records.

    A killed process loses nothing it wrote. Against the death of the machine the file is brought to disk with every
    outcome, but not more often than once a second: seconds of work are not worth milliseconds of waiting each. When
    that fails, nobody knows which of the pages since the last time are there: all of them are written once more, the
    same bytes at the same place, for a reader may have been there already.

    Parameters
    ----------
    path
        Created with mode 0600; must not exist.

    Raises
    ------
    OSError
        From any method, if the disk is full: the outcome is not safe then.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._end = 0
        self._recent = bytearray()  # the end of the file, as far as it may not be on the disk
        self._broken = False  # and may not even be in the file
        self._synced = time.monotonic()

    def started(self, key: str, attempt: int) -> None:
        """Record the start of an attempt."""
        self._append(_record(_STARTED, json.dumps({"key": key, "attempt": attempt}).encode()))

    def outcome(self, outcome: Outcome) -> None:
        """Record how an attempt ended."""
        record = _record(_OUTCOME, encode(outcome))
        again = self._broken and self._recent.endswith(record)
        if not again:
            self._append(record)
        if again or time.monotonic() - self._synced >= _SYNC_EVERY_S:
            self._sync()

    def returned(self, returned: Returned) -> None:
        """Record that an attempt is over without an outcome."""
        document = {name: getattr(returned, name) for name in Returned.__slots__}
        self._append(_record(_RETURNED, json.dumps(document).encode()))

    def _append(self, record: bytes) -> None:
        if self._broken:
            self._sync()
        self._write(record, self._end)
        self._end += len(record)
        self._recent += record

    def _write(self, data: bytes, start: int) -> None:
        left = data
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            os.ftruncate(self._descriptor, start)  # a torn record would hide all that come after it
            raise

    def _sync(self) -> None:
        if self._broken:
            start = self._end - len(self._recent)
            os.ftruncate(self._descriptor, start)
            self._write(bytes(self._recent), start)
        self._broken = True
        os.fsync(self._descriptor)
        self._broken = False
        self._recent.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Bring everything to disk."""
        try:
            self._sync()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _record(kind: bytes, content: bytes) -> bytes:
    return _HEAD.pack(kind, len(content), zlib.crc32(content)) + content


def read_journal(path: Path, offset: int = 0) -> Iterator[tuple[Started | Returned | Outcome, int]]:
    """Yield each whole record from byte ``offset`` on, and the offset after it; an absent file has none."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        stream.seek(offset)
        while len(head := stream.read(_HEAD.size)) == _HEAD.size:
            kind, length, check = _HEAD.unpack(head)
            if kind not in _READ:
                return
            content = stream.read(length)
            if len(content) < length or zlib.crc32(content) != check:
                return
            offset += _HEAD.size + length
            try:
                record = _READ[kind](content)
            except (ValueError, LookupError, TypeError, AttributeError) as error:  # whole, but not ours
                raise StoreError(f"a record cannot be read: {error}", where=str(path)) from None
            yield record, offset


def _returned(content: bytes) -> Returned:
    document = json.loads(content)
    if document["cause"] is not None:
        document["cause"] = Cause(document["cause"])
    return Returned(**document)


_READ: dict[bytes, Callable[[bytes], Started | Returned | Outcome]] = {
    _STARTED: lambda content: Started(**json.loads(content)),
    _OUTCOME: decode,
    _RETURNED: _returned,
}
